"""Clustering metrics: agreement of clusters with labels, and k-means on embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.tiles import Matrix, as_matrix
from kontrast.randomness import derive_seed, numpy_rng

Labels = Sequence[Any] | npt.NDArray[Any]


def cluster_agreement(labels: Labels, clusters: Labels) -> dict[str, float]:
    """How well clusters agree with labels; the clusters' numbering does not matter.

    Args:
        labels: (n,) true classes.
        clusters: (n,) cluster of each row.

    Returns:
        "nmi": normalised mutual information with the arithmetic mean of both entropies, in [0, 1];
        "ari": Rand index adjusted for chance (Hubert and Arabie 1985), 0 for random clusters, at most 1;
        "acc": accuracy under the best one-to-one matching of clusters to classes (Hungarian method), in [0, 1].

    Raises:
        ValueError: if the lengths differ or are 0.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    truth, found = np.asarray(labels), np.asarray(clusters)
    if truth.shape != found.shape or truth.ndim != 1 or not truth.size:
        raise ValueError(f"labels and clusters must be vectors of equal length, got {truth.shape} and {found.shape}.")
    rows, columns = (np.unique(values, return_inverse=True)[1].ravel() for values in (truth, found))
    table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(rows, columns, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(rows, columns)),
        "acc": float(matched / len(truth)),
    }


def kmeans(embeddings: Matrix, n_clusters: int, *, seed: int = 0, restarts: int = 10) -> npt.NDArray[np.int64]:
    """Clusters (n,) of the rows by k-means (k-means++ starts, the best of `restarts` kept).

    Raises:
        ValueError: if `n_clusters` is not in 1..n or values are not finite.
    """
    from sklearn.cluster import KMeans

    rows = as_matrix(embeddings, "embeddings").cpu().numpy()
    if not 1 <= n_clusters <= len(rows):
        raise ValueError(f"n_clusters must lie in 1..{len(rows)} (the number of rows), got {n_clusters}.")
    state = derive_seed(seed, "kmeans") % 2**32
    fitted = KMeans(n_clusters, n_init=restarts, random_state=state).fit(rows)
    return np.asarray(fitted.labels_, np.int64)


def silhouette(
    embeddings: Matrix, clusters: Labels, *, cosine: bool = False, max_rows: int = 5000, seed: int = 0
) -> float:
    """Mean silhouette width in [-1, 1] (Rousseeuw 1987), on a seeded subsample of at most `max_rows` rows.

    Returns:
        The mean width, or NaN where it is undefined (fewer than two clusters, or every row its own).

    Raises:
        ValueError: if shapes disagree or values are not finite.
    """
    from sklearn.metrics import silhouette_score

    rows, groups = as_matrix(embeddings, "embeddings").cpu().numpy(), np.asarray(clusters)
    if groups.shape != (len(rows),):
        raise ValueError(f"there are {len(rows)} embeddings, but the clusters have the shape {groups.shape}.")
    if len(rows) > max_rows:
        chosen = np.sort(numpy_rng(seed, "silhouette").choice(len(rows), max_rows, replace=False))
        rows, groups = rows[chosen], groups[chosen]
    if not 2 <= len(np.unique(groups)) < len(rows):
        return float("nan")
    return float(silhouette_score(rows, groups, metric="cosine" if cosine else "euclidean"))


def clustering_metrics(
    embeddings: Matrix,
    labels: Labels,
    *,
    n_clusters: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    restarts: int = 10,
) -> dict[str, float]:
    """K-means on embeddings against labels, averaged over k-means seeds.

    Args:
        embeddings: (n, d) finite.
        labels: (n,) true classes.
        n_clusters: number of clusters; the number of classes if left out, which uses the labels that far and no
            further.
        seeds: of k-means.
        restarts: of k-means per seed.

    Returns:
        "nmi", "ari" and "acc" (see `cluster_agreement`), "silhouette" of the clusters, and "label_silhouette" of the
        classes.

    Raises:
        DataError: if there are fewer than two classes.
        ValueError: if shapes disagree or values are not finite.
    """
    truth = np.asarray(labels)
    if not seeds:
        raise ValueError("give at least one seed.")
    classes = len(np.unique(truth))
    if classes < 2:
        raise DataError("clustering metrics need labels of at least two classes")
    runs = []
    for seed in seeds:
        clusters = kmeans(embeddings, n_clusters or classes, seed=seed, restarts=restarts)
        runs.append({**cluster_agreement(truth, clusters), "silhouette": silhouette(embeddings, clusters, seed=seed)})
    means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    return {**means, "label_silhouette": silhouette(embeddings, truth, seed=seeds[0])}
