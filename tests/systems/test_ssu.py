"""ssu: its graphs, its network and its loss, each against what the paper says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kontrast.data.utterances import Stream, make_utterances
from kontrast.losses import nt_xent
from kontrast.systems.ssu import SSU
from kontrast.systems.ssu.config import GraphSection
from kontrast.systems.ssu.example import made_up_utterances
from kontrast.systems.ssu.graphs import (
    CHAIN,
    DEPENDENT,
    HEAD,
    SELF,
    GuidedGraph,
    dependency_kinds,
    partners,
    temporal_kinds,
)
from kontrast.systems.ssu.stress import stress_set
from kontrast.systems.ssu.views import beginnings, label_classes, left_out, prepare, shortened
from kontrast.training import Progress

SMALL = {"network": {"dim": 16, "projection": 8, "dropout": 0.0, "input_dropout": 0.0}, "average": 0.0}


@pytest.fixture(scope="module")
def talk():
    return stress_set(made_up_utterances(), seed=0)


def started(data, **options):
    """A system with its network, untrained."""
    system = SSU(**{**SMALL, **options})
    system.facts_ = system.learn_facts(data)
    system.initialise()
    return system


def batch_of(system, data, rows=None):
    ready = prepare(data, system.facts_, system.config.graph, [])
    return ready.batch(np.arange(len(data)) if rows is None else np.asarray(rows))


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_words_hear_heads_and_dependents_and_roots_are_joined():
    heads = torch.tensor([[1, 1, 1, 3, -1, -1]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    kinds = dependency_kinds(heads, mask)[0]
    assert kinds[0, 1] == HEAD
    assert kinds[1, 0] == DEPENDENT
    assert kinds[2, 1] == HEAD
    # Words 1 and 3 are roots, and so is word 4, whose head is not known.
    assert kinds[1, 3] == kinds[3, 1] == kinds[3, 4] == kinds[4, 3] == CHAIN
    assert kinds.diagonal()[:5].tolist() == [SELF] * 5
    assert (kinds >= 0).sum() == 5 + 4 + 4
    assert (kinds[5] == -1).all()
    assert (kinds[:, 5] == -1).all()


def test_without_syntax_the_text_is_a_chain():
    mask = torch.tensor([[True, True, True, False]])
    chain = dependency_kinds(torch.full((1, 4), -1), mask)
    assert torch.equal(chain, temporal_kinds(mask))


def test_a_head_in_the_padding_counts_as_unknown():
    mask = torch.tensor([[True, True, False]])
    kinds = dependency_kinds(torch.tensor([[2, 1, -1]]), mask)[0]
    assert kinds[0, 1] == kinds[1, 0] == CHAIN


def guide(kappa=0.5, *, aligned=False, guided="text", lengths=(5, 7), seed=0):
    torch.manual_seed(seed)
    section = GraphSection(kappa=kappa, guided=guided)
    made = GuidedGraph(8, 2, section, aligned=aligned)
    segments, words = torch.randn(2, lengths[0], 8), torch.randn(2, lengths[1], 8)
    mask = torch.arange(lengths[0])[None] < torch.tensor([[lengths[0]], [3]])
    words_mask = torch.arange(lengths[1])[None] < torch.tensor([[lengths[1]], [3]])
    position = (torch.arange(lengths[0]) + 0.5).repeat(2, 1) / mask.sum(1, keepdim=True)
    return made, (segments * mask[..., None], mask, position, words * words_mask[..., None], words_mask)


@pytest.mark.parametrize(("aligned", "lengths"), [(False, (5, 7)), (False, (9, 4)), (True, (6, 6))])
def test_shapes_and_symmetry_of_guided_graphs(aligned, lengths):
    made, given = guide(aligned=aligned, lengths=lengths)
    enhanced, weight, gate, kinds = made(*given)
    n = lengths[0]
    assert enhanced.shape == (2, n, 8)
    assert weight.shape == gate.shape == kinds.shape == (2, n, n)
    assert torch.allclose(weight, weight.transpose(1, 2), atol=1e-6)
    assert set(gate.unique().tolist()) <= {0.0, 1.0}
    assert gate[1, 3:].sum() == gate[1, :, 3:].sum() == 0
    assert (gate.diagonal(dim1=1, dim2=2) == given[1]).all()


@pytest.mark.parametrize("aligned", [False, True])
def test_the_threshold_keeps_everything_or_only_the_sequence(aligned):
    made, given = guide(-1e4, aligned=aligned, lengths=(6, 6))
    both = given[1][:, :, None] & given[1][:, None]
    assert torch.equal(made(*given)[2] > 0.5, both)
    made, given = guide(1e4, aligned=aligned, lengths=(6, 6))
    assert torch.equal(made(*given)[2] > 0.5, temporal_kinds(given[1]) >= 0)


def test_the_threshold_is_of_valid_entries_and_is_learned():
    made, given = guide()
    enhanced = made.enhanced(given[0], given[1], *given[3:])
    rows = made.affinity(enhanced, given[1], given[2], *given[3:])
    assert torch.allclose(rows.sum(2), given[1].float(), atol=1e-6)
    shared = rows[1, :3] @ rows[1, :3].T
    shared = shared / shared.sum(1, keepdim=True)
    affinity = (shared + shared.T) / 2
    cut = affinity.mean() + 0.5 * affinity.std(correction=0)
    gate = made(*given)[2][1, :3, :3] > 0.5
    away = torch.tensor([[False, False, True], [False, False, False], [True, False, False]])
    assert torch.equal(gate[away], (affinity >= cut)[away])
    (made(*given)[2] * torch.randn(2, 5, 5)).sum().backward()
    assert made.kappa.grad.abs() > 0


def test_segments_without_words_are_a_chain_and_finite():
    made, (segments, mask, position, words, words_mask) = guide()
    enhanced, _, gate, _ = made(segments, mask, position, words * 0, torch.zeros_like(words_mask))
    assert torch.equal(enhanced, segments)
    assert torch.isfinite(gate).all()


@pytest.mark.parametrize("guided", ["full", "chain"])
def test_other_kinds_of_graphs(guided):
    made, given = guide(guided=guided)
    gate = made(*given)[2] > 0.5
    both = given[1][:, :, None] & given[1][:, None]
    assert torch.equal(gate, both if guided == "full" else temporal_kinds(given[1]) >= 0)


def test_partners_are_few_and_of_other_modalities():
    torch.manual_seed(0)
    nodes, modality = torch.randn(1, 12, 6), torch.tensor([0] * 5 + [1] * 4 + [2] * 3)
    mask = torch.ones(1, 12, dtype=torch.bool)
    weight, chosen = partners(nodes, modality, mask, 2)
    assert chosen.any()
    assert chosen.sum(2).max() <= 2
    assert not (chosen[0] & (modality[:, None] == modality)).any()
    assert (weight[chosen] > 0).all()
    assert not partners(nodes, modality, mask, 0)[1].any()


# ---- network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", ["conv", "gru"])
def test_padding_and_company_change_no_utterance(talk, sequence):
    system = started(talk, network={**SMALL["network"], "sequence": sequence})
    network = system.model_.network
    together = network(batch_of(system, talk, range(20)))
    for row in (0, 7):
        alone = network(batch_of(system, talk, [row]))
        for name in ("fuse", "ori", "anchor", "score"):
            assert torch.allclose(together[name][row], alone[name][0], atol=1e-5), name


def test_numbering_of_words_changes_nothing():
    heads = np.array([1, 1, 1, 2])
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    made = []
    for words, head in ((np.arange(4), heads), (order, place[heads[order]])):
        text = Stream.of(vectors[words], np.array([0, 4]))
        made.append(make_utterances(["u"], [["w"] * 4], heads=np.asarray(head), labels=np.array([1.0]), text=text))
    system = started(made[0])
    first, second = (system.model_.network(batch_of(system, data)) for data in made)
    for name in ("fuse", "ori", "score"):
        assert torch.allclose(first[name], second[name], atol=1e-5), name


def test_beta_of_each_modality_sums_to_one(talk):
    system = started(talk)
    nodes = system.model_.network.nodes(batch_of(system, talk, range(12)))
    for place in range(3):
        total = nodes.beta[:, nodes.modality == place].sum(1)
        assert torch.allclose(total, torch.ones(12), atol=1e-5)
    assert (nodes.beta[~nodes.mask] == 0).all()


def test_an_unperturbed_view_is_the_first_view(talk):
    system = started(talk, graph={"drop": 0.0, "add": 0.0})
    made = system.model_.network(batch_of(system, talk, range(12)), second=True)
    assert torch.equal(made["first_view"], made["second_view"])
    changed = started(talk).model_.network(batch_of(system, talk, range(12)), second=True)
    assert not torch.equal(changed["first_view"], changed["second_view"])


def test_the_contrast_is_nt_xent(talk):
    system = started(talk)
    batch = batch_of(system, talk, range(12))
    encoded = system.model_.train().encode(batch)
    terms = system.model_.losses(encoded, batch, Progress(0, 1, 0))
    expected = nt_xent(encoded["first_view"], encoded["second_view"], temperature=system.config.temperature)
    assert terms["views"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["align"].item() == pytest.approx((encoded["fuse"] - encoded["ori"]).square().mean().item(), rel=1e-5)
    assert set(terms) == {"regression", "classes", "views", "align"}


def test_arms_switch_off_the_contrast_and_pair_wrongly(talk):
    batch = batch_of(started(talk), talk, range(12))
    terms = {}
    for arm in ("on", "off", "shuffled"):
        system = started(talk, contrast=arm)
        torch.manual_seed(1)
        terms[arm] = system.model_.train().losses(system.model_.encode(batch), batch, Progress(0, 1, 0))
    assert set(terms["off"]) == {"regression", "classes"}
    for name in ("regression", "classes"):
        assert terms["on"][name] == terms["off"][name] == terms["shuffled"][name]
    assert terms["shuffled"]["views"] > terms["on"]["views"] * 1.05
    assert terms["shuffled"]["align"] != terms["on"]["align"]


def test_terms_of_weight_zero_leave_plain_regression_bit_for_bit(talk):
    few = talk.take(np.arange(48))
    options = {"epochs": 2, "batch_size": 16, "sup_weight": 0.0, "network": {"dim": 16}, "graph": {"max_segments": 6}}
    zero = SSU(**options, self_weight=0.0, align_weight=0.0).fit(few)
    off = SSU(**options, contrast="off").fit(few)
    for one, other in zip(zero.model_.parameters(), off.model_.parameters()):
        assert torch.equal(one, other)


def test_missing_modalities_are_absent_whatever_stands_there(talk):
    system = started(talk)
    few = talk.take(np.arange(6))
    rng = np.random.default_rng(0)
    visual = few.visual
    absent = [
        replace(few, visual=Stream.of(rng.normal(size=(n, visual.dim)).astype(np.float32), np.zeros(7, int)))
        for n in (0,)
    ]
    scores = [system.scores(data) for data in (absent[0], replace(few, visual=None))]
    assert np.array_equal(scores[0], scores[1])
    system.config = system.config.changed(without=["visual"])
    assert np.array_equal(system.scores(few), scores[0])
    for gone in (["text"], ["text", "audio"], ["text", "audio", "visual"]):
        system.config = system.config.changed(without=gone)
        assert np.isfinite(system.scores(few)).all()


def test_an_empty_transcript_has_a_finite_score(talk):
    system = started(talk)
    bare = make_utterances(["e"], [[]], audio=None)
    assert np.isfinite(system.scores(bare)).all()
    both = make_utterances(
        ["e", "f"], [[], ["the", "plot"]], audio=Stream.of(np.ones((3, talk.audio.dim)), np.array([0, 3, 3]))
    )
    assert np.isfinite(system.scores(both)).all()


def test_aligned_data_may_lack_words_or_segments():
    rng = np.random.default_rng(0)
    offsets = np.array([0, 3, 5])
    audio = Stream.of(rng.normal(size=(5, 4)), offsets)
    data = make_utterances(["a", "b"], [["x", "y", "z"], ["x", "y"]], labels=np.array([1.0, -1.0]), audio=audio)
    assert data.audio.aligned
    system = started(data)
    assert system.facts_["streams"]["audio"]["aligned"]
    for gone in ([], ["text"], ["audio"]):
        system.config = system.config.changed(without=gone)
        assert np.isfinite(system.scores(data)).all()


@pytest.mark.parametrize("change", [{"anchor": False}, {"guided": "full"}, {"text": "chain"}, {"partners": 0}])
def test_graphs_can_be_switched_off_one_by_one(talk, change):
    plain, other = started(talk), started(talk, graph=change)
    few = talk.take(np.arange(8))
    assert not np.allclose(plain.scores(few), other.scores(few))


@pytest.mark.parametrize(
    "options", [{"align": "unit"}, {"align": "stop"}, {"negatives": "other"}, {"regression": "mse"}]
)
def test_forms_of_the_loss_are_finite(talk, options):
    system = started(talk, **options)
    batch = batch_of(system, talk, range(16))
    terms = system.model_.train().losses(system.model_.encode(batch), batch, Progress(0, 1, 0))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert all(torch.isfinite(one.grad).all() for one in system.model_.parameters() if one.grad is not None)


def test_the_average_is_of_the_last_steps(talk):
    system = started(talk, average=0.5)
    model = system.model_
    first = next(model.network.parameters())
    seen = []
    for step in range(1, 5):
        with torch.no_grad():
            first.add_(1.0)
        model.after_step(Progress(step, 4, 0), None)
        seen.append(first.detach().clone())
    assert int(model.averaged) == 3
    assert torch.allclose(next(model.average.parameters()), torch.stack(seen[1:]).mean(0), atol=1e-5)


# ---- views -----------------------------------------------------------------------------------------------------------


def test_long_sequences_are_averaged_in_stretches():
    stream = Stream.of(np.arange(10.0)[:, None], np.array([0, 7, 7, 10]))
    short = shortened(stream, 3)
    assert short.lengths.tolist() == [3, 0, 3]
    found = short.values[short.rows][:, 0].tolist()
    assert found == pytest.approx([1.0, 3.5, 5.5, 7.0, 8.0, 9.0])
    assert shortened(stream, 7) is stream
    first, kept = beginnings(stream, 2)
    assert first.rows.tolist() == [0, 1, 7, 8]
    assert kept.sum() == 4


def test_modalities_are_left_out_but_never_all(talk):
    system = started(talk)
    batch = batch_of(system, talk, range(200))
    rates = {"text": 0.5, "audio": 0.5, "visual": 0.5}
    made = left_out(batch, rates, np.random.default_rng(0))
    left = torch.stack([made[name].any(1) for name in ("words_mask", "audio_mask", "visual_mask")])
    assert left.any(0).all()
    assert 0.5 < left.float().mean() < 0.75
    assert made["audio"][~left[1]].abs().max() == 0
    assert (made["heads"][~left[0]] == -1).all()


def test_classes_of_labels():
    labels = np.array([-3.0, -0.5, 0.0, 0.4, 1.5, np.nan], np.float32)
    assert label_classes(labels, 7).tolist() == [0, 3, 3, 3, 5, -1]
    assert label_classes(labels, 3).tolist() == [0, 0, 1, 2, 2, -1]
