"""Tables: the columns of a file, validated, and handed out as texts, vectors, images, numbers or ids::

    table = read_table("pairs.csv", ["query", "answer"])
    table.texts("query")  # list of n strings

Messages name a row by its number in the file, however the table was cut since.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.formats import parse_table
from kontrast.errors import DataError, suggest
from kontrast.files import replacing

ColumnKind = Literal["text", "vector", "image", "number"]
"""How the cells of a column are read."""

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_SAMPLED = 1000


@dataclass(frozen=True)
class Table:
    """Rows with named columns.

    Attributes:
        frame: the cells; the index holds the number of each row in its file, as messages name it.
        path: the file they come from; relative image paths are resolved against its folder.
        counted: what the index counts, "line" or "row".
    """

    frame: pd.DataFrame
    path: Path | None = None
    counted: str = "row"

    @classmethod
    def of(cls, data: Table | pd.DataFrame | Mapping[str, Sequence[Any]], *, folder: str | Path | None = None) -> Table:
        """A table from columns in memory; row numbers count from 1.

        Args:
            data: a data frame, a mapping from column name to cells, or a table (returned as it is).
            folder: where relative image paths start.

        Raises:
            DataError: if there are no rows, or two columns have one name, or the columns differ in length.
        """
        if isinstance(data, Table):
            return data
        if isinstance(data, pd.DataFrame):
            frame = data.rename(columns=str)
        else:
            lengths = {str(name): len(cells) for name, cells in data.items()}
            if len(set(lengths.values())) > 1:
                raise DataError(f"the columns differ in length: {lengths}", mend="give every column the same rows")
            frame = pd.DataFrame({str(name): pd.Series(list(cells)) for name, cells in data.items()})
        if frame.columns.has_duplicates:
            raise DataError("two columns have one name", mend="give every column a name of its own")
        if not len(frame):
            raise DataError("the table has no rows", mend="give at least one row of data")
        path = Path(folder) / "table" if folder is not None else None
        return cls(frame.set_axis(pd.RangeIndex(1, len(frame) + 1)), path)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """The column names, in the file's order."""
        return list(self.frame.columns)

    def take(self, positions: npt.ArrayLike) -> Table:
        """The rows at these positions (from 0, or a boolean mask), in that order; row numbers stay the file's."""
        chosen = np.asarray(positions)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        return Table(self.frame.iloc[chosen], self.path, self.counted)

    def column(self, name: str) -> pd.Series[Any]:
        """The raw cells of one column.

        Raises:
            DataError: if there is no such column; the message names the nearest and all of them.
        """
        if name not in self.frame.columns:
            raise self._error(f"has no column '{name}'; {suggest(name, self.columns)}")
        return self.frame[name]

    def kind(self, name: str) -> ColumnKind:
        """What the column looks like, see `column_kind`."""
        try:
            return column_kind(self.column(name))
        except DataError as error:
            if self.path is None or error.file is not None:
                raise
            raise DataError(str(error), file=self.path) from None

    def check(self, name: str, kind: ColumnKind | None = None) -> ColumnKind:
        """Reads a whole column as `kind` (detected if None), so that every fault shows now; returns the kind.

        Raises:
            DataError: for the first kind of fault found.
        """
        kind = kind or self.kind(name)
        readers = {"text": self.texts, "vector": self.vectors, "image": self.images, "number": self.numbers}
        if kind not in readers:
            raise self._error(f"column '{name}' cannot be read as '{kind}'", f"use one of {', '.join(readers)}")
        readers[kind](name)
        return kind

    def texts(self, name: str) -> list[str]:
        """The column as n strings, none of them blank.

        Raises:
            DataError: for a blank or missing cell, or one that is not a string.
        """
        cells = self._cells(name)
        strange = [position for position, cell in enumerate(cells) if not isinstance(cell, str)]
        if strange:
            cell = cells[strange[0]]
            came = f"column '{name}' holds {_said(cell)} {self._at(strange)} where a text is needed"
            raise self._error(came, "write it as a string, or name another column")
        return cells

    def ids(self, name: str | None = None) -> list[str]:
        """The column as n strings whatever its scalar type (ids, groups, categories); row numbers if `name` is None.

        Raises:
            DataError: for a missing cell.
        """
        if name is None:
            return [str(number) for number in self.frame.index]
        return [str(cell) for cell in self._cells(name)]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """The column as finite float64 numbers (n,); strings that spell numbers count.

        Raises:
            DataError: for a missing cell, a cell that is no number, NaN or infinity.
        """
        cells = self._cells(name)
        values = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            what = f"column '{name}' holds {_said(cells[bad[0]])} {self._at(bad)} where a finite number is needed"
            raise self._error(what, "correct the cell or drop the row")
        return values

    def vectors(self, name: str) -> npt.NDArray[np.float32]:
        """The column as float32 (n, d): lists of numbers of one length (JSON lists in text formats).

        Raises:
            DataError: for a missing cell, a cell that is no list of numbers, lengths that differ, NaN or infinity.
        """
        cells = [self._vector(name, position, cell) for position, cell in enumerate(self._cells(name))]
        lengths = np.fromiter(map(len, cells), np.int64, len(cells))
        ragged = np.flatnonzero(lengths != lengths[0])
        if len(ragged):
            what = (
                f"column '{name}' has a vector of length {lengths[ragged[0]]} {self._at(ragged)} "
                f"where the first has length {lengths[0]}"
            )
            raise self._error(what, "give every row a vector of the same length")
        if lengths[0] == 0:
            raise self._error(f"column '{name}' holds empty vectors", "give every vector at least one number")
        values = np.concatenate(cells).reshape(len(cells), -1)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            place = int(np.flatnonzero(~np.isfinite(values[bad[0]]))[0])
            what = f"column '{name}' has a vector with NaN or infinity {self._at(bad)} (first at entry {place + 1})"
            raise self._error(what, "replace those entries or drop the rows")
        return values

    def images(self, name: str) -> list[Path]:
        """The column as n paths of existing files; relative ones start at the table's folder.

        The files are looked for, not decoded: `kontrast.data.images.load_images` decodes.

        Raises:
            DataError: for a missing cell or a file that does not exist.
        """
        folder = self.path.parent if self.path is not None else Path()
        paths = [folder / text for text in self.texts(name)]
        missing = [position for position, path in enumerate(paths) if not path.is_file()]
        if missing:
            what = f"column '{name}' names the image '{paths[missing[0]]}' {self._at(missing)}, which is not there"
            raise self._error(what, "give paths relative to the table's folder, or absolute ones")
        return paths

    def _vector(self, name: str, position: int, cell: Any) -> npt.NDArray[Any]:
        given = cell
        if isinstance(cell, str):
            try:
                cell = json.loads(cell)
            except json.JSONDecodeError:
                cell = None
        if isinstance(cell, (list, tuple, np.ndarray)):
            try:
                array = np.asarray(cell)
            except ValueError:
                array = np.empty(0, dtype=object)
            if array.dtype == object and array.ndim == 1 and all(item is None or _is_number(item) for item in array):
                array = array.astype(np.float64)  # JSON null and arrow null become NaN, reported as such below
            if array.ndim == 1 and (array.dtype.kind in "fiu" or not len(array)):
                return array
        what = f"column '{name}' holds {_said(given)} {self._at([position])} where a list of numbers is needed"
        raise self._error(what, "write vectors as flat lists of numbers")

    def _cells(self, name: str) -> list[Any]:
        series = self.column(name)
        cells = series.to_numpy(dtype=object).tolist()
        blank = series.isna().to_numpy(dtype=bool)
        blank = blank | np.fromiter((isinstance(cell, str) and not cell.strip() for cell in cells), bool, len(cells))
        if blank.any():
            where = np.flatnonzero(blank)
            what = f"column '{name}' has {len(where)} empty cell{'s' if len(where) > 1 else ''} {self._at(where)}"
            raise self._error(what, "fill them in or drop those rows")
        return cells

    def _at(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> str:
        numbers = [str(number) for number in self.frame.index[list(positions[:3])]]
        more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
        at = "" if len(positions) == 1 else "s"
        return f"at {self.counted}{at} {', '.join(numbers)}{more}"

    def _error(self, problem: str, mend: str | None = None) -> DataError:
        where = self.path if self.path is not None and self.path.suffix else None
        return DataError(problem, file=where, mend=mend)


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    optional: Sequence[str] = (),
    kinds: Mapping[str, ColumnKind] | None = None,
) -> Table:
    """Reads parquet, CSV, TSV, JSONL or plain text (one text per line, column "text"), also gzipped.

    Args:
        path: the file.
        columns: the columns to keep and check whole; None keeps all and checks only those in `kinds`. A name that
            ends in ``*`` ("x_*") joins the numeric columns with that beginning into one vector column of that name.
        optional: further columns to keep where the file has them, unchecked ("split", "group").
        kinds: how to read a column where the detection of `column_kind` would be wrong.

    Returns:
        A table with at least one row.

    Raises:
        DataError: naming the file, the column and the line or row at fault, what came, what is allowed and the mend.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError("is a folder, not a table file", file=path, mend="name a file inside it")
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir() if other.is_file()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, n=1)
        raise DataError("no such file", file=path, mend=f"perhaps '{near[0]}' is meant" if near else "check the path")
    kinds = dict(kinds or {})
    wanted = None if columns is None else list(dict.fromkeys([*columns, *kinds]))
    raw = parse_table(path, partial(_pick, path, wanted, tuple(optional), tuple(kinds)))
    table = Table(raw.frame, path, raw.counted)
    for block in (name for name in (wanted or kinds) if name.endswith("*")):
        table = _join_block(table, block)
    if wanted is not None:
        table = Table(table.frame[[*wanted, *(c for c in optional if c in table.columns and c not in wanted)]], path,
                      raw.counted)  # fmt: skip
    for name in kinds if wanted is None else wanted:
        table.check(name, kinds.get(name))
    return table


def column_kind(column: pd.Series[Any]) -> ColumnKind:
    """What a column looks like, from its first 1,000 cells that are not blank.

    Lists (also as JSON text) are vectors, strings that all end like image files are images, numbers and strings that
    all spell numbers are numbers, other strings are text. The same data in CSV and in parquet get the same kind.

    Raises:
        DataError: if every cell is blank or the cells are of a type that is none of these.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number"
    sample: list[Any] = []
    for cell in column:
        if isinstance(cell, (list, tuple, np.ndarray)) or (not pd.isna(cell) and str(cell).strip()):
            sample.append(cell)
            if len(sample) == _SAMPLED:
                break
    allowed = f"allowed are {', '.join(get_args(ColumnKind))}"
    if not sample:
        raise DataError(f"column '{column.name}' is empty in every row", mend="fill it in or name another column")
    if all(isinstance(cell, (list, tuple, np.ndarray)) for cell in sample):
        if any(isinstance(item, str) for item in sample[0]):
            raise DataError(f"column '{column.name}' holds lists of strings", mend=allowed)
        return "vector"
    if all(_is_number(cell) for cell in sample):
        return "number"
    if not any(isinstance(cell, str) for cell in sample):
        raise DataError(f"column '{column.name}' holds {_said(sample[0])}", mend=allowed)
    strings = [cell for cell in sample if isinstance(cell, str)]
    if len(strings) == len(sample):
        if all(_NUMBER.fullmatch(cell) for cell in strings):
            return "number"
        if all(cell.strip()[0] + cell.strip()[-1] == "[]" for cell in strings) and _is_list(strings[0]):
            return "vector"
        if all(cell.lower().endswith(IMAGE_EXTENSIONS) for cell in strings):
            return "image"
    return "text"


def write_table(table: Table | pd.DataFrame, path: str | Path) -> Path:
    """Writes parquet, CSV, TSV or JSONL by the extension of `path`, whole or not at all.

    Vectors are written as lists (JSON lists in CSV and TSV), so that `read_table` reads them back.

    Raises:
        DataError: if the extension is unknown or the place cannot be written to.
    """
    path = Path(path)
    frame = table.frame if isinstance(table, Table) else table
    if path.suffix not in (".parquet", ".csv", ".tsv", ".jsonl"):
        raise DataError(
            f"cannot write a table as '{path.suffix}'", file=path, mend="use .parquet, .csv, .tsv or .jsonl"
        )
    if path.suffix in (".csv", ".tsv"):
        lists = [name for name in frame.columns if isinstance(next(iter(frame[name]), None), (list, np.ndarray))]
        frame = frame.assign(**{name: [json.dumps(np.asarray(v).tolist()) for v in frame[name]] for name in lists})
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        elif path.suffix == ".jsonl":
            frame.to_json(temporary, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_csv(temporary, index=False, sep="," if path.suffix == ".csv" else "\t")
    return path


def _pick(
    path: Path, wanted: Sequence[str] | None, optional: Sequence[str], typed: Sequence[str], known: Sequence[str]
) -> list[str]:
    """The file's columns that `read_table` needs, blocks expanded."""
    kept: list[str] = []
    for name in typed if wanted is None else wanted:
        if name.endswith("*") and name not in known:
            members = _members(name, known)
            if not members:
                what = f"has no columns that begin with '{name[:-1]}' and a number; {suggest(name, known)}"
                raise DataError(what, file=path)
            kept += members
        elif name in known:
            kept.append(name)
        else:
            raise DataError(f"has no column '{name}'; {suggest(name, known)}", file=path)
    rest = known if wanted is None else [name for name in optional if name in known]
    return list(dict.fromkeys([*kept, *rest]))


def _members(block: str, known: Sequence[str]) -> list[str]:
    stem = block[:-1]
    members = [name for name in known if name.startswith(stem) and name[len(stem) :].isdecimal()]
    return sorted(members, key=lambda name: int(name[len(stem) :]))


def _join_block(table: Table, block: str) -> Table:
    members = _members(block, table.columns)
    if block in table.columns or not members:
        return table
    values = np.stack([table.numbers(name) for name in members], axis=1).astype(np.float32)
    frame = table.frame.drop(columns=members)
    return Table(frame.assign(**{block: pd.Series(list(values), index=frame.index)}), table.path, table.counted)


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool)


def _is_list(text: str) -> bool:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(value, list) and all(item is None or _is_number(item) for item in value)


def _said(cell: Any) -> str:
    text = repr(cell)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(cell).__name__})"
