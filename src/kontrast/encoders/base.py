"""What every encoder offers, whatever it reads, and the one loop that runs an encoder over many rows.

An encoder turns cells into vectors in three steps, so that the costly part is done once and the rest is a pure function
of the chosen rows:

    rows = encoder.prepare(cells)        # once: tokenise, stack, decode; stays on the CPU and can be cached
    batch = encoder.collate(rows[index]) # per step: tensors of one batch
    vectors = encoder(batch)             # float32 (n, dim)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kontrast import progress
from kontrast.data.tables import ColumnKind
from kontrast.randomness import derive_seed

Batch = dict[str, Tensor]
"""Tensors of one batch, by name; the first axis of the encoder's result has one entry per row."""


class Rows(Protocol):
    """Prepared rows: a length, and selection by an array of positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: npt.NDArray[np.int64], /) -> Any: ...


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
    on the others. The encoder's training mode is restored.

    Args:
        encoder: any encoder.
        rows: what `encoder.prepare` gave.
        batch_size: rows per forward pass.
        head: applied to the vectors, such as a projection head.
        describe: words for the progress display, such as "embedding queries"; None shows nothing.

    Returns:
        float32 (n, dim) on the CPU.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    modules = [encoder, *([head] if head is not None else [])]
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        order = np.argsort(-encoder.lengths(rows), kind="stable")
        result: npt.NDArray[np.float32] | None = None
        with progress.task(describe, len(order)) if describe is not None else nullcontext() as work:
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                vectors = encoder(to_device(encoder.collate(rows[chosen]), encoder.device))
                if head is not None:
                    vectors = head(vectors)
                if result is None:
                    result = np.empty((len(order), vectors.shape[1]), dtype=np.float32)
                result[chosen] = vectors.float().cpu().numpy()
                if work is not None:
                    work.advance(len(chosen))
    finally:
        for module, training in zip(modules, was_training):
            module.train(training)
    return result if result is not None else np.empty((0, getattr(head, "dim", encoder.dim)), dtype=np.float32)
