"""read_orderbooks: from a file or folder to the reader of its format."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.orderbooks.fi2010 import is_fi2010, read_fi2010
from kontrast.data.orderbooks.lobster import NAME, is_lobster, read_lobster, read_lobster_zip
from kontrast.data.orderbooks.stream import OrderStream
from kontrast.data.orderbooks.tables import read_book_table
from kontrast.errors import DataError

FORMATS = (
    "LOBSTER's message and orderbook CSV (plain or zip), a table with a column 'time_ns' (.parquet, .csv, .jsonl), "
    "FI-2010 (.txt or .npy), or a folder of one of these kinds"
)


def read_orderbooks(path: str | Path) -> tuple[OrderStream, ...]:
    """The streams of a file or folder, sorted by ticker, date and time; there is at least one.

    A folder that holds labelled tables beside the LOBSTER files that they were made from gives the tables.

    Raises:
        DataError: naming the file, what came, what is allowed and the mend.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file", file=path, mend=f"give {FORMATS}")
    streams = _folder(path) if path.is_dir() else _file(path)
    ordered = sorted(streams, key=lambda stream: (stream.ticker, stream.date, int(stream.time_ns[0])))
    for first, second in pairwise(ordered):
        same = (first.ticker, first.date) == (second.ticker, second.date)
        if same and second.time_ns[0] <= first.time_ns[-1]:
            what = f"{first.name} comes twice with overlapping times"
            raise DataError(what, file=path, mend="give each stock and day once")
    levels = {stream.levels for stream in ordered}
    if len(levels) > 1:
        ordered = [stream.first_levels(min(levels)) for stream in ordered]
    return tuple(ordered)


def _folder(path: Path) -> list[OrderStream]:
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    tables = [file for file in files if file.name.lower().endswith(TABLE_EXTENSIONS) and not NAME.fullmatch(file.name)]
    messages = [file for file in files if is_lobster(file) and "_message_" in file.name]
    zips = [file for file in files if file.suffix.lower() == ".zip"]
    plain = [file for file in files if file.suffix.lower() == ".npy" or file.name.startswith(("Train_", "Test_"))]
    for group in (tables, messages, zips, plain):
        if group:
            return [stream for file in group for stream in _file(file)]
    came = ", ".join(file.name for file in files[:5]) or "nothing"
    raise DataError(f"is a folder that holds {came}", file=path, mend=f"give {FORMATS}")


def _file(path: Path) -> list[OrderStream]:
    try:
        if path.stat().st_size == 0:
            raise DataError("is empty", file=path, mend="check that it was written completely")
        if path.suffix.lower() == ".zip":
            return read_lobster_zip(path)
        if is_lobster(path):
            return [read_lobster(path)]
        if is_fi2010(path):
            return read_fi2010(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None
    if path.name.lower().endswith(TABLE_EXTENSIONS):
        return read_book_table(path)
    raise DataError(f"has the extension '{path.suffix}', which is no order book's", file=path, mend=f"give {FORMATS}")
