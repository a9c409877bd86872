"""The difference of two finished runs on the same test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.intervals import Direction, Interval, bootstrap_interval


@dataclass(frozen=True)
class RunDifference:
    """How one metric of two runs differs.

    Args:
        metric: its name.
        first, second: the metric of each run, over the shared items where there are any.
        difference: first minus second; its interval is NaN where no per-item values are shared.
        n_items: number of shared items, 0 without per-item values.
        n_only_first, n_only_second: items that only one run has, left out.
        better: which run is better, where the interval leaves out 0.
    """

    metric: str
    first: float
    second: float
    difference: Interval
    n_items: int
    n_only_first: int
    n_only_second: int
    better: Literal["first", "second", "can't be told"]

    def sentence(self, first: str = "The first run", second: str = "the second") -> str:
        """One plain sentence; it claims nothing about other seeds, since each run is one training."""
        values = f"{self.metric} {self.first:.4f} against {self.second:.4f}"
        if not self.n_items:
            return (
                f"{first} and {second} differ by {self.difference.value:+.4f} ({values}); "
                "without per-item values no interval can be given."
            )
        interval = f"{self.difference.level:.0%} interval {self.difference.low:+.4f} to {self.difference.high:+.4f}"
        detail = f"({values}, {interval}, {self.n_items} shared test items, one training each)"
        if self.better == "can't be told":
            return f"It can't be told which of the two runs is better {detail}."
        winner, loser = (first, second) if self.better == "first" else (second, first)
        return f"{winner[0].upper()}{winner[1:]} is better than {loser[0].lower()}{loser[1:]} {detail}."


def compare_values(first: float, second: float, metric: str) -> RunDifference:
    """The difference of two runs of which only the means are known."""
    nan = float("nan")
    return RunDifference(metric, first, second, Interval(first - second, nan, nan), 0, 0, 0, "can't be told")


def compare_items(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    metric: str,
    *,
    first_ids: Sequence[Any] | npt.NDArray[Any] | None = None,
    second_ids: Sequence[Any] | npt.NDArray[Any] | None = None,
    groups: npt.ArrayLike | None = None,
    direction: Direction = "max",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RunDifference:
    """The difference of two runs, paired over the test items that both have.

    The items (or whole groups) are resampled, each with its value in both runs, so that what makes an item hard for
    both cancels. One training each: a difference here may still be the luck of a seed.

    Args:
        first: (n,) per-item values whose mean is the metric; NaN where an item has none.
        second: (m,) the same of the second run.
        metric: its name.
        first_ids: (n,) ids of the items; without ids both runs must hold the same items in the same order.
        second_ids: (m,).
        groups: (n,) group of each item of the first run, when items of a group are alike.
        direction: "max" if a higher value is better, "min" if a lower one is.
        level: coverage of the interval.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        DataError: if an id comes twice, or the runs share no item.
        ValueError: if shapes disagree.
    """
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if (first_ids is None) != (second_ids is None):
        raise ValueError("give the ids of both runs or of neither.")
    if first_ids is None or second_ids is None:
        if left.shape != right.shape:
            raise ValueError(f"without ids both runs need the same items, got {left.shape} and {right.shape}.")
        one = two = np.arange(len(left))
    else:
        one, two = _shared(_rows(first_ids, len(left), "first"), _rows(second_ids, len(right), "second"))
    only = len(left) - len(one), len(right) - len(two)
    grouped = None if groups is None else np.asarray(groups)[one]
    left, right = left[one], right[two]
    both = ~(np.isnan(left) | np.isnan(right))
    if not both.any():
        raise DataError("the two runs share no test item with a value", mend="compare runs on the same test data")
    left, right = left[both], right[both]
    interval = bootstrap_interval(
        left - right,
        groups=None if grouped is None else grouped[both],
        level=level,
        resamples=resamples,
        seed=seed,
    )
    better: Literal["first", "second", "can't be told"] = "can't be told"
    if not interval.low <= 0 <= interval.high and len(left) > 1:
        better = "first" if (interval.value > 0) == (direction == "max") else "second"
    return RunDifference(
        metric, float(left.mean()), float(right.mean()), interval, int(both.sum()), only[0], only[1], better
    )


def _rows(ids: Sequence[Any] | npt.NDArray[Any], size: int, name: str) -> dict[Any, int]:
    keys = np.asarray(ids).tolist()
    if len(keys) != size:
        raise ValueError(f"got {len(keys)} ids for {size} items of the {name} run.")
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) != size:
        twice = next(key for row, key in enumerate(keys) if rows[key] != row)
        raise DataError(f"the {name} run lists the test item '{twice}' more than once")
    return rows


def _shared(first: dict[Any, int], second: dict[Any, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    keys = [key for key in first if key in second]
    return np.array([first[key] for key in keys], np.int64), np.array([second[key] for key in keys], np.int64)
