"""Views: from a graph and its held-out edges to full-batch steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from kontrast.data.graphs import Graph, contains, degrees, pair_keys, sample_non_edges
from kontrast.encoders.graphs import SparseMatrix, normalised_adjacency
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba.config import CoEBAConfig
from kontrast.training import Shard

Nodes = npt.NDArray[np.int64]
WHOLE = Shard()


def no_pairs() -> Nodes:
    """(0, 2)."""
    return np.zeros((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class LinkData:
    """Questions about a graph, with the edges that may be known when they are answered.

    Rows are what `take` chooses from. The graph, the edges that are seen and the negatives stay whole.

    Attributes:
        graph: the nodes, their features and names.
        context: (m, 2) edges that the encoder sees; adjacency, degrees and neighbours come from these alone.
        kind: what a row is: an "edge" that is true, a "pair" to score, or a "node" to find neighbours for.
        rows: (n, 2) pairs, or (n,) nodes.
        negatives: (k, 2) pairs that are no edges, shared by all rows.
        hard: (n, h, 2) own negatives of each row, or None.
        known: (j, 2) further edges that are never recommended.
        whole: read and not split: rows and context are the same edges.
    """

    graph: Graph
    context: Nodes
    kind: Literal["edge", "pair", "node"]
    rows: Nodes
    negatives: Nodes = field(default_factory=no_pairs)
    hard: Nodes | None = None
    known: Nodes = field(default_factory=no_pairs)
    whole: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: npt.ArrayLike) -> LinkData:
        """The questions at these positions."""
        chosen = np.asarray(rows, dtype=np.int64)
        hard = None if self.hard is None else self.hard[chosen]
        return replace(self, rows=self.rows[chosen], hard=hard)

    def nodes(self) -> Nodes:
        """(k,) the nodes that the rows are about, sorted."""
        return np.unique(self.rows)

    def names(self) -> list[str]:
        """A name for each row."""
        ids = self.graph.ids
        if self.kind == "node":
            return [ids[node] for node in self.rows]
        return [f"{ids[u]} – {ids[v]}" for u, v in self.rows]

    def degrees(self) -> Nodes:
        """(nodes,) edges of the context at each node."""
        return degrees(self.context, self.graph.n)


@dataclass(frozen=True)
class GraphTensors:
    """What the encoder needs of a graph.

    Attributes:
        edges: (m, 2) int64.
        adjacency: of all these edges, normalised.
        features: (n, f), or None.
        n: number of nodes.
    """

    edges: Tensor
    adjacency: SparseMatrix
    features: SparseMatrix | None
    n: int

    @classmethod
    def of(cls, graph: Graph, edges: Nodes) -> GraphTensors:
        """From a graph and the edges that are seen."""
        tensor = torch.from_numpy(np.ascontiguousarray(edges))
        features = None if graph.features is None else feature_matrix(graph.features)
        return cls(tensor, normalised_adjacency(tensor, graph.n), features, graph.n)


def feature_matrix(features: sparse.csr_array) -> SparseMatrix:
    """The features as they are: scaling rows to length one costs more accuracy than anything else here gains."""
    entries = features.tocoo()
    rows, columns = (torch.from_numpy(np.asarray(part, dtype=np.int64)) for part in (entries.row, entries.col))
    return SparseMatrix.from_entries(rows, columns, torch.from_numpy(entries.data), features.shape)


class LinkBatches:
    """Full-batch steps: each holds the whole graph, fresh link negatives, and the chances of two views.

    Args:
        data: training rows.
        config: sizes, seed, views, null control.
    """

    def __init__(self, data: LinkData, config: CoEBAConfig) -> None:
        self.config = config
        self.n = data.graph.n
        self.graph = GraphTensors.of(data.graph, data.context)
        self.links = data.rows
        self.context_keys = np.sort(pair_keys(data.context, self.n))
        both = np.concatenate([data.context, data.context[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        self.neighbours = both[:, 1]
        self.starts = np.concatenate([[0], np.cumsum(degrees(data.context, self.n))])
        self.columns = 0 if data.graph.features is None else data.graph.features.shape[1]
        self.contrasts = config.contrast != "off" and config.weight > 0
        # The null control: node i of one view stands for node partner[i] of the other.
        shuffled = config.contrast == "shuffled"
        self.partner = numpy_rng(config.seed, "null control").permutation(self.n) if shuffled else np.arange(self.n)

    def count(self, epoch: int) -> int:
        """Steps of an epoch."""
        return self.config.steps

    def fingerprint(self) -> str:
        """Equal for equal data and options."""
        parts = [self.context_keys, pair_keys(self.links, self.n)]
        if self.graph.features is not None:
            parts += [self.graph.features.indices.numpy(), self.graph.features.values.numpy()]
        digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]
        return f"{self.n} nodes, {len(self.context_keys)} edges {digest}"

    def get(self, epoch: int, index: int, shard: Shard = WHOLE) -> dict[str, Any]:
        """One step; every rank computes the whole of it, since a graph has no rows to share out."""
        if not 0 <= index < self.config.steps:
            raise IndexError(f"epoch {epoch} has {self.config.steps} steps, step {index} was asked for")
        rng = numpy_rng(self.config.seed, "link step", epoch, index)
        links = self.links
        if len(links) > self.config.link_batch:
            links = links[np.sort(rng.choice(len(links), self.config.link_batch, replace=False))]
        others = sample_non_edges(self.n, len(links), self.context_keys, rng, distinct=False)
        batch: dict[str, Any] = {
            "graph": self.graph,
            "links": torch.from_numpy(links),
            "others": torch.from_numpy(others),
        }
        if self.contrasts:
            batch |= self._contrast(numpy_rng(self.config.seed, "contrast step", epoch, index))
        return batch

    def _contrast(self, rng: np.random.Generator) -> dict[str, Any]:
        config, n = self.config, self.n
        anchors = np.sort(rng.choice(n, min(config.anchors, n), replace=False))
        rows, near = self._neighbours(anchors, rng)
        own = np.arange(len(anchors))
        near, self_in_other = self.partner[near], self.partner[anchors]
        if n <= config.candidates:
            candidates = np.arange(n)
        else:
            sample = rng.choice(n, config.candidates, replace=False)
            candidates = np.unique(np.concatenate([anchors, near, self_in_other, sample]))
        place = {"rows": rows, "columns": np.searchsorted(candidates, near)}
        inside = candidates[place["columns"]] != anchors[rows]
        step = {
            "candidates": candidates,
            "anchors": np.searchsorted(candidates, anchors),
            "inter_rows": np.concatenate([own, rows[inside]] if config.positives == "neighbours" else [own]),
            "inter_columns": np.concatenate(
                [np.searchsorted(candidates, self_in_other), place["columns"][inside]]
                if config.positives == "neighbours"
                else [np.searchsorted(candidates, self_in_other)]
            ),
            "intra_rows": rows[inside],
            "intra_columns": place["columns"][inside],
        }
        tensors: dict[str, Any] = {name: torch.from_numpy(values.astype(np.int64)) for name, values in step.items()}
        m = len(self.graph.edges)
        tensors["coins"] = torch.from_numpy(rng.random((2, m), dtype=np.float32))
        if self.columns:
            tensors["kept_columns"] = torch.from_numpy(rng.random((2, self.columns)) >= config.feature_mask)
        tensors["draws"] = torch.from_numpy(rng.integers(2**31, size=2))
        return tensors

    def _neighbours(self, anchors: Nodes, rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        """Pairs of (place among the anchors, neighbour), at most `most_positives` for each anchor."""
        counts = (self.starts[anchors + 1] - self.starts[anchors]).astype(np.int64)
        rows = np.repeat(np.arange(len(anchors)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        near = self.neighbours[np.arange(len(rows)) - first + np.repeat(self.starts[anchors], counts)]
        if counts.max(initial=0) > self.config.most_positives:
            order = np.lexsort((rng.random(len(rows)), rows))
            kept = np.sort(order[np.arange(len(rows)) - first < self.config.most_positives])
            rows, near = rows[kept], near[kept]
        return rows, near


def without_known(pairs: Nodes, known: Nodes, n: int) -> Nodes:
    """The pairs that are not among the known ones."""
    return pairs[~contains(np.sort(pair_keys(known, n)), pair_keys(pairs, n))]
