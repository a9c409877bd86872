"""What a person looks at: ranks, scores, gates of tags, gain by length, and a dozen answers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.documents import Collection
from kontrast.encoders.elements import ElementsEncoder
from kontrast.evaluation.retrieval import retrieval_values, retrieval_values_from_scores
from kontrast.evaluation.search import top_k
from kontrast.extras import installed
from kontrast.randomness import numpy_rng
from kontrast.systems.seal.answers import search
from kontrast.systems.seal.corpus import Corpus
from kontrast.systems.seal.measuring import KS, PRIMARY, relevance_of

if TYPE_CHECKING:
    from kontrast.systems.seal.system import Seal

EDGES = (1, 2, 3, 4, 6, 11, 21, 51, 101, 501, 1001)
LENGTHS = (0, 250, 500, 1000, 2000, 4000, 8000)
MOST = 2_000
SHOWN_TAGS = ("h1", "h2", "h3", "p", "li", "dt", "dd", "tr", "pre", "blockquote", "div", "section")

Vectors = npt.NDArray[np.float32]


def seal_figures(system: Seal, data: Collection) -> list[Figure]:
    """Figures of held-out queries."""
    queries, documents = system.query_vectors(data.texts), system.document_vectors(data.documents)
    values = retrieval_values(queries, documents, relevance_of(data), ks=KS)
    made = [_ranks(values.rank), _scores(data, queries, documents), _lengths(data, values.per_query[PRIMARY])]
    encoder = system.model_.encoder
    if isinstance(encoder, ElementsEncoder):
        made.append(_gates(encoder, data))
    return [*made, _answers(system, data, documents)]


def _ranks(ranks: npt.NDArray[np.float64]) -> Figure:
    edges = [*(edge for edge in EDGES if edge <= ranks.max()), np.inf]
    counts = np.histogram(ranks, bins=edges)[0]
    names = [_span(low, high) for low, high in pairwise(edges)]
    bar = {"type": "bar", "x": names, "y": counts.tolist(), "hovertemplate": "%{y} queries<extra></extra>"}
    return Figure(
        "Where the right document came",
        f"Position of the first right document among all, for {len(ranks):,} held-out queries.",
        plotly={"data": [bar], "layout": _axes("position", "queries", category=True)},
    )


def _span(low: float, high: float) -> str:
    if high == np.inf and low > 1:
        return f"≥ {low:.0f}"
    return f"{low:.0f}" if high - low == 1 or high == np.inf else f"{low:.0f}–{high - 1:.0f}"


def _axes(x: str, y: str, *, category: bool = False) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": x}}
    return {"xaxis": axis | ({"type": "category"} if category else {}), "yaxis": {"title": {"text": y}}}


def _scores(data: Collection, queries: Vectors, documents: Vectors) -> Figure:
    rows = np.sort(numpy_rng(0, "scores").permutation(len(data))[:MOST])
    true = np.array([(queries[row] @ documents[list(data.queries[row].answers)].T).max() for row in rows])
    scores, hits = top_k(queries[rows], documents, 10)
    wrong = np.array([[hit not in data.queries[row].answers for hit in found] for row, found in zip(rows, hits)])
    random = numpy_rng(0, "other documents").integers(len(documents), size=len(rows))
    lines = [
        _histogram("the right document", true),
        _histogram("other documents among the ten best", scores[wrong]),
        _histogram("documents drawn at random", (queries[rows] * documents[random]).sum(1)),
    ]
    return Figure(
        "How far the right document stands apart",
        "Cosine of a query with the document that answers it, with the others among the ten best, and with any.",
        plotly={"data": lines, "layout": {"barmode": "overlay", **_axes("cosine", "share")}},
    )


def _histogram(name: str, values: npt.NDArray[np.floating[Any]]) -> dict[str, object]:
    counts, edges = np.histogram(values, bins=50, range=(-0.2, 1))
    return {
        "type": "bar",
        "name": name,
        "opacity": 0.6,
        "x": np.round((edges[:-1] + edges[1:]) / 2, 3).tolist(),
        "y": np.round(counts / max(len(values), 1), 5).tolist(),
        "width": float(edges[1] - edges[0]),
    }


def _lengths(data: Collection, values: npt.NDArray[np.float64]) -> Figure:
    """By length of the right document, beside BM25 where it is installed."""
    words = np.array([len(data.documents[query.answers[0]].plain().split()) for query in data.queries])
    bins = np.digitize(words, LENGTHS) - 1
    used = [number for number in range(len(LENGTHS)) if (bins == number).any()]
    names = [
        f"{LENGTHS[number]}–{LENGTHS[number + 1]}" if number + 1 < len(LENGTHS) else f"≥ {LENGTHS[number]}"
        for number in used
    ]
    rows = {"this model": values}
    if installed("bm25s"):
        from kontrast.evaluation.lexical import BM25

        scores = BM25([document.plain() for document in data.documents]).scores(data.texts)
        rows["BM25"] = retrieval_values_from_scores(scores, relevance_of(data), KS).per_query[PRIMARY]
    counts = [f"{int((bins == number).sum())} queries" for number in used]
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": [round(float(np.nanmean(found[bins == number])), 4) for number in used],
            "text": counts,
            "textposition": "none",
            "hovertemplate": "%{y:.3f}, %{text}<extra></extra>",
        }
        for name, found in rows.items()
    ]
    return Figure(
        "By length of the document",
        f"{PRIMARY.upper()} of queries whose right document has so many words.",
        plotly={"data": bars, "layout": {"barmode": "group", **_axes("words", PRIMARY, category=True)}},
    )


def _gates(encoder: ElementsEncoder, data: Collection) -> Figure:
    there = {element.tag for document in data.documents for element in document.elements}
    found = {name: value for name, value in encoder.importance().items() if name in there and name in SHOWN_TAGS}
    names = [name for name in SHOWN_TAGS if name in found]
    bar = {
        "type": "bar",
        "x": names,
        "y": [round(found[name], 4) for name in names],
        "hovertemplate": "%{y:.3f}<extra></extra>",
    }
    return Figure(
        "What an element's tag is worth",
        "Factor that the model has learned for elements of each tag, relative to an element without one.",
        plotly={"data": [bar], "layout": _axes("tag", "factor", category=True)},
    )


def _answers(system: Seal, data: Collection, documents: Vectors) -> Figure:
    rows = np.sort(numpy_rng(0, "answers").permutation(len(data))[:12])
    some = data.take(rows)
    corpus = Corpus(list(data.ids), [document.tagged() for document in data.documents], documents)
    best = search(system, some, corpus, 1)
    table = pd.DataFrame(
        {
            "query": best["query"],
            "right document": [data.ids[query.answers[0]] for query in some.queries],
            "first answer": best["doc_id"],
            "its best element": [text[:160] for text in best["element"]],
        }
    )
    caption = "The nearest document for queries drawn at random, with the element that matches best."
    return Figure("A dozen held-out queries", caption, table=table)
