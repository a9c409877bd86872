"""Similarity scores in tiles: the one place where evaluation multiplies queries with candidates.

Scores are summed in float64 and rounded to float32. A product in float32 differs in its last bits with a row's position
in the tile, so that equal candidates would not tie; after the rounding they do, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.ops.threads import ordered_fold

Similarity = Literal["cosine", "dot"]
Matrix = Tensor | npt.NDArray[Any]
Result = TypeVar("Result")

QUERY_ROWS = 512
CANDIDATE_ROWS = 2048


class Tile(NamedTuple):
    """Scores (rows, columns) of queries ``start`` to ``stop`` against candidates ``left`` to ``right``."""

    start: int
    stop: int
    left: int
    right: int
    scores: Tensor


def as_matrix(values: Matrix, name: str, *, device: torch.device | None = None) -> Tensor:
    """A finite float matrix (n, d) as a tensor without gradient.

    Raises:
        ValueError: if it is not two-dimensional, not real numbers or not finite.
    """
    tensor = torch.as_tensor(values).detach()
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have the shape (n, d), got {tuple(tensor.shape)}.")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must hold real numbers, got {tensor.dtype}.")
    if not tensor.is_floating_point():
        tensor = tensor.double()
    for start in range(0, len(tensor), 65536):
        bad = ~torch.isfinite(tensor[start : start + 65536]).all(1)
        if bad.any():
            first = start + int(bad.nonzero()[0])
            raise ValueError(f"{name} must be finite: row {first} holds NaN or infinity.")
    return tensor if device is None else tensor.to(device)


def check_pair(queries: Tensor, candidates: Tensor, similarity: str) -> None:
    """Raises ValueError unless the two matrices have the same width and `similarity` is known."""
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            "queries and candidates must have the same width, "
            f"got {tuple(queries.shape)} and {tuple(candidates.shape)}."
        )
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot', got {similarity!r}.")


def prepared(rows: Tensor, similarity: Similarity) -> Tensor:
    """Rows in float64, scaled to length one for "cosine"; a zero row stays zero and scores 0 with everything."""
    rows = rows.double()
    if similarity == "dot":
        return rows
    # Scaled by the largest entry first: the squares of very small or very large rows would leave float64's range.
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(1.0)


def rounded(scores: Tensor) -> Tensor:
    """Float64 scores as float32 with one zero (-0.0 becomes 0.0)."""
    return scores.float().add_(0.0)


def over_tiles(
    queries: Tensor,
    candidates: Tensor,
    similarity: Similarity,
    job: Callable[[Iterator[Tile]], Result],
    *,
    query_rows: int = QUERY_ROWS,
    candidate_rows: int = CANDIDATE_ROWS,
) -> list[Result]:
    """Runs `job` once per block of queries, on that block's float32 tiles from left to right.

    On the CPU the blocks run in threads, one per core of torch's setting; memory O(tile) per thread.

    Args:
        queries: (n, d), as from `as_matrix`.
        candidates: (m, d), on the same device.
        similarity: "cosine" or "dot".
        job: gets the tiles of one block; it may overwrite their scores, and must be safe to run in several threads.
        query_rows: height of a tile.
        candidate_rows: width of a tile.

    Returns:
        The results, one per block, in the order of the queries.
    """
    check_pair(queries, candidates, similarity)

    def tiles(start: int) -> Iterator[Tile]:
        block = prepared(queries[start : start + query_rows], similarity)
        for left in range(0, len(candidates), candidate_rows):
            other = prepared(candidates[left : left + candidate_rows], similarity)
            yield Tile(start, start + len(block), left, left + len(other), rounded(block @ other.T))

    starts = range(0, len(queries), query_rows)
    if queries.device.type != "cpu":
        return [job(tiles(start)) for start in starts]
    results: list[Result] = []
    ordered_fold(
        len(starts),
        lambda: lambda index: job(tiles(starts[index])),
        lambda _, result: results.append(result),
        threads=torch.get_num_threads(),
    )
    return results


def pair_scores(
    queries: Tensor,
    candidates: Tensor,
    similarity: Similarity,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Scores of the listed (query, candidate) pairs, shape (len(rows),); the same numbers as the tiles hold."""
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(rows), 32768):
        left = prepared(queries[torch.from_numpy(rows[start : start + 32768]).to(queries.device)], similarity)
        right = prepared(candidates[torch.from_numpy(columns[start : start + 32768]).to(queries.device)], similarity)
        parts.append(rounded((left * right).sum(1)).cpu().numpy())
    return np.concatenate(parts)
