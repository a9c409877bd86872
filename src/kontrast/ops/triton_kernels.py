"""Triton kernels of the streamed statistics: one program per block of logits, which never leave the chip.

A kernel works on one tile of the logits, rows r0:r1 and columns c0:c1. Every program multiplies out one block of it
over pieces of the width d, applies the mask, and stores either its own part of the sums (per row and per column) or its
block of W = dL/dS. Parts are stored apart and added up afterwards in a fixed order: no atomics, so the same inputs give
the same bits. All sums are float32; products are of what the rows are (float32, bfloat16) with float32 sums.

Import this module only where Triton is installed.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,misc"

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))

# Rows of blocks that follow each other in the order of the programs, so that they find each other's columns in the
# second-level cache.
GROUP = tl.constexpr(8)


@triton.jit
def _place(r0, r1, c0, c1, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """This program's block of the tile: its number down and across, its rows and its columns."""
    program = tl.program_id(0)
    down_count = tl.cdiv(r1 - r0, BLOCK_ROWS)
    across_count = tl.cdiv(c1 - c0, BLOCK_COLUMNS)
    group = program // (GROUP * across_count)
    height = tl.minimum(down_count - group * GROUP, GROUP)
    within = program % (GROUP * across_count)
    down = group * GROUP + within % height
    across = within // height
    row = r0 + down * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = c0 + across * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    return down, across, row, column


@triton.jit
def _logits(
    q, k, row_codes, column_codes, slots, row, column, r1, c1, n, m, d,
    KEYS: tl.constexpr, WITHIN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of the logits in base 2; −inf where the mask leaves an entry out and beyond the tile."""
    inside_rows, inside_columns = row < r1, column < c1
    q_row = q + row.to(tl.int64)[:, None] * d
    k_row = k + column.to(tl.int64)[None, :] * d
    s = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
    for start in range(0, d, BLOCK_WIDTH):
        part = start + tl.arange(0, BLOCK_WIDTH)
        x = tl.load(q_row + part[None, :], mask=inside_rows[:, None] & (part < d)[None, :], other=0.0)
        y = tl.load(k_row + part[:, None], mask=inside_columns[None, :] & (part < d)[:, None], other=0.0)
        s = tl.dot(x, y, s, input_precision=PRECISION)
    keep = inside_rows[:, None] & inside_columns[None, :]
    for key in tl.static_range(KEYS):
        row_code = tl.load(row_codes + key * n + row, mask=inside_rows, other=-1)
        column_code = tl.load(column_codes + key * m + column, mask=inside_columns, other=-2)
        same = row_code[:, None] == column_code[None, :]
        if WITHIN and key == 0:
            keep = keep & same
        else:
            keep = keep & (row_code[:, None] != column_code[None, :])
    for slot in tl.static_range(SLOTS):
        left_out = tl.load(slots + slot * n + row, mask=inside_rows, other=-1)
        keep = keep & (left_out[:, None] != column[None, :])
    return tl.where(keep, s * LOG2E, -INF)


@triton.jit
def _log_sum(s, AXIS: tl.constexpr):
    """log₂ Σ 2ˢ along an axis; −inf where nothing is left."""
    top = tl.max(s, AXIS)
    top = tl.where(top == -INF, 0.0, top)
    total = tl.sum(tl.exp2(s - tl.expand_dims(top, AXIS)), AXIS)
    return tl.where(total == 0, -INF, top + tl.log2(tl.where(total == 0, 1.0, total)))


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) with all its digits where it is small: log(1 + e) = 2 artanh(e / (2 + e)) for e in 0..1."""
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)
    y = z * z
    series = 1 + y * (1 / 3 + y * (1 / 5 + y * (1 / 7 + y * (1 / 9 + y * (1 / 11 + y * (1 / 13 + y / 15))))))
    return tl.maximum(x, 0.0) + 2 * z * series


@triton.jit
def logsumexp_parts(
    q, k, row_codes, column_codes, slots, row_out, column_out, beta_0, beta_1, r0, r1, c0, c1, n, m, d,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KEYS: tl.constexpr, WITHIN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """log₂ Σ 2^(β s) of each block: row_out (COUNT, blocks across, rows), column_out (COUNT, blocks down, columns)."""
    down, across, row, column = _place(r0, r1, c0, c1, BLOCK_ROWS, BLOCK_COLUMNS)
    s = _logits(
        q, k, row_codes, column_codes, slots, row, column, r1, c1, n, m, d,
        KEYS, WITHIN, SLOTS, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH, PRECISION,
    )  # fmt: skip
    height, width = r1 - r0, c1 - c0
    down_count, across_count = tl.cdiv(height, BLOCK_ROWS), tl.cdiv(width, BLOCK_COLUMNS)
    for index in tl.static_range(COUNT):
        scaled = s * (beta_0 if index == 0 else beta_1)
        if ROWS:
            where = (index * across_count + across).to(tl.int64) * height + (row - r0)
            tl.store(row_out + where, _log_sum(scaled, 1), mask=row < r1)
        if COLUMNS:
            where = (index * down_count + down).to(tl.int64) * width + (column - c0)
            tl.store(column_out + where, _log_sum(scaled, 0), mask=column < c1)


@triton.jit
def logsumexp_weights(
    q, k, row_codes, column_codes, slots, row_log, row_grad, column_log, column_grad, out,
    beta_0, beta_1, r0, r1, c0, c1, n, m, d,
    COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    KEYS: tl.constexpr, WITHIN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """W = Σ_β g 2^(β s − L) + h 2^(β s − L'), with L, g (COUNT, n) of the rows and L', h (COUNT, m) of the columns.

    out: (rows, columns) of the tile. Logarithms are base 2, +inf where a row is empty; gradients have β in them.
    """
    _, _, row, column = _place(r0, r1, c0, c1, BLOCK_ROWS, BLOCK_COLUMNS)
    s = _logits(
        q, k, row_codes, column_codes, slots, row, column, r1, c1, n, m, d,
        KEYS, WITHIN, SLOTS, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH, PRECISION,
    )  # fmt: skip
    w = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
    for index in tl.static_range(COUNT):
        scaled = s * (beta_0 if index == 0 else beta_1)
        if ROWS:
            log = tl.load(row_log + index * n + row, mask=row < r1, other=INF)
            grad = tl.load(row_grad + index * n + row, mask=row < r1, other=0.0)
            w += grad[:, None] * tl.exp2(scaled - log[:, None])
        if COLUMNS:
            log = tl.load(column_log + index * m + column, mask=column < c1, other=INF)
            grad = tl.load(column_grad + index * m + column, mask=column < c1, other=0.0)
            w += grad[None, :] * tl.exp2(scaled - log[None, :])
    where = (row - r0).to(tl.int64)[:, None] * (c1 - c0) + (column - c0)[None, :]
    tl.store(out + where, w.to(out.dtype.element_ty), mask=(row < r1)[:, None] & (column < c1)[None, :])


@triton.jit
def softplus_parts(
    q, k, row_codes, column_codes, slots, offset, row_out, r0, r1, c0, c1, n, m, d,
    KEYS: tl.constexpr, WITHIN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ softplus(s + b) of each block, with b (n,): row_out (blocks across, rows)."""
    _, across, row, column = _place(r0, r1, c0, c1, BLOCK_ROWS, BLOCK_COLUMNS)
    s = _logits(
        q, k, row_codes, column_codes, slots, row, column, r1, c1, n, m, d,
        KEYS, WITHIN, SLOTS, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH, PRECISION,
    )  # fmt: skip
    shift = tl.load(offset + row, mask=row < r1, other=0.0)
    part = tl.sum(_softplus(s * LN2 + shift[:, None]), 1)
    tl.store(row_out + across.to(tl.int64) * (r1 - r0) + (row - r0), part, mask=row < r1)


@triton.jit
def softplus_weights(
    q, k, row_codes, column_codes, slots, offset, row_grad, row_out, out, r0, r1, c0, c1, n, m, d,
    KEYS: tl.constexpr, WITHIN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """W = g sigmoid(s + b) in out (rows, columns), and its sums over each block: row_out (blocks across, rows)."""
    _, across, row, column = _place(r0, r1, c0, c1, BLOCK_ROWS, BLOCK_COLUMNS)
    s = _logits(
        q, k, row_codes, column_codes, slots, row, column, r1, c1, n, m, d,
        KEYS, WITHIN, SLOTS, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH, PRECISION,
    )  # fmt: skip
    shift = tl.load(offset + row, mask=row < r1, other=0.0)
    grad = tl.load(row_grad + row, mask=row < r1, other=0.0)
    w = grad[:, None] * tl.sigmoid(s * LN2 + shift[:, None])
    tl.store(row_out + across.to(tl.int64) * (r1 - r0) + (row - r0), tl.sum(w, 1), mask=row < r1)
    where = (row - r0).to(tl.int64)[:, None] * (c1 - c0) + (column - c0)[None, :]
    tl.store(out + where, w.to(out.dtype.element_ty), mask=(row < r1)[:, None] & (column < c1)[None, :])
