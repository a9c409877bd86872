"""Agreement of two views of the same rows: does each row find itself in the other view?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.ranks import rank_positives
from kontrast.evaluation.tiles import Matrix


def matching_metrics(first: Matrix, second: Matrix) -> dict[str, float]:
    """How well row i of one view is matched with row i of the other, by cosine, averaged over both directions.

    Args:
        first: (n, d) finite.
        second: (n, d).

    Returns:
        "matching_recall@1": share of rows whose nearest row of the other view is their own (of equals each counts in
        part), 1/n for random views;
        "foscttm": mean fraction of the other rows that are closer than the true match (Liu et al. 2019), 0 at best
        and 0.5 for random views.

    Raises:
        DataError: if there are fewer than two rows.
        ValueError: if shapes disagree or values are not finite.
    """
    n = len(first)
    if n != len(second):
        raise ValueError(f"both views must have the same rows, got {n} and {len(second)}.")
    if n < 2:
        raise DataError("matching needs at least two rows")
    recalls, closer = [], []
    for queries, candidates in ((first, second), (second, first)):
        ranks = rank_positives(queries, candidates, np.arange(n))
        recalls.append(np.mean(np.where(ranks.above == 0, 1.0 / ranks.tied, 0.0)))
        closer.append(np.mean((ranks.above + (ranks.tied - 1) / 2) / (n - 1)))
    return {"matching_recall@1": float(np.mean(recalls)), "foscttm": float(np.mean(closer))}


def neighbour_lists(
    rows: npt.NDArray[Any], neighbours: int, *, among: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """(n, k) the nearest other rows of each row (Euclidean), nearest first; k is `neighbours` where there are as many.

    Args:
        rows: (n, d) finite.
        neighbours: how many.
        among: positions of the rows that may be neighbours; None: all.

    Raises:
        DataError: if there are fewer than two rows to choose from.
    """
    from sklearn.neighbors import NearestNeighbors

    pool = np.arange(len(rows)) if among is None else np.asarray(among, dtype=np.int64)
    if len(pool) < 2:
        raise DataError("neighbours need at least two rows")
    count = min(neighbours, len(pool) - 1)
    found = pool[NearestNeighbors(n_neighbors=count + 1).fit(rows[pool]).kneighbors(rows, return_distance=False)]
    # A row of the pool finds itself, though not always first: equal rows are as near.
    own = found == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    return np.asarray(found[~own].reshape(len(rows), count), dtype=np.int64)


def neighbour_overlap(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Mean share of the neighbours (n, k) of a row that both lists hold, in [0, 1]; k / (n − 1) for random lists."""
    if first.shape != second.shape:
        raise ValueError(f"both lists must have the same shape, got {first.shape} and {second.shape}.")
    shared = (first[:, :, None] == second[:, None, :]).any(2)
    return float(shared.mean())
