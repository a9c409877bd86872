"""Which rows share a batch, as pure functions of (seed, epoch).

Every sampler here computes a whole epoch with array operations; none loops over rows. ``count(epoch)`` equals the
number of batches that ``batches(epoch)`` returns: ranks that disagree about it would wait for each other forever.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

Indices = NDArray[np.int64]


class Sampler(ABC):
    """Base of all samplers."""

    @abstractmethod
    def count(self, epoch: int) -> int:
        """Number of batches of an epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch, each an int64 array of row numbers."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Text that is equal for samplers that yield equal batches."""


class _Batched(Sampler):
    """What samplers of `rows` rows in batches of `batch_size` have in common."""

    def __init__(self, rows: int, batch_size: int, *, seed: int = 0, drop_last: bool = False) -> None:
        if rows < 1:
            raise DataError(f"a sampler needs at least one row, got {rows}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if drop_last and rows < batch_size:
            raise DataError(
                f"{rows} rows do not fill one batch of {batch_size}, and the last batch is dropped",
                mend="use a smaller batch size or keep the last batch",
            )
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last

    def count(self, epoch: int) -> int:
        """Number of batches of an epoch; the same in every epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def fingerprint(self) -> str:
        """Kind, sizes, seed and the arrays that decide the batches, hashed."""
        return (
            f"{type(self).__name__} rows={self.rows} batch_size={self.batch_size} seed={self.seed} "
            f"drop_last={self.drop_last}"
        )

    def _split(self, order: Indices) -> list[Indices]:
        """`order` in batches of `batch_size`, the last one shorter or dropped."""
        cuts = np.arange(1, self.count(0) + (self.drop_last and len(order) % self.batch_size > 0)) * self.batch_size
        return np.split(order, cuts)[: self.count(0)]


class OrderedSampler(_Batched):
    """The rows in their own order, the same in every epoch.

    Args:
        rows: number of rows.
        batch_size: rows of a batch.
        drop_last: leave out a last batch that is not full.
    """

    def batches(self, epoch: int) -> Sequence[Indices]:
        """Rows 0, 1, 2, ... in batches."""
        return self._split(np.arange(self.rows, dtype=np.int64))


class ShuffledSampler(_Batched):
    """The rows in a new random order each epoch, every row once.

    Args:
        rows: number of rows.
        batch_size: rows of a batch.
        seed: seed of the order.
        drop_last: leave out a last batch that is not full; which rows it holds changes with the epoch.
    """

    def batches(self, epoch: int) -> Sequence[Indices]:
        """A random permutation in batches."""
        return self._split(numpy_rng(self.seed, "order", epoch).permutation(self.rows).astype(np.int64, copy=False))


class GroupedSampler(_Batched):
    """Random batches in which rows of one group do not meet.

    Two rows with the same answer, patient or song are false negatives of each other. They are dealt out: rows are laid
    in a line, group by group in random order, and row p goes to batch p modulo the number of batches. Rows of a group
    are neighbours in the line, so they meet only if the group has more rows than there are batches, and then as rarely
    as that number of batches allows.

    Batch sizes differ by at most one row instead of one last batch taking what is left.

    Args:
        groups: (rows,) group of each row: integers or strings.
        batch_size: largest size of a batch.
        seed: seed of the order.
        drop_last: use ``rows // batch_size`` full batches; the rows left out change with the epoch.
        surplus: what becomes of a group with more rows than there are batches: "share" lets some of its rows meet;
            "rest" leaves its surplus rows, others in each epoch, out of the epoch, so that no two ever meet and
            batches are smaller.
    """

    def __init__(
        self,
        groups: ArrayLike,
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
        surplus: Literal["share", "rest"] = "share",
    ) -> None:
        self.groups = _codes(groups, "groups")
        super().__init__(len(self.groups), batch_size, seed=seed, drop_last=drop_last)
        self.surplus = surplus

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch; see the class for how rows are dealt out."""
        rng = numpy_rng(self.seed, "order", epoch)
        count = self.count(epoch)
        order = rng.permutation(self.rows).astype(np.int64, copy=False)
        if self.surplus == "rest":
            order = order[_occurrence(self.groups[order]) < count]
        if self.drop_last:
            order = order[: count * self.batch_size]
        places = rng.permutation(int(self.groups.max()) + 1)
        order = order[np.argsort(places[self.groups[order]], kind="stable")]
        # Row p goes to batch p modulo count: a stable sort by that number lays the batches one after another.
        batch_of = np.arange(len(order)) % count
        sizes = np.bincount(batch_of, minlength=count)
        dealt = np.split(order[np.argsort(batch_of, kind="stable")], np.cumsum(sizes)[:-1])
        return [dealt[index] for index in rng.permutation(count)]

    def fingerprint(self) -> str:
        """Kind, sizes, seed and a hash of the groups."""
        return f"{super().fingerprint()} surplus={self.surplus} groups={_digest(self.groups)}"


class BucketedSampler(_Batched):
    """Random batches of rows of similar length, in random order; padding stays small.

    Rows are shuffled, cut into stretches of `spread` batches, and sorted by length within a stretch only, so that who
    meets whom changes with the epoch.

    Args:
        lengths: (rows,) length of each row, such as its number of tokens.
        batch_size: rows of a batch.
        seed: seed of the order.
        drop_last: leave out a last batch that is not full; which rows it holds changes with the epoch.
        spread: number of batches in a stretch; more gives less padding and less mixing.
    """

    def __init__(
        self, lengths: ArrayLike, batch_size: int, *, seed: int = 0, drop_last: bool = False, spread: int = 50
    ) -> None:
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1:
            raise ValueError(f"lengths must have shape (rows,), got {self.lengths.shape}")
        if spread < 1:
            raise ValueError(f"spread must be at least 1, got {spread}")
        super().__init__(len(self.lengths), batch_size, seed=seed, drop_last=drop_last)
        self.spread = spread

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch; see the class for how rows are grouped."""
        rng = numpy_rng(self.seed, "order", epoch)
        order = rng.permutation(self.rows).astype(np.int64, copy=False)
        if self.drop_last:
            order = order[: self.count(epoch) * self.batch_size]
        stretch = np.arange(len(order)) // (self.batch_size * self.spread)
        batches = self._split(order[np.lexsort((self.lengths[order], stretch))])
        return [batches[index] for index in rng.permutation(len(batches))]

    def fingerprint(self) -> str:
        """Kind, sizes, seed and a hash of the lengths."""
        return f"{super().fingerprint()} spread={self.spread} lengths={_digest(self.lengths)}"


class BalancedSampler(Sampler):
    """Batches of some classes with equally many rows each, for objectives whose positives share a class.

    Classes are dealt from a shuffled deck, reshuffled when too few are left, so classes take turns whatever their size
    and are distinct within a batch. The rows of a class are dealt likewise. An epoch has about as many rows as the data
    set: rows of rare classes come several times in it, and not all rows of frequent classes come. A class with fewer
    than `rows_per_class` rows repeats rows within a batch.

    Args:
        labels: (rows,) class of each row: integers or strings.
        classes_per_batch: distinct classes in a batch; at most the number of classes.
        rows_per_class: rows of each.
        seed: seed of the order.
    """

    def __init__(self, labels: ArrayLike, classes_per_batch: int, rows_per_class: int, *, seed: int = 0) -> None:
        self.labels = _codes(labels, "labels")
        if len(self.labels) == 0:
            raise DataError("a sampler needs at least one row, got 0")
        classes = int(self.labels.max()) + 1
        if rows_per_class < 1:
            raise ValueError(f"rows_per_class must be at least 1, got {rows_per_class}")
        if not 1 <= classes_per_batch <= classes:
            raise DataError(
                f"a batch of {classes_per_batch} distinct classes was asked for, the data have {classes}",
                mend="lower classes_per_batch",
            )
        self.classes_per_batch = classes_per_batch
        self.rows_per_class = rows_per_class
        self.seed = seed
        self._sizes = np.bincount(self.labels)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)[:-1]))

    def count(self, epoch: int) -> int:
        """Number of batches of an epoch; the same in every epoch."""
        return max(1, len(self.labels) // (self.classes_per_batch * self.rows_per_class))

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch, each with rows in random order."""
        rng = numpy_rng(self.seed, "order", epoch)
        count, classes = self.count(epoch), len(self._sizes)
        per_deck = classes // self.classes_per_batch
        decks = rng.permuted(np.tile(np.arange(classes), (-(-count // per_deck), 1)), axis=1)
        chosen = decks[:, : per_deck * self.classes_per_batch].reshape(-1, self.classes_per_batch)[:count].reshape(-1)
        # The rows of class c, shuffled, lie at starts[c] .. starts[c] + sizes[c]; its n-th turn takes the n-th handful.
        shuffled = rng.permutation(len(self.labels)).astype(np.int64, copy=False)
        by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        turn = _occurrence(chosen)[:, None] * self.rows_per_class + np.arange(self.rows_per_class)
        rows = by_class[self._starts[chosen][:, None] + turn % self._sizes[chosen][:, None]]
        mixed = rng.permuted(rows.reshape(count, -1), axis=1)
        return list(mixed)

    def fingerprint(self) -> str:
        """Kind, sizes, seed and a hash of the labels."""
        return (
            f"{type(self).__name__} classes_per_batch={self.classes_per_batch} rows_per_class={self.rows_per_class} "
            f"seed={self.seed} labels={_digest(self.labels)}"
        )


def _codes(values: ArrayLike, what: str) -> Indices:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{what} must have shape (rows,), got {array.shape}")
    return np.unique(array, return_inverse=True)[1].astype(np.int64, copy=False)


def _occurrence(values: Indices) -> Indices:
    """For each element, how many equal ones come before it: [7, 5, 7, 7] gives [0, 0, 1, 2]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    start = np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    counts = np.empty(len(values), dtype=np.int64)
    counts[order] = np.arange(len(values)) - start
    return counts


def _digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
