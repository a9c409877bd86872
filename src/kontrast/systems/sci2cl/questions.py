"""What `predict` can be asked: clusters, subclusters, labels, a trajectory, markers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.omics import normalised
from kontrast.errors import ConfigError, DataError, suggest
from kontrast.evaluation.clustering import kmeans, leiden, number_of_clusters
from kontrast.evaluation.probing import knn_probe
from kontrast.evaluation.search import top_k
from kontrast.evaluation.trajectory import pseudotime
from kontrast.systems.sci2cl.config import Sci2CLConfig
from kontrast.systems.sci2cl.markers import rank_markers
from kontrast.systems.sci2cl.views import OmicsData

if TYPE_CHECKING:
    from kontrast.systems.sci2cl.system import Sci2CL

Vectors = npt.NDArray[np.float32]


def answer(system: Sci2CL, data: OmicsData) -> pd.DataFrame:
    """The table that the option `ask` asks for."""
    questions: dict[str, Callable[[Sci2CL, OmicsData, Vectors], pd.DataFrame]] = {
        "clusters": _clusters,
        "subcluster": _subcluster,
        "labels": _labels,
        "trajectory": _trajectory,
        "markers": _markers,
    }
    return questions[system.config.ask](system, data, system.vectors(data))


def in_order(ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Positions by id: what is drawn at random then does not depend on the order of the rows."""
    return np.asarray(np.argsort(ids.astype(str), kind="stable"), dtype=np.int64)


def clusters_of(vectors: Vectors, ids: npt.NDArray[Any], config: Sci2CLConfig) -> npt.NDArray[np.int64]:
    """(n,) clusters as the options say, the largest first, whatever the order of the rows."""
    order = in_order(ids)
    rows = vectors[order]
    if config.method == "leiden":
        found = leiden(rows, resolution=config.resolution, seed=config.seed)
    else:
        if config.clusters is not None and config.clusters > len(rows):
            raise ConfigError(f"option 'clusters': there are {len(rows)} cells, got {config.clusters}.")
        count = config.clusters or number_of_clusters(rows, seed=config.seed)[0]
        found = kmeans(rows, count, seed=config.seed)
    ranks = np.argsort(np.argsort(-np.bincount(found), kind="stable"), kind="stable")
    made = np.empty(len(rows), dtype=np.int64)
    made[order] = ranks[found]
    return made


def _clusters(system: Sci2CL, data: OmicsData, vectors: Vectors) -> pd.DataFrame:
    found = clusters_of(vectors, data.cells.ids, system.config)
    return pd.DataFrame({"id": data.cells.ids, "cluster": [str(number) for number in found]})


def groups_of(system: Sci2CL, data: OmicsData, vectors: Vectors) -> npt.NDArray[np.object_]:
    """(n,) the cell's own label; without labels in the data its transferred label; without any its cluster."""
    if data.labels is not None and len(data.labelled()):
        return np.asarray(["" if label is None else label for label in data.labels], dtype=object)
    if len(system.reference_.labels):
        return np.asarray(transferred(system, vectors)[0], dtype=object)
    return np.asarray([str(number) for number in clusters_of(vectors, data.cells.ids, system.config)], dtype=object)


def _chosen(groups: npt.NDArray[np.object_], name: str | None, option: str, data: OmicsData) -> npt.NDArray[np.int64]:
    known = sorted(set(groups.tolist()) - {""})
    if name is None:
        raise ConfigError(f"option '{option}' is needed for this question; {suggest('', known)}.")
    rows = np.flatnonzero(groups == name)
    if not len(rows):
        raise DataError(f"has no cell of '{name}' (option '{option}'); {suggest(name, known)}", file=data.cells.path)
    return rows


def _subcluster(system: Sci2CL, data: OmicsData, vectors: Vectors) -> pd.DataFrame:
    config = system.config
    rows = _chosen(groups_of(system, data, vectors), config.of, "of", data)
    if len(rows) < 3:
        what = f"has {len(rows)} cells of '{config.of}'"
        raise DataError(what, file=data.cells.path, mend="divide a group of at least three cells")
    ids = data.cells.ids[rows]
    order = in_order(ids)
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = leiden(vectors[rows][order], resolution=config.resolution, seed=config.seed)
    return pd.DataFrame({"id": ids, "subcluster": [f"{config.of}.{number}" for number in found]})


def transferred(system: Sci2CL, vectors: Vectors) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """(n,) labels of the nearest labelled training cells, and the share of them that agree.

    Raises:
        DataError: if the training cells had no labels.
    """
    reference, votes = system.reference_, system.config.votes
    if len(set(reference.labels.tolist())) < 2:
        mend = "train on cells with a column of cell types (option 'label')"
        raise DataError("the training cells had fewer than two cell types to pass on", mend=mend)
    unknown = [""] * len(vectors)
    found = knn_probe(reference.vectors, reference.labels, vectors, unknown, k=votes, temperature=float("inf"))
    _, nearest = top_k(vectors, reference.vectors, votes)
    agree = (reference.labels[nearest] == np.asarray(found.predicted)[:, None]).mean(1)
    return np.asarray(found.predicted), agree


def _labels(system: Sci2CL, data: OmicsData, vectors: Vectors) -> pd.DataFrame:
    found, agree = transferred(system, vectors)
    return pd.DataFrame({"id": data.cells.ids, "label": found.astype(str), "confidence": agree})


def _trajectory(system: Sci2CL, data: OmicsData, vectors: Vectors) -> pd.DataFrame:
    groups = groups_of(system, data, vectors)
    roots = _chosen(groups, system.config.root, "root", data)
    far = pseudotime(vectors, roots, method=system.config.course, bridged=True)
    return pd.DataFrame({"id": data.cells.ids, "group": groups, "pseudotime": far})


def _markers(system: Sci2CL, data: OmicsData, vectors: Vectors) -> pd.DataFrame:
    groups = groups_of(system, data, vectors)
    kept = np.flatnonzero(groups != "")
    if len(set(groups[kept].tolist())) < 2:
        mend = "give more groups: option 'clusters', or labels of several types"
        raise DataError("there is one group of cells, and markers tell groups apart", file=data.cells.path, mend=mend)
    parts = []
    for name, part in system.parts(data).items():
        weights = part.frequencies()
        level = part.facts.level
        values = np.concatenate(
            [
                normalised(part.counts[some], part.facts.kind, part.totals[some], level, weights)
                for some in np.array_split(kept, max(1, len(kept) // 1024))
            ]
        )
        found = rank_markers(values, part.facts.features, groups[kept], system.config.top)
        found.insert(1, "modality", name)
        parts.append(found)
    return pd.concat(parts, ignore_index=True)
