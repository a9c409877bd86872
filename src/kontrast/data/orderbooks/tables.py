"""One table with a row per message: time, message and book in named columns, with labels where they are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.formats import parse_table
from kontrast.data.orderbooks.stream import (
    EXECUTE_HIDDEN,
    KINDS,
    MESSAGE_COLUMNS,
    OrderStream,
    Truth,
    checked,
    events_from_labels,
)
from kontrast.errors import DataError

_FILE_NAME = re.compile(r"(?P<ticker>[^_]+)_(?P<date>\d{4}-\d{2}-\d{2})")
_PARTS = {"train": 0, "valid": 1, "test": 2, "0": 0, "1": 1, "2": 2, "validation": 1, "val": 1, "dev": 1}
_LAYOUT = "ask_p1, ask_s1, bid_p1, bid_s1, ask_p2, ..."


def read_book_table(path: Path) -> list[OrderStream]:
    """Streams of a .parquet, .csv, .tsv or .jsonl table.

    Columns: ``time_ns``; ``ask_p1, ask_s1, bid_p1, bid_s1, ask_p2 ...`` for one level or more; of the message ``type``,
    ``order_id``, ``size``, ``price`` and ``direction``, all or none of them; optionally ``label``, ``event_id``,
    ``kind`` (number or name of `KINDS`), ``split`` (0, 1, 2 or train, valid, test), ``ticker`` and ``date``. Without
    the last two the file's name (``TICKER_DATE_...``) gives them.

    Raises:
        DataError: naming the column, what came and what is allowed.
    """
    table = parse_table(path, lambda names: [name for name in names if _known(name)])
    frame = table.frame
    levels = _levels(list(frame.columns), path)
    match = _FILE_NAME.match(path.name)
    ticker, date = (match["ticker"], match["date"]) if match else (path.name.split(".")[0], "")
    if "ticker" not in frame and "date" not in frame:
        return [_stream(frame, levels, ticker, date, path, table.counted)]
    names = [frame[name].astype(str) if name in frame else None for name in ("ticker", "date")]
    keys = pd.DataFrame({"ticker": names[0] if names[0] is not None else ticker,
                         "date": names[1] if names[1] is not None else date}, index=frame.index)  # fmt: skip
    number = keys.groupby(["ticker", "date"], sort=True).ngroup().to_numpy()
    streams = []
    for group in range(int(number.max()) + 1):
        stock, day = keys[number == group].iloc[0].tolist()
        streams.append(_stream(frame[number == group], levels, str(stock), str(day), path, table.counted))
    return streams


def _known(name: str) -> bool:
    extra = ("label", "event_id", "kind", "split", "ticker", "date")
    return name in (*MESSAGE_COLUMNS, *extra) or re.fullmatch(r"(ask|bid)_[ps]\d+", name) is not None


def _levels(names: Sequence[str], path: Path) -> int:
    if "time_ns" not in names:
        came = ", ".join(names[:6]) or "none of the known columns"
        raise DataError(f"has no column 'time_ns', but {came}", file=path, mend=f"name the columns time_ns, {_LAYOUT}")
    levels = 0
    while all(f"{side}_{what}{levels + 1}" in names for side in ("ask", "bid") for what in "ps"):
        levels += 1
    if not levels:
        raise DataError("has no whole first level of the book", file=path, mend=f"name its columns {_LAYOUT}")
    return levels


def _stream(frame: pd.DataFrame, levels: int, ticker: str, date: str, path: Path, counted: str) -> OrderStream:
    n = len(frame)
    message = [name for name in MESSAGE_COLUMNS[1:] if name in frame]
    lacking = [name for name in MESSAGE_COLUMNS[1:] if name not in frame and name != "order_id"]
    if lacking and any(name != "order_id" for name in message):
        what = f"has the column '{message[0]}' of the messages but not '{lacking[0]}'"
        raise DataError(what, file=path, mend="give all of type, size, price and direction, or none of them")
    columns = {name: _whole(frame, name, path, counted) if name in message else np.zeros(n, np.int64)
               for name in MESSAGE_COLUMNS[1:]}  # fmt: skip

    def side(name: str) -> npt.NDArray[np.int64]:
        parts = [_whole(frame, f"{name}{level + 1}", path, counted) for level in range(levels)]
        return np.stack(parts, axis=1)

    time = _whole(frame, "time_ns", path, counted)
    stream = OrderStream(
        ticker=ticker,
        date=date,
        time_ns=time,
        type=_small(columns["type"], "type", path),
        order_id=columns["order_id"],
        size=columns["size"],
        price=columns["price"],
        direction=_small(columns["direction"], "direction", path),
        ask_price=side("ask_p"),
        ask_size=side("ask_s"),
        bid_price=side("bid_p"),
        bid_size=side("bid_s"),
        truth=_truth(frame, time, path, counted),
        split=_split(frame, path, counted),
        path=path,
    )
    checked(stream, where=counted)
    hidden = stream.type == EXECUTE_HIDDEN
    return stream.take(~hidden) if hidden.any() and not hidden.all() else stream


def _whole(frame: pd.DataFrame, name: str, path: Path, counted: str) -> npt.NDArray[np.int64]:
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.rint(numbers)))
    if len(wrong):
        value = frame[name].iloc[wrong[0]]
        shown = repr(value) if isinstance(value, str) else value
        what = f"{counted} {frame.index[wrong[0]]} has {shown} in column '{name}'"
        raise DataError(what, file=path, mend="give a whole number; prices are in units of 1e-4 dollars")
    column = frame[name]
    # Nanoseconds do not fit into a double; integers are taken as they are.
    if pd.api.types.is_integer_dtype(column.dtype):
        return np.asarray(column.to_numpy(np.int64))
    try:
        return np.asarray([int(value) for value in column], dtype=np.int64)
    except (TypeError, ValueError):
        return np.asarray(np.rint(numbers), dtype=np.int64)


def _small(values: npt.NDArray[np.int64], name: str, path: Path) -> npt.NDArray[np.int8]:
    if np.abs(values).max(initial=0) > 100:
        worst = int(values[np.abs(values).argmax()])
        raise DataError(f"holds {worst} in column '{name}'", file=path, mend="use LOBSTER's numbers")
    return values.astype(np.int8)


def _truth(frame: pd.DataFrame, time: npt.NDArray[np.int64], path: Path, counted: str) -> Truth | None:
    if "label" not in frame:
        return None
    label = _whole(frame, "label", path, counted)
    wrong = np.flatnonzero(~np.isin(label, (0, 1)))
    if len(wrong):
        what = f"{counted} {frame.index[wrong[0]]} has the label {label[wrong[0]]}"
        raise DataError(what, file=path, mend="allowed is 0, or 1 for a message of a manipulator")
    event = _whole(frame, "event_id", path, counted) if "event_id" in frame else None
    event = events_from_labels(time, label.astype(np.int8)) if event is None else event
    lone = np.flatnonzero((label == 1) & (event < 0))
    if len(lone):
        what = f"{counted} {frame.index[lone[0]]} has the label 1 and no event_id"
        raise DataError(what, file=path, mend="number the events from 0, or leave the column 'event_id' out")
    event = np.where(label == 1, event, -1)
    kind = _kinds(frame, path, counted) if "kind" in frame else np.full(len(label), len(KINDS) - 1)
    return Truth(label.astype(np.int8), event, np.where(label == 1, kind, 0).astype(np.int8))


def _kinds(frame: pd.DataFrame, path: Path, counted: str) -> npt.NDArray[np.int64]:
    names = {name: number for number, name in enumerate(KINDS)} | {str(n): n for n in range(len(KINDS))}
    kind = [names.get(_word(value).replace("_", " "), -1) for value in frame["kind"]]
    if -1 in kind:
        place = kind.index(-1)
        what = f"{counted} {frame.index[place]} has the kind '{frame['kind'].iloc[place]}'"
        raise DataError(what, file=path, mend=f"allowed is a number below {len(KINDS)} or one of {', '.join(KINDS)}")
    return np.asarray(kind)


def _split(frame: pd.DataFrame, path: Path, counted: str) -> npt.NDArray[np.int8] | None:
    if "split" not in frame:
        return None
    parts = [_PARTS.get(_word(value), -1) for value in frame["split"]]
    if -1 in parts:
        place = parts.index(-1)
        what = f"{counted} {frame.index[place]} has the split '{frame['split'].iloc[place]}'"
        raise DataError(what, file=path, mend="allowed is train, valid, test, or 0, 1, 2")
    return np.asarray(parts, np.int8)


def _word(value: Any) -> str:
    return str(value).strip().lower().removesuffix(".0")
