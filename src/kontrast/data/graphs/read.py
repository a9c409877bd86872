"""read_graph: from a file or folder to the reader of its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.graphs import folders
from kontrast.data.graphs.archives import read_torch
from kontrast.data.graphs.graph import Graph
from kontrast.data.graphs.graphml import read_graphml
from kontrast.data.graphs.mat import read_mat
from kontrast.data.graphs.npz import read_npz
from kontrast.data.graphs.planetoid import is_planetoid, read_planetoid
from kontrast.data.graphs.tables import read_edge_list, read_tables, table_named
from kontrast.errors import DataError

FORMATS = (
    "an edge list (.csv, .tsv, .txt, .parquet, .jsonl), .npz, .mat, .pt, .graphml, ind.NAME.graph, or a folder with a "
    "table 'edges', or of MUSAE, geom-gcn, OGB, HeaRT or planetoid"
)


def read_graph(path: str | Path) -> Graph:
    """An undirected graph from a file or folder of one of the formats of the field.

    Directions are ignored, repeated edges merged and self-loops left out; `Graph.dropped` counts them. Nothing is ever
    unpickled: pickled formats are read by an interpreter that knows arrays, lists and dictionaries of numbers alone.

    Raises:
        DataError: naming the file, what came, what is allowed and the mend.
    """
    path = Path(path)
    if not path.exists():
        near = path.parent.is_dir() and sorted(file.name for file in path.parent.iterdir())[:3]
        raise DataError(
            "no such file", file=path, mend=f"beside it are {', '.join(near)}" if near else "check the path"
        )
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except MemoryError:
        raise DataError("states sizes that do not fit into memory", file=path, mend="copy or write it again") from None


def _folder(path: Path) -> Graph:
    if table_named(path, "edges") is not None:
        return read_tables(path)
    for reader in (folders.read_heart, folders.read_ogb, folders.read_musae, folders.read_geom_gcn):
        graph = reader(path)
        if graph is not None:
            return graph
    named = sorted(path.glob("ind.*.graph"))
    if len(named) == 1:
        return read_planetoid(named[0])
    came = ", ".join(sorted(file.name for file in path.iterdir())[:6]) or "nothing"
    raise DataError(f"is a folder that holds {came}, which is no known graph", file=path, mend=f"give {FORMATS}")


def _file(path: Path) -> Graph:
    if path.stat().st_size == 0:
        raise DataError("is empty", file=path, mend="check that it was written completely")
    if is_planetoid(path):
        return read_planetoid(path)
    readers: dict[str, Callable[[Path], Graph]] = {
        ".npz": read_npz,
        ".mat": read_mat,
        ".pt": read_torch,
        ".pth": read_torch,
        ".graphml": read_graphml,
        ".xml": read_graphml,
    }
    if path.name.lower().endswith(TABLE_EXTENSIONS):
        return read_edge_list(path)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"has the extension '{path.suffix}', which is no graph format", file=path, mend=f"give {FORMATS}"
        )
    return reader(path)
