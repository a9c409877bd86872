"""Alignment and uniformity against their slow twins, and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from distance_twins import BLOCKS, check_twin, rows, slow_alignment, slow_uniformity
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.losses._uniformity import AlignmentUniformity, alignment, uniformity

DTYPES = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    n=st.integers(2, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    t=st.sampled_from([0.5, 2.0, 5.0]),
    normalize=st.booleans(),
    flags=st.tuples(st.booleans(), st.booleans()),
    block=BLOCKS,
    dtype=DTYPES,
)
def test_uniformity_equals_its_twin(
    n: int, d: int, seed: int, t: float, normalize: bool, flags: tuple[bool, bool], block: int | None,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    check_twin(
        lambda x: uniformity(x, t, normalize=normalize, block=block),
        lambda x: slow_uniformity(x, t, normalize),
        [rows(n, d, seed, duplicates=flags[0], zeros=flags[1])],
        dtype=dtype,
        floor=1.0,
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(1, 7),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    alpha=st.sampled_from([1.0, 2.0, 3.0]),
    flags=st.tuples(st.booleans(), st.booleans()),
    dtype=DTYPES,
)
def test_alignment_equals_its_twin(
    n: int, d: int, seed: int, alpha: float, flags: tuple[bool, bool], dtype: torch.dtype
) -> None:
    x, y = rows(n, d, seed, zeros=flags[0]), rows(n, d, seed + 1, zeros=flags[1])
    # With one column, normalised rows are equal up to rounding, and a distance of 1e-16 has a gradient of length 1.
    check_twin(
        lambda a, b: alignment(a, b, alpha),
        lambda a, b: slow_alignment(a, b, alpha),
        [x, y],
        dtype=dtype,
        gradients=d > 1,
        floor=1.0,
    )


def test_closed_forms() -> None:
    assert uniformity(torch.ones(5, 3)).item() == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 3.0).item() == pytest.approx(-12.0)
    # Orthonormal rows are all at squared distance 2.
    assert uniformity(torch.eye(6), 2.0).item() == pytest.approx(-4.0)
    # Two antipodal pairs: 2 of 6 pairs at distance² 4, the others at 2.
    cross = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert uniformity(cross, 1.0).item() == pytest.approx(math.log((2 * math.exp(-4) + 4 * math.exp(-2)) / 6))
    x = torch.randn(4, 3)
    assert alignment(x, 7 * x).item() == pytest.approx(0.0, abs=1e-6)
    assert alignment(x, -x).item() == pytest.approx(4.0)
    assert alignment(x, -x, alpha=1).item() == pytest.approx(2.0)


def test_far_points_do_not_underflow() -> None:
    x = torch.tensor([[0.0], [100.0]], requires_grad=True)
    loss = uniformity(x, 2.0, normalize=False)
    loss.backward()
    assert loss.item() == pytest.approx(-20000.0)
    assert x.grad is not None
    assert x.grad[1].item() == pytest.approx(-400.0)


def test_scale_and_order_do_not_matter() -> None:
    x = rows(8, 3, 0)
    wanted = uniformity(x).item()
    assert uniformity(x * 1e20).item() == pytest.approx(wanted, rel=1e-12)
    assert uniformity(x.float() * 1e-30).item() == pytest.approx(wanted, rel=1e-5)
    assert uniformity(x.flip(0), block=3).item() == pytest.approx(wanted, rel=1e-12)


def test_autocast_changes_nothing() -> None:
    x = rows(6, 4, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = uniformity(x, block=2)
    assert inside.item() == uniformity(x, block=2).item()


def test_module_is_the_weighted_sum() -> None:
    x, y = rows(5, 3, 0), rows(5, 3, 1)
    wanted = 0.5 * alignment(x, y, 1) + 2 * (uniformity(x, 3) + uniformity(y, 3)) / 2
    module = AlignmentUniformity(0.5, 2, alpha=1, t=3, block=2)
    assert module(x, y).item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniformity(torch.ones(1, 2)), "has 1 rows; at least 2"),
        (lambda: uniformity(torch.ones(2, 2, 2)), "2 dimensions"),
        (lambda: uniformity(torch.ones(2, 2), t=0), "'t' must be above 0"),
        (lambda: alignment(torch.ones(2, 2), torch.ones(3, 2)), "2 rows and 'y' has 3"),
        (lambda: alignment(torch.ones(2, 2), torch.ones(2, 3)), "2 columns and 'y' has 3"),
        (lambda: alignment(torch.ones(0, 2), torch.ones(0, 2)), "has 0 rows"),
        (lambda: alignment(torch.ones(2, 2), torch.ones(2, 2), alpha=0), "'alpha' must be above 0"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
