"""PyTorch files with a PyG ``Data`` or a dictionary of tensors; nothing that a file says is run."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kontrast.data.graphs.graph import Graph, make_graph
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
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ")
        asked = reason.split("GLOBAL ")[1].split(" ")[0] if "GLOBAL " in reason else "what is not allowed"
        what = f"cannot be loaded safely: it asks for {asked[:80]}"
        raise DataError(what, file=path, mend="save plain tensors: {'edge_index': ..., 'x': ...}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole PyTorch file ({reason})", file=path, mend=MEND) from None
    except (zipfile.BadZipFile, struct.error, UnicodeError, OverflowError, AssertionError) as error:
        raise DataError(f"is not a whole PyTorch file ({type(error).__name__})", file=path, mend=MEND) from None


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
