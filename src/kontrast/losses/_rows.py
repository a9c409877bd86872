"""What the objectives over distances share: checked matrices, unit rows, distances and work by blocks of rows.

Everything here runs in float32 or wider, whatever the inputs and autocast say, because differences of near-equal
distances are what these objectives learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Distance = Literal["cosine", "euclidean", "squared"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)

# A tile of 4 Mi entries (16 MiB in float32) is large enough to hide the cost of a launch and small enough for a laptop.
_TILE = 1 << 22


def as_matrix(x: Tensor, name: str) -> Tensor:
    """`x` in float32 or wider.

    Raises:
        ValueError: unless it is a floating point tensor of shape (n, d).
    """
    if not x.is_floating_point():
        raise ValueError(f"'{name}' must be of a floating point dtype, got {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"'{name}' must have 2 dimensions (n, d), got {x.ndim}: {tuple(x.shape)}")
    return widened(x)


def as_pair(x: Tensor, y: Tensor, x_name: str, y_name: str, *, rows: bool = True, columns: bool = True) -> list[Tensor]:
    """Two checked matrices that agree in rows, columns and (after widening) dtype.

    Raises:
        ValueError: naming both sizes, if they do not.
    """
    x, y = as_matrix(x, x_name), as_matrix(y, y_name)
    if rows and x.shape[0] != y.shape[0]:
        raise ValueError(f"'{x_name}' has {x.shape[0]} rows and '{y_name}' has {y.shape[0]}; they must be paired")
    if columns and x.shape[1] != y.shape[1]:
        raise ValueError(f"'{x_name}' has {x.shape[1]} columns and '{y_name}' has {y.shape[1]}; they must be equal")
    if x.dtype != y.dtype:
        raise ValueError(f"'{x_name}' is {x.dtype} and '{y_name}' is {y.dtype}; they must be of one precision")
    return [x, y]


def need_rows(x: Tensor, least: int, name: str) -> None:
    """Raises ValueError if `x` has fewer than `least` rows."""
    if x.shape[0] < least:
        raise ValueError(f"'{name}' has {x.shape[0]} rows; at least {least} are needed")


def widened(x: Tensor) -> Tensor:
    """`x` in float32 if it is narrower, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(x: Tensor) -> Tensor:
    """Rows of length 1 along the last dimension; a zero row stays zero and gets a zero gradient.

    Rows are first divided by their largest entry, so that neither 1e30 nor 1e-30 loses its direction.
    """
    top = x.detach().abs().amax(dim=-1, keepdim=True) if x.shape[-1] else x.new_ones(*x.shape[:-1], 1)
    zero = top == 0
    scaled = x / torch.where(zero, 1.0, top)
    length = torch.where(zero, 1.0, scaled.square().sum(dim=-1, keepdim=True)).sqrt()
    # The factor cuts the gradient of zero rows, which would otherwise be 1 / (an arbitrary epsilon).
    return scaled / length * (~zero).to(x.dtype)


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    positive = x > 0
    return torch.where(positive, x, 1.0).sqrt() * positive.to(x.dtype)


def check_distance(distance: Distance) -> None:
    """Raises ValueError for an unknown name."""
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance '{distance}'; known: {', '.join(DISTANCES)}")


def paired_distance(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    """Distance between rows of the same place along the last dimension; leading dimensions broadcast."""
    check_distance(distance)
    if distance == "cosine":
        return 1 - (unit_rows(x) * unit_rows(y)).sum(dim=-1)
    squared = (x - y).square().sum(dim=-1)
    return squared if distance == "squared" else safe_sqrt(squared)


def pairwise_distance(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    """Distances (b, m) between all rows of x (b, d) and y (m, d); for "cosine" rows must have unit length already."""
    check_distance(distance)
    if distance == "cosine":
        return 1 - x @ y.T
    # By differences: |x|² + |y|² - 2xy would lose near duplicates, whose gradient is the largest.
    away = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return away if distance == "euclidean" else away.square()


def prepared(x: Tensor, distance: Distance) -> Tensor:
    """Rows as `pairwise_distance` wants them."""
    check_distance(distance)
    return unit_rows(x) if distance == "cosine" else x


def by_row_blocks(
    rows_of: Callable[..., Tensor], rows: int, columns: int, block: int | None, *tensors: Tensor | None
) -> Tensor:
    """Concatenates ``rows_of(first, last, *tensors)`` over blocks of rows, without keeping any block's graph.

    Each block is computed once more in the backward pass, so that memory is O(block · columns) instead of
    O(rows · columns). Autocast is off inside.

    Args:
        rows_of: gives one value per row from `first` to `last` (exclusive); a pure function of its arguments.
        rows: how many rows there are.
        columns: width of a tile, from which the default block follows.
        block: rows per block; by default as many as fill a tile of 4 Mi entries.
        tensors: everything that gradients must reach.

    Raises:
        ValueError: if `block` is below 1.
    """
    if block is None:
        block = max(1, _TILE // max(1, columns))
    elif block < 1:
        raise ValueError(f"'block' must be at least 1 row, got {block}")
    device = next(x for x in tensors if x is not None).device.type

    def run(first: int, last: int, *inner: Tensor | None) -> Tensor:
        with torch.autocast(device, enabled=False):
            return rows_of(first, last, *inner)

    if rows <= block:
        return run(0, rows, *tensors)
    parts = [
        checkpoint(run, first, min(first + block, rows), *tensors, use_reentrant=False, preserve_rng_state=False)
        for first in range(0, rows, block)
    ]
    return torch.cat(parts)
