"""Questions for `predict`: tables of pairs to score, or of nodes to find neighbours for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.graphs.tables import end_columns, read_rows
from kontrast.errors import DataError
from kontrast.systems.coeba.stored import StoredGraph
from kontrast.systems.coeba.views import LinkData


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
