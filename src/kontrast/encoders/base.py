"""What every encoder offers, whatever it reads, and the one loop that runs an encoder over many rows.

An encoder turns cells into vectors in three steps, so that the costly part is done once and the rest is a pure function
of the chosen rows:

    rows = encoder.prepare(cells)        # once: tokenise, stack, decode; stays on the CPU and can be cached
    batch = encoder.collate(rows[index]) # per step: tensors of one batch
    vectors = encoder(batch)             # float32 (n, dim)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from kontrast import progress
from kontrast.data.tables import ColumnKind
from kontrast.encoders.inference import current
from kontrast.ops.threads import ordered_fold
from kontrast.randomness import derive_seed

Batch = dict[str, Tensor]
"""Tensors of one batch, by name; the first axis of the encoder's result has one entry per row."""


class Rows(Protocol):
    """Prepared rows: a length, and selection by an array of positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: npt.NDArray[np.int64], /) -> Any: ...


@dataclass(frozen=True)
class Runner:
    """One way to run an encoder over batches of prepared rows.

    Attributes:
        compute: rows to vectors (n, dim), row i from row i alone.
        cost: most units of `Encoder.lengths` in a batch; None: any number.
        threads: batches that may be computed at once, each by a thread of its own.
    """

    compute: Callable[[Any], Tensor]
    cost: int | None = None
    threads: int = 1


class Encoder(nn.Module, ABC):
    """Base of all encoders.

    Attributes:
        dim: length of the vectors.
        reads: the kind of column it reads.
    """

    reads: ClassVar[ColumnKind]
    dim: int

    @abstractmethod
    def prepare(self, cells: Any) -> Any:
        """Rows ready for `collate`, from the n cells of a column; indexable by an array of positions."""

    @abstractmethod
    def collate(self, rows: Any) -> Batch:
        """The tensors of one batch, on the CPU, from prepared rows."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim), float32, row i from row i alone."""

    @abstractmethod
    def structure(self) -> dict[str, Any]:
        """A JSON-able description from which `kontrast.encoders.build_encoder` makes the same module, weights apart.

        With the module's `state_dict` it is all that a saved model needs: no training texts, no pretrained package.
        """

    def lengths(self, rows: Any) -> npt.NDArray[np.int64]:
        """The cost of each row, to put rows of like cost into one batch; (n,)."""
        return np.ones(len(rows), dtype=np.int64)

    def runner(self) -> Runner:
        """How prepared rows become vectors in evaluation mode; a subclass may have a faster way than `forward`.

        It is made for one pass over many rows and must give the vectors of ``self(self.collate(rows))``.
        """
        return Runner(lambda rows: self(to_device(self.collate(rows), self.device)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


@contextmanager
def seeded(*keys: int | str) -> Iterator[None]:
    """Weights drawn inside depend on `keys` alone; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*keys))
        yield


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """The batch on `device`."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


@torch.inference_mode()
def encode_rows(
    encoder: Encoder,
    rows: Rows,
    *,
    batch_size: int = 256,
    head: nn.Module | None = None,
    describe: str | None = None,
) -> npt.NDArray[np.float32]:
    """Vectors of prepared rows, in evaluation mode.

    Rows of like length share a batch (less padding); the result is in the order of `rows`, and no row's vector depends
    on the others. The encoder's training mode is restored. Precision, and whether several processes share the rows, are
    set by `kontrast.encoders.inference`.

    Args:
        encoder: any encoder.
        rows: what `encoder.prepare` gave.
        batch_size: most rows per forward pass.
        head: applied to the vectors, such as a projection head.
        describe: words for the progress display, such as "embedding queries"; None shows nothing.

    Returns:
        float32 (n, dim) on the CPU.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not len(rows):
        return np.empty((0, getattr(head, "dim", encoder.dim)), dtype=np.float32)
    modules = [encoder, *([head] if head is not None else [])]
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        runner = encoder.runner()
        batches = _batches(encoder.lengths(rows), batch_size, runner.cost)
        rank, ranks = current().share
        # Whole batches are shared out, so that the numbers are those of one process to the last bit.
        mine = batches[rank::ranks] or batches[:1]
        result: npt.NDArray[np.float32] | None = None

        def compute(number: int) -> npt.NDArray[np.float32]:
            vectors = runner.compute(rows[mine[number]])
            return (head(vectors) if head is not None else vectors).float().cpu().numpy()

        def keep(number: int, vectors: npt.NDArray[np.float32]) -> None:
            nonlocal result
            if result is None:
                result = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)
            result[mine[number]] = vectors
            if work is not None:
                work.advance(len(mine[number]))

        total = sum(map(len, mine))
        with progress.task(describe, total) if describe is not None else nullcontext() as work:
            if runner.threads > 1:
                ordered_fold(len(mine), lambda: compute, keep, threads=runner.threads)
            else:
                for number in range(len(mine)):
                    keep(number, compute(number))
        assert result is not None
        return result if ranks == 1 else _joined(result, np.concatenate([*batches[rank::ranks], _NONE]))
    finally:
        for module, training in zip(modules, was_training):
            module.train(training)


_NONE = np.empty(0, dtype=np.int64)


def _batches(costs: npt.NDArray[np.int64], most_rows: int, most_cost: int | None) -> list[npt.NDArray[np.int64]]:
    """Positions of rows by falling cost, cut where a batch is full; a row above `most_cost` is a batch of its own."""
    order = np.argsort(-costs, kind="stable")
    if most_cost is None:
        return [order[start : start + most_rows] for start in range(0, len(order), most_rows)]
    batches, start = [], 0
    while start < len(order):
        sums = np.cumsum(costs[order[start : start + most_rows]])
        size = max(1, int(np.searchsorted(sums, most_cost, side="right")))
        batches.append(order[start : start + size])
        start += size
    return batches


def _joined(vectors: npt.NDArray[np.float32], own: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The rows of all ranks in one array: each is zero in all ranks but its own, so that the sums are exact."""
    whole = torch.zeros(vectors.shape, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    whole[own] = torch.from_numpy(vectors[own]).to(whole.device)
    dist.all_reduce(whole)
    joined: npt.NDArray[np.float32] = whole.cpu().numpy()
    return joined
