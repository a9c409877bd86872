"""Variance, covariance and cross-correlation terms against their slow twins, and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from distance_twins import (
    BLOCKS,
    check_twin,
    rows,
    slow_barlow_twins,
    slow_covariance_term,
    slow_variance_term,
    slow_vicreg,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.losses._regularisers import BarlowTwins, VICReg, barlow_twins, covariance_term, variance_term, vicreg

DTYPES = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(2, 7), d=st.integers(1, 6), seed=st.integers(0, 999), zeros=st.booleans(), block=BLOCKS, dtype=DTYPES
)
def test_terms_equal_their_twins(n: int, d: int, seed: int, zeros: bool, block: int | None, dtype: torch.dtype) -> None:
    x, y = rows(n, d, seed, zeros=zeros), rows(n, d, seed + 1)
    check_twin(variance_term, slow_variance_term, [x], dtype=dtype, floor=0.1)
    check_twin(lambda z: covariance_term(z, block=block), slow_covariance_term, [x], dtype=dtype, floor=0.1)
    check_twin(lambda a, b: vicreg(a, b, block=block), slow_vicreg, [x, y], dtype=dtype, floor=1.0)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(3, 8),
    d=st.integers(1, 6),
    seed=st.integers(0, 999),
    constant=st.booleans(),
    block=BLOCKS,
    dtype=DTYPES,
)
def test_barlow_twins_equals_its_twin(
    n: int, d: int, seed: int, constant: bool, block: int | None, dtype: torch.dtype
) -> None:
    x, y = rows(n, d, seed), rows(n, d, seed + 1)
    if constant:
        x[:, 0] = 0.5
    check_twin(
        lambda a, b: barlow_twins(a, b, 0.05, block=block),
        lambda a, b: slow_barlow_twins(a, b, 0.05),
        [x, y],
        dtype=dtype,
        floor=1.0,
    )


def test_constant_features_are_as_the_paper_says() -> None:
    x = torch.ones(4, 3, requires_grad=True)
    loss = variance_term(x)
    loss.backward()
    assert loss.item() == pytest.approx(0.99)
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert covariance_term(x).item() == 0.0
    # All correlations of a constant feature are 0, so each of the 3 misses its 1 on the diagonal.
    assert barlow_twins(x, x).item() == pytest.approx(3.0)


def test_whitened_views_cost_nothing() -> None:
    hadamard = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]) * math.sqrt(0.75 * 4 / 3)
    assert barlow_twins(hadamard, hadamard).item() == pytest.approx(0.0, abs=1e-10)
    assert barlow_twins(hadamard, -hadamard).item() == pytest.approx(12.0)
    assert covariance_term(hadamard).item() == pytest.approx(0.0, abs=1e-10)
    assert vicreg(2 * hadamard, 2 * hadamard).item() == pytest.approx(0.0, abs=1e-8)


def test_laws_of_scale_and_shift() -> None:
    x, y = rows(6, 4, 0), rows(6, 4, 1)
    scales = torch.tensor([1.0, 2.0, 3.0, 0.1], dtype=torch.float64)
    assert barlow_twins(x * scales + 5, y).item() == pytest.approx(barlow_twins(x, y).item(), rel=1e-12)
    assert covariance_term(3 * x - 7).item() == pytest.approx(81 * covariance_term(x).item(), rel=1e-12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert vicreg(x[order], y[order]).item() == pytest.approx(vicreg(x, y).item(), rel=1e-12)
    assert barlow_twins(x[order], y[order]).item() == pytest.approx(barlow_twins(x, y).item(), rel=1e-12)


def test_published_code_of_vicreg_is_a_choice_of_weights() -> None:
    x, y = rows(6, 4, 0), rows(6, 4, 1)
    wanted = 25 * torch.nn.functional.mse_loss(x, y)
    for z in (x, y):
        wanted = wanted + 25 * torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2 + covariance_term(z)
    got = vicreg(x, y, invariance_weight=25 / 4, variance_weight=12.5)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_autocast_changes_nothing() -> None:
    x, y = rows(6, 4, 0).float(), rows(6, 4, 1).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = vicreg(x, y, block=2), barlow_twins(x, y, block=2)
    assert inside[0].item() == vicreg(x, y, block=2).item()
    assert inside[1].item() == barlow_twins(x, y, block=2).item()


def test_modules_equal_their_functions() -> None:
    x, y = rows(5, 3, 0), rows(5, 3, 1)
    wanted = vicreg(x, y, invariance_weight=1, variance_weight=2, covariance_weight=3, target=2, eps=0.1)
    assert VICReg(1, 2, 3, target=2, eps=0.1, block=1)(x, y).item() == pytest.approx(wanted.item(), rel=1e-12)
    assert BarlowTwins(0.3, block=2)(x, y).item() == pytest.approx(barlow_twins(x, y, 0.3).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variance_term(torch.ones(1, 2)), "has 1 rows; at least 2"),
        (lambda: covariance_term(torch.ones(1, 2)), "has 1 rows; at least 2"),
        (lambda: vicreg(torch.ones(2, 2), torch.ones(3, 2)), "2 rows and 'y' has 3"),
        (lambda: barlow_twins(torch.ones(2, 2), torch.ones(2, 3)), "2 columns and 'y' has 3"),
        (lambda: barlow_twins(torch.ones(1, 2), torch.ones(1, 2)), "has 1 rows; at least 2"),
        (lambda: covariance_term(torch.ones(2, 2).long()), "floating point"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
