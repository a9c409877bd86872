"""Relation extraction in JSON: TACRED's files and their translations (MultiTACRED)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kontrast.data.languages.texts import LanguageTexts
from kontrast.errors import DataError
from kontrast.files import read_json

MARKS = ("<e1>", "</e1>", "<e2>", "</e2>")
"""What stands around the two entities of a sentence (arXiv 2508.19464's released code)."""


def read_relations(path: Path, *, language: str | None = None, part: str | None = None) -> LanguageTexts:
    """A JSON list of sentences with two entities each.

    Tokens are in ``tokens_translated``, ``tokens`` or ``token``; entities in ``entities_translated`` or ``entities`` as
    [[start, end], [start, end]] with exclusive ends, or in ``subj_start`` .. ``obj_end`` with inclusive ends as TACRED
    has them; the relation in ``label`` or ``relation``.

    Returns:
        Fields "text" (the sentence with `MARKS` around the entities), "e1" and "e2". Rows of one id are translations of
        one another.

    Raises:
        DataError: naming the record and its field.
    """
    records = _records(path)
    texts: dict[str, list[str]] = {"text": [], "e1": [], "e2": []}
    names, labels, languages = [], [], []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f"record {number} is a {type(record).__name__}, not an object", file=path)
        tokens = _tokens(path, number, record)
        spans = _spans(path, number, record, len(tokens))
        texts["text"].append(_marked(tokens, spans))
        for field, (start, end) in zip(("e1", "e2"), spans):
            texts[field].append(" ".join(tokens[start:end]))
        names.append(str(record.get("id", number)))
        label = record.get("label", record.get("relation"))
        labels.append(None if label is None else str(label))
        code = record.get("language", language)
        if code is None:
            mend = "give each record a 'language', name the file like train_de.json, or give --language"
            raise DataError(f"record {number} does not say its language", file=path, mend=mend)
        languages.append(str(code))
    return LanguageTexts.of(texts, languages, ids=names, label=labels, pair=names, part=part, path=path)


def _records(path: Path) -> list[Any]:
    value = read_json(path)
    if not isinstance(value, list) or not value:
        came = f"a JSON {type(value).__name__}" if not isinstance(value, list) else "an empty list"
        raise DataError(f"holds {came}", file=path, mend="give a list of sentences with tokens and entities")
    return value


def _tokens(path: Path, number: int, record: dict[str, Any]) -> list[str]:
    for name in ("tokens_translated", "tokens", "token"):
        tokens = record.get(name)
        if isinstance(tokens, list) and tokens and all(isinstance(token, str) for token in tokens):
            return tokens
    what = f"record {number} has no list of strings 'tokens', 'tokens_translated' or 'token'"
    raise DataError(what, file=path, mend=f"it has {', '.join(map(str, record))[:120] or 'no fields'}")


def _spans(path: Path, number: int, record: dict[str, Any], length: int) -> list[tuple[int, int]]:
    found: Any = record.get("entities_translated", record.get("entities"))
    if found is None and "subj_start" in record:
        # TACRED's own ends are inclusive.
        found = [[record.get(f"{who}_start"), _next(record.get(f"{who}_end"))] for who in ("subj", "obj")]
    fits = (
        isinstance(found, list)
        and len(found) == 2
        and all(isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span) for span in found)
        and all(0 <= start < end <= length for start, end in found)
    )
    if not fits:
        what = f"record {number} has the entities {json.dumps(found)[:80]} in a sentence of {length} tokens"
        raise DataError(what, file=path, mend="give two spans [start, end] inside the sentence, the end exclusive")
    return [(start, end) for start, end in found]


def _next(end: Any) -> Any:
    return end + 1 if type(end) is int else end


def _marked(tokens: list[str], spans: list[tuple[int, int]]) -> str:
    words: list[str] = []
    for place in range(len(tokens) + 1):
        for number, (_, end) in enumerate(spans):
            if end == place:
                words.append(MARKS[2 * number + 1])
        for number, (start, _) in enumerate(spans):
            if start == place:
                words.append(MARKS[2 * number])
        words += tokens[place : place + 1]
    return " ".join(words)
