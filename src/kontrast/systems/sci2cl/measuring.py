"""Metrics of embeddings: clusters against cell types, label transfer, agreement of the modalities, trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError, MissingExtraError
from kontrast.evaluation.clustering import (
    cluster_agreement,
    clustering_metrics,
    kmeans,
    leiden,
    number_of_clusters,
)
from kontrast.evaluation.matching import matching_metrics
from kontrast.evaluation.trajectory import order_correlation, pseudotime
from kontrast.progress import say
from kontrast.systems.sci2cl.questions import in_order, transferred
from kontrast.systems.sci2cl.views import OmicsData

if TYPE_CHECKING:
    from kontrast.systems.sci2cl.system import Sci2CL

SEEDS = tuple(range(10))
"""Of k-means; metrics are means over them."""
SILHOUETTE_ROWS = 2000


def cluster_metrics(vectors: npt.NDArray[np.float32], data: OmicsData) -> dict[str, float]:
    """K-means with as many clusters as types, on the labelled cells: "ari", "nmi", "acc", "silhouette" ...; empty if
    there are fewer than two types. Means over ten k-means seeds; the order of the rows does not matter."""
    rows = data.labelled()
    if not len(rows) or data.labels is None or len(set(data.labels[rows].tolist())) < 2:
        return {}
    rows = rows[in_order(data.cells.ids[rows])]
    found = clustering_metrics(vectors[rows], data.labels[rows].astype(str), seeds=SEEDS, max_rows=SILHOUETTE_ROWS)
    return {name: value for name, value in found.items() if value == value}


def free_metrics(vectors: npt.NDArray[np.float32], data: OmicsData) -> dict[str, float]:
    """The same without telling the number of types: k by silhouette ("free_k ...") and Leiden at resolution 1."""
    rows = data.labelled()
    rows = rows[in_order(data.cells.ids[rows])]
    labels, some = np.asarray(data.labels)[rows].astype(str), vectors[rows]
    count, _ = number_of_clusters(some)
    found = {"free_k": float(count)}
    for name, value in cluster_agreement(labels, kmeans(some, count)).items():
        found[f"free_k_{name}"] = value
    try:
        for name, value in cluster_agreement(labels, leiden(some)).items():
            found[f"leiden_{name}"] = value
    except MissingExtraError as error:
        say(f"no Leiden metrics: {error}")
    return found


def measured(system: Sci2CL, data: OmicsData) -> dict[str, float]:
    """All metrics of some cells."""
    vectors, units = system.vectors_and_units(data)
    found = cluster_metrics(vectors, data)
    if found:
        found |= free_metrics(vectors, data)
        found |= _transfer(system, vectors, data)
    else:
        say("these cells have labels of fewer than two types: only metrics without labels are measured.")
        found["ari"] = float("nan")
    if len(units) == 2 and len(vectors) > 1:
        found |= matching_metrics(units[0], units[1])
    if system.config.order is not None:
        found |= _trajectory(system, vectors, data)
    if system.config.itm == "labels":
        found["semi_supervised"] = 1.0
    return found


def _transfer(system: Sci2CL, vectors: npt.NDArray[np.float32], data: OmicsData) -> dict[str, float]:
    known = set(system.reference_.labels.tolist())
    rows = np.asarray([row for row in data.labelled() if np.asarray(data.labels)[row] in known], dtype=np.int64)
    if len(known) < 2 or not len(rows):
        return {}
    from sklearn.metrics import f1_score

    truth = np.asarray(data.labels)[rows].astype(str)
    predicted = transferred(system, vectors[rows])[0].astype(str)
    return {
        "transfer_accuracy": float((truth == predicted).mean()),
        "transfer_macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
    }


def _trajectory(system: Sci2CL, vectors: npt.NDArray[np.float32], data: OmicsData) -> dict[str, float]:
    """Absolute Spearman of the pseudotime that begins at the earliest cells of the known order, among ordered cells."""
    assert system.config.order is not None
    column = data.cells.column(system.config.order)
    try:
        order = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        what = f"column '{system.config.order}' of obs is no order, it holds {str(column.iloc[0])!r}"
        raise DataError(what, file=data.cells.path, mend="name a column of numbers") from None
    rows = np.flatnonzero(np.isfinite(order))
    if len(rows) < 3:
        return {}
    rows = rows[in_order(data.cells.ids[rows])]
    earliest = np.flatnonzero(order[rows] <= np.quantile(order[rows], 0.03))
    far = pseudotime(vectors[rows], earliest, method=system.config.course, bridged=True)
    found = order_correlation(far, order[rows])
    return {"pseudotime_spearman": found} if found == found else {}
