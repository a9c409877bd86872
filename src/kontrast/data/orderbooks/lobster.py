"""LOBSTER's pairs of CSV files: messages, and the book after each; plain, or together in a zip."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.orderbooks.stream import EXECUTE_HIDDEN, OrderStream, checked
from kontrast.errors import DataError

NAME = re.compile(
    r"(?P<ticker>[A-Za-z0-9.\-]+)_(?P<date>\d{4}-\d{2}-\d{2})_(?P<start>\d+)_(?P<end>\d+)_"
    r"(?P<what>message|orderbook)_(?P<levels>\d+)\.csv"
)
"""How LOBSTER names its files."""

_MOST_BYTES = 8 << 30


def is_lobster(path: Path) -> bool:
    """Whether the name is that of a LOBSTER file."""
    return NAME.fullmatch(path.name) is not None


def read_lobster(path: Path) -> OrderStream:
    """A stream from either file of a pair; the other one lies beside it.

    Messages about hidden orders (type 5) change no visible level and are left out; `dropped` counts them.

    Raises:
        DataError: if the other file is missing, or a file is damaged or does not fit its name or the other one.
    """
    pair = {what: path.with_name(path.name.replace(_what(path.name), what)) for what in ("message", "orderbook")}
    for what, file in pair.items():
        if not file.is_file():
            raise DataError(
                f"the file {file.name} is not beside it", file=path, mend=f"copy the {what} file there, too"
            )
    match = NAME.fullmatch(path.name)
    assert match is not None
    return _stream(match, {what: file.read_bytes() for what, file in pair.items()}, path)


def read_lobster_zip(path: Path) -> list[OrderStream]:
    """The streams of all pairs in a zip file.

    Raises:
        DataError: if it is no zip file, is damaged, or holds no whole pair.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found: dict[tuple[str, ...], dict[str, str]] = {}
            for member in archive.namelist():
                match = NAME.fullmatch(PurePosixPath(member).name)
                if match is not None:
                    key = match.group("ticker", "date", "start", "end", "levels")
                    found.setdefault(key, {})[match["what"]] = member
            if not found:
                came = ", ".join(archive.namelist()[:3]) or "nothing"
                mend = "give the zip as LOBSTER delivers it, TICKER_DATE_START_END_message_LEVELS.csv and its orderbook"
                raise DataError(f"holds no LOBSTER files, but {came}", file=path, mend=mend)
            if sum(archive.getinfo(name).file_size for pair in found.values() for name in pair.values()) > _MOST_BYTES:
                raise DataError("unpacks to more than 8 GiB", file=path, mend="unpack it and give single days")
            streams = []
            for _, pair in sorted(found.items()):
                lacking = {"message", "orderbook"} - pair.keys()
                if lacking:
                    what = f"has no {lacking.pop()} file for {next(iter(pair.values()))}"
                    raise DataError(what, file=path, mend="give both files of each day")
                match = NAME.fullmatch(PurePosixPath(pair["message"]).name)
                assert match is not None
                streams.append(_stream(match, {what: archive.read(name) for what, name in pair.items()}, path))
            return streams
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(f"is not a whole zip file ({error})", file=path, mend="copy it again") from None
    except zipfile.zlib.error as error:  # type: ignore[attr-defined]
        raise DataError(f"is not a whole zip file ({error})", file=path, mend="copy it again") from None


def _what(name: str) -> str:
    return "message" if "_message_" in name else "orderbook"


def _stream(match: re.Match[str], contents: dict[str, bytes], path: Path) -> OrderStream:
    levels = int(match["levels"])
    label = f"{match['ticker']}_{match['date']}"
    if levels < 1:
        raise DataError(f"{label} states 0 levels in its name", file=path, mend="give at least one level")
    messages = _numbers(contents["message"], (6, 7), f"the message file of {label}", path)
    book = _numbers(contents["orderbook"], (4 * levels,), f"the orderbook file of {label}", path)
    if len(messages) != len(book):
        what = f"the files of {label} have {len(messages):,} messages and {len(book):,} books"
        raise DataError(what, file=path, mend="copy both files again; they have a row per message")
    whole = book.astype(np.int64)
    stream = OrderStream(
        ticker=match["ticker"],
        date=match["date"],
        time_ns=np.rint(messages[:, 0] * 1e9).astype(np.int64),
        type=messages[:, 1].astype(np.int8),
        order_id=messages[:, 2].astype(np.int64),
        size=messages[:, 3].astype(np.int64),
        price=messages[:, 4].astype(np.int64),
        direction=messages[:, 5].astype(np.int8),
        ask_price=whole[:, 0::4],
        ask_size=whole[:, 1::4],
        bid_price=whole[:, 2::4],
        bid_size=whole[:, 3::4],
        path=path,
    )
    checked(stream, where=f"{label}, line")
    hidden = stream.type == EXECUTE_HIDDEN
    if hidden.all():
        raise DataError(f"{label} has executions of hidden orders only", file=path, mend="give a whole day")
    return replace(stream.take(~hidden), dropped={"hidden executions": int(hidden.sum())})


def _numbers(content: bytes, widths: tuple[int, ...], what: str, path: Path) -> npt.NDArray[np.float64]:
    """(rows, widths[0]) numbers of a CSV without a header; columns beyond are ignored where their width is allowed."""
    if not content.strip():
        raise DataError(f"{what} is empty", file=path, mend="copy it again")
    try:
        frame = pd.read_csv(io.BytesIO(content), header=None, dtype=np.float64, skip_blank_lines=True, na_filter=True)
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        mend = "give LOBSTER's file without a header, numbers only"
        raise DataError(f"{what} is no table of numbers ({reason})", file=path, mend=mend) from None
    if frame.shape[1] not in widths:
        wanted = " or ".join(map(str, widths))
        mend = "check the number of levels in the file's name"
        raise DataError(f"{what} has {frame.shape[1]} columns, expected {wanted}", file=path, mend=mend)
    values = frame.to_numpy(np.float64)[:, : widths[0]]
    lacking = np.flatnonzero(~np.isfinite(values).all(1))
    if len(lacking):
        mend = "copy it again; it may have been cut off"
        raise DataError(f"{what} lacks a number in line {lacking[0] + 1}", file=path, mend=mend)
    return values
