"""What a view is: the same rows once more, changed at random in a way that should not change their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

BatchT = TypeVar("BatchT")


class View(Protocol[BatchT]):
    """A frozen configuration that, called, augments the rows of a batch.

    It draws from the given generator alone, so that with ``numpy_rng(seed, "view", epoch, index)`` a view is a pure
    function of (seed, epoch, index). The batch that comes in is never written to.
    """

    def __call__(self, batch: BatchT, rng: np.random.Generator, /) -> BatchT:
        """The augmented batch: the same number of rows, in the same order."""
        ...


def compose(views: Sequence[View[BatchT]]) -> View[BatchT]:
    """One view that applies several in order."""

    def composed(batch: BatchT, rng: np.random.Generator, /) -> BatchT:
        for view in views:
            batch = view(batch, rng)
        return batch

    return composed


def check_share(name: str, value: float, *, below: float | None = None) -> None:
    """Raises ValueError unless `value` is in [0, 1], or in [0, `below`) if that is given."""
    high = 1.0 if below is None else below
    if not 0 <= value <= high or (below is not None and value == below):
        bound = f"[0, {high:g}" + (")" if below is not None else "]")
        raise ValueError(f"{name} must be in {bound}, got {value}")
