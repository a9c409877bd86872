"""The two contrasts of colap against their float64 twins and their closed forms, on one process and on several."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import multiprocessing as mp

from kontrast.systems.colap import xccl, xrcl


def rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exponentials(target, source, temperature):
    unit = [x / x.norm(dim=1, keepdim=True) for x in (target, source)]
    return torch.exp(unit[0] @ unit[1].T / temperature)


def slow_xrcl(target, source, temperature, numerator):
    s = exponentials(target, source, temperature)
    losses = []
    for i in range(len(s)):
        others = sum((s[i, j] for j in range(len(s)) if j != i), torch.zeros(()))
        own = s[i, i] if numerator == "own" else sum(s[k, k] for k in range(len(s)))
        losses.append(-torch.log(own / (own + others)))
    return torch.stack(losses).mean()


def slow_xccl(target, source, y_target, y_source, temperature):
    s = exponentials(target, source, temperature)
    losses = []
    for i in range(len(s)):
        own = [s[i, j] for j in range(s.shape[1]) if y_source[j] == y_target[i]]
        if own:
            losses.append(-torch.log(sum(own) / s[i].sum()))
    return torch.stack(losses).mean() if losses else s.sum() * 0


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 8), st.integers(0, 50), st.sampled_from([0.05, 0.3, 2.0]), st.sampled_from(["own", "batch_sum"]))
def test_xrcl_equals_its_twin_in_value_and_gradient(n, seed, temperature, numerator):
    target, source = rows(n, 5, seed).requires_grad_(), rows(n, 5, seed + 100).requires_grad_()
    ours = xrcl(target, source, temperature=temperature, numerator=numerator)
    twin = slow_xrcl(target, source, temperature, numerator)
    torch.testing.assert_close(ours, twin, rtol=1e-8, atol=1e-10)
    for mine, other in zip(torch.autograd.grad(ours, (target, source)), torch.autograd.grad(twin, (target, source))):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.integers(0, 50), st.sampled_from([0.05, 0.3, 2.0]))
def test_xccl_equals_its_twin_in_value_and_gradient(n, m, classes, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.randint(classes, (size,), generator=generator) for size in (n, m)]
    target, source = rows(n, 5, seed).requires_grad_(), rows(m, 5, seed + 100).requires_grad_()
    ours = xccl(target, source, *labels, temperature=temperature)
    twin = slow_xccl(target, source, *labels, temperature)
    torch.testing.assert_close(ours, twin, rtol=1e-8, atol=1e-10)
    for mine, other in zip(torch.autograd.grad(ours, (target, source)), torch.autograd.grad(twin, (target, source))):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_identical_rows_give_the_logarithm_of_the_count():
    same = torch.ones(6, 4)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert xrcl(same, same).item() == pytest.approx(math.log(6), rel=1e-5)
    expected = -sum(math.log(int((labels == label).sum()) / 6) for label in labels) / 6
    assert xccl(same, same, labels, labels).item() == pytest.approx(expected, rel=1e-5)


def test_xccl_with_distinct_labels_is_xrcl_and_with_one_label_nothing():
    target, source = rows(6, 4, 0), rows(6, 4, 1)
    distinct = torch.arange(6)
    torch.testing.assert_close(xccl(target, source, distinct, distinct), xrcl(target, source))
    assert xccl(target, source, distinct * 0, distinct * 0).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("numerator", ["own", "batch_sum"])
def test_one_pair_says_nothing(numerator):
    target = rows(1, 4, 0).requires_grad_()
    loss = xrcl(target, rows(1, 4, 1), numerator=numerator)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert target.grad.abs().max() <= 1e-12


def test_order_and_length_change_nothing_and_the_two_sides_differ():
    target, source, labels = rows(6, 4, 0), rows(6, 4, 1), torch.tensor([0, 1, 0, 2, 1, 1])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for numerator in ("own", "batch_sum"):
        value = xrcl(target, source, numerator=numerator)
        torch.testing.assert_close(xrcl(target[order], source[order], numerator=numerator), value)
        torch.testing.assert_close(xrcl(target * 7, source * 0.1, numerator=numerator), value)
        assert abs(xrcl(source, target, numerator=numerator) - value) > 1e-3
    value = xccl(target, source, labels, labels)
    torch.testing.assert_close(xccl(target[order], source[order], labels[order], labels[order]), value)
    assert abs(xccl(source, target, labels, labels) - value) > 1e-3


def test_low_temperatures_stay_finite():
    target, source = rows(6, 4, 0).float().requires_grad_(), rows(6, 4, 1).float()
    loss = xrcl(target, source, temperature=0.001, numerator="batch_sum")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(target.grad).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="needs its translation"):
        xrcl(torch.ones(3, 2), torch.ones(4, 2))


LABELS = torch.tensor([0, 1, 0, 2, 1, 1, 0])
CASES = {
    "own": lambda x, y, at, g: xrcl(x, y, temperature=0.3, group=g),
    "batch_sum": lambda x, y, at, g: xrcl(x, y, temperature=0.3, numerator="batch_sum", group=g),
    "classes": lambda x, y, at, g: xccl(x, y, LABELS[at], LABELS[at], temperature=0.3, group=g),
}


def _gradients(case, at, group):
    layer = rows(3, 4, 9).requires_grad_()
    loss = CASES[case](rows(7, 4, 0)[at] @ layer.t(), rows(7, 4, 1)[at] @ layer.t(), at, group)
    return [loss.detach(), torch.autograd.grad(loss, layer)[0].contiguous()]


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    at = torch.arange(7).split([4, 3])[rank]
    found = {}
    for case in CASES:
        loss, gradient = _gradients(case, at, "world")
        dist.all_reduce(gradient)
        found[case] = [loss, gradient / 2]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_equal_the_joined_batch(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for case in CASES:
            for mine, other in zip(found[case], _gradients(case, torch.arange(7), None)):
                torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
