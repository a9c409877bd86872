"""Streams of batches that are pure functions of (seed, epoch, index).

A stream has no state: any batch of any epoch can be asked for at any time, in any process, and is always the same. So a
resumed run needs a cursor of two numbers, worker processes change nothing, and every rank computes its own part.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.errors import DataError
from kontrast.randomness import numpy_rng
from kontrast.training.samplers import Indices, Sampler

Collate = Callable[[NDArray[np.int64], np.random.Generator], Any]


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of each global batch that one process computes.

    Args:
        rank: this process, from 0 to ``world - 1``.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"a shard needs 0 <= rank < world, got rank={self.rank} and world={self.world}")

    def take(self, rows: Indices) -> Indices:
        """This rank's rows: contiguous, so that the ranks' rows joined in order of rank are the global batch.

        Sizes differ by at most one row; the first ranks have the larger ones.
        """
        size, larger = divmod(len(rows), self.world)
        start = self.rank * size + min(self.rank, larger)
        return rows[start : start + size + (self.rank < larger)]


@runtime_checkable
class Batches(Protocol):
    """A stream of batches. A `fingerprint` method, if there is one, tells a resumed run that the data are the same."""

    def count(self, epoch: int) -> int:
        """Number of global batches of an epoch."""
        ...

    def get(self, epoch: int, index: int, shard: Shard = Shard()) -> Any:
        """The part of global batch `index` of `epoch` that `shard` computes: CPU tensors in a dict, tuple or dataclass.

        Raises:
            IndexError: if `index` is not in [0, count(epoch)).
        """
        ...


class IndexedBatches:
    """Batches of rows of a data set: a sampler says which rows, `collate` makes a batch of them.

    Args:
        sampler: order and grouping of rows.
        collate: makes the batch of some rows, an int64 array of shape (rows,). Augmentations draw from the generator
            that comes with it, which depends on (seed, epoch, index, rank) alone. (Python's, NumPy's and torch's global
            generators are seeded from the same keys during training, for the sake of libraries that draw from them.)
        seed: seed of the generator.
        data: text that identifies the data, such as a content hash; a run is resumed only with the same.
    """

    def __init__(self, sampler: Sampler, collate: Collate, *, seed: int, data: str = "") -> None:
        self.sampler = sampler
        self.collate = collate
        self.seed = seed
        self.data = data
        self._orders: OrderedDict[int, Sequence[Indices]] = OrderedDict()

    def count(self, epoch: int) -> int:
        """Number of global batches of an epoch."""
        return self.sampler.count(epoch)

    def rows(self, epoch: int, index: int, shard: Shard = Shard()) -> Indices:
        """The rows of `shard` in a global batch.

        Raises:
            IndexError: if `index` is not in [0, count(epoch)).
            DataError: if the global batch has fewer rows than there are processes.
        """
        order = self._order(epoch)
        if not 0 <= index < len(order):
            raise IndexError(f"epoch {epoch} has {len(order)} batches, batch {index} was asked for")
        rows = shard.take(order[index])
        if len(rows) == 0:
            raise DataError(
                f"batch {index} of epoch {epoch} has {len(order[index])} rows for {shard.world} processes",
                mend="use fewer devices, another batch size, or drop the last batch",
            )
        return rows

    def smallest(self, epoch: int) -> int:
        """Rows of the smallest global batch of an epoch: as many processes can share the epoch."""
        return min(len(rows) for rows in self._order(epoch))

    def _order(self, epoch: int) -> Sequence[Indices]:
        if epoch not in self._orders:
            self._orders[epoch] = self.sampler.batches(epoch)
            # Workers prefetch across the end of an epoch, so two epochs are in use at a time.
            while len(self._orders) > 2:
                self._orders.popitem(last=False)
        return self._orders[epoch]

    def get(self, epoch: int, index: int, shard: Shard = Shard()) -> Any:
        """The part of a global batch that `shard` computes; raises what `rows` raises."""
        rows = self.rows(epoch, index, shard)
        return self.collate(rows, numpy_rng(self.seed, "batch", epoch, index, shard.rank))

    def fingerprint(self) -> str:
        """Text that is equal for equal samplers, seeds and data."""
        return f"{self.sampler.fingerprint()} seed={self.seed} data={self.data}"


def to_device(batch: Any, device: torch.device | str) -> Any:
    """`batch` with its tensors on `device`; mappings, sequences and dataclasses (also frozen ones) keep their type.

    Other values stay as they are. An object with a ``to`` method, such as a tokenizer's encoding, is asked itself.
    """
    if isinstance(batch, torch.Tensor):
        # From pinned memory the copy overlaps with computing; elsewhere the flag has no effect.
        return batch.to(device, non_blocking=True)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = {
            field.name: to_device(getattr(batch, field.name), device)
            for field in dataclasses.fields(batch)
            if field.init
        }
        return dataclasses.replace(batch, **moved)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    return batch
