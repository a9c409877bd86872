"""Reads labelled texts in several languages from the files of the field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kontrast.data.languages.relations import read_relations
from kontrast.data.languages.tables import PARTS, read_language_table
from kontrast.data.languages.texts import LanguageTexts
from kontrast.errors import DataError

FORMATS = (
    "folder of SIB-200: <language>/train.tsv, dev.tsv and test.tsv with index_id, category and text",
    "folder of AmericasNLI (dev/<language>.tsv, test/<language>.tsv) or of XNLI (xnli.dev.tsv, xnli.test.tsv, "
    "multinli.train.<language>.tsv), with premise, hypothesis and label",
    "JSON of TACRED and MultiTACRED (train_<language>.json ...): tokens, two entities, relation",
    "table (.parquet, .csv, .tsv, .jsonl): text, or premise and hypothesis; language, label, pair_id, split",
)
ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet", ".json", ".tsv.gz", ".csv.gz", ".jsonl.gz")
_PART = "|".join(sorted(PARTS, key=len, reverse=True))
_NAMES = (
    re.compile(rf"xnli\.(?P<part>{_PART})"),
    re.compile(rf"multinli\.(?P<part>{_PART})\.(?P<language>.+)"),
    re.compile(rf"(?P<part>{_PART})[_.-](?P<language>.+)"),
    re.compile(rf"(?P<language>.+)[_.-](?P<part>{_PART})"),
)


def read_languages(
    path: str | Path,
    *,
    only: Collection[str] | None = None,
    columns: Mapping[str, str] | None = None,
    fields: Sequence[str] | None = None,
    texts_alone: bool = False,
    language: str | None = None,
) -> LanguageTexts:
    """Labelled texts of one file, or of all files of a folder.

    A table's own columns say the language and the part of a row. Where they do not, the names of file and folder do:
    ``eng_Latn/train.tsv``, ``dev/aym.tsv``, ``xnli.test.tsv``, ``train_de.json``.

    Args:
        path: a file or folder of one of `FORMATS`.
        only: languages to keep; None keeps all.
        columns: see `read_language_table`.
        fields: fields that are needed, such as "text"; None: what the files have.
        texts_alone: see `read_language_table`.
        language: of texts of which neither the files nor their names say it.

    Raises:
        DataError: naming the file, what is wrong and the mend.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend="check the path")
    files = [path] if path.is_file() else _files(path)
    parts = []
    for file in files:
        said, part = said_by_name(file, within=path)
        if only is not None and said is not None and said not in only and path.is_dir():
            continue
        if file.name.lower().endswith(".json"):
            parts.append(read_relations(file, language=said or language, part=part))
            continue
        parts.append(
            read_language_table(
                file, columns=columns, language=said or language, part=part, fields=fields, texts_alone=texts_alone
            )
        )
    known = {said_by_name(file, within=path)[0] or "?" for file in files}
    if parts:
        found = LanguageTexts.joined(parts, path)
        known |= set(found.languages)
        if only is not None:
            found = found.take(np.isin(found.language.astype(str), sorted(only)))
        if len(found):
            return _with_distinct_names(found)
    what = f"has no texts in {', '.join(sorted(only or ()))}"
    raise DataError(what, file=path, mend=f"choose among {', '.join(sorted(known - {'?'}))}")


def said_by_name(file: Path, *, within: Path) -> tuple[str | None, str | None]:
    """Language and part that the names of a file and of its folder state, None where they do not."""
    stem = file.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        stem = stem.removesuffix(ending)
    inner = file.parent != within and within.is_dir()
    folder = file.parent.name
    if stem.lower() in PARTS:
        return (folder if inner else None), PARTS[stem.lower()]
    if inner and folder.lower() in PARTS:
        return stem, PARTS[folder.lower()]
    for pattern in _NAMES:
        if match := pattern.fullmatch(stem):
            groups = match.groupdict()
            return groups.get("language"), PARTS[groups["part"].lower()]
    return None, None


def _files(folder: Path) -> list[Path]:
    found = sorted(
        file
        for pattern in ("*", "*/*")
        for file in folder.glob(pattern)
        if file.is_file() and file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")
    )
    if not found:
        mend = f"give files that end in {', '.join(ENDINGS[:5])}, in it or one folder below"
        raise DataError("holds no files with texts", file=folder, mend=mend)
    return found


def _with_distinct_names(data: LanguageTexts) -> LanguageTexts:
    """Rows of one language and one name get their part, and where that does not do, their number, into the name."""
    rows = range(len(data))
    names = list(data.ids)
    for suffixes in ([str(part or "row") for part in data.part], [str(row + 1) for row in rows]):
        count = Counter(zip(data.language, names))
        if max(count.values(), default=1) == 1:
            break
        repeated = [count[data.language[row], names[row]] > 1 for row in rows]
        names = [f"{names[row]} {suffixes[row]}" if repeated[row] else names[row] for row in rows]
    ids = np.empty(len(names), dtype=object)
    ids[:] = names
    return replace(data, ids=ids)
