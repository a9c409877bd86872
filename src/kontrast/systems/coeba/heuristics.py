"""The classic link predictors: scores of node pairs from the seen edges alone, and HeaRT's hard negatives made of them.

Higher means more likely an edge; n × n matrices are never made: whole rows are computed for the nodes that are asked
about, in blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds

from kontrast.data.graphs import Graph, adjacency
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

Scores = npt.NDArray[np.float64]
Nodes = npt.NDArray[np.int64]
RESTART = 0.15
KATZ = 0.005
WALK_STEPS = 12
LARGE = 20_000
"""Above so many nodes the heuristics that walk through the whole graph are left out of the report."""
_BLOCK = 1 << 23
_CHUNK = 50_000


class Heuristics:
    """Heuristic scores on one graph.

    Args:
        graph: nodes and features.
        edges: (m, 2) the edges that may be seen.
        seed: of the SVD's start vector.
    """

    def __init__(self, graph: Graph, edges: Nodes, seed: int = 0) -> None:
        self.graph, self.seed = graph, seed
        self.links = adjacency(edges, graph.n)
        self.degree = np.asarray(self.links.sum(1)).ravel()

    def names(self) -> list[str]:
        """Those that this graph allows, in the order of the report."""
        found = ["common neighbours", "Jaccard", "Adamic–Adar", "resource allocation", "preferential attachment"]
        if self.graph.n <= LARGE:
            found += ["personalised PageRank", "Katz", "SVD"]
        if self.graph.features is not None:
            found.append("feature cosine")
        return found

    def score(self, name: str, pairs: Nodes) -> Scores:
        """(k,) scores of pairs (k, 2) by one of `names`."""
        methods: dict[str, Callable[[Nodes], Scores]] = {
            "common neighbours": lambda some: self._shared(some, np.ones(self.graph.n)),
            "Jaccard": self._jaccard,
            "Adamic–Adar": lambda some: self._shared(some, _inverse(np.log(np.maximum(self.degree, 1)))),
            "resource allocation": lambda some: self._shared(some, _inverse(self.degree)),
            "preferential attachment": lambda some: self.degree[some[:, 0]] * self.degree[some[:, 1]],
            "personalised PageRank": self._page_rank,
            "Katz": self._katz,
            "SVD": self._svd,
            "feature cosine": self._cosine,
        }
        return methods[name](np.asarray(pairs, dtype=np.int64).reshape(-1, 2))

    def _shared(self, pairs: Nodes, weights: Scores) -> Scores:
        """Σ of the weights of common neighbours."""
        left, right = self.links, self.links * weights[None, :]
        parts = [
            np.asarray((left[some[:, 0]] * right.tocsr()[some[:, 1]]).sum(1)).ravel()
            for some in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
        ]
        return np.concatenate(parts)

    def _jaccard(self, pairs: Nodes) -> Scores:
        shared = self._shared(pairs, np.ones(self.graph.n))
        either = self.degree[pairs[:, 0]] + self.degree[pairs[:, 1]] - shared
        return shared * _inverse(either)

    def page_rank_rows(self, nodes: Nodes) -> Scores:
        """(k, n) personalised PageRank from each of some nodes: Σ α (1 − α)^t P^t over 12 steps."""
        walk = (sparse.diags_array(_inverse(self.degree)) @ self.links).tocsr().T.tocsr()
        step = np.zeros((self.graph.n, len(nodes)))
        step[nodes, np.arange(len(nodes))] = 1.0
        total = RESTART * step
        for turn in range(1, WALK_STEPS + 1):
            step = walk @ step
            total += RESTART * (1 - RESTART) ** turn * step
        return np.ascontiguousarray(total.T)

    def _katz_rows(self, nodes: Nodes) -> Scores:
        """(k, n) Σ β^t A^t over six steps, β = 0.005."""
        step = np.zeros((self.graph.n, len(nodes)))
        step[nodes, np.arange(len(nodes))] = 1.0
        total = np.zeros_like(step)
        for _ in range(6):
            step = KATZ * (self.links @ step)
            total += step
        return np.ascontiguousarray(total.T)

    def _by_rows(self, pairs: Nodes, rows: Callable[[Nodes], Scores]) -> Scores:
        """Entries (u, v) of a matrix of which whole rows can be computed."""
        sources, row = np.unique(pairs[:, 0], return_inverse=True)
        scores = np.zeros(len(pairs))
        size = max(1, _BLOCK // self.graph.n)
        for start in range(0, len(sources), size):
            block = rows(sources[start : start + size])
            here = np.flatnonzero((row >= start) & (row < start + size))
            scores[here] = block[row[here] - start, pairs[here, 1]]
        return scores

    def _page_rank(self, pairs: Nodes) -> Scores:
        # Reversibility: deg(u) π_u(v) = deg(v) π_v(u); the sum of both directions is symmetric.
        return self._by_rows(pairs, self.page_rank_rows) + self._by_rows(pairs[:, ::-1], self.page_rank_rows)

    def _katz(self, pairs: Nodes) -> Scores:
        return self._by_rows(pairs, self._katz_rows)

    def _svd(self, pairs: Nodes) -> Scores:
        size = min(64, self.graph.n - 2)
        if size < 1:
            return np.zeros(len(pairs))
        start = numpy_rng(self.seed, "svd").standard_normal(self.graph.n)
        left, values, right = svds(self.links, k=size, v0=start)
        return np.asarray(((left * values)[pairs[:, 0]] * right.T[pairs[:, 1]]).sum(1))

    def unit_features(self) -> sparse.csr_array:
        """(n, f) features of length one."""
        assert self.graph.features is not None
        matrix = self.graph.features.astype(np.float64)
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
        return sparse.csr_array(sparse.diags_array(_inverse(lengths)) @ matrix)

    def _cosine(self, pairs: Nodes) -> Scores:
        unit = self.unit_features()
        parts = [
            np.asarray((unit[some[:, 0]] * unit[some[:, 1]]).sum(1)).ravel()
            for some in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
        ]
        return np.concatenate(parts)


def _inverse(values: Scores) -> Scores:
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)


def hard_negatives(
    graph: Graph, edges: Nodes, positives: Nodes, count: int, *, forbidden: Nodes | None = None, seed: int = 0
) -> Nodes:
    """HeaRT's negatives: for each positive (u, v) the pairs (u, w) and (w, v) that heuristics rank highest.

    Candidates w are ranked by resource allocation, personalised PageRank and feature cosine on the seen edges; each
    has the best of its ranks (arXiv 2306.10453, section 4). Neighbours of the kept end, both ends and the true partner
    are left out; where all scores are 0 candidates come at random.

    Args:
        graph: nodes and features.
        edges: (m, 2) seen edges.
        positives: (k, 2) held-out edges.
        count: negatives of each positive, half of them for either end.
        forbidden: (j, 2) further edges whose ends are left out as candidates, such as validation edges in a test.
        seed: of the random fill.

    Returns:
        (k, count, 2) pairs.

    Raises:
        DataError: if the graph has too few nodes or is too large for whole rows of scores.
    """
    if graph.n > LARGE:
        what = f"has {graph.n} nodes, and hard negatives are made for at most {LARGE}"
        raise DataError(what, file=graph.path, mend="bring hard negatives with the data")
    heuristics = Heuristics(graph, edges)
    known = adjacency(edges if forbidden is None else np.concatenate([edges, forbidden]), graph.n)
    inverse = sparse.diags_array(_inverse(heuristics.degree))
    unit = None if graph.features is None else heuristics.unit_features()
    halves = (count - count // 2, count // 2)
    found = np.empty((len(positives), count, 2), np.int64)
    for side, (start, half) in enumerate(zip((0, halves[0]), halves)):
        kept, partner = positives[:, side], positives[:, 1 - side]
        for rows in np.split(np.arange(len(positives)), range(256, len(positives), 256)):
            nodes = kept[rows]
            scores = [
                (heuristics.links[nodes] @ inverse @ heuristics.links).toarray(),
                heuristics.page_rank_rows(nodes),
            ]
            if unit is not None:
                scores.append((unit[nodes] @ unit.T).toarray())
            barred = known[nodes].toarray() > 0
            barred[np.arange(len(rows)), nodes] = barred[np.arange(len(rows)), partner[rows]] = True
            chosen = _best_ranked(scores, barred, half, rows, numpy_rng(seed, "hard negatives", side))
            found[rows, start : start + half, side] = nodes[:, None]
            found[rows, start : start + half, 1 - side] = chosen
    return found


def _best_ranked(
    scores: list[Scores], barred: npt.NDArray[np.bool_], count: int, rows: Nodes, rng: np.random.Generator
) -> Nodes:
    """(k, count) candidates with the best of their ranks; ties and candidates without any score at random."""
    open_places = (~barred).sum(1)
    if open_places.min(initial=count) < count:
        few = int(open_places.min())
        raise DataError(f"a node has {few} candidates for hard negatives, and {count} are wanted", mend="ask for fewer")
    best = np.full(barred.shape, np.inf)
    chance = rng.random(barred.shape)
    places = np.arange(barred.shape[1], dtype=np.float64)
    for values in scores:
        masked = np.where(barred, -np.inf, values)
        order = np.lexsort((chance, -masked), axis=1)
        rank = np.empty_like(best)
        np.put_along_axis(rank, order, np.broadcast_to(places, best.shape), axis=1)
        best = np.minimum(best, np.where(masked > 0, rank, np.inf))
    # Candidates that no heuristic knows come last, at random.
    best[barred] = np.nan
    return np.asarray(np.lexsort((chance, best), axis=1)[:, :count], dtype=np.int64)
