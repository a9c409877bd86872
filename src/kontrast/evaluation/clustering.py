"""Clustering metrics: agreement of clusters with labels, and k-means on embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.errors import DataError
from kontrast.evaluation.tiles import Matrix, as_matrix
from kontrast.extras import require
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


def ward_tree(embeddings: Matrix) -> npt.NDArray[np.float64]:
    """Ward's tree of the rows as SciPy's linkage matrix (n - 1, 4): two joined nodes, their distance, their size.

    Raises:
        ValueError: if there are fewer than two rows or values are not finite.
    """
    from scipy.cluster.hierarchy import linkage

    rows = as_matrix(embeddings, "embeddings").cpu().numpy()
    if len(rows) < 2:
        raise ValueError(f"a tree needs at least two rows, got {len(rows)}.")
    return np.asarray(linkage(rows.astype(np.float64), method="ward"), np.float64)


def ward(embeddings: Matrix, n_clusters: int) -> npt.NDArray[np.int64]:
    """Clusters (n,) of the rows by cutting `ward_tree` where `n_clusters` branches are left.

    Raises:
        ValueError: if `n_clusters` is not in 1..n or values are not finite.
    """
    from scipy.cluster.hierarchy import fcluster

    rows = as_matrix(embeddings, "embeddings").cpu().numpy()
    if not 1 <= n_clusters <= len(rows):
        raise ValueError(f"n_clusters must lie in 1..{len(rows)} (the number of rows), got {n_clusters}.")
    if len(rows) == 1:
        return np.zeros(1, np.int64)
    return np.asarray(fcluster(ward_tree(rows), n_clusters, "maxclust") - 1, np.int64)


def cluster_indices(embeddings: Matrix, clusters: Labels) -> dict[str, float]:
    """How compact and how far apart clusters are, without labels.

    Returns:
        "silhouette" (Rousseeuw 1987) in [-1, 1], higher is better; "davies_bouldin" (1979) from 0, lower is better;
        "calinski_harabasz" (1974) from 0, higher is better. All NaN where they are undefined: fewer than two clusters,
        or every row its own.

    Raises:
        ValueError: if shapes disagree or values are not finite.
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

    rows, groups = as_matrix(embeddings, "embeddings").cpu().numpy(), np.asarray(clusters)
    width = silhouette(rows, groups)
    if not 2 <= len(np.unique(groups)) < len(rows):
        return {"silhouette": width, "davies_bouldin": float("nan"), "calinski_harabasz": float("nan")}
    return {
        "silhouette": width,
        "davies_bouldin": float(davies_bouldin_score(rows, groups)),
        "calinski_harabasz": float(calinski_harabasz_score(rows, groups)),
    }


def clustering_metrics(
    embeddings: Matrix,
    labels: Labels,
    *,
    n_clusters: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    restarts: int = 10,
    max_rows: int = 5000,
) -> dict[str, float]:
    """K-means on embeddings against labels, averaged over k-means seeds.

    Args:
        embeddings: (n, d) finite.
        labels: (n,) true classes.
        n_clusters: number of clusters; the number of classes if left out, which uses the labels that far and no
            further.
        seeds: of k-means.
        restarts: of k-means per seed.
        max_rows: rows that the silhouettes are measured on.

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
        width = silhouette(embeddings, clusters, max_rows=max_rows, seed=seed)
        runs.append({**cluster_agreement(truth, clusters), "silhouette": width})
    means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    return {**means, "label_silhouette": silhouette(embeddings, truth, max_rows=max_rows, seed=seeds[0])}


def neighbour_graph(embeddings: Matrix, neighbours: int = 15) -> sparse.csr_array:
    """The graph of nearest neighbours: float64 (n, n) Euclidean distances, symmetric, without self-loops.

    An edge is there if either end has the other among its `neighbours` nearest rows (at most n − 1); rows at the same
    place have the smallest positive distance, so that the edge is stored.

    Raises:
        ValueError: if `neighbours` is below 1, there is no row or values are not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    rows = as_matrix(embeddings, "embeddings").cpu().numpy()
    if neighbours < 1 or not len(rows):
        raise ValueError(
            f"neighbours must be at least 1 and rows must be there, got {neighbours} and {len(rows)} rows."
        )
    if len(rows) == 1:
        return sparse.csr_array((1, 1), dtype=np.float64)
    graph = NearestNeighbors(n_neighbors=min(neighbours, len(rows) - 1)).fit(rows).kneighbors_graph(mode="distance")
    graph.data = np.maximum(graph.data, np.finfo(np.float64).tiny)
    return sparse.csr_array(graph.maximum(graph.T))


def leiden(
    embeddings: Matrix, *, neighbours: int = 15, resolution: float = 1.0, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Clusters (n,) of the rows by the Leiden algorithm (Traag et al. 2019, arXiv 1810.08473) on their neighbour graph.

    Args:
        embeddings: (n, d) finite.
        neighbours: of the graph; edges have the weight 1.
        resolution: of modularity; more gives more clusters.
        seed: of the algorithm.

    Returns:
        Cluster numbers, the largest cluster first.

    Raises:
        ValueError: as `neighbour_graph` does.
        MissingExtraError: without igraph (extra ``omics``).
    """
    import random

    igraph = require("igraph", extra="omics", purpose="for Leiden clustering")
    graph = sparse.coo_array(sparse.triu(neighbour_graph(embeddings, neighbours), k=1))
    edges = np.stack([graph.row, graph.col], axis=1)
    igraph.set_random_number_generator(random.Random(derive_seed(seed, "leiden")))
    try:
        found = igraph.Graph(n=graph.shape[0], edges=edges.tolist()).community_leiden(
            objective_function="modularity", resolution=resolution, n_iterations=-1
        )
    finally:
        igraph.set_random_number_generator(random)
    members = np.asarray(found.membership, np.int64)
    order = np.argsort(-np.bincount(members), kind="stable")
    return np.asarray(np.argsort(order)[members], np.int64)


def number_of_clusters(embeddings: Matrix, *, most: int = 25, seed: int = 0, max_rows: int = 2000) -> tuple[int, float]:
    """The number of k-means clusters from 2 to `most` with the widest silhouette, and that silhouette.

    No label is used. Works on a seeded subsample of at most `max_rows` rows. Fewer than four rows give one cluster
    and NaN.
    """
    rows = as_matrix(embeddings, "embeddings").cpu().numpy()
    if len(rows) > max_rows:
        rows = rows[np.sort(numpy_rng(seed, "number of clusters").choice(len(rows), max_rows, replace=False))]
    best, width = 1, float("nan")
    for count in range(2, min(most, len(np.unique(rows, axis=0)) - 1) + 1):
        found = silhouette(rows, kmeans(rows, count, seed=seed, restarts=3), max_rows=max_rows)
        if not found <= width and found == found:
            best, width = count, found
    return best, width
