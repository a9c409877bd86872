"""OrderStream: the messages of one stock on one day, with the book after each of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.errors import DataError

Ints = npt.NDArray[np.int64]

SUBMIT, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN, CROSS, HALT = 1, 2, 3, 4, 5, 6, 7
"""Types of messages, as LOBSTER numbers them; 0 stands for a snapshot of which no message is known."""

EMPTY = 9_999_999_999
"""LOBSTER's price of an empty ask level; an empty bid level has it with a minus sign. Both have the size 0."""

KINDS = ("real", "spoofing", "layering", "quote stuffing", "pump and dump", "manipulation")
"""Names of the numbers in `Truth.kind`; the last one is manipulation of a kind that the data do not state."""

MESSAGE_COLUMNS = ("time_ns", "type", "order_id", "size", "price", "direction")


@dataclass(frozen=True, eq=False)
class Truth:
    """Which messages were a manipulator's.

    Attributes:
        label: (n,) int8, 1 for a message that a manipulator sent.
        event: (n,) int64 number of the event that the message belongs to, -1 for none.
        kind: (n,) int8 index into `KINDS`.
    """

    label: npt.NDArray[np.int8]
    event: Ints
    kind: npt.NDArray[np.int8]

    @classmethod
    def none(cls, n: int) -> Truth:
        """No manipulation among n messages."""
        return cls(np.zeros(n, np.int8), np.full(n, -1, np.int64), np.zeros(n, np.int8))

    def take(self, rows: Any) -> Truth:
        """The truth of some messages."""
        return Truth(self.label[rows], self.event[rows], self.kind[rows])


@dataclass(frozen=True, eq=False)
class OrderStream:
    """The messages of one stock on one day, in order of time, and the best levels of the book after each.

    Attributes:
        ticker: name of the stock.
        date: day as text, "" if unknown.
        time_ns: (n,) nanoseconds since midnight, never decreasing.
        type: (n,) int8, see `SUBMIT` ... `HALT`; 0 in data without messages.
        order_id, size: (n,) of the message.
        price: (n,) in units of 1e-4 dollars, as LOBSTER has it.
        direction: (n,) int8, 1 for the buy side, -1 for the sell side; an execution has that of the resting order.
        ask_price, ask_size, bid_price, bid_size: (n, levels), best level first. An empty level has the price ±`EMPTY`
            and the size 0.
        truth: who sent the messages, where that is known.
        split: (n,) int8: 0 train, 1 valid, 2 test, where the data state it.
        path: file that it was read from, for messages.
        dropped: what the reader left out, by name.
    """

    ticker: str
    date: str
    time_ns: Ints
    type: npt.NDArray[np.int8]
    order_id: Ints
    size: Ints
    price: Ints
    direction: npt.NDArray[np.int8]
    ask_price: Ints
    ask_size: Ints
    bid_price: Ints
    bid_size: Ints
    truth: Truth | None = None
    split: npt.NDArray[np.int8] | None = None
    path: Path | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def levels(self) -> int:
        """Price levels on each side."""
        return int(self.ask_price.shape[1])

    @property
    def has_messages(self) -> bool:
        """Whether there are messages, not only snapshots of the book."""
        return bool((self.type != 0).any())

    @property
    def name(self) -> str:
        """Ticker and date, such as "AMZN 2012-06-21"."""
        return f"{self.ticker} {self.date}".strip()

    def take(self, rows: Any) -> OrderStream:
        """Some messages: a slice, a mask or positions."""
        arrays = {name: getattr(self, name)[rows] for name in (*MESSAGE_COLUMNS, *_BOOK)}
        truth = None if self.truth is None else self.truth.take(rows)
        split = None if self.split is None else self.split[rows]
        return replace(self, **arrays, truth=truth, split=split)

    def first_levels(self, levels: int) -> OrderStream:
        """The same messages with the best `levels` levels only."""
        return replace(self, **{name: getattr(self, name)[:, :levels] for name in _BOOK})

    def to_frame(self) -> pd.DataFrame:
        """One row per message with the columns that `read_orderbooks` takes: message, book, and the truth if known."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in MESSAGE_COLUMNS}
        for level in range(self.levels):
            for name in _BOOK:
                side, what = name.split("_")
                columns[f"{side}_{what[0]}{level + 1}"] = getattr(self, name)[:, level]
        if self.truth is not None:
            columns |= {"label": self.truth.label, "event_id": self.truth.event, "kind": self.truth.kind}
        if self.split is not None:
            columns["split"] = self.split
        return pd.DataFrame(columns)


_BOOK = ("ask_price", "ask_size", "bid_price", "bid_size")


def checked(stream: OrderStream, *, where: str = "row") -> OrderStream:
    """`stream`, after a look at everything that a later step relies on.

    Args:
        stream: as a reader made it.
        where: what a message is counted as in its file, from 1.

    Raises:
        DataError: if there are no messages, time runs backwards, a type or direction is unknown, a size is negative, a
            book is crossed or not in order of price, or an event has messages in two parts of the split.
    """
    path, n = stream.path, len(stream)
    if n == 0:
        raise DataError("has no messages", file=path, mend="give at least one row")
    back = np.flatnonzero(np.diff(stream.time_ns) < 0)
    if len(back):
        row = int(back[0]) + 2
        raise DataError(f"{where} {row} is earlier than the one before it", file=path, mend="sort the file by time")
    _refuse(stream, ~np.isin(stream.type, range(8)), "type", stream.type, "1 to 7, or 0 for a mere snapshot", where)
    sided = stream.type != 0
    _refuse(stream, sided & ~np.isin(stream.direction, (-1, 0, 1)), "direction", stream.direction, "1 or -1", where)
    _refuse(stream, stream.size < 0, "size", stream.size, "0 or more", where)
    for name in ("ask_size", "bid_size"):
        sizes = getattr(stream, name)
        _refuse(stream, (sizes < 0).any(1), name, sizes.min(1), "0 or more", where)
    _check_book(stream, where)
    if stream.truth is not None and stream.split is not None:
        _check_events(stream)
    return stream


def empty_levels(stream: OrderStream) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(n, levels) which ask and which bid levels are empty."""
    return (
        (stream.ask_size == 0) | (np.abs(stream.ask_price) >= EMPTY),
        (stream.bid_size == 0) | (np.abs(stream.bid_price) >= EMPTY),
    )


def _check_book(stream: OrderStream, where: str) -> None:
    """Asks rise, bids fall and the best ask is above the best bid, wherever the levels are not empty.

    Halts and auctions leave a few crossed books in real data; a file in which they are common is no order book, or its
    columns are in another order.
    """
    no_ask, no_bid = empty_levels(stream)
    crossed = (stream.ask_price[:, 0] <= stream.bid_price[:, 0]) & ~no_ask[:, 0] & ~no_bid[:, 0]
    disorder = crossed.copy()
    for prices, empty, sign in ((stream.ask_price, no_ask, 1), (stream.bid_price, no_bid, -1)):
        known = ~empty[:, 1:] & ~empty[:, :-1]
        disorder |= ((sign * np.diff(prices, axis=1) <= 0) & known).any(1)
    if disorder.mean() > 0.01:
        row = int(np.flatnonzero(disorder)[0])
        what = (
            f"{where} {row + 1} has a book that is crossed or out of order (best ask {stream.ask_price[row, 0]}, best "
            f"bid {stream.bid_price[row, 0]}), as have {disorder.mean():.0%} of all"
        )
        mend = "give columns ask price, ask size, bid price, bid size per level, with prices that were not z-scored"
        raise DataError(what, file=stream.path, mend=mend)


def _check_events(stream: OrderStream) -> None:
    assert stream.truth is not None
    assert stream.split is not None
    event, split = stream.truth.event, stream.split
    inside = event >= 0
    frame = pd.DataFrame({"event": event[inside], "split": split[inside]})
    spread = frame.groupby("event")["split"].nunique()
    torn = spread[spread > 1]
    if len(torn):
        what = f"event {int(torn.index[0])} has messages in more than one part of the split"
        raise DataError(what, file=stream.path, mend="move the border between the parts off the event")


def _refuse(
    stream: OrderStream, wrong: npt.NDArray[np.bool_], column: str, values: npt.NDArray[Any], allowed: str, where: str
) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        what = f"{where} {row + 1} has the {column.replace('_', ' ')} {values[row]}"
        raise DataError(what, file=stream.path, mend=f"allowed is {allowed}")


def events_from_labels(time_ns: Ints, label: npt.NDArray[np.int8], *, gap_ns: int = 5_000_000_000) -> Ints:
    """(n,) event numbers for labels without any: labelled messages at most `gap_ns` apart belong together."""
    event = np.full(len(label), -1, np.int64)
    rows = np.flatnonzero(label)
    if len(rows):
        event[rows] = np.concatenate([[0], np.cumsum(np.diff(time_ns[rows]) > gap_ns)])
    return event
