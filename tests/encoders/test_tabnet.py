"""TabNet: its masks, its normalisation, its independence of rows, and the laws of sparsemax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.encoders import encode_rows
from kontrast.encoders.tabnet import (
    BatchNorm,
    GhostBatchNorm,
    TabNetConfig,
    TabNetEncoder,
    entmax15,
    sparsemax,
)

SMALL = TabNetConfig(decision=8, attention=4, ghost=4)


def rows(n=12, d=10, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def slow_sparsemax(scores):
    """By sorting, row by row, in float64: arXiv 1602.02068, algorithm 1."""
    result = []
    for row in np.asarray(scores, dtype=np.float64):
        falling = np.sort(row)[::-1]
        k = max(k for k in range(1, len(row) + 1) if 1 + k * falling[k - 1] > falling[:k].sum())
        result.append(np.maximum(row - (falling[:k].sum() - 1) / k, 0))
    return np.array(result)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), d=st.integers(1, 40), scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_sparsemax_is_the_projection_onto_the_simplex(seed, n, d, scale):
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)) * scale)
    found = sparsemax(scores)
    np.testing.assert_allclose(found, slow_sparsemax(scores), atol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    assert (found >= 0).all()
    torch.testing.assert_close(sparsemax(scores + 7.5), found, atol=1e-9, rtol=0)


def test_sparsemax_of_equal_and_of_far_scores():
    torch.testing.assert_close(sparsemax(torch.zeros(1, 4)), torch.full((1, 4), 0.25))
    torch.testing.assert_close(sparsemax(torch.tensor([[9.0, 1.0, 0.0]])), torch.tensor([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("mask", [sparsemax, entmax15])
def test_masks_have_the_right_gradient(mask):
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(4, 9))).requires_grad_()
    assert torch.autograd.gradcheck(mask, scores)


def test_entmax_lies_between_softmax_and_sparsemax():
    scores = rows(6, 30).double()
    counts = [(kind(scores) > 0).sum() for kind in (sparsemax, entmax15)]
    assert counts[0] < counts[1] < 6 * 30
    np.testing.assert_allclose(entmax15(scores).sum(1), 1, atol=1e-9)
    torch.testing.assert_close(entmax15(scores - 3), entmax15(scores))


# ---- normalisation ---------------------------------------------------------------------------------------------------


def test_running_statistics_are_those_of_the_data_after_one_batch():
    norm, data = BatchNorm(3, momentum=0.01), rows(40, 3) * torch.tensor([1e-3, 1.0, 50.0]) + 4
    trained = norm(data).detach()
    torch.testing.assert_close(norm.mean, data.mean(0))
    torch.testing.assert_close(norm.variance, data.var(0))
    torch.testing.assert_close(trained.std(0)[1:], torch.ones(2), atol=0.02, rtol=0)
    # A column whose variance is far below 1e-5 is not brought to 1: such inputs must be scaled before they come here.
    assert trained.std(0)[0] < 0.5
    torch.testing.assert_close(norm.eval()(data).detach()[:, 1:], trained[:, 1:], atol=0.05, rtol=0.05)


def test_running_statistics_forget_by_the_momentum_later():
    norm = BatchNorm(1, momentum=0.5)
    for value in (0.0, 4.0, 8.0):
        norm(torch.tensor([[value - 1], [value + 1]]))
    # The first two are averaged, the third counts one half.
    assert norm.mean.item() == pytest.approx(5.0)


def test_ghost_batches_are_normalised_by_themselves_and_never_have_one_row():
    norm = GhostBatchNorm(2, size=3, momentum=0.1)
    data = rows(7, 2)
    found = norm(data)
    parts = data.tensor_split(2)
    assert [len(part) for part in parts] == [4, 3]
    for part, made in zip(parts, found.tensor_split(2)):
        wanted = (part - part.mean(0)) / (part.var(0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(made, wanted)


# ---- the encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, np.arange(10) // 5])
def test_a_rows_vector_depends_on_that_row_alone_in_evaluation(groups):
    encoder = TabNetEncoder(10, SMALL, groups=groups)
    encoder.train()
    for seed in range(5):
        encoder({"vectors": rows(16, seed=seed)})
    data = rows(9, seed=9).numpy()
    whole = encode_rows(encoder, encoder.prepare(data))
    for row in range(9):
        alone = encode_rows(encoder, encoder.prepare(data[row : row + 1]))
        np.testing.assert_allclose(alone[0], whole[row], atol=1e-5)


@pytest.mark.parametrize("mask", ["sparsemax", "entmax"])
def test_masks_add_up_to_one_and_importance_too(mask):
    encoder = TabNetEncoder(10, SMALL.changed(mask=mask)).eval()
    decisions = encoder.decide(rows())
    assert decisions.steps.shape == (3, 12, 8)
    assert decisions.masks.shape == (3, 12, 10)
    torch.testing.assert_close(decisions.masks.sum(2), torch.ones(3, 12))
    torch.testing.assert_close(decisions.importance().sum(1), torch.ones(12))
    assert (decisions.entropy() >= 0).all()
    assert (decisions.entropy() <= np.log(10) + 1e-5).all()


def test_a_relaxation_of_one_lets_no_column_be_used_twice():
    encoder = TabNetEncoder(10, SMALL.changed(relaxation=1.0)).eval()
    masks = encoder.decide(rows()).masks
    full = masks[0] == 1
    # A prior of zero makes the score zero, which is chosen only where no score is above it.
    assert full.any()
    assert (masks[1][full] < 1).all()


def test_grouped_masks_share_their_weight():
    encoder = TabNetEncoder(6, SMALL, groups=np.array([0, 0, 1, 1, 2, 2])).eval()
    assert encoder.decide(rows(5, 6)).masks.shape == (3, 5, 3)


def test_the_first_step_alone_or_the_sum():
    first, whole = (TabNetEncoder(10, SMALL.changed(output=output)).eval() for output in ("first", "sum"))
    data = rows()
    steps = whole.decide(data).steps
    torch.testing.assert_close(first({"vectors": data}), steps[0])
    torch.testing.assert_close(whole({"vectors": data}), steps.sum(0))


def test_with_the_first_step_alone_later_steps_learn_nothing():
    encoder = TabNetEncoder(10, SMALL.changed(output="first"))
    encoder({"vectors": rows()}).square().sum().backward()
    assert encoder.attentions[0].map.weight.grad.abs().sum() > 0
    assert encoder.attentions[1].map.weight.grad.abs().sum() == 0


def test_shared_layers_are_one_and_norms_are_each_steps_own():
    encoder = TabNetEncoder(10, SMALL)
    first, second = encoder.transformers[0], encoder.transformers[1]
    assert first.maps[0].weight is second.maps[0].weight
    assert first.maps[2].weight is not second.maps[2].weight
    assert first.norms[0].norm.weight is not second.norms[0].norm.weight


def test_it_learns_which_column_matters():
    data = rows(512)  # few rows are learnt by heart, from any column
    wanted = 2 * data[:, 7]
    encoder, last = TabNetEncoder(10, SMALL.changed(ghost=64)), torch.nn.Linear(8, 1)
    optimiser = torch.optim.Adam([*encoder.parameters(), *last.parameters()], lr=0.02)
    for _ in range(80):
        loss = (last(encoder({"vectors": data}))[:, 0] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3 * wanted.var().item()
    assert encoder.eval().decide(data).importance().mean(0).argmax() == 7


def test_structure_and_weights_make_the_same_encoder():
    encoder = TabNetEncoder(10, SMALL, seed=4).eval()
    again = TabNetEncoder.from_structure(encoder.structure()).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again({"vectors": rows()}), encoder({"vectors": rows()}))
    assert torch.equal(
        TabNetEncoder(10, SMALL, seed=4)({"vectors": rows()}), TabNetEncoder(10, SMALL, seed=4)({"vectors": rows()})
    )


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        TabNetEncoder(0)
    with pytest.raises(ValueError, match="10 numbers"):
        TabNetEncoder(10, groups=np.arange(3))
    with pytest.raises(ValueError, match=r"\(n, 10\)"):
        TabNetEncoder(10).prepare(np.zeros((2, 3), np.float32))
