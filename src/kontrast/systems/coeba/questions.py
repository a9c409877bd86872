"""Questions for `predict`: pairs to score, nodes to find neighbours for, or held-out edges to find negatives for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.graphs import canonical, contains, pair_keys, read_graph
from kontrast.data.graphs.tables import end_columns, read_rows
from kontrast.errors import DataError
from kontrast.systems.coeba.stored import StoredGraph
from kontrast.systems.coeba.views import LinkData, Nodes


def is_question(path: str | Path) -> bool:
    """Whether the file is a table; anything else is a graph."""
    name = Path(path).name.lower()
    return Path(path).is_file() and name.endswith(TABLE_EXTENSIONS)


def read_question(path: str | Path, stored: StoredGraph) -> LinkData:
    """Pairs (two columns) or nodes (one column) of the graph that training knew.

    Raises:
        DataError: if a name is no node of it.
    """
    table = read_rows(Path(path))
    names = [table.columns[0]] if len(table.columns) == 1 else list(end_columns(table, Path(path)))
    index = stored.graph.index()
    columns = []
    for name in names:
        cells = table.ids(name)
        unknown = next((row for row, cell in enumerate(cells) if cell not in index), None)
        if unknown is not None:
            what = (
                f"{table.counted} {table.frame.index[unknown]} names '{cells[unknown]}', which is no node of the graph"
            )
            raise DataError(what, file=path, mend=f"use names such as '{stored.graph.ids[0]}'")
        columns.append([index[cell] for cell in cells])
    rows = np.asarray(columns, dtype=np.int64).T
    if rows.shape[1] == 1:
        return LinkData(stored.graph, stored.context, "node", rows[:, 0], known=stored.graph.edges)
    return LinkData(stored.graph, stored.context, "pair", rows, known=stored.graph.edges)


def read_held_out(path: str | Path, stored: StoredGraph) -> LinkData:
    """The edges of a table of pairs, or of a graph, that are no training edges; of a graph the validation edges, too.

    Raises:
        DataError: if the graph has other nodes than the one that training knew, or there are no such edges.
    """
    if is_question(path):
        asked = read_question(path, stored)
        if asked.kind != "pair":
            raise DataError(
                "names nodes, and hard negatives belong to edges", file=path, mend="give two columns of nodes"
            )
        rows = canonical(asked.rows, stored.graph.n)
    else:
        graph = read_graph(path)
        if graph.ids != stored.graph.ids:
            mend = "give the same nodes in the same order, or a table of pairs"
            raise DataError("has other nodes than the graph that the model learned from", file=path, mend=mend)
        rows = canonical(np.concatenate([graph.edges, stored.graph.edges]), graph.n)
    n = stored.graph.n
    new: Nodes = rows[~contains(np.sort(pair_keys(stored.context, n)), pair_keys(rows, n))]
    if not len(new):
        raise DataError("has no edges besides training edges", file=path, mend="give edges that were held out")
    return LinkData(stored.graph, stored.context, "edge", new, known=stored.graph.edges)
