"""JSON lines and tab-separated judgements, with the line of every fault."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kontrast.errors import DataError, suggest

JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True)
class Record:
    """One JSON object and where it stands.

    Attributes:
        values: its fields.
        path, line: the file and the line, counted from 1.
    """

    values: Mapping[str, Any]
    path: Path
    line: int

    def first(self, *names: str) -> str | None:
        """The first of these fields that is there: which name it has, or None."""
        return next((name for name in names if self.values.get(name) is not None), None)

    def text(self, *names: str) -> str:
        """The text of the first of these fields that is there.

        Raises:
            DataError: if none is there, or it is no text or a blank one.
        """
        name = self.first(*names)
        if name is None:
            known = suggest(names[0], [str(key) for key in self.values])
            raise self.error(f"has no field '{names[0]}' ({known})", f"write {' or '.join(map(repr, names))}")
        value = self.values[name]
        if not isinstance(value, str) or not value.strip():
            came = "a blank text" if isinstance(value, str) else f"a JSON {_KINDS.get(type(value), 'value')}"
            raise self.error(f"field '{name}' holds {came} where a text is needed", "write a text of at least one word")
        return value

    def name(self, *names: str) -> str:
        """An identifier: a text or a whole number, as a text; see `text`."""
        found = self.first(*names)
        if found is not None and isinstance(self.values[found], int) and not isinstance(self.values[found], bool):
            return str(self.values[found])
        return self.text(*names).strip()

    def texts(self, field: str) -> list[str]:
        """The texts of a field that holds one text or a list of them; none where it is missing.

        Raises:
            DataError: if it holds anything else.
        """
        value = self.values.get(field)
        values = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) and item.strip() for item in values):
            raise self.error(f"field '{field}' is not a list of texts", 'write ["text", ...]')
        return values

    def error(self, problem: str, mend: str) -> DataError:
        """The error that names this record's line."""
        return DataError(f"line {self.line} {problem}", file=self.path, mend=mend)


_KINDS = {dict: "object", list: "list", int: "number", float: "number", bool: "truth value"}


def json_lines(path: Path) -> list[Record]:
    """The objects of a file of JSON lines, plain or gzip; a ``.json`` file may also hold one list of objects.

    Raises:
        DataError: if the file is empty, damaged, not UTF-8, or a line is not a JSON object.
    """
    records: list[Record] = []
    whole = "".join(path.suffixes[-2:]).lower().removesuffix(".gz").endswith(".json")
    for number, line in _lines(path):
        if not line.strip():
            continue
        if whole and not records and line.lstrip().startswith("["):
            return _listed(path)
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"line {number} is not valid JSON ({error.msg} at character {error.pos + 1})"
            raise DataError(what, file=path, mend="write one whole JSON object per line") from None
        except RecursionError:
            raise DataError(f"line {number} nests too deeply", file=path, mend="write plain fields") from None
        if not isinstance(value, dict):
            what = f"line {number} holds a JSON {_KINDS.get(type(value), 'value')}, not an object"
            raise DataError(what, file=path, mend='write {"field": value, ...} on every line')
        records.append(Record(value, path, number))
    if not records:
        raise DataError("has no rows", file=path, mend="give at least one JSON object")
    return records


def _listed(path: Path) -> list[Record]:
    try:
        values = json.loads("".join(line for _, line in _lines(path)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"is not valid JSON ({error})", file=path, mend="write one JSON object per line") from None
    strange = next((place for place, value in enumerate(values, start=1) if not isinstance(value, dict)), None)
    if strange is not None:
        raise DataError(f"item {strange} of its list is not an object", file=path, mend="write a list of objects")
    if not values:
        raise DataError("has no rows", file=path, mend="give at least one JSON object")
    return [Record(value, path, place) for place, value in enumerate(values, start=1)]


def judgements(path: Path) -> list[tuple[str, str, float, int]]:
    """Query, document, grade and line of a file of judgements.

    Three columns with a header, set apart by tabs (query-id, corpus-id, score), or TREC's four (query, 0, document,
    grade), set apart by blanks.

    Raises:
        DataError: naming the line that is malformed.
    """
    found = []
    for number, line in _lines(path):
        fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        fields = [value.strip() for value in fields]
        if not any(fields) or (number == 1 and fields[-1].lower() in ("score", "grade", "relevance")):
            continue
        if len(fields) not in (3, 4):
            what = f"line {number} has {len(fields)} columns"
            raise DataError(what, file=path, mend="write query-id, corpus-id, score, set apart by tabs")
        grade = _number(fields[-1])
        if grade is None:
            what = f"line {number} has the score '{fields[-1][:40]}', which is no number of at least 0"
            raise DataError(what, file=path, mend="write 1 for relevant and 0 for not relevant")
        found.append((fields[0], fields[-2], grade, number))
    if not found:
        raise DataError("has no judgements", file=path, mend="write query-id, corpus-id, score, set apart by tabs")
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def read_text(path: Path) -> str:
    """A whole text file as UTF-8.

    Raises:
        DataError: if it cannot be read, or is not UTF-8.
    """
    return "".join(line for _, line in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        if path.stat().st_size == 0:
            raise DataError("is empty", file=path, mend="check that it was written completely")
        open_ = gzip.open if path.suffix.lower() == ".gz" else open
        with open_(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    what = f"line {number} is not UTF-8 text"
                    raise DataError(what, file=path, mend="save the file as UTF-8") from None
                if "\0" in line:
                    raise DataError(f"line {number} holds a NUL byte", file=path, mend="save it as UTF-8 text")
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is not a whole gzip file ({error})", file=path, mend="copy or compress it again") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None


def find(folder: Path, stems: Sequence[str]) -> Path | None:
    """The first file of JSON lines in a folder with one of these names, whatever its ending."""
    for stem in stems:
        for ending in JSON_LINES:
            if (folder / f"{stem}{ending}").is_file():
                return folder / f"{stem}{ending}"
    return None
