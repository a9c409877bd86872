"""Folders as data sets are published: MUSAE, geom-gcn, OGB, HeaRT. Each reader answers None for other folders."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse

from kontrast.data.graphs.archives import load_torch
from kontrast.data.graphs.graph import Fold, Graph, make_graph
from kontrast.data.graphs.npz import DAMAGED, MALFORMED
from kontrast.data.graphs.tables import LABEL_NAMES, end_columns, read_rows
from kontrast.data.tables import read_table, write_table
from kontrast.errors import DataError
from kontrast.files import read_json, write_text

Pairs = npt.NDArray[np.int64]
HEART = ("train_pos.txt", "valid_pos.txt", "test_pos.txt")


def _integers(path: Path, width: int | None = None, separator: str | None = None) -> Pairs:
    """Whole numbers of a text file, one row a line, the line named where there is none."""
    rows: list[list[int]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = [int(word) for word in line.split(separator)]
                except ValueError:
                    what = f"line {number} holds '{line.strip()[:40]}' where whole numbers are needed"
                    raise DataError(what, file=path, mend="write node numbers") from None
                if len(row) != (width or len(row)):
                    raise DataError(
                        f"line {number} has {len(row)} numbers, not {width}", file=path, mend="write it again"
                    )
                rows.append(row)
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text", file=path, mend="copy it again") from None
    try:
        return np.asarray(rows, dtype=np.int64).reshape(-1, width or 1)
    except (OverflowError, ValueError):
        raise DataError("holds a number that is too large", file=path, mend="write node numbers") from None


# ---- HeaRT -----------------------------------------------------------------------------------------------------------


def read_heart(folder: Path) -> Graph | None:
    """``train_pos.txt, valid_pos.txt, test_pos.txt`` and, where they are there, ``valid_neg.txt, test_neg.txt``,
    ``gnn_feature`` and ``heart_valid_samples.npy, heart_test_samples.npy`` (arXiv 2306.10453)."""
    if not all((folder / name).is_file() for name in HEART):
        return None
    parts = {name[:-8]: _loopless(_integers(folder / name, 2)) for name in HEART}
    negatives = {
        name: _integers(folder / f"{name}_neg.txt", 2) if (folder / f"{name}_neg.txt").is_file() else None
        for name in ("valid", "test")
    }
    edges = np.concatenate(list(parts.values()))
    features = _heart_features(folder)
    hard: dict[str, npt.NDArray[Any] | None] = {}
    for name in ("valid", "test"):
        path = folder / f"heart_{name}_samples.npy"
        hard[name] = _npy(path) if path.is_file() else None
    numbered = [rows for rows in (edges, *negatives.values(), *hard.values()) if rows is not None]
    n = max(int(rows.max(initial=-1)) for rows in numbered) + 1 if features is None else len(features)
    taken: set[bytes] = set()
    unique = {}
    for name in ("train", "valid", "test"):
        # The published files repeat some edges; the first place counts.
        keys = [bytes(row) for row in np.sort(parts[name], axis=1)]
        kept = [row for row, key in enumerate(keys) if key not in taken and not taken.add(key)]  # type: ignore[func-returns-value]
        unique[name] = parts[name][kept]
        own = hard.get(name)
        if own is not None and len(own) == len(keys):
            hard[name] = own[kept]
    true = {bytes(row) for rows in unique.values() for row in np.sort(rows, axis=1)}
    clean = {
        name: None if rows is None else rows[[bytes(row) not in true for row in np.sort(rows, axis=1)]]
        for name, rows in negatives.items()
    }
    fold = Fold(
        unique["train"], unique["valid"], unique["test"], clean["valid"], clean["test"], hard["valid"], hard["test"]
    )
    return make_graph(edges, n=n, features=features, folds=[fold], path=folder)


@dataclass(frozen=True)
class HeartPart:
    """One part of a HeaRT folder.

    Attributes:
        edges: (k, 2) true edges.
        negatives: (m, 2) shared pairs that are no edges, or None.
        hard: (k, h, 2) own negatives of each edge, or None.
    """

    edges: Pairs
    negatives: Pairs | None = None
    hard: Pairs | None = None


def write_heart(folder: Path, graph: Graph, parts: Mapping[str, HeartPart]) -> None:
    """Writes what `read_heart` reads, and ``nodes.csv`` with the names of the numbered nodes.

    Args:
        folder: is made.
        graph: nodes and features.
        parts: of the names train, valid and test.
    """
    folder.mkdir()
    for name, part in parts.items():
        for ending, pairs in (("pos", part.edges), ("neg", part.negatives)):
            if pairs is not None:
                lines = "".join(f"{u}\t{v}\n" for u, v in pairs.tolist())
                write_text(folder / f"{name}_{ending}.txt", lines)
        if part.hard is not None:
            np.save(folder / f"heart_{name}_samples.npy", part.hard)
    if graph.features is not None:
        torch.save({"entity_embedding": torch.from_numpy(graph.features.toarray())}, folder / "gnn_feature")
    write_table(pd.DataFrame({"id": list(graph.ids)}), folder / "nodes.csv")


def _loopless(pairs: Pairs) -> Pairs:
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])


def _heart_features(folder: Path) -> npt.NDArray[np.float32] | None:
    path = next((folder / name for name in ("gnn_feature", "gnn_feature.pt") if (folder / name).is_file()), None)
    if path is None:
        return None
    held = load_torch(path)
    matrix = held.get("entity_embedding") if isinstance(held, dict) else None
    if not isinstance(matrix, torch.Tensor) or matrix.ndim != 2:
        raise DataError("has no matrix 'entity_embedding'", file=path, mend="save {'entity_embedding': features}")
    return np.asarray(matrix.float().numpy())


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (*DAMAGED, *MALFORMED) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole .npy file of numbers ({reason})", file=path, mend="copy it again") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise DataError("holds no whole numbers", file=path, mend="save node numbers (edges, negatives, 2)")
    return found


# ---- MUSAE -----------------------------------------------------------------------------------------------------------


def read_musae(folder: Path) -> Graph | None:
    """``NAME_edges.csv``, ``NAME_features.json`` (node to the numbers of its features) and ``NAME_target.csv``."""
    found = sorted(folder.glob("*_edges.csv"))
    if len(found) != 1:
        return None
    stem = found[0].name.removesuffix("_edges.csv")
    table = read_rows(found[0])
    ends = np.stack([table.numbers(name) for name in end_columns(table, found[0])], axis=1)
    if not (ends == np.round(ends)).all() or np.abs(ends).max(initial=0) > 1 << 53:
        raise DataError("holds an end of an edge that is no whole number", file=found[0], mend="write node numbers")
    edges = ends.astype(np.int64)
    path = next(
        (folder / f"{stem}{end}" for end in ("_features.json", ".json") if (folder / f"{stem}{end}").is_file()), None
    )
    if path is None:
        return make_graph(edges, path=folder)
    listed = read_json(path)
    if not isinstance(listed, dict):
        raise DataError("is no object of node to list of features", file=path, mend='write {"0": [3, 17], ...}')
    try:
        rows = [(int(node), int(feature)) for node, features in listed.items() for feature in features]
    except (TypeError, ValueError):
        raise DataError(
            "holds features that are no lists of numbers", file=path, mend='write {"0": [3, 17], ...}'
        ) from None
    n = max(int(edges.max(initial=-1)), *(int(node) for node in listed), -1) + 1
    return make_graph(edges, n=n, features=_one_hot(rows, n, path), labels=_musae_labels(folder, stem, n), path=folder)


def _one_hot(rows: list[tuple[int, int]], n: int, path: Path) -> sparse.csr_array:
    places = np.unique(np.asarray(rows, dtype=np.int64).reshape(-1, 2), axis=0)
    if not len(places) or places.min() < 0 or places.max() > 10_000_000:
        raise DataError("holds no features, or negative or very large numbers", file=path, mend="copy it again")
    width = int(places[:, 1].max()) + 1
    return sparse.csr_array((np.ones(len(places)), (places[:, 0], places[:, 1])), shape=(n, width))


def _musae_labels(folder: Path, stem: str, n: int) -> list[str] | None:
    path = folder / f"{stem}_target.csv"
    if not path.is_file():
        return None
    table = read_table(path)
    by_name = {name.lower(): name for name in table.columns}
    id_name = by_name.get("new_id") or by_name.get("id") or table.columns[0]
    wanted = ("page_type", "ml_target", "mature", "target", *LABEL_NAMES)
    label = next((by_name[name] for name in wanted if name in by_name), None)
    if label is None:
        return None
    labels = [""] * n
    for node, value in zip(table.numbers(id_name).astype(int), table.ids(label)):
        if 0 <= node < n:
            labels[node] = value
    return labels


# ---- geom-gcn --------------------------------------------------------------------------------------------------------


def read_geom_gcn(folder: Path) -> Graph | None:
    """``out1_graph_edges.txt`` and ``out1_node_feature_label.txt`` (tabs; features as 0/1 lists, or as the numbers of
    those that are 1, as in the film data)."""
    edge_path, node_path = folder / "out1_graph_edges.txt", folder / "out1_node_feature_label.txt"
    if not edge_path.is_file() or not node_path.is_file():
        return None
    edges = _with_header(edge_path, 2)
    pairs = np.asarray([[_whole(cell, number, edge_path) for cell in cells] for number, cells in edges], dtype=np.int64)
    nodes = _with_header(node_path, 3)
    features = [[_whole(word, number, node_path) for word in cells[1].split(",")] for number, cells in nodes]
    numbers = [_whole(cells[0], number, node_path) for number, cells in nodes]
    n = len(nodes)
    if sorted(numbers) != list(range(n)):
        raise DataError(f"its {n} lines do not number the nodes 0 to {n - 1}", file=node_path, mend="copy it again")
    order = np.argsort(numbers)
    dense = len({len(row) for row in features}) == 1 and max(max(row) for row in features) <= 1
    rows = [(int(numbers[at]), column) for at in range(n) for column in _ones(features[at], dense=dense)]
    labels = [nodes[at][1][2] for at in order]
    return make_graph(pairs, n=n, features=_one_hot(rows, n, node_path), labels=labels, path=folder)


def _ones(values: list[int], *, dense: bool) -> list[int]:
    return [column for column, value in enumerate(values) if value] if dense else values


def _with_header(path: Path, width: int) -> list[tuple[int, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text", file=path, mend="copy it again") from None
    found = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != width:
            what = f"line {number} has {len(cells)} cells, not {width}"
            raise DataError(what, file=path, mend="separate cells by tabs")
        found.append((number, cells))
    if not found:
        raise DataError("has no lines below its header", file=path, mend="copy it again")
    return found


def _whole(text: str, number: int, path: Path) -> int:
    if not text.strip().isdecimal() or len(text) > 12:
        raise DataError(f"line {number} holds '{text[:40]}' where a whole number is needed", file=path)
    return int(text)


# ---- OGB -------------------------------------------------------------------------------------------------------------


def read_ogb(folder: Path) -> Graph | None:
    """``raw/edge.csv.gz`` without header, optionally ``raw/node-feat.csv.gz``, ``raw/num-node-list.csv.gz`` and a split
    ``split/*/train.pt, valid.pt, test.pt`` with ``edge`` and ``edge_neg``."""
    raw = folder / "raw"
    edge_path = next((raw / f"edge{end}" for end in (".csv.gz", ".csv") if (raw / f"edge{end}").is_file()), None)
    if edge_path is None:
        return None
    edges = _csv_matrix(edge_path, np.dtype(np.int64))
    if edges.shape[1] != 2:
        raise DataError(f"has {edges.shape[1]} columns", file=edge_path, mend="give the two ends of each edge")
    features = _optional_matrix(raw, "node-feat", np.dtype(np.float32))
    counts = _optional_matrix(raw, "num-node-list", np.dtype(np.int64))
    n = len(features) if features is not None else int(counts[0, 0]) if counts is not None else None
    splits = sorted(path.parent for path in folder.glob("split/*/train.pt"))
    folds = [] if not splits else [_ogb_fold(splits[0])]
    if folds:
        # Later edges are not in the raw list, which holds the training part alone.
        edges = np.concatenate([edges, folds[0].train, folds[0].valid, folds[0].test])
    return make_graph(edges, n=n, features=features, folds=folds, path=folder)


def _optional_matrix(raw: Path, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    path = next((raw / f"{name}{end}" for end in (".csv.gz", ".csv") if (raw / f"{name}{end}").is_file()), None)
    return None if path is None else _csv_matrix(path, dtype)


def _csv_matrix(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        frame = pd.read_csv(path, header=None, dtype=dtype)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is no table of numbers ({reason})", file=path, mend="copy it again") from None
    return np.asarray(frame.to_numpy(dtype))


def _ogb_fold(folder: Path) -> Fold:
    parts: dict[str, dict[str, Pairs]] = {}
    for name in ("train", "valid", "test"):
        path = folder / f"{name}.pt"
        if not path.is_file():
            raise DataError("no such file", file=path, mend="keep train.pt, valid.pt and test.pt together")
        held = load_torch(path, arrays=True)
        if not isinstance(held, dict) or "edge" not in held:
            raise DataError("has no 'edge'", file=path, mend="only splits of undirected edges can be used")
        parts[name] = {key: np.asarray(held[key]) for key in ("edge", "edge_neg") if key in held}
        for key, pairs in parts[name].items():
            if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
                raise DataError(f"'{key}' has the shape {pairs.shape}", file=path, mend="give node numbers (edges, 2)")
    # Collaborations repeat over the years: an edge counts where it is met first, and later parts lose it.
    seen: set[tuple[int, int]] = set()
    kept: dict[str, Pairs] = {}
    for name in ("train", "valid", "test"):
        rows = []
        for u, v in np.sort(parts[name]["edge"].astype(np.int64), axis=1).tolist():
            if u != v and (u, v) not in seen:
                seen.add((u, v))
                rows.append((u, v))
        kept[name] = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
    negatives = {
        name: np.asarray(
            [
                pair
                for pair in map(tuple, np.sort(parts[name]["edge_neg"].astype(np.int64), axis=1).tolist())
                if pair not in seen
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        if "edge_neg" in parts[name]
        else None
        for name in ("valid", "test")
    }
    return Fold(kept["train"], kept["valid"], kept["test"], negatives["valid"], negatives["test"])
