"""Planetoid's ``ind.NAME.*`` files: pickles, read by an interpreter to which a pickle can do no harm.

Every class that a pickle may name is replaced by an inert stand-in of ours that only stores what it is given: arrays,
sparse matrices and the dictionary of neighbours. Any other name is refused. So nothing that a file says is executed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.data.graphs.graph import Graph, make_graph
from kontrast.data.graphs.npz import checked_csr
from kontrast.errors import DataError

_NAME = re.compile(r"ind\.(.+)\.(graph|x|tx|allx|y|ty|ally|test\.index)")
_DTYPE = re.compile(r"[<>|=]?[biuf][1248]")
MEND = "copy it again from where it was published"


class _Refused(Exception):
    """A pickle names what it may not."""


class _Dtype:
    """Stands for numpy.dtype: a kind, a size and an order of bytes."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        code = self.code if self.code[:1] in "<>|=" else self.order + self.code
        if not _DTYPE.fullmatch(code):
            raise _Refused(f"an array of '{self.code}'")
        return np.dtype(code)


class _Array:
    """Stands for numpy.ndarray: bytes with a shape."""

    values: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise _Refused("an array of objects")
        values = np.frombuffer(data, dtype.dtype())
        self.values = values.reshape(shape, order="F" if fortran else "C")


class _Sparse:
    """Stands for scipy's CSR matrix: a dictionary of its arrays."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Neighbours(dict[Any, Any]):
    """Stands for collections.defaultdict."""


def _rebuild(*_: Any) -> _Array:
    return _Array()


def _reconstruct(kind: Any, *_: Any) -> Any:
    if kind is not _Sparse:
        raise _Refused("an object")
    return _Sparse()


def _encode(text: Any, *_: Any) -> bytes:
    if not isinstance(text, str):
        raise _Refused("bytes")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
    ("scipy.sparse.csr", "csr_matrix"): _Sparse,
    ("scipy.sparse._csr", "csr_matrix"): _Sparse,
    ("collections", "defaultdict"): lambda *_: _Neighbours(),
    ("__builtin__", "list"): tuple,
    ("builtins", "list"): tuple,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("copy_reg", "_reconstructor"): _reconstruct,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found: Callable[..., Any] | None = _STAND_INS.get((module, name))
        if found is None:
            raise _Refused(f"'{module}.{name}'")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to something outside")


def read_restricted(path: Path) -> Any:
    """What a pickle of numbers holds: dictionaries and lists, numpy arrays, CSR matrices; anything else is refused.

    Raises:
        DataError: if the file is damaged or names anything else.
    """
    try:
        with path.open("rb") as stream:
            return load_restricted(stream, path)
    except FileNotFoundError:
        raise DataError("no such file", file=path, mend="keep all ind.NAME.* files in one folder") from None
    except OSError as error:
        raise DataError(f"cannot be read ({type(error).__name__})", file=path, mend=MEND) from None


def load_restricted(stream: IO[bytes], path: Path) -> Any:
    """As `read_restricted`, from the next pickle of an open stream; `path` is named in messages."""
    try:
        return _plain(_Unpickler(stream, encoding="latin1").load(), path)
    except _Refused as error:
        what = f"is a pickle that asks for {error}, which may run code or is not understood"
        raise DataError(what, file=path, mend="convert it to .npz") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole pickle of arrays ({reason})", file=path, mend=MEND) from None
    except (OverflowError, UnicodeError, RecursionError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", file=path, mend=MEND) from None


def _plain(value: Any, path: Path) -> Any:
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict) and any(isinstance(item, (_Array, _Sparse)) for item in value.values()):
        return {name: _plain(item, path) for name, item in value.items()}
    if isinstance(value, _Sparse):
        state = value.state
        data, indices, indptr = (_plain(state[name], path) for name in ("data", "indices", "indptr"))
        shape = state["_shape"] if "_shape" in state else state["shape"]
        return checked_csr(data, indices, indptr, [int(size) for size in shape], "its CSR matrix", path)
    return value


def is_planetoid(path: Path) -> bool:
    """Whether a file is one of a set of planetoid files."""
    return _NAME.fullmatch(path.name) is not None


def read_planetoid(path: Path) -> Graph:
    """The graph of a set of files ``ind.NAME.graph, .allx, .tx, .test.index`` and, for colours, ``.ally, .ty``.

    Rows of test nodes stand in the order of ``test.index``; nodes that it leaves out (citeseer has 15) get zero rows.

    Args:
        path: any of the files.

    Raises:
        DataError: if one is missing, damaged or unsafe.
    """
    match = _NAME.fullmatch(path.name)
    assert match is not None
    files = {
        part: path.with_name(f"ind.{match[1]}.{part}") for part in ("graph", "allx", "tx", "ally", "ty", "test.index")
    }
    listed = read_restricted(files["graph"])
    if not isinstance(listed, dict):
        raise DataError(
            f"holds a {type(listed).__name__}, not a dictionary of neighbours", file=files["graph"], mend=MEND
        )
    try:
        pairs = [(int(node), int(other)) for node, others in listed.items() for other in others]
    except (TypeError, ValueError):
        raise DataError("holds neighbours that are no lists of numbers", file=files["graph"], mend=MEND) from None
    places = _test_index(files["test.index"])
    rows = [read_restricted(files[part]) for part in ("allx", "tx")]
    for part, matrix in zip(("allx", "tx"), rows):
        if not isinstance(matrix, sparse.csr_array):
            raise DataError(f"holds a {type(matrix).__name__}, not a CSR matrix", file=files[part], mend=MEND)
    known, tested = rows
    if known.shape[1] != tested.shape[1] or len(places) != tested.shape[0]:
        what = f"has the shape {tested.shape} for {len(places)} test nodes of {known.shape[1]} features"
        raise DataError(what, file=files["tx"], mend=MEND)
    n = max(len(listed), known.shape[0] + tested.shape[0], int(places.max(initial=-1)) + 1)
    order = sparse.csr_array((np.ones(len(places)), (places, np.arange(len(places)))), shape=(n, len(places)))
    head = sparse.vstack([known, sparse.csr_array((n - known.shape[0], known.shape[1]))], format="csr")
    return make_graph(
        np.asarray(pairs, dtype=np.int64).reshape(-1, 2),
        n=n,
        features=head + order @ tested,
        labels=_labels(files, places, n),
        path=path,
    )


def _test_index(path: Path) -> npt.NDArray[np.int64]:
    try:
        words = path.read_text(encoding="utf-8").split()
        places = np.array([int(word) for word in words], dtype=np.int64)
    except FileNotFoundError:
        raise DataError("no such file", file=path, mend="keep all ind.NAME.* files in one folder") from None
    except (ValueError, OverflowError):
        raise DataError("holds lines that are no node numbers", file=path, mend=MEND) from None
    if len(places) and (places.min() < 0 or places.max() > 100_000_000 or len(np.unique(places)) < len(places)):
        raise DataError("holds a node number that is negative, too large or repeated", file=path, mend=MEND)
    return places


def _labels(files: dict[str, Path], places: npt.NDArray[np.int64], n: int) -> list[str] | None:
    if not files["ally"].is_file() or not files["ty"].is_file():
        return None
    known, tested = (read_restricted(files[part]) for part in ("ally", "ty"))
    for part, classes in (("ally", known), ("ty", tested)):
        if not isinstance(classes, np.ndarray) or classes.ndim != 2 or len(classes) > n:
            came = f"an array of shape {classes.shape}" if isinstance(classes, np.ndarray) else type(classes).__name__
            what = f"holds {came}, no matrix with a column for each class"
            raise DataError(what, file=files[part], mend=MEND)
    labels = [""] * n
    rows = [*zip(range(n), known), *zip(places.tolist(), tested)]
    for place, row in rows:
        labels[place] = str(int(np.argmax(row))) if np.any(row) else ""
    return labels
