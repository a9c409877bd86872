"""Parsers of table files: bytes on disk to named columns, with the place of every fault as a person counts it.

Text formats count *lines* of the file (the header of a CSV is line 1, as an editor shows it); parquet counts *rows*
from 1. The cells keep the types of their file: strings in CSV and TSV, JSON values in JSONL, arrow types in parquet.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kontrast.errors import DataError

TEXT_COLUMN = "text"
"""Name of the only column of a plain ``.txt`` file."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class RawTable:
    """Columns as they stand in a file.

    Attributes:
        frame: one row per record; its index holds the line or row number of each record in the file.
        counted: "line" for text formats, "row" for parquet.
    """

    frame: pd.DataFrame
    counted: str


Pick = Callable[[Sequence[str]], Sequence[str]]
"""Chooses the columns to keep, given all the file has; raises `DataError` for one that is missing."""


def parse_table(path: Path, pick: Pick) -> RawTable:
    """Parses a table file by its extension (``.gz`` is allowed after every text extension).

    Args:
        path: an existing file.
        pick: called once with the file's column names; returns those to keep, in order.

    Raises:
        DataError: if the extension is unknown, or the file is empty, damaged, not UTF-8 or without rows.
    """
    suffixes = [part.lower() for part in path.suffixes[-2:]]
    extension = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    parser = _PARSERS.get(extension)
    if parser is None or (extension == ".parquet" and suffixes[-1] == ".gz"):
        raise DataError(
            f"has the extension '{''.join(suffixes)}', which is not a table format",
            file=path,
            mend=f"use one of {', '.join(_PARSERS)} (text formats also with .gz)",
        )
    try:
        if path.stat().st_size == 0:
            raise DataError("is empty", file=path, mend="check that it was written completely")
        table = parser(path, pick)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is not a whole gzip file ({error})", file=path, mend="copy or compress it again") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None
    if not len(table.frame):
        raise DataError("has no rows", file=path, mend="give at least one row of data")
    return table


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their line ends; a byte that is not UTF-8 is reported with its line."""
    with path.open("rb") as raw:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == ".gz" else cast(BinaryIO, raw)
        for number, line in enumerate(io.BufferedReader(cast(io.RawIOBase, stream)), start=1):
            if number == 1:
                if line.startswith(_UTF16):
                    raise DataError("is UTF-16 text", file=path, mend="save it as UTF-8")
                line = line.removeprefix(_BOM)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"line {number} is not UTF-8 text (byte 0x{line[error.start]:02x} at position {error.start + 1})",
                    file=path,
                    mend="save the file as UTF-8",
                ) from None
            if "\0" in text:
                raise DataError(f"line {number} holds a NUL byte", file=path, mend="save it as UTF-8 text")
            yield text


def _frame(columns: dict[str, list[Any]], numbers: list[int], *, infer: bool = False) -> pd.DataFrame:
    index = pd.Index(numbers, dtype="int64")
    dtype = None if infer else object
    return pd.DataFrame({name: pd.Series(cells, index=index, dtype=dtype) for name, cells in columns.items()}, index)


def _parse_txt(path: Path, pick: Pick) -> RawTable:
    kept = pick([TEXT_COLUMN])
    numbers, texts = [], []
    for number, line in enumerate(_lines(path), start=1):
        if text := line.strip():
            numbers.append(number)
            texts.append(text)
    return RawTable(_frame(dict.fromkeys(kept, texts), numbers), "line")


def _parse_jsonl(path: Path, pick: Pick) -> RawTable:
    numbers, records = [], []
    names: dict[str, None] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"line {number} is not valid JSON ({error.msg} at character {error.pos + 1})"
            raise DataError(what, file=path, mend="write one whole JSON object per line") from None
        if not isinstance(record, dict):
            what = f"line {number} holds a JSON {type(record).__name__}, not an object"
            raise DataError(what, file=path, mend='write {"column": value, ...} on every line')
        names.update(dict.fromkeys(record))
        numbers.append(number)
        records.append(record)
    if not records:
        raise DataError("has no rows", file=path, mend="give at least one row of data")
    kept = pick(list(names))
    return RawTable(_frame({name: [r.get(name) for r in records] for name in kept}, numbers, infer=True), "line")


def _parse_csv(path: Path, pick: Pick) -> RawTable:
    return _delimited(path, pick, ",", csv.QUOTE_MINIMAL)


def _parse_tsv(path: Path, pick: Pick) -> RawTable:
    # Both habits are common: cells quoted as in CSV, and bare quotation marks that mean themselves.
    try:
        return _delimited(path, pick, "\t", csv.QUOTE_MINIMAL)
    except _Malformed:
        return _delimited(path, pick, "\t", csv.QUOTE_NONE)


class _Malformed(DataError):
    """The rows of a delimited file do not fit its header or its quoting rule."""


def _delimited(path: Path, pick: Pick, delimiter: str, quoting: int) -> RawTable:
    largest = csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    reader = csv.reader(_lines(path), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    numbers: list[int] = []
    rows: list[list[str]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        positions = _positions(path, header, pick)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    raise _Malformed(
                        f"line {line} has {len(cells)} cells where the header has {len(header)}",
                        file=path,
                        mend="quote cells that hold the separator or a line break",
                    )
                numbers.append(line)
                rows.append([cells[position] for position in positions.values()])
            line = reader.line_num + 1
    except csv.Error as error:
        what = f"line {reader.line_num} breaks the quoting rule ({error})"
        raise _Malformed(what, file=path, mend='double a quotation mark inside a quoted cell ("")') from None
    finally:
        csv.field_size_limit(largest)
    columns = zip(*rows) if rows else ([] for _ in positions)
    return RawTable(_frame({name: list(cells) for name, cells in zip(positions, columns)}, numbers), "line")


def _positions(path: Path, header: list[str], pick: Pick) -> dict[str, int]:
    if not any(header):
        raise DataError("line 1 holds no column names", file=path, mend="write them, separated as the cells are")
    _no_duplicates(path, [name for name in header if name])
    positions = {name: position for position, name in enumerate(header)}
    return {name: positions[name] for name in pick([name for name in header if name])}


def _no_duplicates(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        what = f"has more than one column named {', '.join(map(repr, twice))}"
        raise DataError(what, file=path, mend="give every column a name of its own")


def _parse_parquet(path: Path, pick: Pick) -> RawTable:
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _no_duplicates(path, names)
            table = file.read(columns=list(pick(names)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"is not a whole parquet file ({reason})", file=path, mend="copy or write it again") from None
    except OSError as error:
        # Damage behind an intact footer surfaces here: arrow reports undecodable pages as input errors.
        reason = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"cannot be decoded ({reason})", file=path, mend="copy or write it again") from None
    frame = pd.DataFrame({name: table.column(name).to_pandas() for name in table.column_names})
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return RawTable(frame, "row")


_PARSERS: dict[str, Callable[[Path, Pick], RawTable]] = {
    ".parquet": _parse_parquet,
    ".csv": _parse_csv,
    ".tsv": _parse_tsv,
    ".jsonl": _parse_jsonl,
    ".ndjson": _parse_jsonl,
    ".txt": _parse_txt,
}
TABLE_EXTENSIONS = tuple(chain(_PARSERS, (f"{name}.gz" for name in _PARSERS if name != ".parquet")))
"""Every file name ending that `parse_table` reads."""
