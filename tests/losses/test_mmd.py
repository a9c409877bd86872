"""Maximum mean discrepancy against its slow twin, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from distance_twins import BLOCKS, check_twin, rows, slow_mmd
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.losses._mmd import MMD, median_bandwidth, mmd


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    n=st.integers(1, 7),
    m=st.integers(1, 7),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    biased=st.booleans(),
    flags=st.tuples(st.booleans(), st.booleans()),
    block=BLOCKS,
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
)
def test_equals_its_twin(
    n: int, m: int, d: int, seed: int, biased: bool, flags: tuple[bool, bool], block: int | None, dtype: torch.dtype
) -> None:
    n, m = (n, m) if biased else (n + 1, m + 1)
    x = rows(n, d, seed, duplicates=flags[0], zeros=flags[1])
    y = rows(m, d, seed + 1, duplicates=flags[0], zeros=flags[1])
    check_twin(
        lambda a, b, s: mmd(a, b, s, biased=biased, block=block),
        lambda a, b, s: slow_mmd(a, b, s, biased),
        [x, y, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)],
        dtype=dtype,
        # The value is a difference of means of kernels, which are of the order of 1.
        floor=1.0,
    )


def test_default_bandwidths_are_multiples_of_the_median() -> None:
    x, y = rows(5, 3, 0), rows(4, 3, 1)
    pooled = torch.cat([x, y])
    distances = sorted((pooled[i] - pooled[j]).norm().item() for i in range(9) for j in range(i))
    assert median_bandwidth(x, y).item() == pytest.approx(distances[(len(distances) - 1) // 2])
    wanted = slow_mmd(x, y, median_bandwidth(x, y) * torch.tensor([0.5, 3.0], dtype=torch.float64), True)
    assert mmd(x, y, scales=[0.5, 3.0]).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_closed_forms() -> None:
    x = torch.randn(6, 3)
    assert mmd(x, x).item() == pytest.approx(0.0, abs=1e-6)
    assert mmd(x, x.flip(0)).item() == pytest.approx(0.0, abs=1e-6)
    assert mmd(torch.zeros(3, 2), torch.zeros(4, 2)).item() == pytest.approx(0.0, abs=1e-6)
    assert mmd(torch.zeros(1, 1), torch.ones(1, 1), [2.0]).item() == pytest.approx(2 - 2 * math.exp(-1 / 8))
    # Far apart, only the kernels of rows with themselves remain: 1/n + 1/m, or nothing when unbiased.
    far = 1e4 * torch.arange(7.0)[:, None]
    assert mmd(far[:3], far[3:], [1.0]).item() == pytest.approx(1 / 3 + 1 / 4)
    assert mmd(far[:3], far[3:], [1.0], biased=False).item() == 0.0


def test_symmetry_order_and_scale() -> None:
    x, y = rows(6, 3, 0), rows(5, 3, 1)
    wanted = mmd(x, y).item()
    assert mmd(y, x).item() == pytest.approx(wanted, rel=1e-10)
    assert mmd(x.flip(0), y.roll(2, 0), block=2).item() == pytest.approx(wanted, rel=1e-10)
    assert mmd(10 * x + 3, 10 * y + 3).item() == pytest.approx(wanted, rel=1e-10)


def test_median_of_many_rows() -> None:
    x = rows(3000, 1, 0)
    exact = torch.pdist(torch.cat([x, x + 1])).median()
    assert median_bandwidth(x, x + 1).item() == pytest.approx(exact.item(), rel=0.05)


def test_module_equals_the_function() -> None:
    x, y = rows(6, 3, 0), rows(5, 3, 1)
    got = MMD([1.0, 2.0], biased=False, block=2)(x, y).item()
    assert got == pytest.approx(mmd(x, y, [1.0, 2.0], biased=False).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mmd(torch.ones(2, 2), torch.ones(2, 3)), "2 columns and 'y' has 3"),
        (lambda: mmd(torch.ones(1, 2), torch.ones(2, 2), biased=False), "'x' has 1 rows; at least 2"),
        (lambda: mmd(torch.ones(2, 2), torch.ones(0, 2)), "'y' has 0 rows"),
        (lambda: mmd(torch.ones(2, 2), torch.ones(2, 2), [1.0, 0.0]), "above 0, got"),
        (lambda: mmd(torch.ones(2, 2), torch.ones(2, 2), []), "one or more"),
        (lambda: mmd(torch.ones(2, 2), torch.ones(2, 2).double()), "float32 and 'y'"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
