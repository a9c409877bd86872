"""What a person looks at: the ROC curve, results by degree, what balancing does, and recommended edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.graphs import contains, degrees, pair_keys
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba.answers import recommend
from kontrast.systems.coeba.balanced import balanced_graph
from kontrast.systems.coeba.measuring import beaten_shares, degree_slices
from kontrast.systems.coeba.views import LinkData

if TYPE_CHECKING:
    from kontrast.systems.coeba.system import CoEBA

_POINTS = 200


def graph_figures(system: CoEBA, data: LinkData) -> list[Figure]:
    """Figures of held-out edges."""
    data = system.held_out(data)
    vectors = system.vectors(data)
    positives, negatives = system.scores(data, data.rows), system.scores(data, data.negatives)
    return [
        _curve(positives, negatives),
        _by_degree(positives, negatives, data),
        _balanced(system, data, vectors),
        _recommended(system, data, vectors),
    ]


def _curve(positives: npt.NDArray[np.float32], negatives: npt.NDArray[np.float32]) -> Figure:
    cuts = np.quantile(np.concatenate([positives, negatives]), np.linspace(1, 0, _POINTS))
    shares = [[float((scores >= cut).mean()) for cut in (np.inf, *cuts, -np.inf)] for scores in (negatives, positives)]
    return Figure(
        "How true edges stand apart",
        f"ROC curve of {len(positives):,} held-out edges against {len(negatives):,} pairs that are no edges.",
        plotly={
            "data": [
                {"type": "scatter", "mode": "lines", "name": "coeba", "x": shares[0], "y": shares[1]},
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "chance",
                    "x": [0, 1],
                    "y": [0, 1],
                    "line": {"dash": "dot"},
                },
            ],
            "layout": {
                "xaxis": {"title": {"text": "share of non-edges taken for edges"}},
                "yaxis": {"title": {"text": "share of edges found"}},
            },
        },
    )


def _by_degree(positives: npt.NDArray[np.float32], negatives: npt.NDArray[np.float32], data: LinkData) -> Figure:
    beaten = beaten_shares(positives, negatives)
    slices = list(degree_slices(data))
    return Figure(
        "Which edges are hard",
        "AUROC of held-out edges by the number of seen edges at their end of lower degree.",
        plotly={
            "data": [
                {
                    "type": "bar",
                    "x": [name.replace("-", "–") for name, _ in slices],
                    "y": [round(float(beaten[rows].mean()), 4) for _, rows in slices],
                    "text": [f"{len(rows):,} edges" for _, rows in slices],
                }
            ],
            "layout": {
                "xaxis": {"title": {"text": "seen edges at the lower end"}, "type": "category"},
                "yaxis": {"title": {"text": "AUROC"}, "range": [0, 1]},
            },
        },
    )


def _balanced(system: CoEBA, data: LinkData, vectors: npt.NDArray[np.float32]) -> Figure:
    balanced = balanced_graph(system.config, data, vectors)
    counts = {
        "as it is": degrees(data.context, data.graph.n),
        "balanced": degrees(balanced.edges, data.graph.n),
    }
    hidden = int(contains(np.sort(pair_keys(data.rows, data.graph.n)), pair_keys(balanced.added, data.graph.n)).sum())
    top = int(max(np.quantile(values, 0.99) for values in counts.values())) + 1
    return Figure(
        "What balancing does to degrees",
        f"Number of nodes by degree before and after balancing with the trained embeddings; {top} stands for more. Of "
        f"{len(balanced.added):,} added edges {hidden:,} are held-out edges, which balancing did not know.",
        plotly={
            "data": [
                {
                    "type": "bar",
                    "name": name,
                    "x": list(range(top + 1)),
                    "y": np.bincount(np.minimum(values, top), minlength=top + 1).tolist(),
                }
                for name, values in counts.items()
            ],
            "layout": {
                "barmode": "group",
                "xaxis": {"title": {"text": "degree"}},
                "yaxis": {"title": {"text": "nodes"}},
            },
        },
    )


def _recommended(system: CoEBA, data: LinkData, vectors: npt.NDArray[np.float32]) -> Figure:
    nodes = data.nodes()
    asked = np.sort(numpy_rng(0, "recommended").permutation(nodes)[:12])
    frame = recommend(LinkData(data.graph, data.context, "node", asked), vectors, system.model_.decoder, 3)
    true = {frozenset((data.graph.ids[u], data.graph.ids[v])) for u, v in data.rows.tolist()}
    rows = []
    for name, answers in frame.groupby("id", sort=False):
        found = list(answers["neighbour"])
        hits = [f"{other} ✓" if frozenset((name, other)) in true else str(other) for other in found]
        rows.append({"node": name, **{f"answer {place + 1}": hit for place, hit in enumerate(hits)}})
    return Figure(
        "Edges that are recommended",
        "The best new neighbours of a dozen nodes with held-out edges; a tick marks those that are held-out edges.",
        table=pd.DataFrame(rows),
    )
