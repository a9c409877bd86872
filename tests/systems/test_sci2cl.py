"""sci2cl: the parts against their definitions, the method's own traps, and files of the field in and out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats

from kontrast.errors import ConfigError, DataError
from kontrast.losses import clip_loss
from kontrast.systems.sci2cl import Sci2CL, Sci2CLConfig
from kontrast.systems.sci2cl.config import NetworkSection
from kontrast.systems.sci2cl.learning import Agreement, agreement, fusion_shares, learn_front
from kontrast.systems.sci2cl.likelihoods import bernoulli_nll, nb_nll, poisson_nll, zinb_nll
from kontrast.systems.sci2cl.markers import adjusted, rank_markers
from kontrast.systems.sci2cl.networks import Decoder, Front, ViewPool, attended
from kontrast.systems.sci2cl.views import CellBatches, ModalityFacts, Training, excess_variance, prepare


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return Sci2CL.write_example(tmp_path_factory.mktemp("garden"))


@pytest.fixture(scope="module")
def fitted(example):
    return fit(example)


def fit(path, change=None, **options):
    system = Sci2CL(**{**Sci2CL.smoke, **options})
    train = system.split(system.read(path)).train
    return system.fit(train if change is None else change(train))


def parts_of(system, path):
    return system.split(system.read(path))


# ---- likelihoods -------------------------------------------------------------------------------------------------


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.poisson(2.0, (20, 6)).astype(np.float64)), torch.from_numpy(
        rng.uniform(0.3, 5, (20, 6))
    )


def test_nb_and_poisson_are_scipys(counts):
    x, mean = counts
    theta = torch.tensor([0.2, 0.5, 1.0, 3.0, 10.0, 50.0], dtype=torch.float64)
    wanted = -stats.nbinom.logpmf(x.numpy(), theta.numpy(), (theta / (theta + mean)).numpy()).mean()
    assert nb_nll(x, mean, theta).item() == pytest.approx(wanted, rel=1e-9)
    assert poisson_nll(x, mean).item() == pytest.approx(-stats.poisson.logpmf(x.numpy(), mean.numpy()).mean(), rel=1e-9)


def test_zinb_is_nb_without_dropout_and_nb_is_poisson_without_dispersion(counts):
    x, mean = counts
    theta = torch.full((6,), 2.0, dtype=torch.float64)
    never = torch.full_like(mean, -60.0)
    assert zinb_nll(x, mean, theta, never).item() == pytest.approx(nb_nll(x, mean, theta).item(), rel=1e-9)
    assert nb_nll(x, mean, theta * 1e7).item() == pytest.approx(poisson_nll(x, mean).item(), rel=1e-5)
    share = 0.3
    logits = torch.full_like(mean, math.log(share / (1 - share)))
    nb = stats.nbinom.pmf(x.numpy(), 2.0, (2 / (2 + mean)).numpy())
    wanted = -np.log((1 - share) * nb + share * (x.numpy() == 0)).mean()
    assert zinb_nll(x, mean, theta, logits).item() == pytest.approx(wanted, rel=1e-9)


def test_likelihoods_are_finite_at_the_edges_and_have_finite_gradients():
    x = torch.tensor([[0.0, 1e5], [0.0, 0.0]])
    mean = torch.tensor([[1e-8, 1e-8], [1e6, 1e6]], requires_grad=True)
    theta = torch.tensor([1e-4, 1e4], requires_grad=True)
    loss = nb_nll(x, mean, theta) + zinb_nll(x, mean, theta, torch.zeros(2, 2)) + bernoulli_nll(x, mean.log())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(theta.grad).all()


def test_twice_the_counts_give_twice_the_mean():
    decoder = Decoder(5, "rna", NetworkSection(hidden=[8], dim=4))
    code, totals = torch.randn(3, 4), torch.tensor([10.0, 20.0, 30.0])
    assert torch.allclose(decoder.mean(code, 2 * totals), 2 * decoder.mean(code, totals), rtol=1e-5)
    assert torch.allclose(decoder.mean(code, totals).sum(1), totals, rtol=1e-5)


@pytest.mark.parametrize("kind", ["rna", "protein", "atac", "composition", "real"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_decoders_of_every_kind_learn(kind, likelihood):
    torch.manual_seed(0)
    decoder = Decoder(8, kind, NetworkSection(hidden=[16], dim=4, likelihood=likelihood))
    counts = torch.poisson(3 * torch.rand(32, 8))
    scores, code = torch.randn(32, 8), torch.randn(32, 4, requires_grad=True)
    optimiser = torch.optim.Adam([code, *decoder.parameters()], lr=0.05)
    losses = []
    for _ in range(40):
        loss = decoder(code, counts, scores)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.05


# ---- contrast ----------------------------------------------------------------------------------------------------


def test_the_inter_term_is_log_n_at_random_symmetric_and_zero_for_equal_sides():
    first, second = torch.randn(2, 128, 4000, generator=torch.Generator().manual_seed(0))
    assert clip_loss(first, second, temperature=1.0).item() == pytest.approx(math.log(128), abs=0.02)
    assert clip_loss(first, second, temperature=0.5).item() == pytest.approx(
        clip_loss(second, first, temperature=0.5).item(), rel=1e-6
    )
    assert clip_loss(first, first, temperature=0.01).item() == pytest.approx(0, abs=1e-6)


def test_a_copy_without_a_mask_is_the_input():
    front = Front(10, 4)
    front.axes.normal_(generator=torch.Generator().manual_seed(0))
    scores = torch.randn(5, 10)
    assert torch.allclose(front(scores, torch.ones(5, 10, dtype=torch.bool)), front(scores), atol=1e-6)


def test_masked_features_stand_at_their_mean():
    front = Front(3, 0)
    front.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    scores = front.standardised(torch.tensor([[5.0, 5.0, 5.0]]))
    assert front(scores, torch.tensor([True, False, True])).tolist() == [[4.0, 0.0, 2.0]]
    assert front.standardised(torch.tensor([[500.0, 2.0, -500.0]])).tolist() == [[10.0, 0.0, -10.0]]


def test_attention_over_views_does_not_depend_on_their_order():
    torch.manual_seed(0)
    pool = ViewPool(8, 4)
    copies = torch.randn(6, 5, 8)
    assert torch.allclose(pool(copies), pool(copies[:, [3, 0, 4, 2, 1]]), atol=1e-6)


def test_attending_to_a_bank_is_row_by_row():
    torch.manual_seed(0)
    rows, bank = torch.randn(7, 4), torch.randn(20, 4)
    whole = attended(rows, bank)
    assert torch.allclose(whole[2:3], attended(rows[2:3], bank), atol=1e-6)
    weights = torch.softmax(rows @ bank.T / 2, dim=1)
    assert torch.allclose(whole, rows + weights @ bank, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"intra": "pool", "positives": "self"},
        {"intra": "both", "itm": "neighbours"},
        {"intra": "none", "bank": 16},
        {"mask_by": "batch", "network": {"hidden": [16], "dim": 8, "components": 0}},
        {"itm": "labels", "intra": "pool", "positives": "self", "network": {"dim": 8, "likelihood": "zinb"}},
    ],
    ids=["paper's terms", "both and matching", "bank", "no components", "labels"],
)  # fmt: skip
def test_every_term_trains_and_embeds(example, options):
    system = fit(example, **{"epochs": 2, "warm_up": 1, "batch_size": 179, **options})
    found = system.evaluate(parts_of(system, example).test)
    assert math.isfinite(found["ari"])
    assert ("semi_supervised" in found) == (options.get("itm") == "labels")
    terms = {"inter"} | ({"itm"} if "itm" in options else set())
    terms |= {"pool"} if options.get("intra") in ("pool", "both") else set()
    columns = set(system.history_.columns)
    assert all(any(term in column for column in columns) for term in terms), columns


def test_a_last_batch_of_one_cell_trains(example):
    system = Sci2CL(**{**Sci2CL.smoke, "batch_size": 179, "epochs": 1, "warm_up": 1, "intra": "both"})
    train = parts_of(system, example).train
    assert len(train) == 180
    assert np.isfinite(system.fit(train).vectors(train)).all()


def test_labels_do_not_reach_weights_or_vectors(example, fitted):
    """The method's central trap: with labels permuted, everything that is learned is the same bit for bit."""
    other = fit(example, lambda train: fitted.permuted(train, 1))
    for (name, first), second in zip(fitted.model_.state_dict().items(), other.model_.state_dict().values()):
        assert torch.equal(first, second), name
    test = parts_of(fitted, example).test
    assert np.array_equal(fitted.vectors(test), other.vectors(test))
    labelled = {"itm": "labels", "epochs": 2, "warm_up": 1}
    first, second = fit(example, **labelled), fit(example, lambda train: fitted.permuted(train, 1), **labelled)
    assert not np.array_equal(first.vectors(test), second.vectors(test))


def test_sorting_cells_by_type_changes_nothing(example, fitted):
    test = parts_of(fitted, example).test
    order = np.argsort(test.labels.astype(str), kind="stable")
    first, second = fitted.evaluate(test), fitted.evaluate(test.take(order))
    assert first.keys() == second.keys()
    assert all(math.isclose(first[name], second[name], abs_tol=1e-6) for name in first)
    assert np.allclose(fitted.vectors(test)[order], fitted.vectors(test.take(order)), atol=1e-6)
    assert np.allclose(fitted.vectors(test)[:1], fitted.vectors(test.take([0])), atol=1e-6)


def test_shuffled_pairing_brings_matching_to_chance(example, fitted):
    data = fitted.read(example)
    paired, shuffled = fitted.evaluate(data), fit(example, contrast="shuffled").evaluate(data)
    assert shuffled["matching_recall@1"] < 3 / len(data)
    assert paired["foscttm"] < 0.35
    assert shuffled["foscttm"] > 0.42


def test_both_modalities_tell_what_neither_tells_alone(example, fitted):
    found = fitted.evaluate(fitted.read(example))
    assert found["ari"] > 0.9
    test = parts_of(fitted, example)
    baselines = fitted.baselines(test.train, fitted.read(example))
    assert found["ari"] > baselines["rna PCA"]["ari"] + 0.1
    assert found["ari"] > baselines["prot PCA"]["ari"] + 0.1


# ---- what is learned without gradients ---------------------------------------------------------------------------


def test_principal_axes_are_those_of_the_standardised_cells(example, fitted):
    train = parts_of(fitted, example).train
    facts = ModalityFacts.of(train.cells.modalities["rna"], 4000)
    part = prepare(train.cells, [facts])[0]
    front = Front(len(facts.features), 5)
    learn_front(front, part, part.frequencies(), 0)
    values = part.values(np.arange(len(part)), part.frequencies())
    scores = np.clip((values - values.mean(0)) / values.std(0), -10, 10)
    _, _, axes = np.linalg.svd(scores - scores.mean(0), full_matrices=False)
    # The leading three stand apart from the noise; the others are found as far as five passes bring them.
    assert np.abs(np.abs((axes[:5] @ front.axes.numpy()).diagonal()) - 1).max() < 1e-2
    assert np.abs(np.abs((axes[:3] @ front.axes.numpy()[:, :3]).diagonal()) - 1).max() < 1e-4
    read = front(front.standardised(torch.from_numpy(values)))
    assert read.mean(0).abs().max() < 1e-4
    assert read.norm(dim=1).mean() == pytest.approx(1, abs=1e-3)


def test_agreement_is_high_for_shared_and_zero_for_unrelated_modalities(example):
    system = Sci2CL(**Sci2CL.smoke)
    train = parts_of(system, example).train
    facts = [ModalityFacts.of(part, 4000) for part in train.cells.modalities.values()]
    parts = prepare(train.cells, facts)
    weights = [part.frequencies() for part in parts]
    fronts = [Front(len(fact.features), 5) for fact in facts]
    for front, part, own in zip(fronts, parts, weights):
        learn_front(front, part, own, 0)
    paired = agreement(fronts, parts, weights, 10, 0)
    parts[1] = parts[1].reordered(np.random.default_rng(0).permutation(len(train)))
    unpaired = agreement(fronts, parts, weights, 10, 0)
    assert paired.value > 0.3
    assert unpaired.value < 0.1
    assert paired.reliability == pytest.approx(unpaired.reliability, abs=0.15)


def test_fusion_trusts_the_better_modality():
    good = Agreement((0.3, 0.1), 0.15)
    assert fusion_shares(good, (0.5, 0.5), 16) == (1, pytest.approx(1))
    first, second = fusion_shares(good, (0.5, 0.25), 16)
    assert (first, second < 0.01) == (1, True)
    strangers = Agreement((0.3, 0.1), 0.0)
    assert fusion_shares(strangers, (0.5, 0.5), 16) == (1, 0)
    assert fusion_shares(strangers, (0.1, 0.9), 0) == (1, 1)


def test_variable_features_are_found_at_every_mean():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.1, 5, 400)
    variance = mean * rng.lognormal(0, 0.1, 400)
    variance[[3, 50, 200]] *= 5
    assert set(np.argsort(-excess_variance(mean, variance))[:3]) == {3, 50, 200}


def test_markers_are_scipys_rank_sums():
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, (60, 5)).astype(float)
    groups = np.repeat(["a", "b", "c"], 20)
    values[:20, 2] += 3
    found = rank_markers(sparse.csr_array(values), [f"g{n}" for n in range(5)], groups)
    assert found.iloc[0][["group", "feature"]].tolist() == ["a", "g2"]
    for row in found.itertuples():
        column = values[:, int(row.feature[1])]
        inside = groups == row.group
        wanted = stats.mannwhitneyu(column[inside], column[~inside], use_continuity=False, method="asymptotic")
        assert row.p == pytest.approx(wanted.pvalue, rel=1e-6)
        assert row.mean_in == pytest.approx(column[inside].mean())
        assert row.mean_out == pytest.approx(column[~inside].mean())
    p = np.asarray([0.01, 0.04, 0.03, 0.5])
    assert adjusted(p) == pytest.approx(stats.false_discovery_control(p))


def test_batches_are_a_function_of_epoch_and_index(example, fitted):
    train = parts_of(fitted, example).train
    parts = prepare(train.cells, [ModalityFacts.of(part, 4000) for part in train.cells.modalities.values()])
    weights = [part.frequencies() for part in parts]
    neighbours = np.random.default_rng(0).integers(0, len(train), (len(train), 4))
    config = Sci2CLConfig(itm="neighbours", intra="both", views=2)
    batches = CellBatches(Training(parts, weights, neighbours, None), config, contrast=True, name="x")
    first, second = batches.get(3, 0), batches.get(3, 0)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["keep 0"].float().mean().item() == pytest.approx(0.6, abs=0.03)
    near = neighbours[first["cell"].numpy()]
    assert (near == first["neighbour"].numpy()[:, None]).any(1).all()
    others, cells = first["others"].numpy(), first["cell"].numpy()
    for row, chosen in enumerate(others):
        for place in chosen[chosen >= 0]:
            assert cells[place] not in near[row]
            assert place != row
    assert pd.Series(batches.fingerprint()).str.contains("data=").all()


# ---- options and data that cannot be used ------------------------------------------------------------------------


def test_options_that_cannot_be_are_refused():
    for options, match in (
        ({"network": {"dim": 10, "heads": 4}}, "heads' must divide dim 10"),
        ({"network": {"hidden": []}}, "at least one positive width"),
        ({"weights": {"inter": -1.0}}, "weights of at least 0"),
        ({"weights": {"wrong": 1.0}}, "inter, intra, itm, pool, reconstruct"),
        ({"modalities": ["rna"]}, "two different modalities"),
    ):
        with pytest.raises(ConfigError, match=match):
            Sci2CL(**options)


def test_data_that_cannot_be_used_are_refused(example, tmp_path):
    for options, match in (
        ({"label": "celtype"}, r"no column 'celtype' in obs; did you mean 'cell_type'"),
        ({"modalities": ["rna", "atac"]}, "has no modality 'atac'"),
        ({"kinds": {"prot": "peaks"}}, "cannot be of kind 'peaks'"),
    ):
        with pytest.raises(DataError, match=match):
            Sci2CL(**options).read(example)
    system = Sci2CL(**Sci2CL.smoke)
    with pytest.raises(DataError, match="no column 'donor' in obs"):
        Sci2CL(group="donor").split(system.read(example))
    with pytest.raises(DataError, match="3 training cells"):
        system.fit(system.read(example).take([0, 1, 2]))
    unlabelled = Sci2CL(**{**Sci2CL.smoke, "itm": "labels", "ignore": ["root", "stem", "leaf", "petal", "pollen"]})
    with pytest.raises(ConfigError, match="have no labels"):
        unlabelled.fit(unlabelled.read(example))


def test_rare_and_ignored_types_are_not_measured(example):
    data = Sci2CL(rare=10_000).read(example)
    assert len(data.labelled()) == len(data)
    data = Sci2CL(ignore=["LEAF"]).read(example)
    assert "leaf" not in set(data.labels[data.labelled()])
    assert len(data.labelled()) == len(data) * 4 // 5


def test_the_paper_preset_is_the_authors_method():
    config = Sci2CL(preset="paper").config
    assert (config.itm, config.intra, config.positives, config.temperature) == ("labels", "pool", "self", 1.0)
    assert (config.network.hidden, config.network.dim, config.views) == ([5000, 2000, 1000], 512, 8)
    assert config.optimiser.learning_rate == 1e-5
