"""FI-2010: snapshots of ten levels of five stocks, a column per snapshot, without messages or clock."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks.stream import OrderStream, checked
from kontrast.errors import DataError

FEATURES, FEATURES_AND_LABELS = 144, 149
LEVELS = 10
STEP_NS = 1_000_000_000
"""FI-2010 states no times; snapshots are laid one second apart, and nothing may be read into that."""

_UNITS = 1_000_000
"""Prices of the decimal-precision files keep six digits behind the point."""


def is_fi2010(path: Path) -> bool:
    """Whether it is a .txt or .npy file; their contents tell whether they are FI-2010's."""
    return path.suffix.lower() in (".txt", ".npy")


def read_fi2010(path: Path) -> list[OrderStream]:
    """Streams of snapshots from a file of FI-2010 as it comes, or the same numbers in a .npy file.

    The file has 149 rows (144 features, 5 labels of mid-price movement, which are not used) or 144 or the first 40, and
    a column per snapshot; the transpose is taken, too. Of each level it has ask price, ask size, bid price, bid size.
    Prices must order the book, as in the files with decimal-precision normalisation (``DecPre``): the z-scored and
    min-max files lose which ask belongs to which bid. A jump of the price ends one stock and begins the next.

    Raises:
        DataError: if the shape is another, a number is missing, or the prices are z-scored.
    """
    table = _table(path)
    came = table.shape
    if table.shape[0] not in (FEATURES_AND_LABELS, FEATURES, 4 * LEVELS):
        table = table.T
    if table.shape[0] not in (FEATURES_AND_LABELS, FEATURES, 4 * LEVELS):
        what = f"is a table of {came[0]} x {came[1]} numbers"
        raise DataError(what, file=path, mend="give FI-2010's 149, 144 or 40 rows, a column per snapshot")
    book = table[: 4 * LEVELS].T
    lacking = np.flatnonzero(~np.isfinite(book).all(1))
    if len(lacking):
        raise DataError(f"snapshot {lacking[0] + 1} lacks a number", file=path, mend="copy the file again")
    if (book <= -1e-9).any():
        mend = "give a file with decimal-precision normalisation (its name has DecPre)"
        raise DataError("has negative prices or sizes, so it was z-scored", file=path, mend=mend)
    prices, sizes = np.rint(book[:, 0::2] * _UNITS).astype(np.int64), np.rint(book[:, 1::2] * _UNITS).astype(np.int64)
    borders = [0, *_stock_borders(prices), len(book)]
    many = len(borders) > 2
    return [
        _snapshots(prices[a:b], sizes[a:b], f"{path.stem}-{number + 1}" if many else path.stem, path)
        for number, (a, b) in enumerate(pairwise(borders))
    ]


def _table(path: Path) -> npt.NDArray[np.float64]:
    try:
        if path.suffix.lower() == ".npy":
            table = np.load(path, allow_pickle=False)
        else:
            with path.open(encoding="utf-8") as stream:
                table = np.loadtxt(stream, dtype=np.float64, ndmin=2)
    except (ValueError, EOFError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is no table of numbers ({reason})", file=path, mend="copy the file again") from None
    if table.ndim != 2 or table.dtype.kind not in "fiu" or not table.size:
        what = f"holds an array of shape {table.shape} and type {table.dtype}"
        raise DataError(what, file=path, mend="give a table of numbers with 149, 144 or 40 rows")
    return np.asarray(table, np.float64)


def _stock_borders(prices: npt.NDArray[np.int64]) -> list[int]:
    """Where the mid price jumps by more than a tenth: no stock does that between two snapshots."""
    mid = (prices[:, 0] + prices[:, 1]) / 2
    jump = np.abs(np.diff(mid)) > 0.1 * np.maximum(mid[:-1], 1)
    return [int(row) + 1 for row in np.flatnonzero(jump)]


def _snapshots(prices: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], ticker: str, path: Path) -> OrderStream:
    n = len(prices)
    nothing = np.zeros(n, np.int64)
    stream = OrderStream(
        ticker=ticker,
        date="",
        time_ns=np.arange(n, dtype=np.int64) * STEP_NS,
        type=np.zeros(n, np.int8),
        order_id=nothing,
        size=nothing,
        price=nothing,
        direction=np.zeros(n, np.int8),
        ask_price=prices[:, 0::2],
        ask_size=sizes[:, 0::2],
        bid_price=prices[:, 1::2],
        bid_size=sizes[:, 1::2],
        path=path,
    )
    return checked(stream, where="snapshot")
