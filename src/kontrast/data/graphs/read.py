"""read_graph: the reader for each format."""

from __future__ import annotations

from pathlib import Path

from kontrast.data.graphs.graph import Graph
from kontrast.data.graphs.npz import read_npz


def read_graph(path: str | Path) -> Graph:
    path = Path(path)
    return read_npz(path)
