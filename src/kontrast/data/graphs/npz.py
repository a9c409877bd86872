"""Graphs in .npz files: edges with CSR features, or adjacency and attributes as CSR; never pickled arrays."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.data.graphs.graph import Fold, Graph, make_graph
from kontrast.errors import DataError

Arrays = Mapping[str, npt.NDArray[Any]]
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, RuntimeError)
# NumPy parses the header of an array as a Python literal.
MALFORMED = (ValueError, TypeError, SyntaxError, TokenError, OverflowError)
_FOLD = re.compile(r"s(\d+)_train")


def read_npz(path: Path) -> Graph:
    """The graph of an .npz file in one of two layouts.

    Edges: ``edges`` (m, 2), optionally ``num_nodes``, ``ids``, ``x`` or ``x_data, x_indices, x_indptr, x_shape``,
    ``y`` (−1 for none), and for each fold s: ``s{s}_train, s{s}_valid, s{s}_test`` (rows of ``edges``, or pairs),
    ``s{s}_valid_neg, s{s}_test_neg`` (k, 2), ``s{s}_heart_valid, s{s}_heart_test`` ((k, h, 2) pairs, or (k, h)
    node numbers: those of the first half replace the second end, the others the first).

    Matrices: ``adj_data, adj_indices, adj_indptr, adj_shape`` and optionally the same with ``attr_``, and ``labels``.

    Raises:
        DataError: if the file is damaged, holds pickled objects or has neither layout.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise DataError("is one array, not an .npz archive", file=path)
            arrays = {name: file[name] for name in file.files}
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(f"is not a whole .npz file ({reason})", file=path, mend="copy it again") from None
    except MALFORMED as error:
        reason = " ".join(str(error).split())[:150]
        mend = "save plain numeric arrays (allow_pickle=False)"
        raise DataError(f"holds an array that cannot be read safely ({reason})", file=path, mend=mend) from None
    if "adj_indptr" in arrays:
        return _matrices(arrays, path)
    if "edges" not in arrays:
        mend = "give 'edges' (m, 2), or the adjacency as adj_data, adj_indices, adj_indptr, adj_shape"
        raise DataError(f"has the arrays {', '.join(sorted(arrays)[:12])} and no 'edges'", file=path, mend=mend)
    edges = arrays["edges"]
    n = _count(arrays, edges, path)
    folds = sorted(int(match[1]) for match in map(_FOLD.fullmatch, arrays) if match)
    labels = arrays.get("y")
    return make_graph(
        edges,
        n=n,
        ids=[str(name) for name in arrays["ids"]] if "ids" in arrays else None,
        features=_matrix(arrays, "x", path) if "x_indptr" in arrays else arrays.get("x"),
        labels=None if labels is None else ["" if value == -1 else value for value in labels.tolist()],
        folds=[_fold(arrays, fold, edges, path) for fold in folds],
        path=path,
    )


def _count(arrays: Arrays, edges: npt.NDArray[Any], path: Path) -> int | None:
    if "num_nodes" not in arrays:
        return len(arrays["ids"]) if "ids" in arrays else None
    value = arrays["num_nodes"]
    if value.size != 1 or value.dtype.kind not in "iu" or int(value.ravel()[0]) < 1:
        raise DataError("'num_nodes' is no positive integer", file=path)
    return int(value.ravel()[0])


def _fold(arrays: Arrays, fold: int, edges: npt.NDArray[Any], path: Path) -> Fold:
    def part(name: str) -> npt.NDArray[np.int64]:
        key = f"s{fold}_{name}"
        if key not in arrays:
            raise DataError(
                f"has s{fold}_train and no {key}", file=path, mend="give train, valid and test of each fold"
            )
        rows = arrays[key]
        if rows.dtype.kind not in "iu" or rows.ndim not in (1, 2):
            raise DataError(f"'{key}' holds {rows.dtype} of shape {rows.shape}", file=path, mend="give rows of 'edges'")
        if rows.ndim == 2:
            return rows.astype(np.int64)
        if rows.size and int(rows.max()) >= len(edges):
            raise DataError(f"'{key}' names row {int(rows.max())} of {len(edges)} edges", file=path)
        return np.asarray(edges[rows.astype(np.int64)], dtype=np.int64)

    def own(name: str, positives: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        values = arrays.get(f"s{fold}_heart_{name}")
        if values is None or values.ndim == 3:
            return None if values is None else values.astype(np.int64)
        if values.ndim != 2 or len(values) != len(positives):
            what = f"'s{fold}_heart_{name}' has shape {values.shape} for {len(positives)} edges"
            raise DataError(what, file=path, mend="give one row of node numbers for each edge")
        other = values.astype(np.int64)
        half = other.shape[1] // 2
        first = np.arange(other.shape[1]) < half
        return np.stack([np.where(first, positives[:, :1], other), np.where(first, other, positives[:, 1:])], axis=2)

    parts = {name: part(name) for name in ("train", "valid", "test")}
    return Fold(
        **parts,
        valid_negatives=arrays.get(f"s{fold}_valid_neg"),
        test_negatives=arrays.get(f"s{fold}_test_neg"),
        valid_hard=own("valid", parts["valid"]),
        test_hard=own("test", parts["test"]),
    )


def _matrix(arrays: Arrays, prefix: str, path: Path) -> sparse.csr_array:
    names = [f"{prefix}_{part}" for part in ("data", "indices", "indptr", "shape")]
    for name in names:
        if name not in arrays:
            raise DataError(f"has no array '{name}'", file=path, mend=f"give all of {', '.join(names)}")
    data, indices, indptr, shape = (arrays[name] for name in names)
    return checked_csr(data, indices, indptr, shape.ravel().tolist(), f"'{prefix}_*'", path)


def checked_csr(
    data: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
    shape: list[Any],
    name: str,
    path: Path,
) -> sparse.csr_array:
    """A CSR matrix whose arrays were checked against each other.

    Raises:
        DataError: if they do not fit.
    """
    fits = (
        len(shape) == 2
        and all(isinstance(size, int) and size >= 0 for size in shape)
        and data.ndim == indices.ndim == indptr.ndim == 1
        and data.dtype.kind in "biuf"
        and indices.dtype.kind in "iu"
        and indptr.dtype.kind in "iu"
        and len(indptr) == shape[0] + 1
        and len(data) == len(indices)
        and int(indptr[0]) == 0
        and int(indptr[-1]) == len(indices)
        and bool((np.diff(indptr.astype(np.int64)) >= 0).all())
        and (not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < shape[1]))
    )
    if not fits:
        raise DataError(f"{name} is no CSR matrix of shape {tuple(shape)}", file=path, mend="write it again")
    parts = (data.astype(np.float32), indices.astype(np.int64), indptr.astype(np.int64))
    return sparse.csr_array(parts, shape=tuple(shape))


def _matrices(arrays: Arrays, path: Path) -> Graph:
    links = _matrix(arrays, "adj", path).tocoo()
    if links.shape[0] != links.shape[1]:
        raise DataError(f"has an adjacency matrix of shape {links.shape}", file=path, mend="give a square one")
    labels = arrays.get("labels")
    return make_graph(
        np.stack([links.row, links.col], axis=1).astype(np.int64),
        n=links.shape[0],
        features=_matrix(arrays, "attr", path) if "attr_indptr" in arrays else None,
        labels=None if labels is None or labels.ndim != 1 else labels.tolist(),
        path=path,
    )
