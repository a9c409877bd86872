"""What a person looks at: a map, a tree, an ordered table of similarities, and what the clusters have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.mutations import CHROMOSOMES, CLASSES, PYRIMIDINE, SUBSTITUTIONS
from kontrast.evaluation.clustering import ward_tree
from kontrast.evaluation.projection import project
from kontrast.systems.ms_contab.answers import substitution_shares
from kontrast.systems.ms_contab.clusters import cluster_quality, clusters_of, unit
from kontrast.systems.ms_contab.views import Entities

if TYPE_CHECKING:
    from kontrast.systems.ms_contab.system import MSConTab

MOST = 60
TOP_GENES = 10


def cohort_figures(system: MSConTab, data: Entities) -> list[Figure]:
    """Figures of the cohorts; of patients only the map and the clusters' profiles."""
    if len(data) < 4:
        return []
    vectors = unit(system.vectors(data))
    clusters = clusters_of(system, data, vectors)
    made = [_map(data, vectors, clusters)]
    if len(data) <= MOST:
        made += [_tree(data, vectors), _similarities(data, vectors, clusters)]
    classes = system.config.profile.classes
    made += [_signatures(data, clusters, classes), _chromosomes(data, clusters), _genes(data, clusters)]
    return [*made, _indices(system, data)]


def _map(data: Entities, vectors: npt.NDArray[np.float32], clusters: npt.NDArray[np.int64]) -> Figure:
    placed = project(vectors)
    traces = []
    for cluster in np.unique(clusters):
        inside = clusters[placed.rows] == cluster
        names = [data.names[row] for row in placed.rows[inside]]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if len(data) <= MOST else "markers",
                "name": f"cluster {cluster}",
                "x": placed.coordinates[inside, 0].tolist(),
                "y": placed.coordinates[inside, 1].tolist(),
                "text": names,
                "textposition": "top center",
            }
        )
    return Figure(
        "Map of the clusters",
        f"{placed.title} of the embeddings; a picture only, the clusters come from the embeddings themselves.",
        plotly={"data": traces, "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}},
    )


def _tree(data: Entities, vectors: npt.NDArray[np.float32]) -> Figure:
    from scipy.cluster.hierarchy import dendrogram

    drawn = dendrogram(ward_tree(vectors), labels=list(data.names), no_plot=True)
    traces = [
        {"type": "scatter", "mode": "lines", "x": down, "y": across, "line": {"color": "#5b6b7b"}, "showlegend": False}
        for across, down in zip(drawn["icoord"], drawn["dcoord"])
    ]
    places = [5 + 10 * place for place in range(len(data))]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "distance at which branches join"}},
        "yaxis": {"tickvals": places, "ticktext": drawn["ivl"], "automargin": True},
        "height": 160 + 16 * len(data),
    }
    return Figure("Tree", "Ward's tree of the embeddings: cohorts that join early are alike.", plotly={
        "data": traces, "layout": layout,
    })  # fmt: skip


def _similarities(data: Entities, vectors: npt.NDArray[np.float32], clusters: npt.NDArray[np.int64]) -> Figure:
    from scipy.cluster.hierarchy import leaves_list

    leaf = np.empty(len(data), np.int64)
    leaf[leaves_list(ward_tree(vectors))] = np.arange(len(data))
    order = np.lexsort((leaf, clusters))
    names = [data.names[row] for row in order]
    table = np.round(vectors[order] @ vectors[order].T, 3)
    return Figure(
        "Who is like whom",
        "Cosine between embeddings, ordered by cluster.",
        plotly={
            "data": [{"type": "heatmap", "x": names, "y": names, "z": table.tolist(), "zmin": -1, "zmax": 1}],
            "layout": {"yaxis": {"autorange": "reversed", "automargin": True}, "height": 200 + 14 * len(data)},
        },
    )


def _signatures(data: Entities, clusters: npt.NDArray[np.int64], classes: int) -> Figure:
    shares = substitution_shares(data, classes)
    names = SUBSTITUTIONS if classes == CLASSES else PYRIMIDINE
    return Figure(
        "Substitutions of the clusters",
        "Mean share of each substitution over the members of a cluster.",
        plotly=_bars(names, {f"cluster {c}": shares[clusters == c].mean(0) for c in np.unique(clusters)}),
    )


def _chromosomes(data: Entities, clusters: npt.NDArray[np.int64]) -> Figure:
    counts = data.summed(data.counts.by_chromosome).reshape(len(data), len(CHROMOSOMES), CLASSES).sum(2)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return Figure(
        "Chromosomes of the clusters",
        "Mean share of the mutations that lie on each chromosome.",
        plotly=_bars(CHROMOSOMES, {f"cluster {c}": shares[clusters == c].mean(0) for c in np.unique(clusters)}),
    )


def _bars(names: tuple[str, ...], groups: dict[str, npt.NDArray[np.floating]]) -> dict[str, Any]:
    return {
        "data": [
            {"type": "bar", "name": name, "x": list(names), "y": np.round(values, 5).tolist()}
            for name, values in groups.items()
        ],
        "layout": {"barmode": "group", "xaxis": {"type": "category"}, "yaxis": {"title": {"text": "share"}}},
    }


def _genes(data: Entities, clusters: npt.NDArray[np.int64]) -> Figure:
    """The genes that most members of a cluster have mutated most, and in how many clusters' lists each stands."""
    counts = data.summed(data.counts.by_gene).reshape(len(data), len(data.counts.genes), CLASSES).sum(2)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    lists = {}
    for cluster in np.unique(clusters):
        mean = shares[clusters == cluster].mean(0)
        lists[int(cluster)] = [data.counts.genes[place] for place in np.argsort(-mean, kind="stable")[:TOP_GENES]]
    together = [gene for genes in lists.values() for gene in genes]
    rows = []
    for cluster, genes in lists.items():
        own = [gene for gene in genes if together.count(gene) == 1]
        rows.append(
            {
                "cluster": cluster,
                "members": int((clusters == cluster).sum()),
                "most mutated genes": ", ".join(genes),
                "in no other list": ", ".join(own) or "none",
            }
        )
    return Figure(
        "Genes of the clusters",
        f"The {TOP_GENES} genes with the largest mean share of the mutations, and those that no other cluster lists.",
        table=pd.DataFrame(rows),
    )


def _indices(system: MSConTab, data: Entities) -> Figure:
    quality = cluster_quality(system, data)
    return Figure(
        "How good the clusters are",
        "Indices on the embeddings, beside the same on embeddings with shuffled columns; silhouette, Calinski-Harabasz "
        "and both agreements are better when higher, Davies-Bouldin when lower.",
        table=pd.DataFrame({"index": list(quality), "value": [round(value, 3) for value in quality.values()]}),
    )
