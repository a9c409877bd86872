"""What stands behind a score: kept edges, their weights, and the anchor's β, per utterance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.utterances import Utterances
from kontrast.systems.ssu.graphs import ANCHOR, CHAIN, CROSS, DEPENDENT, GUIDED, HEAD, SELF, GuidedGraph
from kontrast.systems.ssu.model import SSUModel
from kontrast.systems.ssu.views import Prepared
from kontrast.training.batches import to_device

NAMES = {HEAD: "head", DEPENDENT: "dependent", CHAIN: "next", GUIDED: "guided", CROSS: "cross", ANCHOR: "anchor"}
COLUMNS = ("id", "edge", "modality", "node", "name", "other_modality", "other_node", "other_name", "weight")
_BATCH = 128


@dataclass(frozen=True, eq=False)
class Graph:
    """The fusion graph of one utterance, its padding taken away.

    Attributes:
        id: of the utterance.
        modality: (n,) names.
        place: (n,) number of each node within its modality.
        name: (n,) the word, or the time of a segment within the utterance.
        weight: (n, n) weights of kept edges, 0 where there is none; row i hears column j.
        kind: (n, n) kinds of edges.
        beta: (n,) weights of the anchor's edges; those of a modality sum to 1.
    """

    id: str
    modality: tuple[str, ...]
    place: tuple[int, ...]
    name: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    kind: npt.NDArray[np.int64]
    beta: npt.NDArray[np.float32]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Edges as rows of `COLUMNS`; those of a node to itself are left out."""
        for left, right in zip(*np.nonzero((self.weight > 0) & (self.kind != SELF))):
            yield (
                self.id, NAMES[int(self.kind[left, right])], self.modality[left], self.place[left], self.name[left],
                self.modality[right], self.place[right], self.name[right], float(self.weight[left, right]),
            )  # fmt: skip
        for node, weight in enumerate(self.beta.tolist()):
            yield (
                self.id, "anchor", self.modality[node], self.place[node], self.name[node], "anchor", 0, "", weight
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Explanation:
    """Graphs of utterances, and the learned thresholds.

    Attributes:
        graphs: one per utterance.
        kappa: κ of audio and visual graphs.
        anchored: whether the model has an anchor.
    """

    graphs: tuple[Graph, ...]
    kappa: dict[str, float]
    anchored: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per edge, `COLUMNS`: a node hears another one (or the anchor) with a weight."""
        return pd.DataFrame([row for graph in self.graphs for row in graph.rows()], columns=list(COLUMNS))


@torch.no_grad()
def explain(model: SSUModel, prepared: Prepared, data: Utterances) -> Explanation:
    """Graphs of all utterances, as the averaged network makes them."""
    network = model.average if int(model.averaged) else model.network
    device = next(model.parameters()).device
    made: dict[int, Graph] = {}
    order = np.argsort(prepared.lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        batch = to_device(prepared.batch(rows), device)
        nodes = network.nodes(batch)
        _, graphs, _ = network.fusion_graph(nodes)
        n = nodes.mask.shape[1]
        weight = (graphs.weight * graphs.gate)[:, :n, :n].cpu().numpy()
        kind, beta = graphs.kind[:, :n, :n].cpu().numpy(), nodes.beta.cpu().numpy()
        mask, modality = nodes.mask.cpu().numpy(), nodes.modality.cpu().numpy()
        within = np.concatenate([np.arange(size) for size in nodes.sizes])
        for place, row in enumerate(rows.tolist()):
            kept = np.flatnonzero(mask[place])
            names = tuple(network.names[number] for number in modality[kept].tolist())
            places = tuple(within[kept].tolist())
            texts = tuple(_name(data, batch, place, row, *node) for node in zip(names, places))
            grid = np.ix_(kept, kept)
            made[row] = Graph(
                data.ids[row], names, places, texts, weight[place][grid], kind[place][grid], beta[place][kept]
            )
    kappa = {
        name: float(guide.kappa.detach()) for name, guide in network.guides.items() if isinstance(guide, GuidedGraph)
    }
    return Explanation(tuple(made[row] for row in range(len(order))), kappa, model.config.graph.anchor)


def _name(data: Utterances, batch: dict[str, torch.Tensor], place: int, row: int, modality: str, node: int) -> str:
    if modality == "text":
        return data.tokens[row][node]
    return f"at {float(batch[f'{modality}_position'][place, node]):.2f}"


def graph_table(found: Explanation) -> pd.DataFrame:
    """Statistics per utterance and modality: nodes, pairs, kept edges, their share, mean degree, κ, sharpness of β.

    The sharpness is 1 minus the entropy of β over its maximum: 0 if the anchor hears all nodes alike.
    """
    rows = []
    for graph in found.graphs:
        names = np.asarray(graph.modality, dtype=object)
        for name in dict.fromkeys(graph.modality):
            own = np.flatnonzero(names == name)
            n = len(own)
            kinds, weights = graph.kind[np.ix_(own, own)], graph.weight[np.ix_(own, own)]
            edges = int(((weights > 0) & (kinds != SELF)).sum())
            cross = int(((graph.weight[own] > 0) & (graph.kind[own] == CROSS)).sum())
            beta = graph.beta[own].astype(np.float64)
            entropy = float(-(beta * np.log(np.maximum(beta, 1e-12))).sum())
            rows.append(
                {
                    "id": graph.id,
                    "modality": name,
                    "nodes": n,
                    "pairs": n * (n - 1),
                    "edges": edges,
                    "kept": edges / (n * (n - 1)) if n > 1 else 1.0,
                    "mean_degree": edges / n,
                    "cross_edges": cross,
                    "kappa": found.kappa.get(name),
                    "beta_sharpness": 1 - entropy / np.log(n) if n > 1 else 0.0,
                }
            )
    return pd.DataFrame(rows)


def write_graphs(found: Explanation, path: Path) -> None:
    """Writes the graphs as one ``.json`` list or as ``.dot`` for Graphviz, by the ending of `path`."""
    if path.suffix == ".json":
        text = json.dumps([_as_json(graph) for graph in found.graphs], ensure_ascii=False)
    else:
        text = "\n".join(_as_dot(graph) for graph in found.graphs)
    path.write_text(text + "\n", encoding="utf-8")


def _as_json(graph: Graph) -> dict[str, Any]:
    nodes = [
        {"modality": modality, "node": place, "name": name, "beta": round(beta, 6)}
        for modality, place, name, beta in zip(graph.modality, graph.place, graph.name, graph.beta.tolist())
    ]
    pairs = np.argwhere((graph.weight > 0) & (graph.kind != SELF)).tolist()
    edges = [
        {"hears": right, "node": left, "edge": NAMES[int(graph.kind[left, right])],
         "weight": round(float(graph.weight[left, right]), 6)}
        for left, right in pairs
    ]  # fmt: skip
    return {"id": graph.id, "nodes": nodes, "edges": edges}


def _as_dot(graph: Graph) -> str:
    colours = {"text": "#4477aa", "audio": "#ee6677", "visual": "#228833"}
    lines = [f"digraph {json.dumps(graph.id)} {{", '  anchor [shape=box, label="anchor"];']
    for node, (modality, name, beta) in enumerate(zip(graph.modality, graph.name, graph.beta.tolist())):
        label = json.dumps(name if modality == "text" else f"{modality} {name}", ensure_ascii=False)
        lines.append(f'  n{node} [label={label}, color="{colours[modality]}"];')
        lines.append(f'  n{node} -> anchor [penwidth={0.3 + 4 * beta:.2f}, label="{beta:.2f}"];')
    for left, right in np.argwhere((graph.weight > 0) & (graph.kind != SELF)).tolist():
        lines.append(f'  n{right} -> n{left} [label="{NAMES[int(graph.kind[left, right])]}"];')
    return "\n".join([*lines, "}"])
