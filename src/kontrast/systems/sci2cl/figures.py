"""What a person looks at: maps by type, cluster, batch and pseudotime, confusion, agreement, markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.evaluation.matching import matching_metrics
from kontrast.evaluation.projection import Projection, project
from kontrast.evaluation.trajectory import pseudotime
from kontrast.systems.sci2cl.markers import rank_markers
from kontrast.systems.sci2cl.questions import clusters_of
from kontrast.systems.sci2cl.views import OmicsData

if TYPE_CHECKING:
    from kontrast.systems.sci2cl.system import Sci2CL

UMAP_FROM = 500
"""Cells from which a map is UMAP's: it compiles itself for half a minute, and few points gain little over PCA."""
BATCHES = ("batch", "donor", "sample", "library")
SHOWN = 3000
MARKERS, MARKED_CELLS = 3, 2000


def cell_figures(system: Sci2CL, data: OmicsData) -> list[Figure]:
    """Figures of some cells."""
    vectors, units = system.vectors_and_units(data)
    clusters = clusters_of(vectors, data.cells.ids, system.config).astype(str)
    method: Literal["auto", "pca"] = "auto" if len(vectors) >= UMAP_FROM else "pca"
    shown = project(vectors, method=method, max_rows=SHOWN, cosine=False, seed=system.config.seed)
    types = None if data.labels is None else np.asarray(["" if x is None else x for x in data.labels], dtype=object)
    groups = clusters if types is None else types
    made = []
    if types is not None:
        made.append(_map(shown, types, "Cells by type", f"Colours are the values of '{data.column}'; none is grey."))
    made.append(_map(shown, clusters, "Cells by cluster", "K-means or Leiden on the embedding, as the options say."))
    batch = next((name for name in BATCHES if name in data.cells.obs.columns), None)
    if batch is not None:
        values = data.cells.obs[batch].astype(str).to_numpy(object)
        made.append(_map(shown, values, "Cells by batch", f"Colours are the values of '{batch}': they should mix."))
    root = _root(system, data, groups)
    if root is not None:
        far = pseudotime(vectors, root, method=system.config.course)
        made.append(_course(shown, far))
    if types is not None and len(data.labelled()) > 1:
        made.append(_confusion(types, clusters))
    if len(units) == 2 and len(vectors) > 1:
        made.append(_agreement(system, units))
    if len(set(groups.tolist()) - {""}) > 1:
        made.extend(_dots(system, data, groups))
    return made


def _axes(shown: Projection) -> dict[str, Any]:
    names = [f"{shown.method} {number}" for number in (1, 2)]
    return {axis: {"title": {"text": name}} for axis, name in zip(("xaxis", "yaxis"), names)}


def _map(shown: Projection, groups: npt.NDArray[Any], title: str, caption: str) -> Figure:
    traces = []
    here = groups[shown.rows]
    for name in sorted(set(here.tolist()), key=lambda value: (value == "", str(value))):
        rows = np.flatnonzero(here == name)
        marker: dict[str, Any] = {"size": 4} | ({"color": "#bbbbbb"} if name == "" else {})
        traces.append(
            {
                "type": "scattergl",
                "mode": "markers",
                "name": str(name) or "no label",
                "x": shown.coordinates[rows, 0].round(3).tolist(),
                "y": shown.coordinates[rows, 1].round(3).tolist(),
                "marker": marker,
            }
        )
    return Figure(title, f"{caption} {shown.title}; distances between far groups mean little.",
                  plotly={"data": traces, "layout": _axes(shown)})  # fmt: skip


def _root(system: Sci2CL, data: OmicsData, groups: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Cells where a trajectory begins: the option `root`, else the earliest cells of the known order."""
    if system.config.root is not None:
        rows = np.flatnonzero(groups == system.config.root)
        return rows if len(rows) else None
    if system.config.order is None or system.config.order not in data.cells.obs.columns:
        return None
    order = pd.to_numeric(data.cells.obs[system.config.order], errors="coerce").to_numpy(np.float64)
    known = np.flatnonzero(np.isfinite(order))
    return known[order[known] <= np.quantile(order[known], 0.03)] if len(known) else None


def _course(shown: Projection, far: npt.NDArray[np.float64]) -> Figure:
    here = far[shown.rows]
    known = np.flatnonzero(np.isfinite(here))
    return Figure(
        "Pseudotime",
        "How far each cell is from the root along the graph of neighbours, from 0 to 1.",
        plotly={
            "data": [
                {
                    "type": "scattergl",
                    "mode": "markers",
                    "x": shown.coordinates[known, 0].round(3).tolist(),
                    "y": shown.coordinates[known, 1].round(3).tolist(),
                    "marker": {
                        "size": 4,
                        "color": here[known].round(4).tolist(),
                        "colorscale": "Viridis",
                        "colorbar": {"title": {"text": "pseudotime"}},
                    },
                }
            ],
            "layout": _axes(shown),
        },
    )


def _confusion(types: npt.NDArray[Any], clusters: npt.NDArray[Any]) -> Figure:
    known = types != ""
    table = pd.crosstab(types[known], clusters[known], normalize="index")
    columns = sorted(table.columns, key=int)
    return Figure(
        "Types and clusters",
        "Share of each type's cells in each cluster; one bright square in a row is a type that is found whole.",
        plotly={
            "data": [
                {
                    "type": "heatmap",
                    "z": table[columns].to_numpy().round(3).tolist(),
                    "x": [f"cluster {name}" for name in columns],
                    "y": [str(name) for name in table.index],
                    "colorscale": "Blues",
                    "zmin": 0,
                    "zmax": 1,
                }
            ],
            "layout": {"yaxis": {"automargin": True, "autorange": "reversed"}},
        },
    )


def _agreement(system: Sci2CL, units: Sequence[npt.NDArray[np.float32]]) -> Figure:
    found = matching_metrics(units[0], units[1])
    names = [fact["name"] for fact in system.facts_["modalities"]]
    shares = [round(float(share), 3) for share in system.model_.shares]
    rows = [
        {"what": "cells that find themselves in the other modality", "value": found["matching_recall@1"]},
        {"what": "the same by chance", "value": 1 / len(units[0])},
        {"what": "share of other cells that are closer than the true match", "value": found["foscttm"]},
        {"what": "the same by chance", "value": 0.5},
        *({"what": f"weight of {name} in the fused embedding", "value": share} for name, share in zip(names, shares)),
    ]
    return Figure(
        "Agreement of the modalities",
        f"Does a cell's {names[0]} say the same as its {names[1]}? Weights are learned without labels.",
        table=pd.DataFrame(rows),
    )


def _dots(system: Sci2CL, data: OmicsData, groups: npt.NDArray[Any]) -> list[Figure]:
    """A dot plot of the leading markers of each modality."""
    rows = np.flatnonzero(groups != "")
    if len(rows) > MARKED_CELLS:
        rows = rows[np.linspace(0, len(rows) - 1, MARKED_CELLS).astype(np.int64)]
    made = []
    for name, part in system.parts(data).items():
        values = part.values(rows, part.frequencies())
        table = rank_markers(values, part.facts.features, groups[rows])
        leading = table.groupby("group", sort=True).head(MARKERS)
        features = list(dict.fromkeys(leading["feature"]))
        dots = table[table["feature"].isin(features)]
        made.append(
            Figure(
                f"Markers in {name}",
                f"The {MARKERS} features that best tell each group from all others: size is the share of cells with "
                "the feature, colour its mean.",
                plotly={
                    "data": [
                        {
                            "type": "scatter",
                            "mode": "markers",
                            "x": dots["feature"].astype(str).tolist(),
                            "y": dots["group"].astype(str).tolist(),
                            "marker": {
                                "size": (3 + 12 * dots["share_in"]).round(1).tolist(),
                                "color": dots["mean_in"].round(3).tolist(),
                                "colorscale": "Reds",
                                "colorbar": {"title": {"text": "mean"}},
                            },
                        }
                    ],
                    "layout": {
                        "xaxis": {"categoryorder": "array", "categoryarray": features, "tickangle": -60},
                        "yaxis": {"type": "category", "automargin": True},
                    },
                },
            )
        )
    return made
