"""Which candidates are relevant to which query, stored sparsely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

RelevanceLike = Any
"""A `Relevance`, a tuple ``(indptr, indices)`` or ``(indptr, indices, grades)``, a scipy sparse matrix, or one
candidate's index per query."""


@dataclass(frozen=True)
class Relevance:
    """Relevant candidates per query as CSR arrays.

    Args:
        indptr: (n_queries + 1,) int64; query i owns the entries ``indptr[i]:indptr[i + 1]``.
        indices: (entries,) int64 candidate positions, each at most once per query.
        grades: (entries,) float64 ≥ 0, or None where every entry counts 1. A grade of 0 means "not relevant".
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    grades: npt.NDArray[np.float64] | None = None

    @property
    def n_queries(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(n_queries,) how many entries each query has."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(entries,) the query of each entry."""
        return np.repeat(np.arange(self.n_queries, dtype=np.int64), self.counts)

    @property
    def gains(self) -> npt.NDArray[np.float64]:
        """(entries,) the grades, or ones."""
        return np.ones(len(self.indices)) if self.grades is None else self.grades

    @classmethod
    def from_pairs(
        cls,
        queries: npt.ArrayLike,
        candidates: npt.ArrayLike,
        grades: npt.ArrayLike | None = None,
        *,
        n_queries: int,
    ) -> Self:
        """From pairs (query, candidate) in any order; a pair that comes twice counts once, with its larger grade."""
        rows, columns = _integers(queries, "queries"), _integers(candidates, "candidates")
        gains = np.ones(len(rows)) if grades is None else np.asarray(grades, np.float64)
        if not len(rows) == len(columns) == len(gains):
            raise ValueError(f"got {len(rows)} queries, {len(columns)} candidates and {len(gains)} grades.")
        if len(rows) and not (rows.min() >= 0 and rows.max() < n_queries):
            raise ValueError(f"a query's position must lie in 0..{n_queries - 1}, got {rows.min()}..{rows.max()}.")
        order = np.lexsort((-gains, columns, rows))
        rows, columns, gains = rows[order], columns[order], gains[order]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
        indptr = np.zeros(n_queries + 1, np.int64)
        np.cumsum(np.bincount(rows[first], minlength=n_queries), out=indptr[1:])
        return cls(indptr, columns[first], None if grades is None else gains[first])

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int]]) -> Self:
        """From one list of candidate positions per query."""
        held = [np.unique(np.asarray(row, np.int64)) for row in lists]
        indptr = np.zeros(len(held) + 1, np.int64)
        np.cumsum([len(row) for row in held], out=indptr[1:])
        return cls(indptr, np.concatenate([np.empty(0, np.int64), *held]))

    @classmethod
    def of(cls, value: RelevanceLike, n_queries: int, n_candidates: int) -> Relevance:
        """Checks and converts any accepted form; entries of grade 0 are dropped.

        Raises:
            ValueError: if sizes disagree, a position lies outside the candidates, a candidate is listed twice for one
                query, or a grade is negative or not finite.
        """
        if isinstance(value, Relevance):
            made = value
        elif isinstance(value, tuple):
            indptr, indices, *rest = value
            grades = np.asarray(rest[0], np.float64) if rest and rest[0] is not None else None
            made = cls(_integers(indptr, "indptr"), _integers(indices, "indices"), grades)
        elif hasattr(value, "tocsr"):
            matrix = value.tocsr()
            matrix.sum_duplicates()
            made = cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float64))
        else:
            targets = _integers(value, "relevance")
            made = cls(np.arange(len(targets) + 1, dtype=np.int64), targets)
        made._check(n_queries, n_candidates)
        if made.grades is not None and not made.grades.all():
            return made.keep(made.grades > 0)
        return made

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Relevance:
        """Only the entries where `chosen` (entries,) is true; every query stays."""
        indptr = np.zeros_like(self.indptr)
        np.cumsum(np.bincount(self.rows[chosen], minlength=self.n_queries), out=indptr[1:])
        return Relevance(indptr, self.indices[chosen], None if self.grades is None else self.grades[chosen])

    def slice(self, start: int, stop: int) -> Relevance:
        """Only the queries ``start`` to ``stop``, renumbered from 0."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        grades = None if self.grades is None else self.grades[first:last]
        return Relevance(self.indptr[start : stop + 1] - first, self.indices[first:last], grades)

    def without(self, other: Relevance, n_candidates: int) -> Relevance:
        """Only the entries that `other` does not hold."""
        taken = other.rows * n_candidates + other.indices
        return self.keep(~np.isin(self.rows * n_candidates + self.indices, taken))

    def _check(self, n_queries: int, n_candidates: int) -> None:
        indptr, indices = self.indptr, self.indices
        if self.n_queries != n_queries:
            raise ValueError(f"relevance is given for {self.n_queries} queries, but there are {n_queries}.")
        if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise ValueError(f"indptr must rise from 0 to {len(indices)} (the number of indices).")
        if len(indices) and not (indices.min() >= 0 and indices.max() < n_candidates):
            raise ValueError(
                f"a relevant candidate's position must lie in 0..{n_candidates - 1}, "
                f"got {indices.min()}..{indices.max()}."
            )
        if self.grades is not None:
            if self.grades.shape != indices.shape:
                raise ValueError(f"got {len(self.grades)} grades for {len(indices)} relevant candidates.")
            if not np.isfinite(self.grades).all() or (self.grades < 0).any():
                raise ValueError("grades must be finite and not negative.")
        keys = np.sort(self.rows * max(n_candidates, 1) + indices)
        if (keys[1:] == keys[:-1]).any():
            query = int(keys[1:][keys[1:] == keys[:-1]][0]) // n_candidates
            raise ValueError(f"query {query} lists the same relevant candidate twice.")


def _integers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} must be a vector of integers, got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)
