"""What a person looks at: ranks of the right answer, similarities of true and other pairs, and answers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.evaluation.search import top_k
from kontrast.randomness import numpy_rng
from kontrast.systems.pairs.views import PairTable

if TYPE_CHECKING:
    from kontrast.systems.pairs.system import Pairs

EDGES = (1, 2, 3, 4, 6, 11, 21, 51, 101, 501, 1001)
MOST = 5_000


def pair_figures(system: Pairs, data: PairTable) -> list[Figure]:
    """Three figures of held-out pairs."""
    return [_ranks(system, data), _similarities(system, data), _answers(system, data)]


def _ranks(system: Pairs, data: PairTable) -> Figure:
    ranks = system.retrieval(data).rank
    edges = [*(edge for edge in EDGES if edge <= ranks.max()), np.inf]
    counts = np.histogram(ranks, bins=edges)[0]
    names = [_span(low, high) for low, high in pairwise(edges)]
    return Figure(
        "Where the right answer came",
        f"Position of the first right answer among the candidates, for {len(ranks):,} held-out queries.",
        plotly={
            "data": [{"type": "bar", "x": names, "y": counts.tolist(), "hovertemplate": "%{y} queries<extra></extra>"}],
            "layout": {
                "xaxis": {"title": {"text": "position"}, "type": "category"},
                "yaxis": {"title": {"text": "queries"}},
            },
        },
    )


def _span(low: float, high: float) -> str:
    if high == np.inf and low > 1:
        return f"≥ {low:.0f}"
    return f"{low:.0f}" if high - low == 1 or high == np.inf else f"{low:.0f}–{high - 1:.0f}"


def _similarities(system: Pairs, data: PairTable) -> Figure:
    some = data.take(np.sort(numpy_rng(0, "similarities").permutation(len(data))[:MOST]))
    left, right = system.vectors(some, "left"), system.vectors(some, "right")
    order = numpy_rng(0, "other pairs").permutation(len(some))
    return Figure(
        "How far true pairs stand apart",
        "Cosine of the two vectors of a row, beside that of vectors from two rows drawn at random.",
        plotly={
            "data": [
                _histogram("true pairs", (left * right).sum(1)),
                _histogram("random pairs", (left * right[order]).sum(1)),
            ],
            "layout": {
                "barmode": "overlay",
                "xaxis": {"title": {"text": "cosine"}},
                "yaxis": {"title": {"text": "share of pairs"}},
            },
        },
    )


def _histogram(name: str, values: npt.NDArray[np.float32]) -> dict[str, object]:
    counts, edges = np.histogram(values, bins=60, range=(-1, 1))
    return {
        "type": "bar",
        "name": name,
        "opacity": 0.65,
        "x": np.round((edges[:-1] + edges[1:]) / 2, 3).tolist(),
        "y": np.round(counts / max(len(values), 1), 5).tolist(),
        "width": 2 / 60,
    }


def _answers(system: Pairs, data: PairTable) -> Figure:
    rows = np.sort(numpy_rng(0, "answers").permutation(len(data))[:12])
    keys = data.keys("right")
    candidates = data.take(np.sort(np.unique(keys, return_index=True)[1]))
    asked = data.take(rows)
    _, found = top_k(system.vectors(asked, "left"), system.vectors(candidates, "right"), 3)
    words = candidates.words("right")
    table = pd.DataFrame({"query": asked.words("left"), "right answer": asked.words("right")})
    for place in range(found.shape[1]):
        table[f"answer {place + 1}"] = [words[hit] for hit in found[:, place]]
    return Figure(
        "A dozen held-out queries", "The nearest candidates of the test part for queries drawn at random.", table=table
    )
