"""coeba: what the method must keep, besides the check suite that every system passes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from kontrast.contract import load_system
from kontrast.data.graphs import Fold, make_graph, pair_keys
from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.detection import link_metrics
from kontrast.losses import info_nce
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba import CoEBA, CoEBAConfig, CoEBAModel, Heuristics, LinkData, hard_negatives
from kontrast.systems.coeba.balanced import balanced_graph
from kontrast.systems.coeba.measuring import beaten_shares, link_measurement
from kontrast.systems.coeba.views import LinkBatches
from kontrast.training import Progress

QUICK = {**CoEBA.smoke, "epochs": 2}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    system = CoEBA(**QUICK)
    data = system.read(CoEBA.write_example(tmp_path_factory.mktemp("example")))
    return data, system.split(data)


@pytest.fixture(scope="module")
def fitted(example):
    _, parts = example
    return CoEBA(**QUICK).fit(parts.train, parts.valid)


def edges_of(n, m, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(n, size=(m, 2))


def test_it_is_registered_and_its_presets_train_nothing_by_themselves():
    assert load_system("coeba") is CoEBA
    assert CoEBA(preset="paper").config.terms == "both"


# ---- splits and leaks ------------------------------------------------------------------------------------------------


def test_parts_share_no_edge_in_either_direction(example):
    data, parts = example
    n = data.graph.n
    keys = {name: set(pair_keys(part.rows, n).tolist()) for name, part in parts}
    assert not keys["train"] & keys["valid"]
    assert not keys["train"] & keys["test"]
    assert not keys["valid"] & keys["test"]
    assert set().union(*keys.values()) == set(pair_keys(data.graph.edges, n).tolist())
    for part in (parts.valid, parts.test):
        assert np.array_equal(part.context, parts.train.rows), "the encoder sees training edges alone"
        assert not set(pair_keys(part.negatives, n).tolist()) & set(pair_keys(data.graph.edges, n).tolist())


def test_the_reverse_of_a_training_edge_is_a_leak(example):
    _, parts = example
    turned = LinkData(parts.test.graph, parts.test.context, "edge", parts.train.rows[:3, ::-1], parts.test.negatives)
    assert CoEBA(**QUICK).leaks(parts.train, turned)["edge", "exact"].n_leaked == 3


def test_the_context_of_the_test_may_include_validation_edges(example):
    data, parts = example
    test = CoEBA(**QUICK, test_context="train+valid").split(data).test
    assert len(test.context) == len(parts.train.rows) + len(parts.valid.rows)


def test_folds_of_the_data_are_obeyed():
    edges = make_graph(edges_of(40, 120)).edges
    folds = [Fold(edges[5 + shift :], edges[:shift], edges[shift : 5 + shift]) for shift in (2, 3)]
    data = LinkData(make_graph(edges, folds=folds), edges, "edge", edges, whole=True)
    for seed, fold, wanted in ((0, None, 0), (1, None, 1), (2, None, 0), (0, 1, 1)):
        parts = CoEBA(seed=seed, fold=fold).split(data)
        assert np.array_equal(parts.test.rows, folds[wanted].test)
        assert len(parts.test.negatives) == 5
    with pytest.raises(ConfigError, match="splits 0 to 1, got 7"):
        CoEBA(fold=7).split(data)
    with pytest.raises(ConfigError, match="no splits of their own"):
        CoEBA(fold=0).split(LinkData(make_graph(edges), edges, "edge", edges))


def test_test_edges_replaced_by_random_pairs_are_not_found(fitted, example):
    _, parts = example
    test = parts.test
    values = []
    for seed in range(6):
        rng = numpy_rng(seed)
        random = rng.integers(test.graph.n, size=(200, 2))
        random = random[random[:, 0] != random[:, 1]]
        false = LinkData(test.graph, test.context, "edge", random[:100], random[100:])
        values.append(fitted.evaluate(false)["auroc"])
    assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / np.sqrt(6) + 0.01


def test_the_test_part_changes_nothing_in_training():
    edges = make_graph(edges_of(60, 200), n=60).edges
    features = np.random.default_rng(1).random((60, 5))
    train, valid, test = edges[:-30], edges[-30:-15], edges[-15:]
    others = np.array([[u, v] for u, v in zip(range(0, 20), range(40, 60)) if [u, v] not in edges.tolist()][:15])
    weights = []
    for held in (test, others):
        graph = make_graph(
            np.concatenate([train, valid, held]), n=60, features=features, folds=[Fold(train, valid, held)]
        )
        data = LinkData(graph, graph.edges, "edge", graph.edges, whole=True)
        parts = CoEBA(**QUICK).split(data)
        negatives = np.stack([np.arange(15), np.arange(15) + 20], axis=1)
        valid_part = LinkData(graph, train, "edge", valid, negatives)
        fitted = CoEBA(**{**QUICK, "balancing": {"warmup": 5, "refresh": 5}}).fit(parts.train, valid_part)
        weights.append(fitted.model_.state_dict())
    assert bool(weights[0]["balanced"])
    assert all(torch.equal(one, other) for one, other in zip(weights[0].values(), weights[1].values()))


def test_training_knows_hidden_edges_neither_as_neighbours_nor_as_non_edges(example):
    data, parts = example
    batches = LinkBatches(parts.train, CoEBA(**QUICK).config)
    n = data.graph.n
    hidden = set(pair_keys(np.concatenate([parts.valid.rows, parts.test.rows]), n).tolist())
    near = np.stack([np.repeat(np.arange(n), np.diff(batches.starts)), batches.neighbours], axis=1)
    assert not set(pair_keys(near, n).tolist()) & hidden
    drawn = np.concatenate([batches.get(epoch, 0)["others"].numpy() for epoch in range(60)])
    assert set(pair_keys(drawn, n).tolist()) & hidden, "leaving hidden edges out of the negatives would give them away"


# ---- losses ----------------------------------------------------------------------------------------------------------


def batch_and_model(example, **options):
    _, parts = example
    config = CoEBAConfig(**{**QUICK, **options})
    facts = CoEBA(config).learn_facts(parts.train)
    batches, model = LinkBatches(parts.train, config), CoEBAModel(facts, config).eval()
    batch = batches.get(0, 0)
    return batches, batch, model, model.encode(batch)


def test_with_itself_as_the_only_positive_it_is_plain_info_nce(example):
    _, batch, model, encoded = batch_and_model(example, positives="self", temperature=0.3)
    found = model.losses(encoded, batch, Progress(0, 10, 0))
    assert set(found) == {"link", "inter"}
    first, second, anchors = encoded["first"], encoded["second"], batch["anchors"]
    others = torch.ones(len(first), dtype=torch.bool)
    others[anchors] = False
    wanted = [
        info_nce(one[anchors], torch.cat([other[anchors], other[others]]), temperature=0.3)
        for one, other in ((first, second), (second, first))
    ]
    torch.testing.assert_close(found["inter"], sum(wanted) / 2)


def test_both_losses_are_the_formula(example):
    batches, batch, model, encoded = batch_and_model(example, terms="both", temperature=0.5, anchors=20)
    found = model.losses(encoded, batch, Progress(0, 10, 0))
    unit = [torch.nn.functional.normalize(encoded[name], dim=1) for name in ("first", "second")]
    near = {i: set() for i in range(batches.n)}
    for u, v in batches.graph.edges.tolist():
        near[u].add(v)
        near[v].add(u)
    inter, intra = [], []
    for one, other in ((0, 1), (1, 0)):
        logits = unit[one] @ unit[other].T / 0.5
        log = logits.log_softmax(1)
        inter.append(torch.stack([log[i, [i, *near[i]]].mean() for i in batch["anchors"].tolist()]).mean())
        own = (unit[one] @ unit[one].T / 0.5).fill_diagonal_(-torch.inf).log_softmax(1)
        intra.append(torch.stack([own[i, list(near[i])].mean() for i in batch["anchors"].tolist() if near[i]]).mean())
    torch.testing.assert_close(found["inter"], -(inter[0] + inter[1]) / 2)
    torch.testing.assert_close(found["intra"], -(intra[0] + intra[1]) / 2)


def test_sampled_candidates_hold_all_positives(example):
    batches, batch, _, _ = batch_and_model(example, terms="both", candidates=30, anchors=8)
    candidates, anchors = batch["candidates"], batch["anchors"]
    assert len(candidates) < batches.n
    own = batch["inter_columns"][:8]
    assert torch.equal(candidates[own], candidates[anchors])
    edges = set(pair_keys(batches.graph.edges.numpy(), batches.n).tolist())
    pairs = torch.stack([candidates[anchors][batch["intra_rows"]], candidates[batch["intra_columns"]]], dim=1)
    assert set(pair_keys(pairs.numpy(), batches.n).tolist()) <= edges


def test_shuffled_positives_are_other_nodes(example):
    batches, batch, _, _ = batch_and_model(example, contrast="shuffled")
    anchors = batch["anchors"]
    assert (batch["inter_columns"][: len(anchors)] != anchors).float().mean() > 0.9
    assert sorted(batches.partner) == list(range(batches.n))


def test_weight_zero_is_the_plain_autoencoder_bit_for_bit(example):
    _, parts = example
    vectors = [
        CoEBA(**{**QUICK, **options}).fit(parts.train, parts.valid).vectors(parts.test)
        for options in ({"weight": 0.0}, {"contrast": "off"}, {})
    ]
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])


def test_negatives_of_the_link_loss_are_no_training_edges_and_fresh(example):
    batches, batch, _, _ = batch_and_model(example)
    again, later = batches.get(0, 0), batches.get(1, 0)
    assert torch.equal(batch["others"], again["others"])
    assert not torch.equal(batch["others"], later["others"])
    keys = pair_keys(batch["others"].numpy(), batches.n)
    assert not set(keys.tolist()) & set(batches.context_keys.tolist())
    with pytest.raises(IndexError):
        batches.get(0, 99)


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": {"kind": "vgae", "hidden": 16, "dim": 8}},
        {"encoder": {"decoder": "mlp", "hidden": 16, "dim": 8}},
        {"first_view": "gca", "second_view": "eba-add"},
        {"first_view": "grade", "second_view": "drop", "balancing": {"warmup": 2, "refresh": 2, "tail": 4}},
        {"first_view": "none", "second_view": "none", "feature_mask": 0.5},
        {"first_view": "eba-drop", "second_view": "none", "terms": "both"},
        {"balancing": {"clusters": 4, "sampled": True, "search": "walks", "warmup": 2, "refresh": 2}},
        {"terms": "intra", "candidates": 50, "most_positives": 2},
        {"link_batch": 50},
    ],
)
def test_every_option_trains(example, options):
    _, parts = example
    fitted = CoEBA(**{**QUICK, "steps": 3, **options}).fit(parts.train, parts.valid)
    assert fitted.evaluate(parts.test)["auroc"] > 0.4
    assert fitted.history_["loss"].notna().all()


def test_intra_without_neighbours_is_refused(example):
    _, parts = example
    with pytest.raises(ConfigError, match="neighbours"):
        CoEBA(**QUICK, terms="intra", positives="self").fit(parts.train)


# ---- balancing -------------------------------------------------------------------------------------------------------


def test_trained_on_two_cliques_no_edge_is_added_between_them():
    n, size = 24, 12
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n) if u // size == v // size]
    kept = [pair for number, pair in enumerate(pairs) if number % 3]
    graph = make_graph(np.asarray(kept), n=n)
    data = LinkData(graph, graph.edges, "edge", graph.edges)
    system = CoEBA(**{**CoEBA.smoke, "epochs": 8, "balancing": {"low": 11, "warmup": 10, "drop": 0.0}}).fit(data)
    before, after = (
        set(map(tuple, graph.edges)),
        set(map(tuple, balanced_graph(system.config, data, system.vectors(data)).edges)),
    )
    assert len(after) > len(before)
    assert all(u // size == v // size for u, v in after)
    assert bool(system.model_.balanced)


def test_without_features_it_learns_vectors_of_nodes_and_knows_no_others(example):
    data, parts = example
    bare = make_graph(data.graph.edges, ids=data.graph.ids)
    parts = CoEBA(**QUICK).split(LinkData(bare, bare.edges, "edge", bare.edges))
    system = CoEBA(**{**CoEBA.smoke, "epochs": 6}).fit(parts.train, parts.valid)
    assert system.evaluate(parts.test)["auroc"] > 0.6
    other = make_graph(bare.edges, ids=bare.ids[::-1])
    with pytest.raises(DataError, match="other nodes"):
        system.predict(LinkData(other, other.edges, "node", np.arange(3)))
    with pytest.raises(DataError, match="has 64 node features, and the model learned without any"):
        system.embed(data)


# ---- measuring -------------------------------------------------------------------------------------------------------


def test_numbers_of_nodes_mean_nothing(fitted, example):
    _, parts = example
    test, n = parts.test, parts.test.graph.n
    order = np.random.default_rng(0).permutation(n)
    place = np.argsort(order)
    graph = make_graph(
        place[test.graph.edges], ids=[test.graph.ids[i] for i in order], features=test.graph.features[order]
    )
    moved = LinkData(graph, place[test.context], "edge", place[test.rows], place[test.negatives])
    first, second = fitted.evaluate(test), fitted.evaluate(moved)
    assert first == pytest.approx(second, rel=1e-4)


def test_a_constant_score_has_chance_and_the_middle_rank(example):
    _, parts = example
    test = parts.test
    hard = np.repeat(test.negatives[None, :20], len(test.rows), axis=0)
    data = LinkData(test.graph, test.context, "edge", test.rows, test.negatives, hard)
    metrics, beaten = link_measurement(lambda pairs: np.zeros(len(pairs)), data)
    assert metrics["auroc"] == metrics["ap"] == 0.5
    assert metrics["hard mrr"] == pytest.approx(1 / 11)
    assert (beaten == 0.5).all()
    positives, negatives = np.zeros(3), np.zeros((3, 500))
    assert link_metrics(positives, negatives)["mrr"] == pytest.approx(1 / 251)


def test_items_are_the_shares_of_the_auroc():
    positives, negatives = np.array([3.0, 1.0, 0.0]), np.array([2.0, 1.0, 0.0, -1.0])
    np.testing.assert_allclose(beaten_shares(positives, negatives), [1.0, 0.625, 0.375])


def test_slices_by_degree_cover_all_edges(fitted, example):
    _, parts = example
    metrics = fitted.evaluate(parts.test)
    lower = parts.test.degrees()[parts.test.rows].min(1)
    names = [name for name in metrics if name.startswith("auroc degree")]
    assert len(names) >= 2
    share = [((lower <= 2) & (lower > 0)).mean(), ((lower > 2) & (lower < 6)).mean()]
    assert ("auroc degree 1-2" in metrics) == (share[0] > 0)
    assert ("auroc degree 3-5" in metrics) == (share[1] > 0)


def test_scores_are_symmetric(fitted, example):
    _, parts = example
    rows = parts.test.rows
    np.testing.assert_array_equal(fitted.scores(parts.test, rows), fitted.scores(parts.test, rows[:, ::-1]))


def test_new_edges_of_the_same_graph_are_measured_against_sampled_pairs(fitted, example):
    data, parts = example
    found = fitted.held_out(data)
    assert sorted(pair_keys(found.rows, data.graph.n)) == sorted(pair_keys(parts.test.rows, data.graph.n))
    assert np.array_equal(found.context, parts.train.context)
    assert fitted.evaluate(data)["auroc"] > 0.6
    graph = make_graph(parts.train.rows, ids=data.graph.ids, features=data.graph.features)
    with pytest.raises(DataError, match="no edge that training did not know"):
        fitted.evaluate(LinkData(graph, graph.edges, "edge", graph.edges, whole=True))


# ---- prediction ------------------------------------------------------------------------------------------------------


def test_pairs_and_nodes_of_a_table(fitted, example, tmp_path):
    data, parts = example
    ids = data.graph.ids
    (tmp_path / "pairs.csv").write_text(f"source,target\n{ids[0]},{ids[5]}\n{ids[5]},{ids[0]}\n")
    scored = fitted.predict(fitted.read(tmp_path / "pairs.csv", purpose="predict"))
    assert list(scored.columns) == ["source", "target", "score"]
    assert scored["score"][0] == scored["score"][1]
    assert scored["score"][0] == pytest.approx(fitted.scores(parts.test, np.array([[0, 5]]))[0])
    (tmp_path / "nodes.txt").write_text(f"{ids[3]}\n{ids[1]}\n")
    found = fitted.predict(fitted.read(tmp_path / "nodes.txt", purpose="predict"))
    assert list(dict.fromkeys(found["id"])) == [ids[3], ids[1]]
    assert len(found) == 2 * fitted.config.top_k
    (tmp_path / "wrong.csv").write_text("source,target\nnobody,chess-01\n")
    with pytest.raises(DataError, match="line 2 names 'nobody', which is no node"):
        fitted.read(tmp_path / "wrong.csv", purpose="predict")


def test_known_edges_and_oneself_are_not_recommended(fitted, example):
    data, _ = example
    asked = LinkData(data.graph, data.context, "node", np.arange(data.graph.n), known=data.graph.edges)
    frame = fitted.predict(asked)
    index = data.graph.index()
    pairs = np.stack([frame["id"].map(index), frame["neighbour"].map(index)], axis=1)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    known = set(pair_keys(data.graph.edges, data.graph.n).tolist())
    assert not set(pair_keys(pairs, data.graph.n).tolist()) & known
    scores = frame.groupby("id")["score"]
    assert all(values.is_monotonic_decreasing for _, values in scores)


def test_a_loaded_system_answers_about_its_graph(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = CoEBA.load(tmp_path / "model")
    (tmp_path / "nodes.txt").write_text("chess-01\n")
    one, two = (
        system.predict(system.read(tmp_path / "nodes.txt", purpose="predict")) for system in (fitted, loaded)
    )  # fmt: skip
    pd.testing.assert_frame_equal(one, two)
    assert loaded.stored_.graph.labels == fitted.stored_.graph.labels


def test_figures_say_how_degrees_change(fitted, example):
    _, parts = example
    figures = fitted.figures(parts.test)
    assert len(figures) == 4
    json.dumps([figure.plotly for figure in figures])
    bars = next(figure for figure in figures if "balancing" in figure.title).plotly["data"]
    assert [sum(bar["y"]) for bar in bars] == [parts.test.graph.n] * 2


# ---- heuristics ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    graph = make_graph(edges_of(12, 30, 3), n=13, features=np.random.default_rng(0).random((13, 4)))
    dense = np.zeros((13, 13))
    dense[tuple(graph.edges.T)] = dense[tuple(graph.edges[:, ::-1].T)] = 1
    pairs = np.stack(np.triu_indices(13, 1), axis=1)
    return graph, dense, pairs


def test_heuristics_are_their_definitions(small):
    graph, dense, pairs = small
    degree = dense.sum(1)
    found = Heuristics(graph, graph.edges)
    shared = dense @ dense
    with np.errstate(divide="ignore", invalid="ignore"):
        by_log = np.where(degree > 1, 1 / np.log(degree), 0)
        by_degree = np.where(degree > 0, 1 / degree, 0)
        jaccard = np.nan_to_num(shared / (degree[:, None] + degree[None] - shared))
    walk = by_degree[:, None] * dense
    rank = sum(0.15 * 0.85**t * np.linalg.matrix_power(walk, t) for t in range(13))
    katz = sum(0.005**t * np.linalg.matrix_power(dense, t) for t in range(1, 7))
    unit = graph.features.toarray() / np.linalg.norm(graph.features.toarray(), axis=1, keepdims=True)
    wanted = {
        "common neighbours": shared,
        "Jaccard": jaccard,
        "Adamic–Adar": dense * by_log @ dense,
        "resource allocation": dense * by_degree @ dense,
        "preferential attachment": np.outer(degree, degree),
        "personalised PageRank": rank + rank.T,
        "Katz": katz,
        "feature cosine": unit @ unit.T,
    }
    assert {*found.names()} == {*wanted, "SVD"}
    for name, matrix in wanted.items():
        np.testing.assert_allclose(found.score(name, pairs), matrix[tuple(pairs.T)], rtol=1e-5, atol=1e-9, err_msg=name)
    assert np.isfinite(found.score("SVD", pairs)).all()


def test_hard_negatives_keep_one_end_and_are_no_known_edges(small):
    graph, dense, _ = small
    positives, seen = graph.edges[:4], graph.edges[6:]
    found = hard_negatives(graph, seen, positives, 6, forbidden=graph.edges[4:6])
    assert found.shape == (4, 6, 2)
    for edge, pairs in zip(positives, found):
        assert (pairs[:3, 0] == edge[0]).all()
        assert (pairs[3:, 1] == edge[1]).all()
        others = np.concatenate([pairs[:3, 1], pairs[3:, 0]])
        assert not set(others) & set(edge.tolist())
        assert all(len(set(half)) == 3 for half in (pairs[:3, 1], pairs[3:, 0]))
    known = set(pair_keys(graph.edges[4:], 13).tolist())
    assert not set(pair_keys(found.reshape(-1, 2), 13).tolist()) & known
    with pytest.raises(DataError, match="candidates for hard negatives"):
        hard_negatives(graph, seen, positives, 40)
    assert dense.any()


def test_made_hard_negatives_are_measured(example):
    data, _ = example
    system = CoEBA(**QUICK, hard_negatives=20)
    parts = system.split(data)
    assert parts.test.hard.shape == (len(parts.test.rows), 20, 2)
    metrics = system.fit(parts.train, parts.valid).evaluate(parts.test)
    assert 0 < metrics["hard mrr"] < 1
    assert metrics["hard mrr"] < metrics["mrr"] * 2
