"""Rank-N-Contrast against its slow twin, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from distance_twins import BLOCKS, check_twin, rows, slow_rank_n_contrast, slow_ranked_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.losses._rank import RankNContrast, rank_n_contrast, ranked_sets_contrast

DISTANCES = ["cosine", "euclidean", "squared"]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(2, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    distance=st.sampled_from(DISTANCES),
    temperature=st.sampled_from([0.1, 0.5, 2.0]),
    levels=st.integers(1, 4),
    columns=st.sampled_from([0, 1, 3]),
    norm=st.sampled_from([1, 2]),
    flags=st.tuples(st.booleans(), st.booleans()),
    block=BLOCKS,
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
)
def test_equals_its_twin(
    n: int, d: int, seed: int, distance: str, temperature: float, levels: int, columns: int, norm: int,
    flags: tuple[bool, bool], block: int | None, dtype: torch.dtype,
) -> None:  # fmt: skip
    x = rows(n, d, seed, duplicates=flags[0], zeros=flags[1])
    # Few levels make ties, one level makes every label equal.
    shape = (n, columns) if columns else (n,)
    labels = torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))
    check_twin(
        lambda z, t: rank_n_contrast(z, labels, t, distance=distance, label_distance=f"l{norm}", block=block),
        lambda z, t: slow_rank_n_contrast(z, labels, t, distance, norm),
        [x, torch.tensor(temperature, dtype=torch.float64)],
        dtype=dtype,
    )


def test_two_rows_cost_nothing() -> None:
    assert rank_n_contrast(torch.randn(2, 3), torch.tensor([0.0, 5.0])).item() == 0.0


def test_equal_rows_give_the_mean_log_count() -> None:
    # Labels 0, 1, 2 on equal rows: the j-th nearest label has as many candidates as are at least as far.
    wanted = (2 * (math.log(2) + math.log(1)) + 2 * math.log(2)) / 6
    assert rank_n_contrast(torch.ones(3, 2), torch.arange(3)).item() == pytest.approx(wanted, rel=1e-6)


def test_equal_labels_are_one_softmax() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = (-torch.cdist(x, x)).masked_fill(torch.eye(5, dtype=torch.bool), -math.inf)
    wanted = -logits.log_softmax(1)[~torch.eye(5, dtype=torch.bool)].mean()
    assert rank_n_contrast(x, torch.zeros(5), 1.0).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_order_of_rows_does_not_matter() -> None:
    x, y = rows(7, 3, 1), torch.tensor([0, 1, 1, 2, 5, 5, 3])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    one, two = rank_n_contrast(x, y, 0.5), rank_n_contrast(x[order], y[order], 0.5)
    assert one.item() == pytest.approx(two.item(), rel=1e-12)


def test_only_the_order_of_labels_matters_here() -> None:
    x = rows(6, 3, 1)
    y = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    assert rank_n_contrast(x, y).item() == rank_n_contrast(x, 100 - 3 * y).item()


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float64, 1e-2), (torch.float32, 1e6)])
def test_low_temperature_stays_finite_and_right(dtype: torch.dtype, floor: float) -> None:
    # In float32 a logit of 1000 is rounded to about 1e-4, whatever is done with it afterwards.
    x = rows(6, 3, 4)
    check_twin(
        lambda z, t: rank_n_contrast(z, torch.arange(6) % 3, t, distance="cosine", block=2),
        lambda z, t: slow_rank_n_contrast(z, torch.arange(6) % 3, t, "cosine"),
        [x, torch.tensor(0.001, dtype=torch.float64)],
        dtype=dtype,
        floor=floor,
    )


def test_autocast_changes_nothing() -> None:
    x, y = rows(6, 4, 3).float(), torch.arange(6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = rank_n_contrast(x, y, 0.1, distance="cosine", block=2)
    assert inside.item() == rank_n_contrast(x, y, 0.1, distance="cosine", block=2).item()


def test_memory_is_of_the_size_of_a_block() -> None:
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for item in out if isinstance(out, tuple | list) else (out,):
                if isinstance(item, torch.Tensor):
                    largest = max(largest, item.numel())
            return out

    x = torch.randn(300, 4, requires_grad=True)
    with Watch():
        rank_n_contrast(x, torch.arange(300), block=10).backward()
    assert largest <= 300 * 10


def test_module_learns_its_temperature() -> None:
    fixed, learned = RankNContrast(0.5), RankNContrast(0.5, learn_temperature=True)
    x, y = rows(5, 3, 0).float(), torch.arange(5)
    assert not list(fixed.parameters())
    assert fixed(x, y).item() == pytest.approx(learned(x, y).item(), rel=1e-6)
    learned(x, y).backward()
    assert learned.log_temperature is not None
    assert learned.log_temperature.grad.abs().item() > 0


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.ones(3), torch.ones(3), {}, "2 dimensions"),
        (torch.ones(3, 2, dtype=torch.int64), torch.ones(3), {}, "floating point"),
        (torch.ones(3, 2), torch.ones(4), {}, r"\(3, 2\), got \(4,\)"),
        (torch.ones(1, 2), torch.ones(1), {}, "has 1 rows; at least 2"),
        (torch.ones(3, 2), torch.tensor([0.0, math.nan, 1.0]), {}, "finite"),
        (torch.ones(3, 2), torch.ones(3), {"temperature": 0.0}, "above 0"),
        (torch.ones(3, 2), torch.ones(3), {"distance": "manhattan"}, "known: cosine"),
        (torch.ones(3, 2), torch.ones(3), {"label_distance": "l3"}, "known: l1, l2"),
        (torch.ones(3, 2), torch.ones(3), {"block": 0}, "at least 1"),
    ],
)
def test_wrong_input_is_named(x: torch.Tensor, y: torch.Tensor, options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        rank_n_contrast(x, y, **options)


# ---- candidates that are farther in several distances ----------------------------------------------------------------


def by_column(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """One distance for each column of the labels."""
    return [(a[:, None, i] - b[None, :, i]).abs() for i in range(a.shape[1])]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(2, 9),
    seed=st.integers(0, 999),
    columns=st.integers(1, 3),
    levels=st.integers(1, 5),
    kinds=st.integers(1, 3),
    distance=st.sampled_from(DISTANCES),
    temperature=st.sampled_from([0.1, 0.5, 2.0]),
    block=BLOCKS,
)
def test_ranked_sets_equal_their_twin(
    n: int, seed: int, columns: int, levels: int, kinds: int, distance: str, temperature: float, block: int | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(levels, (n, columns), generator=generator).double()
    classes = torch.randint(kinds, (n,), generator=generator)
    away = by_column(labels, labels)
    check_twin(
        lambda z, t: ranked_sets_contrast(z, labels, by_column, t, classes=classes, distance=distance, block=block),
        lambda z, t: slow_ranked_sets(z, away, classes.tolist(), t, distance),
        [rows(n, 3, seed), torch.tensor(temperature, dtype=torch.float64)],
    )


def test_one_distance_and_one_class_is_rank_n_contrast() -> None:
    x, y = rows(8, 3, 2), torch.rand(8, generator=torch.Generator().manual_seed(0))
    ours = ranked_sets_contrast(x, y, by_column, 0.7)
    assert ours.item() == pytest.approx(rank_n_contrast(x, y, 0.7).item(), rel=1e-12)


def test_the_strict_set_is_a_subset_and_costs_no_more() -> None:
    for seed in range(20):
        x, labels = rows(7, 3, seed), torch.rand(7, 2, generator=torch.Generator().manual_seed(seed))
        strict = ranked_sets_contrast(x, labels, by_column)
        task = ranked_sets_contrast(x, labels, lambda a, b: by_column(a, b)[:1])
        assert 0 <= strict.item() <= task.item() + 1e-12


def test_equal_features_give_the_closed_form() -> None:
    # Without ties the j-th nearest of n - 1 has n - j candidates: log((n-1)!) / (n-1) on the mean.
    n = 6
    labels = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    wanted = math.lgamma(n) / (n - 1)
    assert ranked_sets_contrast(torch.ones(n, 2), labels, by_column).item() == pytest.approx(wanted, rel=1e-6)


def test_ranked_sets_see_neither_shift_nor_turn_nor_the_scale_of_labels() -> None:
    x, labels = rows(7, 3, 4), torch.rand(7, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    turn = torch.linalg.qr(rows(3, 3, 5))[0]
    base = ranked_sets_contrast(x, labels, by_column).item()
    assert ranked_sets_contrast(x @ turn + 5.0, labels, by_column).item() == pytest.approx(base, rel=1e-9)
    monotone = lambda a, b: [matrix**3 + matrix for matrix in by_column(a, b)]  # noqa: E731
    assert ranked_sets_contrast(x, labels, monotone).item() == pytest.approx(base, rel=1e-12)


def test_features_that_are_the_labels_reach_the_minimum_and_shuffled_ones_do_not() -> None:
    labels = torch.rand(10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = labels[:, None]
    cold = [ranked_sets_contrast(x, labels, by_column, t).item() for t in (1.0, 0.1, 0.001)]
    assert cold[0] > cold[1] > cold[2]
    shuffled = labels[torch.randperm(10, generator=torch.Generator().manual_seed(2))]
    assert ranked_sets_contrast(x, shuffled, by_column, 0.1).item() > 2 * cold[1]


def test_small_classes_are_left_out_with_zero_gradients() -> None:
    x = rows(4, 2, 0).requires_grad_()
    loss = ranked_sets_contrast(x, torch.arange(4), by_column, classes=torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.ones(4, 2), {"classes": torch.ones(3).long()}, "whole numbers of shape"),
        (torch.ones(4, 2), {"classes": torch.ones(4)}, "whole numbers"),
        (torch.ones(4, 2), {"temperature": -1.0}, "above 0"),
        (torch.ones(3, 2), {}, r"\(4, 3\), got \(3, 2\)"),
        (torch.full((4, 2), math.inf), {}, "finite"),
    ],
)
def test_wrong_input_of_ranked_sets_is_named(labels: torch.Tensor, options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        ranked_sets_contrast(torch.ones(4, 3), labels, by_column, **options)


def test_wrong_label_distances_are_named() -> None:
    with pytest.raises(ValueError, match="finite matrices of shape"):
        ranked_sets_contrast(torch.ones(4, 3), torch.ones(4, 2), lambda a, b: [torch.zeros(2, 2)])
