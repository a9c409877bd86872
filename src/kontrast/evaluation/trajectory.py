"""Trajectories: how far along a course each row is, and which groups are neighbours on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial.distance import cdist

from kontrast.errors import DataError
from kontrast.evaluation.clustering import neighbour_graph
from kontrast.evaluation.tiles import Matrix

Floats = npt.NDArray[np.float64]
Method = Literal["geodesic", "diffusion"]
_CELLS = 10_000_000
"""Distances that are held at once."""


def pseudotime(
    embeddings: Matrix,
    roots: Sequence[int] | npt.NDArray[np.int64],
    *,
    method: Method = "geodesic",
    neighbours: int = 15,
    components: int = 10,
    bridged: bool = False,
) -> Floats:
    """The distance of each row from the root rows along the neighbour graph, scaled to [0, 1].

    "geodesic" is the length of the shortest path to the nearest root. "diffusion" is the distance in the space of
    diffusion pseudotime (Haghverdi et al. 2016, eq. 7: eigenvectors weighted by λ / (1 − λ)) from the mean root; its
    kernel is Gaussian with each row's distance to its farthest neighbour as its own width.

    Args:
        embeddings: (n, d) finite.
        roots: rows where the course begins, at least one.
        method: of the two.
        neighbours: of the graph.
        components: eigenvectors of the diffusion.
        bridged: join the parts of a graph that is in parts, each by the shortest edge to the rest.

    Returns:
        (n,) from 0 at a root to 1 at the farthest row; NaN for rows that no path joins to a root (none if bridged).

    Raises:
        ValueError: if there is no root, a root is no row, or values are not finite.
    """
    graph = neighbour_graph(embeddings, neighbours)
    if bridged:
        graph = _bridged(graph, np.asarray(embeddings, dtype=np.float64))
    start = np.unique(np.asarray(roots, dtype=np.int64))
    if not len(start) or start[0] < 0 or start[-1] >= graph.shape[0]:
        raise ValueError(f"roots must name rows 0..{graph.shape[0] - 1}, got {start.tolist()[:5]}.")
    if method == "geodesic":
        far = np.asarray(sparse.csgraph.dijkstra(graph, directed=False, indices=start, min_only=True), dtype=np.float64)
        return _scaled(np.where(np.isfinite(far), far, np.nan))
    reached = _same_part(graph, start)
    inside = np.flatnonzero(reached)
    coordinates = _diffusion(graph[inside][:, inside], components)
    origin = coordinates[np.isin(inside, start)].mean(0)
    far = np.full(graph.shape[0], np.nan)
    far[inside] = np.linalg.norm(coordinates - origin, axis=1)
    return _scaled(far)


def _bridged(graph: sparse.csr_array, rows: Floats) -> sparse.csr_array:
    """The graph with its parts joined, the smallest part first, by the shortest edge from it to any other."""
    while True:
        count, part = sparse.csgraph.connected_components(graph, directed=False)
        if count == 1:
            return graph
        smallest = np.bincount(part).argmin()
        own, others = np.flatnonzero(part == smallest), np.flatnonzero(part != smallest)
        best = (np.inf, 0, 0)
        for block in np.array_split(own, -(-len(own) * len(others) // _CELLS)):
            gaps = cdist(rows[block], rows[others])
            first, second = np.unravel_index(gaps.argmin(), gaps.shape)
            best = min(best, (float(gaps[first, second]), int(block[first]), int(others[second])))
        length, one, other = best
        # An edge of length zero would be no edge of a sparse graph.
        ends = np.maximum([length, length], 1e-12)
        graph = sparse.csr_array(graph + sparse.coo_array((ends, ([one, other], [other, one])), shape=graph.shape))


def _same_part(graph: sparse.csr_array, start: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    _, part = sparse.csgraph.connected_components(graph, directed=False)
    # Several parts have no common stationary state; the course lies in the part with most of the roots.
    return np.asarray(part == np.bincount(part[start]).argmax())


def _diffusion(graph: sparse.csr_array, components: int) -> Floats:
    n = graph.shape[0]
    if n < 3:
        return np.arange(n, dtype=np.float64)[:, None]
    widths = np.maximum(np.asarray(graph.max(axis=1).todense(), dtype=np.float64).ravel(), 1e-12)
    pairs = graph.tocoo()
    kernel = np.exp(-(pairs.data**2) / (widths[pairs.row] * widths[pairs.col]))
    weights = sparse.csr_array((kernel, (pairs.row, pairs.col)), shape=graph.shape)
    for power in (1.0, 0.5):
        # First the density is divided out, then rows are normalised to transitions in their symmetric form.
        root = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-300) ** -power
        weights = sparse.csr_array(sparse.diags_array(root) @ weights @ sparse.diags_array(root))
    count = min(components + 1, n - 1)
    start = np.full(n, n**-0.5)
    if n <= 512:
        values, vectors = np.linalg.eigh(weights.todense())
    else:
        values, vectors = sparse.linalg.eigsh(weights, k=count, v0=start)
    order = np.argsort(-values)[1 : count + 1]
    shares = np.clip(values[order], -1, 1 - 1e-12)
    return np.asarray(vectors[:, order] * (shares / (1 - shares)))


def _scaled(far: Floats) -> Floats:
    top = np.nanmax(far)
    return np.asarray(far / top if top > 0 else far)


def order_correlation(found: npt.ArrayLike, order: npt.ArrayLike) -> float:
    """Spearman's rank correlation of a pseudotime with a known order, over rows where both are known, in [−1, 1].

    NaN if fewer than three such rows are there or one of the two is constant.

    Raises:
        ValueError: if the shapes differ.
    """
    from scipy.stats import spearmanr

    first, second = np.asarray(found, dtype=np.float64), np.asarray(order, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pseudotime and order must be vectors of equal length, got {first.shape} and {second.shape}.")
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 3 or np.ptp(first[known]) == 0 or np.ptp(second[known]) == 0:
        return float("nan")
    return float(spearmanr(first[known], second[known]).statistic)


def type_graph(
    embeddings: Matrix, types: Sequence[Any] | npt.NDArray[Any], *, neighbours: int = 15
) -> tuple[list[Any], Floats]:
    """How strongly groups are joined: edges of the neighbour graph between two groups over those expected by chance.

    The expectation is that of PAGA (Wolf et al. 2019): the ends of each group's edges meet at random. A ratio is at
    most 1.

    Returns:
        The groups, sorted, and (g, g) connectivities, symmetric with a zero diagonal.

    Raises:
        DataError: if there are fewer than two groups.
        ValueError: if shapes disagree.
    """
    graph = sparse.coo_array(neighbour_graph(embeddings, neighbours))
    names, codes = np.unique(np.asarray(types), return_inverse=True)
    if codes.shape != (graph.shape[0],):
        raise ValueError(f"there are {graph.shape[0]} embeddings for {codes.shape[0]} types.")
    if len(names) < 2:
        raise DataError("a graph of types needs at least two types")
    between = np.zeros((len(names), len(names)))
    np.add.at(between, (codes[graph.row], codes[graph.col]), 1.0)
    ends, sizes = between.sum(1), np.bincount(codes).astype(np.float64)
    expected = (ends[:, None] * sizes[None] + ends[None] * sizes[:, None]) / max(len(codes) - 1, 1)
    ratio = np.minimum(2 * between / np.maximum(expected, 1e-12), 1.0)
    np.fill_diagonal(ratio, 0.0)
    return names.tolist(), ratio


def backbone(names: Sequence[Any], connectivity: npt.ArrayLike) -> set[frozenset[Any]]:
    """The edges of the spanning forest with the largest connectivities."""
    ratio = np.asarray(connectivity, dtype=np.float64)
    forest = sparse.csgraph.minimum_spanning_tree(sparse.csr_array(np.where(ratio > 0, 2.0 - ratio, 0.0))).tocoo()
    return {frozenset((names[row], names[column])) for row, column in zip(forest.row, forest.col)}


def edge_f1(found: Iterable[Iterable[Any]], known: Iterable[Iterable[Any]]) -> float:
    """F1 of undirected edges, in [0, 1]; NaN if no edge is known.

    Raises:
        ValueError: if an edge does not join two groups.
    """
    sides = [{frozenset(edge) for edge in edges} for edges in (found, known)]
    if any(len(edge) != 2 for side in sides for edge in side):
        raise ValueError("an edge joins two different groups.")
    if not sides[1]:
        return float("nan")
    return 2 * len(sides[0] & sides[1]) / (len(sides[0]) + len(sides[1]))


def path_edges(course: Sequence[Any]) -> set[frozenset[Any]]:
    """The edges of a course of groups in a row, such as HSC, progenitor, erythroblast."""
    return {
        frozenset(pair) for pair in combinations(course, 2) if abs(course.index(pair[0]) - course.index(pair[1])) == 1
    }
