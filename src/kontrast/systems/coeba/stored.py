"""The graph that a fitted system keeps: what it answers questions about nodes with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.contract import loading_stored, save_stored
from kontrast.data.graphs import Graph, canonical

NAMES = ("graph.safetensors", "nodes.json")


@dataclass(frozen=True, eq=False)
class StoredGraph:
    """A graph with the edges seen in training, and those known besides.

    Attributes:
        graph: nodes, names and features; its edges are all that are known.
        context: (m, 2) edges of the training part.
    """

    graph: Graph
    context: npt.NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Writes graph.safetensors and nodes.json into a new folder."""
        tensors = {"context": self.context, "known": self.graph.edges}
        features = self.graph.features
        if features is not None:
            tensors |= {
                "features": features.data,
                "columns": features.indices.astype(np.int64),
                "starts": features.indptr.astype(np.int64),
                "width": np.array([features.shape[1]], np.int64),
            }
        labels = None if self.graph.labels is None else list(self.graph.labels)
        save_stored(folder, tensors, {"ids": list(self.graph.ids), "labels": labels}, names=NAMES)

    @classmethod
    def load(cls, folder: Path) -> StoredGraph:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        with loading_stored(folder, names=NAMES) as (tensors, listed):
            ids = tuple(map(str, listed["ids"]))
            labels = None if listed["labels"] is None else tuple(map(str, listed["labels"]))
            context, known = (canonical(tensors[name], len(ids)) for name in ("context", "known"))
            features = None
            if "features" in tensors:
                parts = (tensors["features"], tensors["columns"], tensors["starts"])
                features = sparse.csr_array(parts, shape=(len(ids), int(tensors["width"][0])))
            return cls(Graph(ids, known, features, labels), context)
