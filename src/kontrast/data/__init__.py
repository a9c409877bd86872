"""Readers of standard formats, leak-free splits and the catalogue of data sets."""

from kontrast.data.splits import Splits, connected_groups, leak_free_parts, leaked_rows, split_table
from kontrast.data.tables import ColumnKind, Table, column_kind, read_table, write_table

__all__ = [
    "ColumnKind",
    "Splits",
    "Table",
    "column_kind",
    "connected_groups",
    "leak_free_parts",
    "leaked_rows",
    "read_table",
    "split_table",
    "write_table",
]
