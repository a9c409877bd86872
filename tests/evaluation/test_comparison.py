"""Two finished runs on the same test items."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.errors import DataError
from kontrast.evaluation import compare_items, compare_values


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 200)
    first, second = hard + 0.3 + rng.normal(0, 0.5, 200), hard + rng.normal(0, 0.5, 200)
    found = compare_items(first, second, "recall@10")
    assert found.better == "first"
    assert found.difference.value == pytest.approx((first - second).mean())
    assert compare_items(first, second, "loss", direction="min").better == "second"
    shuffled = compare_items(first, rng.permutation(second), "recall@10")
    assert shuffled.better == "can't be told"
    assert "can't be told" in shuffled.sentence()
    assert "is better than" in found.sentence("Run a", "run b")


def test_items_are_matched_by_id() -> None:
    rng = np.random.default_rng(0)
    values, order = rng.normal(size=50), rng.permutation(50)
    ids = np.array([f"q{i}" for i in range(50)])
    found = compare_items(values, values[order], "mrr", first_ids=ids, second_ids=ids[order])
    assert (found.difference.value, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)
    assert found.better == "can't be told"
    part = compare_items(values, values[:30], "mrr", first_ids=ids, second_ids=ids[:30])
    assert (part.n_items, part.n_only_first, part.n_only_second) == (30, 20, 0)
    assert part.first == pytest.approx(values[:30].mean())


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="share no test item"):
        compare_items([1.0], [1.0], "mrr", first_ids=["a"], second_ids=["b"])
    with pytest.raises(DataError, match="'a' more than once"):
        compare_items([1.0, 2.0], [1.0], "mrr", first_ids=["a", "a"], second_ids=["b"])
    with pytest.raises(ValueError, match="same items"):
        compare_items([1.0, 2.0], [1.0], "mrr")


def test_means_alone_give_no_interval() -> None:
    found = compare_values(0.5, 0.4, "mrr")
    assert found.difference.value == pytest.approx(0.1)
    assert found.better == "can't be told"
    assert "no interval" in found.sentence()
