"""Samplers: pure functions of (seed, epoch) that keep their promises about who meets whom."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.errors import DataError
from kontrast.training import BalancedSampler, BucketedSampler, GroupedSampler, OrderedSampler, Sampler, ShuffledSampler

SIZES = {"rows": st.integers(1, 60), "size": st.integers(1, 17), "drop": st.booleans(), "epoch": st.integers(0, 3)}


def make(kind: str, rows: int, size: int, drop: bool, seed: int = 0) -> Sampler:
    groups = np.random.default_rng(rows).integers(0, max(1, rows // 3), rows)
    if kind == "ordered":
        return OrderedSampler(rows, size, drop_last=drop)
    if kind == "shuffled":
        return ShuffledSampler(rows, size, seed=seed, drop_last=drop)
    if kind == "bucketed":
        return BucketedSampler(groups, size, seed=seed, drop_last=drop, spread=2)
    if kind == "balanced":
        return BalancedSampler(groups, min(size, len(np.unique(groups))), 2, seed=seed)
    return GroupedSampler(groups, size, seed=seed, drop_last=drop, surplus="rest" if kind == "resting" else "share")


KINDS = ["ordered", "shuffled", "bucketed", "grouped", "resting", "balanced"]


@pytest.mark.parametrize("kind", KINDS)
@given(**SIZES)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_count_equals_what_is_yielded(kind: str, rows: int, size: int, drop: bool, epoch: int) -> None:
    if drop and rows < size and kind != "balanced":
        with pytest.raises(DataError, match="do not fill one batch"):
            make(kind, rows, size, drop)
        return
    sampler = make(kind, rows, size, drop)
    batches = sampler.batches(epoch)
    assert len(batches) == sampler.count(epoch)
    assert all(batch.dtype == np.int64 and len(batch) > 0 for batch in batches)
    again = make(kind, rows, size, drop).batches(epoch)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
    flat = np.concatenate(batches)
    assert flat.min() >= 0
    assert flat.max() < rows
    if kind == "balanced":
        return
    assert max(map(len, batches)) <= size
    assert len(np.unique(flat)) == len(flat), "a row comes once in an epoch"
    if drop and kind != "resting":
        assert {len(batch) for batch in batches} == {size}
    elif kind != "resting":
        assert len(flat) == rows


@pytest.mark.parametrize("kind", KINDS[1:])
def test_epochs_and_seeds_differ(kind: str) -> None:
    flat = [
        np.concatenate(make(kind, 50, 8, False, seed=seed).batches(epoch)) for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert not np.array_equal(flat[0], flat[1])
    assert not np.array_equal(flat[0], flat[2])


def worst_meeting(groups: np.ndarray, batches: list[np.ndarray]) -> int:
    return max(int(np.bincount(groups[batch]).max()) for batch in batches)


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=80), size=st.integers(1, 12), drop=st.booleans(),
    epoch=st.integers(0, 2),
)  # fmt: skip
@settings(deadline=None, max_examples=150, derandomize=True)
def test_rows_of_a_group_meet_only_where_they_must(groups: list[int], size: int, drop: bool, epoch: int) -> None:
    array = np.array(groups)
    if drop and len(array) < size:
        return
    shared = GroupedSampler(array, size, drop_last=drop)
    largest = int(np.bincount(array).max())
    assert worst_meeting(array, shared.batches(epoch)) <= -(-largest // shared.count(epoch))
    resting = GroupedSampler(array, size, drop_last=drop, surplus="rest").batches(epoch)
    assert worst_meeting(array, resting) == 1
    if not drop:
        expected = np.minimum(np.bincount(array), shared.count(epoch)).sum()
        assert sum(map(len, resting)) == expected, "no more rows rest than have to"


def test_grouped_batches_differ_in_size_by_one_row_at_most() -> None:
    sizes = {len(batch) for batch in GroupedSampler(np.arange(103) // 4, 10).batches(0)}
    assert sizes == {9, 10}


def test_groups_and_labels_may_be_words() -> None:
    sampler = GroupedSampler(["b", "a", "b", "a"], 2)
    assert worst_meeting(np.array([1, 0, 1, 0]), list(sampler.batches(0))) == 1
    balanced = BalancedSampler(["x", "y", "y", "y"], 2, 1)
    assert all(0 in batch for batch in balanced.batches(0)), "the one row of class x is in every batch"


def test_balanced_batches_have_their_classes_in_equal_parts() -> None:
    labels = np.repeat([0, 1, 2, 3, 4, 5], [100, 50, 20, 9, 4, 3])
    sampler = BalancedSampler(labels, classes_per_batch=3, rows_per_class=3, seed=1)
    batches = sampler.batches(0)
    turns = np.zeros(6, dtype=int)
    for batch in batches:
        classes, counts = np.unique(labels[batch], return_counts=True)
        assert counts.tolist() == [3, 3, 3]
        assert len(np.unique(batch)) == 9, "no row twice in a batch, as every class has three"
        turns[classes] += 1
    assert len(batches) == 186 // 9
    assert turns.max() - turns.min() <= 1, "classes take turns whatever their size"
    frequent = np.concatenate(batches)
    frequent = frequent[labels[frequent] == 0]
    assert len(np.unique(frequent)) == len(frequent), "rows of a large class are all used before one comes again"


def test_buckets_hold_rows_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 5000)

    def padding(sampler: Sampler) -> float:
        return float(np.mean([1 - lengths[batch].mean() / lengths[batch].max() for batch in sampler.batches(0)]))

    assert padding(BucketedSampler(lengths, 32)) < 0.05
    assert padding(ShuffledSampler(5000, 32)) > 0.4
    maxima = [lengths[batch].max() for batch in BucketedSampler(lengths, 32).batches(0)]
    assert abs(np.corrcoef(np.arange(len(maxima)), maxima)[0, 1]) < 0.3, "short batches do not come first"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: ShuffledSampler(10, 2), lambda: ShuffledSampler(10, 3)),
        (lambda: ShuffledSampler(10, 2), lambda: ShuffledSampler(10, 2, seed=1)),
        (lambda: ShuffledSampler(10, 2), lambda: OrderedSampler(10, 2)),
        (lambda: GroupedSampler([0, 1, 1], 2), lambda: GroupedSampler([0, 0, 1], 2)),
        (lambda: GroupedSampler([0, 1, 1], 2), lambda: GroupedSampler([0, 1, 1], 2, surplus="rest")),
        (lambda: BucketedSampler([5, 6], 2), lambda: BucketedSampler([5, 7], 2)),
        (lambda: BalancedSampler([0, 1], 2, 1), lambda: BalancedSampler([0, 1], 1, 1)),
    ],
)
def test_fingerprints_tell_samplers_apart(first: Callable[[], Sampler], second: Callable[[], Sampler]) -> None:
    assert first().fingerprint() == first().fingerprint()
    assert first().fingerprint() != second().fingerprint()


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (lambda: ShuffledSampler(0, 4), DataError, "at least one row, got 0"),
        (lambda: ShuffledSampler(4, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: ShuffledSampler(3, 4, drop_last=True), DataError, "3 rows do not fill one batch of 4"),
        (lambda: GroupedSampler([], 4), DataError, "at least one row"),
        (lambda: GroupedSampler([[1]], 4), ValueError, r"groups must have shape \(rows,\), got \(1, 1\)"),
        (lambda: BucketedSampler([[1]], 4), ValueError, r"lengths must have shape"),
        (lambda: BucketedSampler([1], 1, spread=0), ValueError, "spread must be at least 1"),
        (lambda: BalancedSampler([], 1, 1), DataError, "at least one row"),
        (lambda: BalancedSampler([0, 1], 3, 1), DataError, "3 distinct classes was asked for, the data have 2"),
        (lambda: BalancedSampler([0, 1], 2, 0), ValueError, "rows_per_class"),
    ],
)
def test_impossible_requests_are_explained(
    make_it: Callable[[], Sampler], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_it()
