"""Limit order books: LOBSTER messages and books, labelled tables, FI-2010 snapshots."""

from kontrast.data.orderbooks.read import read_orderbooks
from kontrast.data.orderbooks.stream import (
    CROSS,
    DELETE,
    EMPTY,
    EXECUTE,
    EXECUTE_HIDDEN,
    HALT,
    KINDS,
    REDUCE,
    SUBMIT,
    OrderStream,
    Truth,
    checked,
    empty_levels,
    events_from_labels,
)

__all__ = [
    "CROSS",
    "DELETE",
    "EMPTY",
    "EXECUTE",
    "EXECUTE_HIDDEN",
    "HALT",
    "KINDS",
    "REDUCE",
    "SUBMIT",
    "OrderStream",
    "Truth",
    "checked",
    "empty_levels",
    "events_from_labels",
    "read_orderbooks",
]
