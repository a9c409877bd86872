"""Tiles of logits: the products that every streamed statistic and its gradient are made of."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kontrast.ops.masks import Mask, Tile, TilePlan
from kontrast.ops.settings import EngineSettings, Products
from kontrast.ops.threads import ordered_fold

LOG2E = 1 / math.log(2)
LN2 = math.log(2)


@dataclass(frozen=True)
class TileJob:
    """What a streamed function needs to know besides its two matrices."""

    mask: Mask
    products: Products
    settings: EngineSettings
    symmetric: bool = False
    kernels: bool = False  # whether Triton kernels compute the tiles


class TiledLogits:
    """The logits S = Q Kᵀ in base 2 (S·log₂e, so that exp2, the fast one, gives exp(S)), one tile at a time.

    Args:
        q: (n, d) float32 or float64.
        k: (m, d), same type.
        job: mask, products and settings.
    """

    def __init__(self, q: Tensor, k: Tensor, job: TileJob) -> None:
        where = q.device
        self.plan = TilePlan(
            job.mask,
            len(q),
            len(k),
            job.settings.tile_of(len(q), len(k), where.type),
            symmetric=job.symmetric,
            least=job.settings.least_tile(where.type),
            device=where,
        )
        self.threads = job.settings.worker_count()
        # A GPU has its own parallelism, and its work belongs on the caller's stream, which other threads do not see.
        self.inline = job.kernels or where.type != "cpu"
        self.device = where
        self.q = _sorted(q, self.plan.row_order)
        self.k = self.q if job.symmetric else _sorted(k, self.plan.column_order)
        self.dtype = q.dtype
        self.half = job.products == "bf16" and q.dtype == torch.float32
        self.centre: Tensor | None = None
        if self.half and job.kernels:
            self.q_half = self.q.bfloat16()  # the kernels' logits are float32: they need no centre
            self.k_half = self.q_half if job.symmetric else self.k.bfloat16()
        elif self.half:
            # A product comes back as bf16, whose error grows with its size: what is rounded is the distance from
            # the row's mean logit, which is exact for equal rows and small for most. It must be the same in the
            # backward pass: a gradient of just these rounded logits has no error of its own.
            with torch.autocast(where.type, enabled=False):  # a backward pass may run where its caller has it on
                self.centre = (self.q @ self.k.mean(0) * LOG2E).bfloat16()
            self.q_half = self.q.bfloat16()
            self.k_half = self.q_half if job.symmetric else self.k.bfloat16()

    def run(self, worker: Callable[[], Callable[[Tile], object]], fold: Callable[[Tile, object], None]) -> None:
        """Computes every tile, on the CPU in worker threads, and folds the results in the tiles' order."""
        tiles = self.plan.tiles
        if self.inline:
            compute = worker()
            for tile in tiles:
                fold(tile, compute(tile))
            return

        def start() -> Callable[[int], object]:
            compute = worker()
            return lambda index: compute(tiles[index])

        ordered_fold(len(tiles), start, lambda index, result: fold(tiles[index], result), threads=self.threads)

    def scratch(self) -> TileScratch:
        """Buffers of one thread."""
        return TileScratch(self)

    def grad_parts(self) -> GradParts:
        """Recycled buffers for the tiles' gradients."""
        return GradParts(self)

    def restore_rows(self, x: Tensor) -> Tensor:
        """Undoes the sorting of the rows along dimension 0."""
        return _restored(x, self.plan.row_order)

    def restore_columns(self, x: Tensor) -> Tensor:
        """Undoes the sorting of the columns along dimension 0."""
        return _restored(x, self.plan.column_order)

    def sort_rows(self, x: Tensor) -> Tensor:
        """A per-row vector in the order of the tiles."""
        return _sorted(x, self.plan.row_order)

    def sort_columns(self, x: Tensor) -> Tensor:
        """A per-column vector in the order of the tiles."""
        return _sorted(x, self.plan.column_order)


class TileScratch:
    """One thread's memory for a tile of logits, kept in the core's cache from tile to tile."""

    def __init__(self, logits: TiledLogits) -> None:
        self._logits = logits
        height, width = logits.plan.tile
        size, where = height * width, logits.device
        self._main = torch.empty(size, dtype=logits.dtype, device=where)
        self._side = torch.empty(size, dtype=logits.dtype, device=where)
        self._half = torch.empty(size if logits.half else 0, dtype=torch.bfloat16, device=where)
        self._bool = torch.empty(size if logits.plan.codes else 0, dtype=torch.bool, device=where)

    def side(self, tile: Tile) -> Tensor:
        """A second buffer of the tile's shape."""
        return _shaped(self._side, tile)

    def rounded(self, w: Tensor, tile: Tile) -> Tensor:
        """W in the type in which it is multiplied out."""
        return _shaped(self._half, tile).copy_(w) if self._logits.half else w

    def logits(self, tile: Tile, out: Tensor | None = None) -> Tensor:
        """The tile's logits in base 2, −inf where the mask leaves an entry out; in `out` or a buffer of this thread."""
        source = self._logits
        if out is None:
            out = _shaped(self._main, tile)
        rows, columns = slice(tile.r0, tile.r1), slice(tile.c0, tile.c1)
        if source.half:
            assert source.centre is not None
            half, centre = _shaped(self._half, tile), source.centre[rows, None]
            torch.addmm(centre, source.q_half[rows], source.k_half[columns].t(), beta=-1, alpha=LOG2E, out=half)
            out.copy_(half)
            out.add_(centre.float())
        else:
            torch.addmm(out, source.q[rows], source.k[columns].t(), beta=0, alpha=LOG2E, out=out)
        for key in tile.compare:
            row_codes, column_codes = source.plan.codes[key]
            compare = torch.ne if source.plan.within and key == 0 else torch.eq
            mask = compare(row_codes[rows, None], column_codes[None, columns], out=_shaped(self._bool, tile))
            out.masked_fill_(mask, -math.inf)
        if tile.entries is not None:
            out[tile.entries] = -math.inf
        return out


class GradParts:
    """dQ and dK from tiles of W = dL/dS: a matrix product per tile and side, added up in the tiles' order."""

    def __init__(self, logits: TiledLogits) -> None:
        self._logits = logits
        self._free: deque[Tensor] = deque()
        height, width = logits.plan.tile
        self._kind = torch.bfloat16 if logits.half else logits.dtype
        self._size = max(height, width) * logits.q.shape[1]

    def products(self, w: Tensor, tile: Tile, *, dq: bool, dk: bool) -> tuple[Tensor | None, Tensor | None]:
        """The tile's share of dQ (rows, d) and dK (columns, d) from W, which is of the rows' own type."""
        source = self._logits
        q, k = (source.q_half, source.k_half) if source.half else (source.q, source.k)
        rows = columns = None
        if dq:
            rows = torch.mm(w, k[tile.c0 : tile.c1], out=self._take(tile.r1 - tile.r0))
        if dk:
            columns = torch.mm(w.t(), q[tile.r0 : tile.r1], out=self._take(tile.c1 - tile.c0))
        return rows, columns

    def add(self, part: Tensor | None, total: Tensor | None, first: int) -> None:
        """Adds a part to rows first, first + 1, ... of a total and takes its memory back."""
        if part is not None and total is not None:
            total[first : first + len(part)].add_(part)
            self._free.append(part)

    def _take(self, length: int) -> Tensor:
        width = self._logits.q.shape[1]
        try:
            buffer = self._free.pop()
            storage = buffer.as_strided((self._size,), (1,), 0)
        except IndexError:
            storage = torch.empty(self._size, dtype=self._kind, device=self._logits.device)
        return storage[: length * width].view(length, width)


def _shaped(buffer: Tensor, tile: Tile) -> Tensor:
    height, width = tile.r1 - tile.r0, tile.c1 - tile.c0
    return buffer[: height * width].view(height, width)


def _sorted(x: Tensor, order: Tensor | None) -> Tensor:
    return x.contiguous() if order is None else x.index_select(0, order)


def _restored(x: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return x
    out = torch.empty_like(x)
    out[order] = x
    return out
