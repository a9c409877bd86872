"""GraphML, as NetworkX writes it: streamed, without entities."""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

import numpy as np

from kontrast.data.graphs.graph import Graph, make_graph
from kontrast.data.graphs.tables import LABEL_NAMES
from kontrast.errors import DataError

NUMERIC = ("int", "long", "float", "double", "boolean")


class _Reader:
    """Collects nodes, edges and the data of nodes while the file goes by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index: dict[str, int] = {}
        self.edges: list[tuple[int, int]] = []
        self.keys: dict[str, tuple[str, str]] = {}
        self.values: dict[str, dict[int, str]] = {}
        self.node: int | None = None
        self.key: str | None = None
        self.text: list[str] = []
        self.graphs = 0
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text.append
        self.parser.StartDoctypeDeclHandler = self.refuse

    def error(self, problem: str, mend: str) -> DataError:
        return DataError(f"line {self.parser.CurrentLineNumber}: {problem}", file=self.path, mend=mend)

    def refuse(self, *_: object) -> None:
        raise self.error("declares a document type, which can hold entities", "remove the DOCTYPE; GraphML needs none")

    def attribute(self, given: dict[str, str], tag: str, name: str) -> str:
        if name not in given:
            raise self.error(f"<{tag}> has no '{name}'", f"give it the attribute '{name}'")
        return given[name]

    def number(self, name: str) -> int:
        return self.index.setdefault(name, len(self.index))

    def start(self, tag: str, given: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        if tag == "graph":
            self.graphs += 1
            if self.graphs > 1:
                raise self.error("holds a second <graph>", "give one graph a file")
        elif tag == "key" and given.get("for", "node") in ("node", "all"):
            self.keys[self.attribute(given, tag, "id")] = (given.get("attr.name", ""), given.get("attr.type", "string"))
        elif tag == "node":
            self.node = self.number(self.attribute(given, tag, "id"))
        elif tag == "edge":
            ends = [self.number(self.attribute(given, tag, end)) for end in ("source", "target")]
            self.edges.append((ends[0], ends[1]))
        elif tag == "data":
            self.key = given.get("key")
        self.text.clear()

    def end(self, tag: str) -> None:
        tag = tag.rpartition("}")[2]
        if tag == "data" and self.node is not None and self.key in self.keys:
            self.values.setdefault(self.key, {})[self.node] = "".join(self.text).strip()
        if tag == "node":
            self.node = None


def read_graphml(path: Path) -> Graph:
    """One graph; numeric data of nodes are features, a datum named label (class, group) the label.

    Raises:
        DataError: with the line, if the file is no GraphML, declares a document type or holds several graphs.
    """
    reader = _Reader(path)
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                reader.parser.Parse(block, False)
            reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        what = f"line {error.lineno}: is not well-formed XML ({expat.errors.messages[error.code]})"
        raise DataError(what, file=path, mend="write it again") from None
    if not reader.graphs:
        raise DataError("holds no <graph>", file=path, mend="give a GraphML file")
    n = len(reader.index)
    columns, labels = [], None
    # Writers list the kinds of data in any order; that of the names is always the same.
    for key, (name, kind) in sorted(reader.keys.items(), key=lambda item: item[1]):
        given = reader.values.get(key, {})
        if name.lower() in LABEL_NAMES:
            labels = [given.get(node, "") for node in range(n)]
        elif kind in NUMERIC and given:
            columns.append([_number(given.get(node, "0"), name, path) for node in range(n)])
    return make_graph(
        np.asarray(reader.edges, dtype=np.int64).reshape(-1, 2),
        ids=list(reader.index),
        features=np.asarray(columns, dtype=np.float32).T if columns else None,
        labels=labels,
        path=path,
    )


def _number(text: str, name: str, path: Path) -> float:
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"the datum '{name}' holds '{text[:40]}', which is no number", file=path) from None
