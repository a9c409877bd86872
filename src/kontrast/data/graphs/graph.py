"""Graph: an undirected graph with named nodes, and everything that readers check about one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.errors import DataError

Nodes = npt.NDArray[np.int64]
"""Pairs of nodes (n, 2), or node numbers (n,)."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One train / valid / test division of the edges that the data bring themselves.

    Attributes:
        train, valid, test: (k, 2) pairs with the smaller number first; valid and test keep the order of the file.
        valid_negatives, test_negatives: (m, 2) pairs that are no edges, or None.
        valid_hard, test_hard: (k, h, 2) own negatives of each edge (HeaRT's protocol, arXiv 2306.10453), or None.
    """

    train: Nodes
    valid: Nodes
    test: Nodes
    valid_negatives: Nodes | None = None
    test_negatives: Nodes | None = None
    valid_hard: Nodes | None = None
    test_hard: Nodes | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without self-loops and repeated edges.

    Attributes:
        ids: names of the n nodes.
        edges: (m, 2) int64, each edge once with the smaller number first, sorted.
        features: (n, f) float32 CSR, or None.
        labels: a class for each node, "" where there is none; only for colours. None if the data bring none.
        folds: divisions of the edges that the data bring.
        path: where it was read from.
        dropped: how many self-loops and repetitions were left out, by name.
    """

    ids: tuple[str, ...]
    edges: Nodes
    features: sparse.csr_array | None = None
    labels: tuple[str, ...] | None = None
    folds: tuple[Fold, ...] = ()
    path: Path | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.ids)

    def index(self) -> dict[str, int]:
        """Node number by name."""
        return {name: number for number, name in enumerate(self.ids)}


def pair_keys(pairs: npt.NDArray[Any], n: int) -> npt.NDArray[np.int64]:
    """(k,) one integer for each pair (k, 2), equal for both directions; n is the number of nodes."""
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return np.asarray(ends.min(1) * n + ends.max(1), dtype=np.int64) if len(ends) else np.zeros(0, np.int64)


def pairs_of(keys: npt.NDArray[np.int64], n: int) -> Nodes:
    """The pairs (k, 2) that `pair_keys` made the keys of, the smaller number first."""
    return np.stack(np.divmod(keys, max(n, 1)), axis=1).astype(np.int64)


def ordered(pairs: npt.NDArray[Any]) -> Nodes:
    """Pairs in their order, each with the smaller number first."""
    return np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)


def canonical(pairs: npt.NDArray[Any], n: int) -> Nodes:
    """Pairs without self-loops and repetitions, each with the smaller number first, sorted."""
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return pairs_of(np.unique(pair_keys(ends[ends[:, 0] != ends[:, 1]], n)), n)


def degrees(edges: Nodes, n: int) -> npt.NDArray[np.int64]:
    """(n,) edges at each node."""
    return np.bincount(edges.ravel(), minlength=n).astype(np.int64)


def adjacency(edges: Nodes, n: int) -> sparse.csr_array:
    """(n, n) float64 symmetric matrix of ones."""
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T if len(edges) else np.zeros((2, 0), np.int64)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def make_graph(
    edges: npt.NDArray[Any],
    *,
    n: int | None = None,
    ids: Sequence[str] | None = None,
    features: Any = None,
    labels: Sequence[Any] | None = None,
    folds: Sequence[Fold] = (),
    path: str | Path | None = None,
) -> Graph:
    """A graph from raw arrays, checked and cleaned: both directions merged, self-loops and repetitions dropped.

    Args:
        edges: (k, 2) integer node numbers.
        n: number of nodes; by default that of `ids`, else one more than the largest number.
        ids: names of the nodes; by default their numbers.
        features: (n, f) dense or sparse numbers, or None.
        labels: n classes, or None.
        folds: divisions of the edges.
        path: named in messages.

    Raises:
        DataError: if shapes do not fit, a node does not exist, a name comes twice, a feature is not finite, or no edge
            is left.
    """
    raw = np.asarray(edges)
    if raw.ndim != 2 or raw.shape[1] != 2 or raw.dtype.kind not in "iu":
        what = f"holds edges as {raw.dtype} of shape {raw.shape}"
        raise DataError(what, file=path, mend="give integer node numbers of shape (edges, 2)")
    largest = int(raw.max()) + 1 if raw.size else 0
    count = n if n is not None else len(ids) if ids is not None else largest
    if raw.size and (int(raw.min()) < 0 or largest > count):
        odd = int(raw.min()) if int(raw.min()) < 0 else largest - 1
        raise DataError(f"has an edge at node {odd} of {count}", file=path, mend=f"number nodes 0 to {count - 1}")
    names = tuple(map(str, range(count))) if ids is None else tuple(map(str, ids))
    if len(names) != count:
        raise DataError(f"has {len(names)} node names for {count} nodes", file=path, mend="name every node once")
    if len(set(names)) < count:
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"names the node '{twice}' twice", file=path, mend="give every node a name of its own")
    clean = canonical(raw, count)
    if not len(clean):
        raise DataError("has no edges", file=path, mend="give at least one edge between two different nodes")
    if labels is not None and len(labels) != count:
        raise DataError(
            f"has {len(labels)} labels for {count} nodes", file=path, mend="give every node a label or none"
        )
    loops = int((raw[:, 0] == raw[:, 1]).sum())
    return Graph(
        names,
        clean,
        None if features is None else _features(features, count, path),
        None if labels is None else tuple("" if label is None else str(label) for label in labels),
        tuple(_fold(fold, clean, count, path) for fold in folds),
        None if path is None else Path(path),
        {"self-loops": loops, "repetitions": len(raw) - loops - len(clean)},
    )


def _features(features: Any, n: int, path: str | Path | None) -> sparse.csr_array:
    try:
        matrix = sparse.csr_array(features, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"has node features that are no matrix of numbers ({error})", file=path) from None
    if matrix.ndim != 2 or matrix.shape[0] != n or matrix.shape[1] < 1:
        what = f"has node features of shape {matrix.shape} for {n} nodes"
        raise DataError(what, file=path, mend="give one row of features for each node")
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad):
        row = int(np.searchsorted(matrix.indptr, bad[0], "right")) - 1
        raise DataError(f"has a feature that is not finite at node {row}", file=path, mend="replace NaN and infinities")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _fold(fold: Fold, edges: Nodes, n: int, path: str | Path | None) -> Fold:
    """The fold with ordered pairs, checked: parts are disjoint, negatives are no edges.

    Raises:
        DataError: if they are not.
    """
    parts = {name: ordered(getattr(fold, name)) for name in ("train", "valid", "test")}
    keys = {name: pair_keys(pairs, n) for name, pairs in parts.items()}
    for name, pairs in parts.items():
        _check_numbers(pairs, n, f"the {name} part", path)
        if len(np.unique(keys[name])) < len(pairs):
            raise DataError(f"the {name} part of its split holds an edge twice", file=path, mend="name each edge once")
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(keys[one], keys[other])
        if len(both):
            u, v = divmod(int(both[0]), n)
            what = f"has the edge {u}–{v} in the {one} and in the {other} part of its split ({len(both)} such edges)"
            raise DataError(what, file=path, mend="put both directions of an edge into one part")
    negatives: dict[str, Nodes | None] = {}
    everything = np.concatenate([pair_keys(edges, n), *keys.values()])
    for name in ("valid_negatives", "test_negatives"):
        pairs = getattr(fold, name)
        if pairs is None:
            negatives[name] = None
            continue
        checked = ordered(pairs)
        _check_numbers(checked, n, f"'{name}'", path)
        true = int(np.isin(pair_keys(checked, n), everything).sum())
        if true:
            raise DataError(f"has {true} true edges among '{name}'", file=path, mend="leave them out")
        negatives[name] = checked
    for name, part in (("valid_hard", "valid"), ("test_hard", "test")):
        own = getattr(fold, name)
        if own is not None:
            own = np.asarray(own, dtype=np.int64)
            if own.ndim != 3 or own.shape[::2] != (len(parts[part]), 2) or own.shape[1] == 0:
                what = f"has hard negatives of shape {own.shape} for {len(parts[part])} edges of the {part} part"
                raise DataError(what, file=path, mend=f"give the shape ({len(parts[part])}, negatives, 2)")
            _check_numbers(own.reshape(-1, 2), n, f"'{name}'", path)
        negatives[name] = own
    train = canonical(parts["train"], n)
    return Fold(train, parts["valid"], parts["test"], **negatives)


def _check_numbers(pairs: Nodes, n: int, name: str, path: str | Path | None) -> None:
    if pairs.size and (int(pairs.min()) < 0 or int(pairs.max()) >= n):
        odd = int(pairs.min()) if int(pairs.min()) < 0 else int(pairs.max())
        raise DataError(f"{name} of its split holds node {odd} of {n}", file=path, mend=f"number nodes 0 to {n - 1}")
