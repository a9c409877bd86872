"""Clusters of entities, and how much may be read into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.clustering import cluster_agreement, cluster_indices, kmeans, number_of_clusters, ward
from kontrast.randomness import numpy_rng
from kontrast.systems.ms_contab.views import Entities

if TYPE_CHECKING:
    from kontrast.systems.ms_contab.system import MSConTab

Vectors = npt.NDArray[np.float32]
Clusters = npt.NDArray[np.int64]
MOST_CLUSTERS = 12
RUNS = 10
SHARE = 0.8


def unit(vectors: Vectors) -> Vectors:
    """(n, d) rows of length 1; a zero row stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def clusters_of(system: MSConTab, data: Entities, vectors: Vectors) -> npt.NDArray[np.int64]:
    """(n,) clusters of entities, numbered from 1 by size; they do not depend on the order of the rows."""
    if len(data) < 3:
        raise DataError(f"there are {len(data)} entities to cluster", file=data.counts.path, mend="give at least three")
    order = np.argsort(np.array(data.names))
    rows = unit(vectors)[order]
    count = system.config.clusters
    if count is None:
        count = max(2, number_of_clusters(rows, most=min(MOST_CLUSTERS, len(rows) - 1))[0])
    if count >= len(rows):
        raise ConfigError(f"option 'clusters': {len(rows)} entities can make at most {len(rows) - 1}, got {count}.")
    found = ward(rows, count) if system.config.method == "ward" else kmeans(rows, count)
    sizes = np.bincount(found)
    first = np.array([np.flatnonzero(found == number)[0] for number in range(len(sizes))])
    renamed = np.empty(len(sizes), np.int64)
    renamed[np.lexsort((first, -sizes))] = np.arange(1, len(sizes) + 1)
    result = np.empty(len(rows), np.int64)
    result[order] = renamed[found]
    return result


def cluster_quality(system: MSConTab, data: Entities) -> dict[str, float]:
    """Indices of the clusters, the same under a null, and whether the clusters would be found again.

    "silhouette", "davies_bouldin" and "calinski_harabasz" on the embeddings; "null silhouette" is that of the same
    clustering of embeddings whose columns were shuffled; "seed agreement" is the mean adjusted Rand index between runs
    of k-means from single starts, and "patient agreement" that between clusterings of cohorts made of a random 80 % of
    their patients (cohorts of single patients only).
    """
    order = np.argsort(np.array(data.names))
    data = data.take(order)
    vectors = unit(system.vectors(data))
    clusters = clusters_of(system, data, vectors)
    count = len(np.unique(clusters))
    found = cluster_indices(vectors, clusters)
    null = [column_shuffled(vectors, run) for run in range(RUNS)]
    widths = [cluster_indices(rows, kmeans(rows, count, restarts=3))["silhouette"] for rows in null]
    found["null silhouette"] = float(np.mean(widths))
    found["seed agreement"] = stability(lambda run: kmeans(vectors, count, seed=run, restarts=1))
    if data.level == "cohort" and not data.counts.whole_cohorts:
        found["patient agreement"] = stability(
            lambda run: kmeans(unit(system.vectors(some_patients(data, run))), count, restarts=3)
        )
    return found


def stability(cluster: Callable[[int], Clusters]) -> float:
    """Mean adjusted Rand index between all pairs of `RUNS` clusterings; 1 if they agree."""
    made = [cluster(run) for run in range(RUNS)]
    pairs = [(first, second) for first in range(RUNS) for second in range(first)]
    return float(np.mean([cluster_agreement(made[first], made[second])["ari"] for first, second in pairs]))


def some_patients(data: Entities, run: int) -> Entities:
    """The same cohorts with a random 80 % of their patients; the draw depends on a cohort's name and `run` alone."""
    members = []
    for name, rows in zip(data.names, data.members):
        rng = numpy_rng("stability", name, run)
        members.append(np.sort(rng.choice(rows, max(1, round(SHARE * len(rows))), replace=False)))
    return replace(data, members=tuple(members))


def column_shuffled(vectors: Vectors, run: int) -> Vectors:
    """Each column in an order of its own: the same values without any structure between columns."""
    rng = numpy_rng("shuffled columns", run)
    return np.stack([column[rng.permutation(len(column))] for column in vectors.T], axis=1)
