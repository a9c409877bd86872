"""Dividing edges into train, valid and test, and sampling pairs that are no edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kontrast.data.graphs.graph import Fold, Graph, Nodes, pair_keys, pairs_of
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

FRACTIONS = (0.85, 0.05, 0.10)


def divide_edges(graph: Graph, seed: int, fractions: tuple[float, float, float] = FRACTIONS) -> Fold:
    """A random division of the edges with as many sampled non-edges as there are valid and test edges.

    An edge is one row, so its two directions never straddle. Negatives are drawn uniformly from the pairs that are no
    edge of the whole graph; those of valid and test are distinct.

    Args:
        graph: the whole graph.
        seed: of the division and the negatives.
        fractions: shares of train, valid and test; valid and test are rounded down, but have at least one edge.

    Raises:
        DataError: if there are fewer than 10 edges, or not enough pairs that are no edges.
    """
    m = len(graph.edges)
    if m < 10:
        raise DataError(f"has {m} edges, too few to hold some out", file=graph.path, mend="give at least 10 edges")
    held = [max(1, int(m * share)) for share in fractions[1:]]
    rng = numpy_rng(seed, "division of edges")
    order = rng.permutation(m)
    valid, test, train = (graph.edges[np.sort(rows)] for rows in np.split(order, np.cumsum(held)))
    try:
        negatives = sample_non_edges(graph.n, sum(held), pair_keys(graph.edges, graph.n), rng)
    except DataError as error:
        raise DataError(str(error), file=graph.path) from None
    return Fold(train, valid, test, negatives[: held[0]], negatives[held[0] :])


def sample_non_edges(
    n: int, count: int, forbidden: npt.NDArray[np.int64], rng: np.random.Generator, *, distinct: bool = True
) -> Nodes:
    """Uniform pairs of different nodes that are not forbidden.

    Args:
        n: number of nodes.
        count: pairs wanted.
        forbidden: sorted `pair_keys` of the pairs that must not come.
        rng: draws them.
        distinct: whether no pair comes twice.

    Returns:
        (count, 2) pairs, the smaller number first.

    Raises:
        DataError: if there are fewer than `count` such pairs (with `distinct`), or none.
    """
    free = n * (n - 1) // 2 - len(forbidden)
    if free < (count if distinct else min(count, 1)):
        what = f"has {max(free, 0)} pairs of nodes that are no edges, and {count} are needed as negatives"
        raise DataError(what, mend="give a graph that is less dense")
    if distinct and free < 4 * count:
        rows, columns = np.triu_indices(n, 1)
        open_keys = np.setdiff1d(rows.astype(np.int64) * n + columns, forbidden, assume_unique=True)
        return pairs_of(rng.choice(open_keys, count, replace=False), n)
    found = np.zeros(0, np.int64)
    while len(found) < count:
        ends = rng.integers(n, size=(int((count - len(found)) * 1.1) + 16, 2))
        keys = pair_keys(ends[ends[:, 0] != ends[:, 1]], n)
        keys = keys[~contains(forbidden, keys)]
        found = np.concatenate([found, keys])
        if distinct:
            _, first = np.unique(found, return_index=True)
            found = found[np.sort(first)]
    return pairs_of(found[:count], n)


def contains(ordered_keys: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(k,) whether each key is among the sorted ones."""
    if not len(ordered_keys):
        return np.zeros(len(keys), bool)
    place = np.searchsorted(ordered_keys, keys)
    return np.asarray(ordered_keys[np.minimum(place, len(ordered_keys) - 1)] == keys)
