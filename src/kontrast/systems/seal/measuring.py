"""Measures: where the right document comes, in all, by kind of query and among the documents of the part alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kontrast.data.documents import Collection
from kontrast.errors import DataError
from kontrast.evaluation.relevance import Relevance
from kontrast.evaluation.retrieval import RetrievalValues, retrieval_values

KS = (1, 10, 100)
REPORTED = ("ndcg@10", "mrr@10", "hit@1", "hit@10", "recall@100")
PRIMARY = "ndcg@10"

Vectors = npt.NDArray[np.float32]


def relevance_of(data: Collection) -> Relevance:
    """Which documents answer which query, with grades.

    Raises:
        DataError: if no query has an answer.
    """
    if not data.judged:
        mend = "add qrels.tsv with query-id, corpus-id and score, or a field 'doc_id' to the queries"
        raise DataError("does not say which document answers a query", file=data.path, mend=mend)
    found = [(row, place, grade) for row, query in enumerate(data.queries) for place, grade in query.relevant]
    rows, places, grades = zip(*found)
    return Relevance.from_pairs(np.array(rows), np.array(places), np.array(grades), n_queries=len(data))


def judged_rows(data: Collection) -> Collection:
    """The queries that have an answer."""
    relevance_of(data)
    return data.take([row for row, query in enumerate(data.queries) if query.relevant])


def only(values: RetrievalValues, names: Sequence[str] = REPORTED) -> dict[str, float]:
    """Means of some of the metrics, in that order."""
    means = values.means()
    return {name: means[name] for name in names}


def details(data: Collection, queries: Vectors, documents: Vectors, values: RetrievalValues) -> dict[str, float]:
    """The primary metric by kind of query, and with the part's own documents as the whole corpus."""
    found: dict[str, float] = {}
    kinds = [query.kind for query in data.queries]
    for kind in sorted({kind for kind in kinds if kind is not None}):
        mine = np.array([one == kind for one in kinds])
        found[f"{PRIMARY} {kind}"] = float(np.nanmean(values.per_query[PRIMARY][mine]))
    own = data.used()
    if len(own) < len(documents):
        places = {int(place): row for row, place in enumerate(own)}
        rows = [
            (row, places[place], grade) for row, query in enumerate(data.queries) for place, grade in query.relevant
        ]
        asked, found_, grades = (np.array(column) for column in zip(*rows))
        inside = Relevance.from_pairs(asked, found_, grades, n_queries=len(data))
        found[f"{PRIMARY} own documents"] = retrieval_values(queries, documents[own], inside, ks=KS).means()[PRIMARY]
    return found


def chance_ndcg(data: Collection, k: int = 10) -> float:
    """The expected NDCG@k of a random order of the documents, over queries that have an answer."""
    m = len(data.documents)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    values = []
    for query in data.queries:
        if query.relevant:
            gains = np.sort([grade for _, grade in query.relevant])[::-1]
            ideal = float((gains[:k] * discounts[: len(gains[:k])]).sum())
            values.append(float(gains.sum()) / m * float(discounts[: min(k, m)].sum()) / ideal)
    return float(np.mean(values))
