"""PyTorch files with a PyG ``Data`` or a dictionary of tensors; nothing that a file says is run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kontrast.data.graphs.graph import Graph, make_graph
from kontrast.data.graphs.planetoid import load_restricted
from kontrast.errors import DataError

MEND = "copy or write it again"


class _Holder:
    """Stands for a class of PyG: it keeps what a file gives it and does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state


def _stand_ins() -> list[Any]:
    names = [
        ("torch_geometric.data.data", "Data"),
        ("torch_geometric.data.data", "DataEdgeAttr"),
        ("torch_geometric.data.data", "DataTensorAttr"),
        ("torch_geometric.data.storage", "GlobalStorage"),
        ("torch_geometric.data.storage", "BaseStorage"),
    ]
    return [type(name, (_Holder,), {"__module__": module, "__qualname__": name}) for module, name in names]


def load_torch(path: Path, *, arrays: bool = False) -> Any:
    """What a PyTorch file holds: tensors, numbers, texts, lists, dictionaries; with `arrays` numpy arrays, too.

    PyG's classes are replaced by inert holders; anything else is refused by torch's own restricted loader.

    Raises:
        DataError: if the file is damaged or asks for anything else.
    """
    allowed = _stand_ins()
    if arrays:
        rebuild = np.empty(0).__reduce__()[0]
        kinds = [type(np.dtype(code)) for code in ("i8", "i4", "f4", "f8", "u1", "b1")]
        allowed += [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *kinds]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if arrays and (held := _newer_pickle(path)) is not None:
            return held
        reason = str(error).replace("\n", " ")
        asked = reason.split("GLOBAL ")[1].split(" ")[0] if "GLOBAL " in reason else "what is not allowed"
        what = f"cannot be loaded safely: it asks for {asked[:80]}"
        raise DataError(what, file=path, mend="save plain tensors: {'edge_index': ..., 'x': ...}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole PyTorch file ({reason})", file=path, mend=MEND) from None
    except (zipfile.BadZipFile, struct.error, UnicodeError, OverflowError, AssertionError) as error:
        raise DataError(f"is not a whole PyTorch file ({type(error).__name__})", file=path, mend=MEND) from None


def _newer_pickle(path: Path) -> Any:
    """What a file of numpy arrays holds that was written with pickle protocol 4, as OGB's splits are, or None.

    Torch's restricted loader knows protocol 2 alone; the interpreter of planetoid's files, to which a pickle can do no
    harm, knows all. Tensors are no arrays and are not understood.
    """
    try:
        with path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
                    if name is None:
                        return None
                    with archive.open(name) as inner:
                        return load_restricted(inner, path)
            stream.seek(0)
            # The layout before zip archives: a magic number, a version, facts of the machine, and then the object.
            for _ in range(3):
                load_restricted(stream, path)
            return load_restricted(stream, path)
    except (DataError, OSError, zipfile.BadZipFile, struct.error, zlib.error, EOFError, RuntimeError):
        return None


def read_torch(path: Path) -> Graph:
    """A PyG ``Data`` or a dictionary of tensors: ``edge_index`` (2, k), optionally ``x``, ``y``, ``num_nodes``.

    Raises:
        DataError: if the file is damaged, asks for other classes or has no ``edge_index``.
    """
    values = dict(_named(load_torch(path)))
    edges = values.get("edge_index")
    if not isinstance(edges, torch.Tensor) or edges.ndim != 2 or len(edges) != 2 or edges.is_floating_point():
        came = tuple(edges.shape) if isinstance(edges, torch.Tensor) else ", ".join(sorted(values)[:8]) or "nothing"
        raise DataError(f"has no 'edge_index' of shape (2, edges): {came}", file=path, mend="give integers (2, edges)")
    features, labels, count = values.get("x"), values.get("y"), values.get("num_nodes")
    matrix = features.float().numpy() if isinstance(features, torch.Tensor) and features.ndim == 2 else None
    rows = len(matrix) if matrix is not None else None
    names = None
    if isinstance(labels, torch.Tensor) and labels.ndim == 1 and rows in (None, len(labels)):
        names = ["" if label == -1 else str(label) for label in labels.tolist()]
    n = count if isinstance(count, int) else rows if rows is not None else len(names) if names else None
    return make_graph(_pairs(edges), n=n, features=matrix, labels=names, path=path)


def _pairs(edges: torch.Tensor) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(edges.long().numpy().T)


def _named(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Named values of a dictionary, of a PyG object, or of the first of a (data, slices) pair."""
    if depth > 6:
        return
    if isinstance(value, tuple) and value:
        yield from _named(value[0], depth + 1)
    elif isinstance(value, _Holder):
        yield from _named(value.__dict__.get("state", value.__dict__), depth + 1)
    elif isinstance(value, Mapping):
        inner = [value[name] for name in ("_store", "_mapping") if name in value]
        if inner:
            for item in inner:
                yield from _named(item, depth + 1)
        else:
            yield from ((str(name), item) for name, item in value.items())
