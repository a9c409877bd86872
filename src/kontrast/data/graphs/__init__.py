"""Graphs from the files that the field uses, and divisions of their edges."""

from kontrast.data.graphs.division import FRACTIONS, contains, divide_edges, sample_non_edges
from kontrast.data.graphs.graph import Fold, Graph, adjacency, canonical, degrees, make_graph, ordered, pair_keys
from kontrast.data.graphs.read import read_graph

__all__ = [
    "FRACTIONS",
    "Fold",
    "Graph",
    "adjacency",
    "canonical",
    "contains",
    "degrees",
    "divide_edges",
    "make_graph",
    "ordered",
    "pair_keys",
    "read_graph",
    "sample_non_edges",
]
