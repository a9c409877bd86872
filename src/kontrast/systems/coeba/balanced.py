"""The balanced graph as an answer: which edges balancing adds and drops, and what that does to degrees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.graphs import contains, degrees, pair_keys
from kontrast.data.tables import write_table
from kontrast.files import write_json
from kontrast.randomness import torch_rng
from kontrast.systems.coeba.config import CoEBAConfig
from kontrast.systems.coeba.model import balancing
from kontrast.systems.coeba.views import LinkData, Nodes
from kontrast.views.graphs import drop_edges


@dataclass(frozen=True, eq=False)
class BalancedGraph:
    """One draw of the balanced graph.

    Attributes:
        kept, dropped: (k, 2), (d, 2) edges that were there.
        added: (a, 2) edges that were not.
        low: degree towards which nodes are raised.
        beyond_cap: added edges that had to go beyond the cap.
    """

    kept: Nodes
    dropped: Nodes
    added: Nodes
    low: int
    beyond_cap: int = 0

    @property
    def edges(self) -> Nodes:
        """(k + a, 2) edges after balancing."""
        return np.concatenate([self.kept, self.added])

    def to_frame(self, vectors: npt.NDArray[np.float32], ids: tuple[str, ...]) -> pd.DataFrame:
        """Edges one a row: source, target, change (kept, added or dropped), and the similarity of the ends."""
        names, unit = (
            np.asarray(ids, dtype=object),
            vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)[:, None],
        )
        parts = {"kept": self.kept, "added": self.added, "dropped": self.dropped}
        pairs = np.concatenate(list(parts.values()))
        return pd.DataFrame(
            {
                "source": names[pairs[:, 0]],
                "target": names[pairs[:, 1]],
                "change": np.repeat(list(parts), [len(part) for part in parts.values()]),
                "similarity": np.einsum("kd,kd->k", unit[pairs[:, 0]], unit[pairs[:, 1]]),
            }
        )


def balanced_graph(config: CoEBAConfig, data: LinkData, vectors: npt.NDArray[np.float32]) -> BalancedGraph:
    """One draw of the balanced graph of the seen edges, from the trained embeddings (nodes, dim)."""
    edges = torch.from_numpy(np.ascontiguousarray(data.context))
    balance, generator = balancing(config), torch_rng(config.seed, "balanced graph")
    found = balance(edges, torch.from_numpy(vectors), alone=data.graph.features is not None, generator=generator)
    coins = torch.rand(len(edges), generator=generator)
    low, _ = balance.bounds(edges, data.graph.n)
    kept = drop_edges(edges, found.drop_shares, coins, n=data.graph.n, floor=low).numpy()
    stays = contains(np.sort(pair_keys(kept, data.graph.n)), pair_keys(data.context, data.graph.n))
    return BalancedGraph(kept, data.context[~stays], found.added.numpy(), low, found.beyond_cap)


def degree_report(before: Nodes, after: Nodes, added: Nodes, n: int, low: int) -> dict[str, Any]:
    """What balancing does to the degrees of n nodes, JSON-able.

    Args:
        before, after: (m, 2), (k, 2) edges.
        added: (a, 2) edges that are new.
        n: number of nodes.
        low: degree towards which nodes are raised.
    """
    sides = {}
    for name, edges in (("before", before), ("after", after)):
        degree = degrees(edges, n)
        sides[name] = {
            "edges": len(edges),
            "nodes below low": int((degree < low).sum()),
            "smallest degree": int(degree.min(initial=0)),
            "largest degree": int(degree.max(initial=0)),
            "mean degree": float(degree.mean()),
            "variance of degrees": float(degree.var()),
        }
    return {
        "nodes": n,
        "low": low,
        **sides,
        "added": len(added),
        "dropped": len(before) - (len(after) - len(added)),
        "most added at one node": int(degrees(added, n).max(initial=0)),
    }


def write_balanced(answers: pd.DataFrame, data: LinkData, folder: Path, low: int) -> None:
    """A folder that `train` takes, ``edges.csv`` and ``nodes.csv``, with ``degrees.csv`` and ``report.json``.

    Args:
        answers: what `BalancedGraph.to_frame` gave.
        data: the graph.
        folder: is made.
        low: degree towards which nodes were raised.
    """
    folder.mkdir()
    graph, index = data.graph, data.graph.index()
    pairs = np.stack([answers[name].map(index).to_numpy(np.int64) for name in ("source", "target")], axis=1)
    change = answers["change"].to_numpy()
    before, after, added = pairs[change != "added"], pairs[change != "dropped"], pairs[change == "added"]
    write_table(answers[change != "dropped"][["source", "target"]].reset_index(drop=True), folder / "edges.csv")
    columns: dict[str, Any] = {"id": list(graph.ids)}
    if graph.labels is not None and all(graph.labels):
        columns["label"] = list(graph.labels)
    write_table(pd.DataFrame(columns), folder / "nodes.csv")
    both = {"before": degrees(before, graph.n), "after": degrees(after, graph.n)}
    write_table(pd.DataFrame({"id": list(graph.ids), **both}), folder / "degrees.csv")
    write_json(folder / "report.json", degree_report(before, after, added, graph.n, low))
