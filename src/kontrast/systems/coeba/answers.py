"""Answers of `predict`: new neighbours of nodes, and hard negatives of held-out edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.graphs import adjacency, contains, pair_keys, sample_non_edges
from kontrast.data.graphs.folders import HeartPart, write_heart
from kontrast.encoders.graphs import PairDecoder
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba.heuristics import hard_negatives
from kontrast.systems.coeba.views import LinkData, Nodes

HARD = 500
"""Hard negatives of an edge in HeaRT's protocol, unless others are asked for."""
_BLOCK = 1 << 24


@torch.no_grad()
def recommend(data: LinkData, vectors: npt.NDArray[np.float32], decoder: PairDecoder, count: int) -> pd.DataFrame:
    """The new neighbours of each node with the highest scores: id, rank, neighbour, score.

    Edges that are seen or known do not come again, nor does the node itself.

    Args:
        data: rows are nodes.
        vectors: (nodes, dim) embeddings.
        decoder: scores pairs.
        count: neighbours of a node, fewer where the graph has fewer.
    """
    ids, nodes = np.asarray(data.graph.ids, dtype=object), torch.from_numpy(vectors)
    nodes = nodes.to(next(decoder.parameters(), nodes).device)
    count = min(count, data.graph.n - 1)
    known = adjacency(np.concatenate([data.known, data.context]), data.graph.n)
    # A network sees the product of every pair of vectors, an inner product does not hold them.
    width = len(nodes) if decoder.network is None else nodes.numel()
    parts: list[tuple[Any, Any, Any]] = []
    for block in np.split(data.rows, range(size := max(1, _BLOCK // width), len(data.rows), size)):
        logits = decoder.against(nodes[torch.from_numpy(block)], nodes).cpu()
        rows, columns = known[block].nonzero()
        logits[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()] = -torch.inf
        logits[torch.arange(len(block)), torch.from_numpy(block)] = -torch.inf
        best = logits.topk(count, dim=1)
        parts.append((np.repeat(block, count), best.indices.numpy().ravel(), best.values.numpy().ravel()))
    asked, found, score = (np.concatenate(column) for column in zip(*parts))
    rank = np.tile(np.arange(1, count + 1), len(data.rows))
    frame = pd.DataFrame({"id": ids[asked], "rank": rank, "neighbour": ids[found], "score": score})
    finite: pd.DataFrame = frame[np.isfinite(frame["score"])]
    return finite.reset_index(drop=True)


def are_validated(data: LinkData) -> npt.NDArray[np.bool_]:
    """(rows,) whether an edge is known, and so belongs to the validation part; the others to the test part."""
    n = data.graph.n
    return contains(np.unique(pair_keys(data.known, n)), pair_keys(data.rows, n))


def negatives_table(data: LinkData, count: int, seed: int) -> pd.DataFrame:
    """Hard negatives of held-out edges: part, source, target, negative_source, negative_target.

    Validation edges are no candidates where the edge is one of the test part.

    Args:
        data: rows are held-out edges.
        count: negatives of each edge.
        seed: of the random fill.

    Raises:
        DataError: if rows are no edges, or the graph is too large or too small for so many.
    """
    if data.kind != "edge" or not len(data.rows):
        what = f"holds {len(data.rows)} rows of kind '{data.kind}', and hard negatives belong to held-out edges"
        raise DataError(what, file=data.graph.path, mend="give true pairs, or the graph with edges that are new")
    ids, valid = np.asarray(data.graph.ids, dtype=object), are_validated(data)
    found = np.empty((len(data.rows), count, 2), np.int64)
    for rows, forbidden in ((np.flatnonzero(valid), None), (np.flatnonzero(~valid), data.known)):
        if len(rows):
            found[rows] = hard_negatives(
                data.graph, data.context, data.rows[rows], count, forbidden=forbidden, seed=seed
            )
    edges, negatives = np.repeat(ids[data.rows], count, axis=0), ids[found.reshape(-1, 2)]
    return pd.DataFrame(
        {
            "part": np.repeat(np.where(valid, "valid", "test"), count),
            "source": edges[:, 0],
            "target": edges[:, 1],
            "negative_source": negatives[:, 0],
            "negative_target": negatives[:, 1],
        }
    )


def write_negatives(answers: pd.DataFrame, data: LinkData, folder: Path, seed: int) -> None:
    """The folder of HeaRT's files: edges of the three parts, shared negatives, and own negatives of each edge.

    Args:
        answers: what `negatives_table` gave for the data.
        data: held-out edges, with the training edges as context.
        folder: is made.
        seed: of the shared negatives.
    """
    n, index, valid = data.graph.n, data.graph.index(), are_validated(data)
    pairs = np.stack(
        [answers[name].map(index).to_numpy(np.int64) for name in ("negative_source", "negative_target")], 1
    )
    own = pairs.reshape(len(data.rows), -1, 2)
    keys = np.unique(pair_keys(np.concatenate([data.context, data.known, data.rows]), n))
    parts = {"train": HeartPart(data.context)}
    for name, rows in (("valid", valid), ("test", ~valid)):
        shared: Nodes = sample_non_edges(n, int(rows.sum()), keys, numpy_rng(seed, "negatives", name))
        parts[name] = HeartPart(data.rows[rows], shared, np.asarray(own[rows], dtype=np.int64))
    write_heart(folder, data.graph, parts)
