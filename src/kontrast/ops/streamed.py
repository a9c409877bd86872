"""Statistics of the logits S = Q Kᵀ, with gradients, in O((n + m) d) memory.

The forward pass runs over tiles of S and keeps one number per row and per column. The backward pass computes the tiles
again, turns each into W = dL/dS and multiplies it out: four matrix products in all where the dense way needs three and
an n × m memory. Statistics are sums over the entries that a `Mask` leaves in.

- `logsumexp_streamed`: log Σⱼ exp(β Sᵢⱼ) per row and log Σᵢ exp(β Sᵢⱼ) per column.
- `softplus_streamed`: Σⱼ log(1 + exp(Sᵢⱼ + bᵢ)) per row.

Both choose the dense path themselves where n·m is small, and on a GPU Triton kernels where there is one for the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kontrast.ops.masks import Mask, Tile
from kontrast.ops.settings import Products, current_settings
from kontrast.ops.tiles import LN2, LOG2E, TiledLogits, TileJob
from kontrast.ops.triton_tiles import TritonTiles, has_kernel, missing, runs_on

# Up to this many logits the dense path is taken: below it the tiles' fixed costs outweigh the memory they save.
DENSE_BELOW = 1 << 16

# The same on a GPU, where a step's fixed costs are launches: 4096 × 4096 logits are 64 MiB. Reasoned, not measured.
DENSE_BELOW_ON_GPU = 1 << 24

# A tile's row sums and their maxima, its column sums and theirs; sums are relative to the maxima, where there are any.
_Part: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]

# Up to this many logits their exponentials are kept for the backward pass (16 MiB in float32), which saves one product.
KEEP_BELOW = 1 << 22

# exp(x) and a sum of a million of them stay inside the floats' range for |x| up to this: no maximum is needed.
_SAFE = {torch.float32: 40.0, torch.float64: 300.0}


def logsumexp_streamed(
    q: Tensor,
    k: Tensor | None = None,
    *,
    mask: Mask | None = None,
    columns: bool = False,
    rows: bool = True,
    multipliers: tuple[float, ...] = (1.0,),
    products: Products = "fp32",
) -> tuple[Tensor | None, Tensor | None]:
    """log Σ exp(β S) over the rows, over the columns, or both from the same products.

    Args:
        q: (n, d) float32 or float64; fold the temperature into it (Q / T).
        k: (m, d). None means K = Q: S is symmetric and half of it is computed; the mask must be symmetric too.
        mask: entries to leave out.
        rows: whether to compute log Σⱼ.
        columns: whether to compute log Σᵢ.
        multipliers: the values of β, positive, r of them.
        products: "fp32", or "bf16" for bf16 matrix products with float32 sums.

    Returns:
        (r, n) for the rows or None, and (r, m) for the columns or None; −inf where no entry is left.

    Raises:
        ValueError: if the shapes or types of q and k do not fit.
    """
    mask = mask or Mask()
    _check(q, k)
    symmetric = k is None
    if symmetric:
        rows, columns = True, False
    other = q if k is None else k
    path = path_for(q, other, mask, multipliers)
    if path == "dense":
        return _logsumexp_dense(q, other, mask, rows, columns, multipliers)
    job = TileJob(mask, products, current_settings(), symmetric, kernels=path == "triton")
    row, column = _LogSumExp.apply(q, k, job, rows, columns, multipliers)  # type: ignore[no-untyped-call]
    return row if rows else None, column if columns else None


def softplus_streamed(
    q: Tensor, k: Tensor, offset: Tensor | None = None, *, mask: Mask | None = None, products: Products = "fp32"
) -> Tensor:
    """Σⱼ softplus(Sᵢⱼ + bᵢ) per row.

    Args:
        q: (n, d) float32 or float64; k: (m, d).
        offset: b, (n,), or None for 0; −inf gives 0 for that row.
        mask: entries to leave out.
        products: as in `logsumexp_streamed`.

    Returns:
        (n,); 0 where no entry is left.
    """
    mask = mask or Mask()
    _check(q, k)
    offset = q.new_zeros(len(q)) if offset is None else offset.to(q.dtype)
    path = path_for(q, k, mask)
    if path == "dense":
        return _softplus_dense(q, k, offset, mask)
    job = TileJob(mask, products, current_settings(), kernels=path == "triton")
    out: Tensor = _Softplus.apply(q, k, offset, job)  # type: ignore[no-untyped-call]
    return out


def path_for(
    q: Tensor, k: Tensor, mask: Mask, multipliers: tuple[float, ...] = (1.0,)
) -> Literal["dense", "tiled", "triton"]:
    """How the settings in force compute the logits of q (n, d) and k (m, d) under a mask.

    Raises:
        ValueError: if the settings ask for kernels where none can run.
    """
    path = current_settings().path
    if path == "triton" and not runs_on(q.device):
        reason = missing() or f"the rows are on {q.device}"
        raise ValueError(f"path='triton' cannot run here: {reason}; use path='auto'")
    if path == "dense" or not len(q) or not len(k):
        return "dense"
    if path == "auto":
        # Other accelerators may lack float64, which running sums are kept in.
        known = {"cpu": DENSE_BELOW, "cuda": DENSE_BELOW_ON_GPU}
        if len(q) * len(k) <= known.get(q.device.type, math.inf):
            return "dense"
        if q.device.type == "cpu":
            return "tiled"
    return "triton" if path != "tiled" and runs_on(q.device) and has_kernel(q, mask, multipliers) else "tiled"


def _check(q: Tensor, k: Tensor | None) -> None:
    for name, x in (("q", q), ("k", k)):
        if x is not None and (x.dim() != 2 or x.dtype not in _SAFE):
            raise ValueError(f"{name} must be a float32 or float64 matrix, got {x.dtype} of shape {tuple(x.shape)}")
    if k is not None and (q.shape[1] != k.shape[1] or q.dtype != k.dtype):
        shapes = tuple(q.shape), tuple(k.shape)
        raise ValueError(f"q is {shapes[0]} {q.dtype} and k {shapes[1]} {k.dtype}: widths and types must agree")


def _bounded(q: Tensor, k: Tensor, multipliers: tuple[float, ...]) -> bool:
    bound = q.norm(dim=1).max() * k.norm(dim=1).max() * max(abs(beta) for beta in multipliers)
    return bool(bound <= _SAFE[q.dtype])


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor | None, job: TileJob, rows: bool, columns: bool, multipliers: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        other = q if k is None else k
        logits = TiledLogits(q, other, job)
        bounded = not job.kernels and _bounded(q, other, multipliers)
        count = len(multipliers)
        total = _Sums(count, len(q) if rows else 0, q), _Sums(count, len(other) if columns else 0, q)
        both_roles = job.symmetric
        keep = bounded and multipliers == (1.0,) and len(q) * len(other) <= KEEP_BELOW and any(ctx.needs_input_grad[:2])
        kept: dict[tuple[int, int], Tensor] = {}

        def wants_columns(tile: Tile) -> bool:
            return columns or (both_roles and tile.r0 != tile.c0)

        def worker() -> Callable[[Tile], list[_Part]]:
            if job.kernels:
                kernels = TritonTiles(logits, job)
                return lambda tile: kernels.logsumexp(tile, multipliers, rows=rows, columns=wants_columns(tile))
            scratch = logits.scratch()

            def compute(tile: Tile) -> list[_Part]:
                s = scratch.logits(tile, q.new_empty(tile.shape) if keep else None)
                if keep:
                    kept[tile.r0, tile.c0] = s  # which holds the exponentials in a moment
                want_columns = wants_columns(tile)
                parts = []
                for index, beta in enumerate(multipliers):
                    last = index == count - 1
                    if bounded:
                        parts.append(_plain_sums(s, beta, s if last else scratch.side(tile), rows, want_columns))
                    else:
                        parts.append(_shifted_sums(s, beta, scratch.side(tile), rows, want_columns))
                return parts

            return compute

        def fold(tile: Tile, parts: Any) -> None:
            for index, (row_sum, row_max, column_sum, column_max) in enumerate(parts):
                total[0].add(index, tile.r0, row_sum, row_max)
                total[0 if both_roles else 1].add(index, tile.c0, column_sum, column_max)

        logits.run(worker, fold)
        row, column = total[0].log(), total[1].log()
        ctx.save_for_backward(q, k, row, column)
        ctx.job, ctx.multipliers, ctx.bounded, ctx.kept = job, multipliers, bounded, kept
        ctx.set_materialize_grads(False)
        return (
            logits.restore_rows(row.t()).t() if rows else row,
            logits.restore_columns(column.t()).t() if columns else column,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, row_grad: Tensor | None, column_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, row, column = ctx.saved_tensors
        job: TileJob = ctx.job
        multipliers: tuple[float, ...] = ctx.multipliers
        logits = TiledLogits(q, q if k is None else k, job)
        symmetric = job.symmetric
        need_q = ctx.needs_input_grad[0]
        need_k = symmetric or ctx.needs_input_grad[1]
        if row_grad is not None:
            row_grad = logits.sort_rows(row_grad.t()).t() if row.shape[1] else None
        if symmetric:
            column_grad, column = row_grad, row
        elif column_grad is not None:
            column_grad = logits.sort_columns(column_grad.t()).t() if column.shape[1] else None
        dq = torch.zeros_like(logits.q) if need_q else None
        dk = dq if symmetric else (torch.zeros_like(logits.k) if need_k else None)
        weights = _Weights(row, row_grad, column, column_grad, multipliers, bounded=ctx.bounded)
        parts = logits.grad_parts()

        def weigher() -> Callable[[Tile], Tensor]:
            if job.kernels:
                kernels = TritonTiles(logits, job)
                return lambda tile: kernels.logsumexp_weights(tile, multipliers, weights.row, weights.column)
            scratch = logits.scratch()

            def weigh(tile: Tile) -> Tensor:
                side = scratch.side(tile)
                if ctx.kept:
                    w = weights.of_exponentials(ctx.kept[tile.r0, tile.c0], side, tile)
                else:
                    w = weights.tile(scratch.logits(tile), side, tile)
                return scratch.rounded(w, tile)

            return weigh

        def worker() -> Callable[[Tile], tuple[Tensor | None, Tensor | None]]:
            weigh = weigher()

            def compute(tile: Tile) -> tuple[Tensor | None, Tensor | None]:
                on_diagonal = symmetric and tile.r0 == tile.c0
                return parts.products(weigh(tile), tile, dq=need_q, dk=need_k and not on_diagonal)

            return compute

        def fold(tile: Tile, pair: Any) -> None:
            parts.add(pair[0], dq, tile.r0)
            parts.add(pair[1], dk, tile.c0)

        if row_grad is not None or column_grad is not None:
            logits.run(worker, fold)
        return (
            None if dq is None else logits.restore_rows(dq),
            None if dk is None or symmetric else logits.restore_columns(dk),
            None, None, None, None,
        )  # fmt: skip


def _plain_sums(s: Tensor, beta: float, out: Tensor, rows: bool, columns: bool) -> _Part:
    """Row and column sums of exp(β s) for logits that cannot overflow."""
    e = torch.exp2(s, out=out) if beta == 1 else torch.mul(s, beta, out=out).exp2_()
    row = e.sum(1) if rows else None
    column = e.sum(0) if columns else None
    return row, None, column, None


def _shifted_sums(s: Tensor, beta: float, out: Tensor, rows: bool, columns: bool) -> _Part:
    """The same for logits of any size: each row and column is shifted by its own maximum, which is returned too."""
    sums: list[Tensor | None] = []
    for dim, wanted in ((1, rows), (0, columns)):
        if not wanted:
            sums += [None, None]
            continue
        top = torch.amax(s, dim, keepdim=True) if beta >= 0 else torch.amin(s, dim, keepdim=True)
        top = top.nan_to_num_(nan=math.nan, posinf=math.inf, neginf=torch.finfo(s.dtype).min / 4)
        torch.sub(s, top, out=out)
        if beta != 1:
            out.mul_(beta)
        sums += [out.exp2_().sum(dim), top.squeeze(dim) * beta]
    return sums[0], sums[1], sums[2], sums[3]


class _Sums:
    """Running log-sum-exp: a sum in float64, relative to 2 to the power of a running maximum."""

    def __init__(self, count: int, length: int, like: Tensor) -> None:
        self._sum = torch.zeros(count, length, dtype=torch.float64, device=like.device)
        self._max: Tensor | None = None
        self._dtype = like.dtype

    def add(self, index: int, first: int, part: Tensor | None, top: Tensor | None) -> None:
        if part is None:
            return
        total = self._sum[index, first : first + len(part)]
        if top is None:
            total.add_(part)
            return
        if self._max is None:
            self._max = torch.full_like(self._sum, torch.finfo(self._dtype).min)
        running = self._max[index, first : first + len(part)]
        larger = torch.maximum(running, top.double())
        total.mul_(torch.exp2(running - larger)).add_(part * torch.exp2(top - larger))
        running.copy_(larger)

    def log(self) -> Tensor:
        out = self._sum.log2()
        if self._max is not None:
            out += self._max
        return (out * LN2).to(self._dtype)


class _Weights:
    """W = dL/dS of a tile from the log-sums and their gradients, all in the tiles' order.

    Wᵢⱼ = Σ_β β (gᵢ exp(β sᵢⱼ − Lᵢ) + hⱼ exp(β sᵢⱼ − Lⱼ)) with g, h the gradients of the row and column log-sums L.
    """

    def __init__(
        self,
        row: Tensor,
        row_grad: Tensor | None,
        column: Tensor,
        column_grad: Tensor | None,
        multipliers: tuple[float, ...],
        *,
        bounded: bool,
    ) -> None:
        self._multipliers, self._bounded = multipliers, bounded
        betas = row.new_tensor(multipliers)[:, None]
        # (r, n) and (r, m): exp(-L) and g if bounded, log₂ of the sums and g if not.
        self.row = None if row_grad is None else self._side(row, row_grad * betas)
        self.column = None if column_grad is None else self._side(column, column_grad * betas)

    def _side(self, log: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        # A row without entries has L = −inf; +inf makes its weights the 0 that they are.
        log = torch.where(log == -math.inf, math.inf, log)
        return (grad * torch.exp(-log), grad) if self._bounded else (log * LOG2E, grad.contiguous())

    def tile(self, s: Tensor, side: Tensor, tile: Tile) -> Tensor:
        """W of a tile; uses up `s` or `side`, whichever it returns."""
        return self._scaled(s, side, tile) if self._bounded else self._shifted(s, side, tile)

    def of_exponentials(self, e: Tensor, side: Tensor, tile: Tile) -> Tensor:
        """W in `side` from exp(s), which stays as it is."""
        assert self._bounded
        row = None if self.row is None else self.row[0][0, tile.r0 : tile.r1, None]
        column = None if self.column is None else self.column[0][0, None, tile.c0 : tile.c1]
        if row is not None and column is not None:
            return torch.add(row, column, out=side).mul_(e)
        only = row if row is not None else column
        assert only is not None
        return torch.mul(e, only, out=side)

    def _scaled(self, s: Tensor, side: Tensor, tile: Tile) -> Tensor:
        out: Tensor | None = None
        for index, beta in enumerate(self._multipliers):
            last = index == len(self._multipliers) - 1
            if last:
                e = s.exp2_() if beta == 1 else s.mul_(beta).exp2_()
            else:
                e = torch.exp2(s) if beta == 1 else torch.mul(s, beta).exp2_()
            row = None if self.row is None else self.row[0][index, tile.r0 : tile.r1, None]
            column = None if self.column is None else self.column[0][index, None, tile.c0 : tile.c1]
            if row is not None and column is not None:
                e.mul_(torch.add(row, column, out=side))
            elif row is not None:
                e.mul_(row)
            elif column is not None:
                e.mul_(column)
            out = e if out is None else out.add_(e)
        assert out is not None
        return out

    def _shifted(self, s: Tensor, side: Tensor, tile: Tile) -> Tensor:
        out: Tensor | None = None
        for index, beta in enumerate(self._multipliers):
            rows, columns = (slice(tile.r0, tile.r1), None), (None, slice(tile.c0, tile.c1))
            for part, where in ((self.row, rows), (self.column, columns)):
                if part is None:
                    continue
                log, grad = (x[index][where] for x in part)
                torch.sub(s if beta == 1 else s * beta, log, out=side)
                side.exp2_().mul_(grad)
                out = side.clone() if out is None else out.add_(side)
        assert out is not None
        return out


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, offset: Tensor, job: TileJob) -> Tensor:
        logits = TiledLogits(q, k, job)
        shift = logits.sort_rows(offset)
        total = torch.zeros(len(q), dtype=torch.float64, device=q.device)

        def worker() -> Callable[[Tile], Tensor]:
            if job.kernels:
                kernels = TritonTiles(logits, job)
                return lambda tile: kernels.softplus(tile, shift)
            scratch = logits.scratch()

            def compute(tile: Tile) -> Tensor:
                s = scratch.logits(tile).mul_(LN2).add_(shift[tile.r0 : tile.r1, None])
                return _softplus(s, out=scratch.side(tile)).sum(1)

            return compute

        def fold(tile: Tile, part: Any) -> None:
            total[tile.r0 : tile.r1].add_(part)

        logits.run(worker, fold)
        ctx.save_for_backward(q, k, offset)
        ctx.job = job
        return logits.restore_rows(total.to(q.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, offset = ctx.saved_tensors
        logits = TiledLogits(q, k, ctx.job)
        shift, grad = logits.sort_rows(offset), logits.sort_rows(grad)
        need_q, need_k, need_offset, _ = ctx.needs_input_grad
        dq = torch.zeros_like(logits.q) if need_q else None
        dk = torch.zeros_like(logits.k) if need_k else None
        doffset = torch.zeros_like(offset) if need_offset else None
        parts = logits.grad_parts()

        def weigher() -> Callable[[Tile], tuple[Tensor, Tensor | None]]:
            if ctx.job.kernels:
                kernels = TritonTiles(logits, ctx.job)
                return lambda tile: kernels.softplus_weights(tile, shift, grad)
            scratch = logits.scratch()

            def weigh(tile: Tile) -> tuple[Tensor, Tensor | None]:
                rows = slice(tile.r0, tile.r1)
                w = scratch.logits(tile).mul_(LN2).add_(shift[rows, None]).sigmoid_().mul_(grad[rows, None])
                return scratch.rounded(w, tile), w.sum(1) if need_offset else None

            return weigh

        def worker() -> Callable[[Tile], tuple[Tensor | None, ...]]:
            weigh = weigher()

            def compute(tile: Tile) -> tuple[Tensor | None, ...]:
                w, sums = weigh(tile)
                return (sums, *parts.products(w, tile, dq=need_q, dk=need_k))

            return compute

        def fold(tile: Tile, results: Any) -> None:
            if doffset is not None:
                doffset[tile.r0 : tile.r1].add_(results[0])
            parts.add(results[1], dq, tile.r0)
            parts.add(results[2], dk, tile.c0)

        logits.run(worker, fold)
        return (
            None if dq is None else logits.restore_rows(dq),
            None if dk is None else logits.restore_columns(dk),
            None if doffset is None else logits.restore_rows(doffset),
            None,
        )


def _softplus(x: Tensor, out: Tensor | None = None) -> Tensor:
    if x.dtype == torch.float64:
        return torch.logaddexp(x, x.new_zeros(()))
    return F.softplus(x) if out is None else torch.ops.aten.softplus.out(x, out=out)


def _logsumexp_dense(
    q: Tensor, k: Tensor, mask: Mask, rows: bool, columns: bool, multipliers: tuple[float, ...]
) -> tuple[Tensor | None, Tensor | None]:
    s = q @ k.t()
    if (excluded := mask.excluded(len(q), len(k), q.device)) is not None:
        s = s.masked_fill(excluded, -math.inf)

    def along(dim: int) -> Tensor:
        return torch.stack([_logsumexp(s if beta == 1 else s * beta, dim) for beta in multipliers])

    return along(1) if rows else None, along(0) if columns else None


def _logsumexp(s: Tensor, dim: int) -> Tensor:
    """As torch's, but with the gradient 0, not NaN, where nothing is left to sum."""
    if not s.shape[dim]:
        return s.sum(dim) - math.inf
    empty = (s == -math.inf).all(dim, keepdim=True)
    return torch.where(empty.squeeze(dim), -math.inf, torch.logsumexp(s.masked_fill(empty, 0.0), dim))


def _softplus_dense(q: Tensor, k: Tensor, offset: Tensor, mask: Mask) -> Tensor:
    s = q @ k.t() + offset[:, None]
    if (excluded := mask.excluded(len(q), len(k), q.device)) is not None:
        s = s.masked_fill(excluded, -math.inf)
    return _softplus(s).sum(1)
