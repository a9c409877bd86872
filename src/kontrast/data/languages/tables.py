"""Tables of labelled texts: SIB-200, XNLI, AmericasNLI, and any table with text, label and language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kontrast.data.languages.texts import LanguageTexts
from kontrast.data.tables import Table, read_table
from kontrast.errors import DataError, suggest

PARTS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "devel": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What files call the parts, and what they are called here."""

KNOWN_FIELDS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "hypo", "sentence2")},
    {"text": ("text", "sentence")},
)
"""Fields of a row and the columns in which they are looked for, the first kind that the table has whole."""
KNOWN_COLUMNS = {
    "label": ("label", "category", "gold_label"),
    "language": ("language", "lang"),
    "pair": ("pair", "pair_id", "index_id", "pairID"),
    "id": ("id", "index_id", "pairID"),
    "split": ("split",),
}
ANSWERS = ("label", "pair", "id", "split")
"""What a table of texts to be answered need not have."""
RENAMED = {"contradictory": "contradiction"}
"""XNLI's translated training files name this class otherwise than its test files."""
UNKNOWN_LABELS = ("", "-")


def read_language_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    language: str | None = None,
    part: str | None = None,
    fields: Sequence[str] | None = None,
    texts_alone: bool = False,
) -> LanguageTexts:
    """One table file.

    Args:
        path: parquet, CSV, TSV or JSONL.
        columns: name of the column that holds a field, "label", "language", "pair", "id" or "split", where it is not
            one of those that are looked for (`KNOWN_FIELDS`, `KNOWN_COLUMNS`).
        language: of all rows, where the table does not say.
        part: of all rows, where the table does not say.
        fields: fields that are needed; None: those of the first of `KNOWN_FIELDS` that the table has.
        texts_alone: whether named columns of labels, pairs, ids and parts may be missing.

    Raises:
        DataError: if a column is missing or a cell is no text.
    """
    table = read_table(path)
    named = dict(columns or {})
    if texts_alone:
        named = {name: column for name, column in named.items() if name not in ANSWERS or column in table.columns}
    texts = _fields(table, named, fields)
    n = len(table)
    found = {name: _column(table, name, named) for name in KNOWN_COLUMNS}
    ids = [str(number) for number in table.frame.index] if found["id"] is None else table.ids(found["id"])
    codes = [language] * n if found["language"] is None else table.ids(found["language"])
    if None in codes:
        mend = "add a column 'language', name its column in the prompt file under columns, or give --language"
        raise DataError("does not say which language its texts are in", file=path, mend=mend)
    parts: list[str | None] = [part] * n
    if found["split"] is not None:
        parts = [_part(table, cell, found["split"]) for cell in table.ids(found["split"])]
    return LanguageTexts.of(
        _texts(table, texts),
        [str(code) for code in codes],
        ids=ids,
        label=_optional(table, found["label"]),
        pair=_optional(table, found["pair"] or _shared_id(table, named)),
        part=parts,
        path=path,
    )


def _shared_id(table: Table, named: Mapping[str, str]) -> str | None:
    """AmericasNLI's ids are those of the English originals, and shared by all languages."""
    nli = {"id", "language", "premise", "hypothesis"} <= set(table.columns)
    return "id" if nli and "pair" not in named else None


def _fields(table: Table, named: Mapping[str, str], wanted: Sequence[str] | None) -> dict[str, str]:
    """Field to column."""
    if wanted is None:
        for kind in KNOWN_FIELDS:
            places = {name: _first(table, named, name, choices) for name, choices in kind.items()}
            if all(column is not None for column in places.values()):
                return {name: str(column) for name, column in places.items()}
        what = f"has neither a column 'text' nor 'premise' and 'hypothesis', but {', '.join(table.columns[:8])}"
        raise DataError(what, file=table.path, mend="rename a column, or name it in the prompt file under columns")
    choices = {name: columns for kind in KNOWN_FIELDS for name, columns in kind.items()}
    found = {}
    for name in wanted:
        column = _first(table, named, name, choices.get(name, (name,)))
        if column is None:
            what = f"has no column for the field '{name}' of the template; {suggest(name, table.columns)}"
            raise DataError(what, file=table.path, mend=f"name its column in the prompt file under columns: {name}")
        found[name] = column
    return found


def _texts(table: Table, columns: Mapping[str, str]) -> dict[str, list[str]]:
    """The cells as strings; of several fields one may be empty, as in some official test sets, but not all."""
    if len(columns) == 1:
        return {name: table.texts(column) for name, column in columns.items()}
    series = {name: table.column(column) for name, column in columns.items()}
    empty = {name: (own.isna() | (own.astype(str).str.strip() == "")).to_numpy(bool) for name, own in series.items()}
    nothing = np.all(list(empty.values()), axis=0)
    if nothing.any():
        table.take(nothing).texts(next(iter(columns.values())))  # raises, and names the lines
    found = {}
    for name, column in columns.items():
        filled = table.frame.assign(**{column: series[name].mask(empty[name], "-")})
        texts = Table(filled, table.path, table.counted).texts(column)
        found[name] = ["" if gap else text for text, gap in zip(texts, empty[name])]
    return found


def _column(table: Table, name: str, named: Mapping[str, str]) -> str | None:
    return _first(table, named, name, KNOWN_COLUMNS[name])


def _first(table: Table, named: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    """The column that is named, else the first of those looked for."""
    if name in named:
        table.column(named[name])
        return named[name]
    return next((column for column in choices if column in table.columns), None)


def _optional(table: Table, column: str | None) -> list[str | None] | None:
    """The column as strings, None where a cell is empty or says that nothing is known."""
    if column is None:
        return None
    cells = table.column(column).to_numpy(dtype=object)
    blank = pd.isna(cells)
    found = [None if missing else _as_text(cell) for cell, missing in zip(cells, blank)]
    return [None if text in (None, *UNKNOWN_LABELS) else RENAMED.get(str(text), text) for text in found]


def _as_text(cell: object) -> str:
    # A column with gaps holds its whole numbers as floats.
    if isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        return str(int(cell))
    return str(cell).strip()


def _part(table: Table, cell: str, column: str) -> str:
    part = PARTS.get(cell.strip().lower())
    if part is None:
        what = f"column '{column}' holds {cell!r}"
        raise DataError(what, file=table.path, mend="use train, valid (or val, validation, dev) and test")
    return part
