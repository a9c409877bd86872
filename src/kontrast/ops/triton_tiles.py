"""Tiles of logits by Triton kernels: the same statistics and weights as the tiled path's, computed on the GPU's chip.

A tile here is large, thousands of rows and columns, and one launch works on all of it: in the forward pass nothing of
it reaches memory but sums per block, in the backward pass its W = dL/dS does, in the rows' own precision, to be
multiplied out by the two products that cuBLAS does best. One tile of W is held at a time.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kontrast.ops.masks import Mask, Tile
from kontrast.ops.tiles import TiledLogits, TileJob

# How many entries of a row a mask may leave out one by one (its own, its positives), each of which costs a comparison
# per logit. Longer lists take the tiled path.
SLOTS = 8

# How many multipliers of the logits a kernel takes at once: one, and two for hardness weights.
MULTIPLIERS = 2

# Triton's interpreter, which runs kernels on the CPU for tests, was asked for.
_INTERPRETED = "TRITON_INTERPRET"


@dataclass(frozen=True)
class Block:
    """The block of logits of one program, the piece of the width it multiplies at once, and how it is pipelined."""

    rows: int
    columns: int
    width: int
    warps: int
    stages: int


# Chosen by kind of rows and fixed, not timed at run time: a block's size decides the order of sums, and the same seed
# is to give the same bits in every run. Compiled for compute capability 8.0 and 9.0 they spill no registers with one
# multiplier of the logits, and compiled for 8.0 they fit into the shared memory of 8.6. Interpreted blocks are small so
# that small tests have several.
BLOCKS = {
    "bfloat16": Block(128, 128, 64, 8, 3),
    "tf32": Block(128, 128, 32, 8, 3),
    "tf32x3": Block(128, 64, 32, 8, 2),
    "ieee": Block(64, 64, 16, 8, 2),
    "interpreted": Block(16, 16, 16, 4, 1),
}


@functools.cache
def missing() -> str | None:
    """What keeps the kernels from running on this machine's GPU, in words; None if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton; it comes with torch's CUDA builds on Linux)"
    if os.environ.get(_INTERPRETED) == "1":
        return None
    if not torch.cuda.is_available():
        return "torch sees no GPU (for tests on the CPU set TRITON_INTERPRET=1 before Python starts)"
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    if not any(name and shutil.which(name) for name in compilers):
        return "Triton needs a C compiler to launch kernels, and none was found (install gcc or set CC)"
    return None


def runs_on(device: torch.device) -> bool:
    """Whether kernels run on tensors of this device: a GPU, or the CPU under Triton's interpreter."""
    return missing() is None and device.type == ("cpu" if os.environ.get(_INTERPRETED) == "1" else "cuda")


def has_kernel(q: Tensor, mask: Mask, multipliers: tuple[float, ...] = (1.0,)) -> bool:
    """Whether kernels cover rows of this type under this mask; the tiled path covers the rest."""
    return q.dtype == torch.float32 and len(multipliers) <= MULTIPLIERS and _most_entries(mask) <= SLOTS


def _most_entries(mask: Mask) -> int:
    listed = 0
    if mask.pairs is not None and len(mask.pairs[0]):
        listed = int(torch.bincount(mask.pairs[0]).max())
    return len(mask.diagonals) + listed


class TritonTiles:
    """Kernels over the tiles of one set of logits.

    Args:
        logits: rows in the order of the tiles; its job says products and settings.
        job: the same.
    """

    def __init__(self, logits: TiledLogits, job: TileJob) -> None:
        from kontrast.ops import triton_kernels

        self._kernels = triton_kernels
        plan, where = logits.plan, logits.device
        self._q, self._k = (logits.q_half, logits.k_half) if logits.half else (logits.q, logits.k)
        self._weight_type = self._q.dtype
        if where.type == "cpu":
            # The interpreter multiplies bfloat16 as the integers it keeps it in; rounded rows are exact in float32.
            self._q, self._k = self._q.float(), self._k.float()
        self._n, self._m = len(self._q), len(self._k)
        empty = torch.zeros(1, dtype=torch.int32, device=where)
        self._codes = (empty, empty)
        if plan.codes:
            self._codes = torch.stack([row for row, _ in plan.codes]), torch.stack([column for _, column in plan.codes])
        self._key_count, self._within = len(plan.codes), plan.within
        self._slots = _slots(*plan.entries, self._n)
        kind = "bfloat16" if logits.half else job.settings.float32
        self._block = BLOCKS["interpreted" if where.type == "cpu" else kind]
        self._precision = "ieee" if logits.half else job.settings.float32
        self._device = where
        height, width = plan.tile
        self._out: Tensor | None = None
        self._out_size = height * width

    def logsumexp(
        self, tile: Tile, multipliers: tuple[float, ...], *, rows: bool, columns: bool
    ) -> list[tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]]:
        """For each multiplier the row sums relative to their maxima, the maxima, and the same of the columns."""
        (height, width), (down, across) = tile.shape, self._blocks(tile)
        count = len(multipliers)
        row = self._new(count, across, height) if rows else None
        column = self._new(count, down, width) if columns else None
        self._launch(
            self._kernels.logsumexp_parts, tile,
            self._or_empty(row), self._or_empty(column), *_two(multipliers),
            COUNT=count, ROWS=rows, COLUMNS=columns,
        )  # fmt: skip
        row_sums = [(None, None)] * count if row is None else [_joined(part) for part in row]
        column_sums = [(None, None)] * count if column is None else [_joined(part) for part in column]
        return [(*one, *other) for one, other in zip(row_sums, column_sums)]

    def logsumexp_weights(
        self,
        tile: Tile,
        multipliers: tuple[float, ...],
        row: tuple[Tensor, Tensor] | None,
        column: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """W of a tile from (logarithms base 2, gradients times multipliers) of the rows and of the columns."""
        out = self._weights(tile)
        nothing = (self._q, self._q)
        self._launch(
            self._kernels.logsumexp_weights, tile,
            *(row or nothing), *(column or nothing), out, *_two(multipliers),
            COUNT=len(multipliers), ROWS=row is not None, COLUMNS=column is not None,
        )  # fmt: skip
        return out

    def softplus(self, tile: Tile, offset: Tensor) -> Tensor:
        """Σⱼ softplus(Sᵢⱼ + bᵢ) over the tile's columns."""
        out = self._new(self._blocks(tile)[1], tile.shape[0])
        self._launch(self._kernels.softplus_parts, tile, offset, out)
        return out.sum(0)

    def softplus_weights(self, tile: Tile, offset: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """W of a tile and its sums over the columns."""
        sums, out = self._new(self._blocks(tile)[1], tile.shape[0]), self._weights(tile)
        self._launch(self._kernels.softplus_weights, tile, offset, grad, sums, out)
        return out, sums.sum(0)

    def _blocks(self, tile: Tile) -> tuple[int, int]:
        height, width = tile.shape
        return -(-height // self._block.rows), -(-width // self._block.columns)

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def _or_empty(self, x: Tensor | None) -> Tensor:
        return self._new(1) if x is None else x

    def _weights(self, tile: Tile) -> Tensor:
        if self._out is None:
            self._out = torch.empty(self._out_size, dtype=self._weight_type, device=self._device)
        height, width = tile.shape
        return self._out[: height * width].view(height, width)

    def _launch(self, kernel: Any, tile: Tile, *arguments: Any, **constants: Any) -> None:
        down, across = self._blocks(tile)
        block = self._block
        keys = self._key_count if tile.compare else 0  # codes that differ everywhere need no comparison
        with torch.autocast(self._device.type, enabled=False), _on(self._device):
            kernel[(down * across,)](
                self._q, self._k, *self._codes, self._slots, *arguments,
                tile.r0, tile.r1, tile.c0, tile.c1, self._n, self._m, self._q.shape[1],
                **constants, KEYS=keys, WITHIN=self._within, SLOTS=len(self._slots) if tile.entries is not None else 0,
                BLOCK_ROWS=block.rows, BLOCK_COLUMNS=block.columns, BLOCK_WIDTH=block.width, PRECISION=self._precision,
                num_warps=block.warps, num_stages=block.stages,
            )  # fmt: skip


def _on(device: torch.device) -> Any:
    # Triton launches on the current device, which need not be the tensors'.
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _two(multipliers: tuple[float, ...]) -> tuple[float, float]:
    return multipliers[0], multipliers[-1]


def _joined(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms base 2 of sums, (blocks, length), as the sum of all relative to 2 to the power of the largest."""
    top = parts.amax(0).nan_to_num(nan=math.nan, posinf=math.inf, neginf=torch.finfo(parts.dtype).min / 4)
    return torch.exp2(parts - top).sum(0), top


def _slots(rows: Tensor, columns: Tensor, n: int) -> Tensor:
    """(p, n) columns that are left out of each row, −1 where there are fewer than p of them."""
    count = torch.bincount(rows, minlength=n) if len(rows) else rows
    most = int(count.max()) if len(count) else 0
    out = torch.full((max(most, 1), n), -1, dtype=torch.int32, device=rows.device)
    if most:
        order = torch.argsort(rows, stable=True)
        rows, columns = rows[order], columns[order]
        place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
        out[place, rows] = columns.int()
    return out
