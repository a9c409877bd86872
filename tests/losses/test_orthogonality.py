"""Orthogonality terms against their slow twins, and their laws."""

from __future__ import annotations

import pytest
import torch
from distance_twins import BLOCKS, check_twin, rows, slow_difference, slow_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.losses._orthogonality import cosine_orthogonality, difference

DTYPES = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(2, 7),
    c=st.integers(1, 5),
    p=st.integers(1, 5),
    seed=st.integers(0, 999),
    center=st.booleans(),
    normalize=st.booleans(),
    zeros=st.booleans(),
    block=BLOCKS,
    dtype=DTYPES,
)
def test_difference_equals_its_twin(
    n: int, c: int, p: int, seed: int, center: bool, normalize: bool, zeros: bool, block: int | None,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    check_twin(
        lambda a, b: difference(a, b, center=center, normalize=normalize, block=block),
        lambda a, b: slow_difference(a, b, center, normalize),
        [rows(n, c, seed, zeros=zeros), rows(n, p, seed + 1)],
        dtype=dtype,
        floor=1.0,
    )


@settings(deadline=None, max_examples=30, derandomize=True)
@given(n=st.integers(1, 6), d=st.integers(1, 5), seed=st.integers(0, 999), zeros=st.booleans(), dtype=DTYPES)
def test_cosine_orthogonality_equals_its_twin(n: int, d: int, seed: int, zeros: bool, dtype: torch.dtype) -> None:
    def slow(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return sum((1 - slow_distance(a, b, "cosine")) ** 2 for a, b in zip(x, y, strict=True)) / n  # type: ignore[return-value]

    check_twin(
        cosine_orthogonality, slow, [rows(n, d, seed, zeros=zeros), rows(n, d, seed + 1)], dtype=dtype, floor=0.1
    )


def test_closed_forms() -> None:
    x = torch.eye(3)
    assert difference(x, x, center=False).item() == 3.0
    assert difference(x, x, center=False, reduction="mean").item() == pytest.approx(1 / 3)
    assert difference(x[:, :2], x[:, 2:], center=False, normalize=False).item() == 0.0
    assert cosine_orthogonality(x, x.roll(1, 0)).item() == 0.0
    assert cosine_orthogonality(x, -5 * x).item() == pytest.approx(1.0)
    # A single row is its own mean.
    assert difference(torch.ones(1, 2), torch.ones(1, 3)).item() == 0.0


def test_order_of_rows_does_not_matter() -> None:
    x, y = rows(6, 3, 0), rows(6, 4, 1)
    assert difference(x.flip(0), y.flip(0)).item() == pytest.approx(difference(x, y).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: difference(torch.ones(2, 2), torch.ones(3, 2)), "2 rows and 'private' has 3"),
        (lambda: difference(torch.ones(0, 2), torch.ones(0, 2)), "has 0 rows"),
        (lambda: difference(torch.ones(2, 2), torch.ones(2, 2), reduction="max"), "known: mean, sum"),
        (lambda: cosine_orthogonality(torch.ones(2, 2), torch.ones(2, 3)), "2 columns and 'y' has 3"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
