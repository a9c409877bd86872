"""MATLAB files (level 5, what ``save -v7`` and SciPy write): numeric and sparse matrices, and nothing else.

A reader of our own, because the common one crashes the process on some damaged files. It only slices bytes whose sizes
it has checked. Format: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.data.graphs.graph import Graph, make_graph
from kontrast.data.graphs.npz import checked_csr
from kontrast.errors import DataError

MEND = "copy it again, or save it with -v7, or give an edge list"
FEATURES = ("attrb", "features", "X")
_HEADER = 128
_LARGEST = 1 << 31
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _SPARSE, _COMPLEX = 14, 15, 5, 0x0800
_NUMERIC = range(6, 16)

Matrix: TypeAlias = Any
"""A numpy array or a CSR matrix."""


class _Damaged(Exception):
    """Sizes in the file do not fit each other."""


def _elements(data: bytes, order: str, *, top: bool = False) -> Iterator[tuple[int, bytes]]:
    """Kinds and bytes of the elements that follow one another in `data`."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            yield kind & 0xFFFF, data[at + 4 : at + 4 + min(kind >> 16, 4)]
            at += 8
            continue
        at += 8
        if size > len(data) - at:
            raise _Damaged(f"an element of {size} bytes where {len(data) - at} are left")
        yield kind, data[at : at + size]
        # Only compressed elements are not filled up to eight bytes.
        at += size if top and kind == _COMPRESSED else -(-size // 8) * 8


def _array(element: tuple[int, bytes], order: str) -> npt.NDArray[Any]:
    kind, data = element
    if kind not in _NUMBERS:
        raise _Damaged(f"numbers of the unknown kind {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(data) % dtype.itemsize:
        raise _Damaged("a cut-off row of numbers")
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


def _matrix(data: bytes, order: str, wanted: tuple[str, ...], path: Path) -> tuple[str, Matrix] | None:
    parts = list(_elements(data, order))
    try:
        flag = int(_array(parts[0], order)[0])
        shape = [int(size) for size in _array(parts[1], order)]
        name = parts[2][1].decode("latin1")
        if name not in wanted or (flag & 0xFF != _SPARSE and flag & 0xFF not in _NUMERIC):
            return None
        if len(shape) != 2 or min(shape) < 0 or flag & _COMPLEX:
            raise _Damaged(f"'{name}' is no real matrix of two dimensions")
        if flag & 0xFF == _SPARSE:
            rows, starts, values = (_array(parts[place], order) for place in (3, 4, 5))
            count = int(starts[-1]) if len(starts) else -1
            if not 0 <= count <= min(len(rows), len(values)):
                raise _Damaged(f"'{name}' states {count} entries")
            turned = checked_csr(values[:count], rows[:count], starts, shape[::-1], f"'{name}'", path)
            return name, sparse.csr_array(turned.T)
        values = _array(parts[3], order)
    except IndexError:
        raise _Damaged("a matrix without its parts") from None
    if len(values) != shape[0] * shape[1]:
        raise _Damaged(f"'{name}' has {len(values)} entries for the shape {tuple(shape)}")
    return name, values.reshape(shape, order="F")


def read_matrices(path: Path, wanted: tuple[str, ...]) -> dict[str, Matrix]:
    """The real numeric matrices of some names.

    Raises:
        DataError: if the file is of another version, or damaged.
    """
    data = path.read_bytes()
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:19] == b"MATLAB 7.3 MAT-file":
        raise DataError("is a MATLAB file of version 7.3", file=path, mend="save it with -v7, or give an edge list")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise DataError("is no MATLAB file of level 5", file=path, mend=MEND)
    found: dict[str, Matrix] = {}
    try:
        for kind, body in _elements(data[_HEADER:], order, top=True):
            elements = [(kind, body)]
            if kind == _COMPRESSED:
                elements = list(_elements(zlib.decompressobj().decompress(body, _LARGEST), order))
            for inner, matrix in elements:
                if inner == _MATRIX and (named := _matrix(matrix, order, wanted, path)) is not None:
                    found[named[0]] = named[1]
    except (_Damaged, zlib.error, struct.error) as error:
        raise DataError(f"is not a whole MATLAB file ({error})", file=path, mend=MEND) from None
    return found


def read_mat(path: Path) -> Graph:
    """The graph whose adjacency matrix is the variable ``net`` (SEAL's format); ``attrb`` or ``X`` are features.

    Raises:
        DataError: if the file is damaged or has no square ``net``.
    """
    found = read_matrices(path, ("net", *FEATURES))
    net = found.get("net")
    if net is None:
        raise DataError("has no numeric variable 'net'", file=path, mend="name the adjacency matrix 'net'")
    if net.shape[0] != net.shape[1]:
        raise DataError(f"'net' has the shape {net.shape}", file=path, mend="give a square adjacency matrix")
    links = sparse.coo_array(net)
    pairs = np.stack([links.row, links.col], axis=1)[links.data != 0].astype(np.int64)
    features = next((found[name] for name in FEATURES if name in found), None)
    return make_graph(pairs, n=links.shape[0], features=features, path=path)
