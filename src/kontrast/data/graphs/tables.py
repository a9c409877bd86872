"""Edge lists, alone or in a folder with a table of nodes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.graphs.graph import Graph, make_graph
from kontrast.data.tables import Table, read_table
from kontrast.errors import DataError

END_NAMES = (
    ("source", "target"),
    ("src", "dst"),
    ("from", "to"),
    ("u", "v"),
    ("id1", "id2"),
    ("id_1", "id_2"),
    ("node1", "node2"),
    ("node_1", "node_2"),
    ("left", "right"),
)
ID_NAMES = ("id", "node", "name", "node_id")
LABEL_NAMES = ("label", "class", "group", "y")
_COMMENTS = ("#", "%")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def read_rows(path: Path) -> Table:
    """A table; of a plain ``.txt`` the words of each line are columns, and lines that begin with # or % are comments.

    Raises:
        DataError: if lines differ in their number of words, or the file cannot be read.
    """
    if not re.search(r"\.txt(\.gz)?$", path.name.lower()):
        table = read_table(path)
        if table.counted == "line" and all(_NUMBER.fullmatch(name.strip()) for name in table.columns[:2]):
            what = f"begins with '{', '.join(table.columns[:2])}' where names of columns belong"
            raise DataError(what, file=path, mend="write source,target as the first line, or save it as .txt")
        return table
    lines = read_table(path, ["text"])
    frame = lines.frame[~lines.frame["text"].str.startswith(_COMMENTS)]
    separator = "," if len(frame) and "," in str(frame["text"].iloc[0]) else None
    words = [[word.strip() for word in str(line).split(separator)] for line in frame["text"]]
    width = len(words[0]) if words else 0
    for number, line in zip(frame.index, words):
        if len(line) != width or not all(line):
            what = f"line {number} has {len(line)} words where the first has {width}"
            raise DataError(what, file=path, mend="write two node names a line, separated by a blank, a tab or a comma")
    if not words:
        raise DataError("has no lines besides comments", file=path, mend="write two node names a line")
    columns = {name: list(cells) for name, cells in zip(_names(width), zip(*words))}
    return Table(Table.of(columns).frame.set_axis(frame.index), path, "line")


def _names(width: int) -> list[str]:
    return ["id"] if width == 1 else ["source", "target", *(f"column {number}" for number in range(3, width + 1))]


def end_columns(table: Table, path: Path) -> tuple[str, str]:
    """Names of the two columns that hold the ends of edges.

    Raises:
        DataError: if they cannot be told.
    """
    by_name = {name.strip().lower(): name for name in table.columns}
    for one, other in END_NAMES:
        if one in by_name and other in by_name:
            return by_name[one], by_name[other]
    if len(table.columns) == 2:
        return table.columns[0], table.columns[1]
    what = f"has the columns {', '.join(table.columns[:12])}, and it is not said which two are the ends of an edge"
    raise DataError(what, file=path, mend="name them source and target")


def read_edge_list(path: Path) -> Graph:
    """A graph from a table of edges alone; nodes are those that occur, in order of their names.

    Raises:
        DataError: if the ends cannot be found.
    """
    table = read_rows(path)
    one, other = end_columns(table, path)
    names = np.asarray([table.ids(one), table.ids(other)], dtype=object)
    ids, places = np.unique(names.astype(np.str_), return_inverse=True)
    return (
        make_graph(places.reshape(2, -1).T, ids=_in_order(ids), path=path)
        if _textual(ids)
        else _numbered(ids, places.reshape(2, -1).T, path)
    )


def _textual(ids: npt.NDArray[np.str_]) -> bool:
    return not all(name.isdecimal() and len(name) < 16 for name in ids)


def _in_order(ids: npt.NDArray[np.str_]) -> list[str]:
    return [str(name) for name in ids]


def _numbered(ids: npt.NDArray[np.str_], edges: npt.NDArray[np.int64], path: Path) -> Graph:
    """Names that are numbers come in the order of the numbers."""
    order = np.argsort(ids.astype(np.int64), kind="stable")
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    return make_graph(place[edges], ids=_in_order(ids[order]), path=path)


def table_named(folder: Path, name: str) -> Path | None:
    """The table of that name in a folder, whatever its format."""
    found = [folder / f"{name}{ending}" for ending in TABLE_EXTENSIONS if (folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        what = f"has {' and '.join(file.name for file in found)}"
        raise DataError(what, file=folder, mend=f"leave one table '{name}'")
    return found[0] if found else None


def read_tables(folder: Path) -> Graph:
    """A graph from a table ``edges`` and a table ``nodes`` in a folder.

    The nodes' table has the names in a column id, optionally a class in a column label, and numeric features in all
    further columns (a column may hold a list of numbers). Nodes without edges are kept.

    Raises:
        DataError: if an edge names a node that the table lacks, or a feature is no number.
    """
    edge_path, node_path = table_named(folder, "edges"), table_named(folder, "nodes")
    assert edge_path is not None
    if node_path is None:
        return read_edge_list(edge_path)
    nodes = read_table(node_path)
    by_name = {name.strip().lower(): name for name in nodes.columns}
    id_column = next((by_name[name] for name in ID_NAMES if name in by_name), nodes.columns[0])
    label_column = next((by_name[name] for name in LABEL_NAMES if name in by_name), None)
    ids = nodes.ids(id_column)
    features = [_columns(nodes, name) for name in nodes.columns if name not in (id_column, label_column)]
    index = {name: number for number, name in enumerate(ids)}
    edges = read_rows(edge_path)
    ends = []
    for column in end_columns(edges, edge_path):
        cells = edges.ids(column)
        unknown = next((row for row, cell in enumerate(cells) if cell not in index), None)
        if unknown is not None:
            where = f"{edges.counted} {edges.frame.index[unknown]}"
            what = f"{where} names the node '{cells[unknown]}', which {node_path.name} lacks"
            raise DataError(what, file=edge_path, mend=f"add it to {node_path.name} or leave the edge out")
        ends.append([index[cell] for cell in cells])
    return make_graph(
        np.asarray(ends, dtype=np.int64).T,
        ids=ids,
        features=sparse.hstack(features, format="csr") if features else None,
        labels=nodes.ids(label_column) if label_column is not None else None,
        path=folder,
    )


def _columns(nodes: Table, name: str) -> sparse.csr_array:
    kind = nodes.kind(name)
    if kind == "vector":
        return sparse.csr_array(nodes.vectors(name))
    return sparse.csr_array(np.asarray(nodes.numbers(name), dtype=np.float32)[:, None])
