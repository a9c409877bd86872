"""Negatives: documents that rank high for a query and do not answer it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from kontrast.data.documents import Collection
from kontrast.errors import DataError
from kontrast.evaluation.lexical import BM25
from kontrast.negatives import exclusions, mine_hardest

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def mined_by_vectors(
    queries: Vectors, documents: Vectors, positives: Sequence[Sequence[int]], ranks: tuple[int, int]
) -> Integers:
    """Documents of the ranks from `ranks` among those that do not answer, -1 where there are none; (n, k).

    Args:
        queries: (n, d).
        documents: (m, d).
        positives: per query, positions of the documents that answer it.
        ranks: first and last rank, counted from 1.
    """
    low, high = _bounded(ranks, len(documents), positives)
    mask = exclusions(len(queries), len(documents), own=None, known_positives=[list(row) for row in positives])
    mined = mine_hardest(
        torch.from_numpy(queries), torch.from_numpy(documents), mask, k=high - low + 1, skip=low - 1
    )  # fmt: skip
    return mined.indices.numpy()


def mined_by_words(
    queries: Sequence[str], documents: Sequence[str], positives: Sequence[Sequence[int]], ranks: tuple[int, int]
) -> Integers:
    """The same by BM25, where documents without a shared word rank last in their order."""
    low, high = _bounded(ranks, len(documents), positives)
    scores = BM25(documents).scores(queries)
    for row, own in enumerate(positives):
        scores[row, list(own)] = -1.0
    order = np.argsort(-scores, axis=1, kind="stable")[:, low - 1 : high].astype(np.int64)
    return np.where(np.take_along_axis(scores, order, 1) < 0, -1, order)


def _bounded(ranks: tuple[int, int], documents: int, positives: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The ranks that every query has; few documents give what there is."""
    free = max(1, documents - max(len(set(row)) for row in positives))
    low, high = ranks
    return min(low, free), min(high, free)


def given_negatives(data: Collection) -> Integers:
    """The negatives that the data name; (n, k) with -1 where a query has fewer.

    Raises:
        DataError: if a training query has none.
    """
    bare = next((query.id for query in data.queries if not query.negatives), None)
    if bare is not None:
        what = f"the query '{bare}' names no negatives"
        raise DataError(what, file=data.path, mend="add a field 'neg', or mine them with --negatives encoder")
    width = max(len(query.negatives) for query in data.queries)
    pool = np.full((len(data), width), -1, dtype=np.int64)
    for row, query in enumerate(data.queries):
        pool[row, : len(query.negatives)] = query.negatives
    return pool
