"""A collection: documents, queries, and which documents answer which query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.data.documents.elements import Document


@dataclass(frozen=True)
class Query:
    """One question.

    Attributes:
        id: its name.
        text: its words.
        relevant: positions of the documents that answer it, with grades above 0; empty where nothing is known.
        negatives: positions of documents that are said not to answer it.
        part: "train", "valid" or "test" where the data say so.
        kind: what sort of query it is, where the data say so.
    """

    id: str
    text: str
    relevant: tuple[tuple[int, float], ...] = ()
    negatives: tuple[int, ...] = ()
    part: str | None = None
    kind: str | None = None

    @property
    def answers(self) -> tuple[int, ...]:
        """Positions of the relevant documents."""
        return tuple(place for place, _ in self.relevant)


@dataclass(frozen=True)
class Collection:
    """Queries over documents; the documents are shared by all parts of a split, the queries are its rows.

    Attributes:
        ids: names of the documents, unique.
        documents: their elements, in the order of `ids`.
        queries: the rows.
        path: where they come from.
    """

    ids: tuple[str, ...]
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Collection:
        """The queries at these positions, over the same documents."""
        return replace(self, queries=tuple(self.queries[int(row)] for row in np.asarray(rows, dtype=np.int64)))

    @cached_property
    def texts(self) -> list[str]:
        """The words of the queries."""
        return [query.text for query in self.queries]

    @property
    def judged(self) -> bool:
        """Whether some query has a relevant document."""
        return any(query.relevant for query in self.queries)

    def used(self) -> npt.NDArray[np.int64]:
        """Positions of the documents that the queries name as relevant or as negatives, sorted."""
        named = {place for query in self.queries for place in (*query.answers, *query.negatives)}
        return np.array(sorted(named), dtype=np.int64)

    def relabelled(self, order: npt.NDArray[np.int64]) -> Collection:
        """The queries with document ``order[d]`` wherever they name document d."""
        queries = tuple(
            replace(
                query,
                relevant=tuple((int(order[place]), grade) for place, grade in query.relevant),
                negatives=tuple(int(order[place]) for place in query.negatives),
            )
            for query in self.queries
        )
        return replace(self, queries=queries)
