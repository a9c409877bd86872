"""read_collection: from a file or folder to documents, queries and judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kontrast.data.documents.collection import Collection, Query
from kontrast.data.documents.elements import Document, parse_html
from kontrast.data.documents.records import JSON_LINES, Record, find, json_lines, judgements, read_text
from kontrast.data.documents.sources import SOURCES, read_source
from kontrast.errors import DataError, suggest

FORMATS = (
    "a folder with corpus.jsonl, queries.jsonl and qrels.tsv (or qrels/train.tsv ...), a folder of .html, .md or .docx "
    "files with queries.jsonl, JSON lines of {query, content} or {query, pos, neg}, or for questions alone a .txt file"
)
_CORPUS, _QUERIES = ("corpus", "docs", "documents"), ("queries", "questions")
_PARTS = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "val", "validation"),
    "test": ("test", "testing"),
}
"""Names of the parts, as files and as values of a field "split"."""
_ID, _BODY = ("_id", "id", "doc_id"), ("html", "text", "content", "body")


def read_collection(path: str | Path) -> Collection:
    """The documents and queries of a file or folder.

    Raises:
        DataError: naming the file, what came, what is allowed and the mend.
        MissingExtraError: if a library that reads the format is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend=f"give {FORMATS}")
    if path.is_file():
        return _file(path)
    corpus, queries = find(path, _CORPUS), find(path, _QUERIES)
    if corpus is not None:
        return _joined(path, _corpus(corpus), queries)
    parts = {part: file for part, names in _PARTS.items() if (file := find(path, names)) is not None}
    if parts:
        return _pairs(path, [(record, part) for part, file in parts.items() for record in json_lines(file)])
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SOURCES and _visible(file, path))
    if files:
        named = {file.relative_to(path).as_posix(): read_source(file) for file in files}
        return _joined(path, named, queries)
    came = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    raise DataError(f"is a folder that holds {came}", file=path, mend=f"give {FORMATS}")


def _visible(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _file(path: Path) -> Collection:
    name = path.name.lower()
    if name.endswith(".txt"):
        lines = [line.strip() for line in read_text(path).splitlines()]
        queries = tuple(Query(str(number), line) for number, line in enumerate(lines, start=1) if line)
        if not queries:
            raise DataError("has no question", file=path, mend="write one question per line")
        return Collection((), (), queries, path)
    if path.suffix.lower() in SOURCES:
        return Collection((path.name,), (read_source(path),), (), path)
    if not name.endswith(JSON_LINES):
        raise DataError(
            f"has the extension '{path.suffix}', which is no collection's", file=path, mend=f"give {FORMATS}"
        )
    records = json_lines(path)
    first = records[0]
    if first.first("query", "text") == "query" and (first.first("content", "pos") is not None):
        return _pairs(path, [(record, None) for record in records])
    if first.first("query") is not None:
        return Collection((), (), tuple(_queries(records, None)[0]), path)
    if first.first(*_BODY) is None:
        came = ", ".join(map(str, list(first.values)[:5])) or "nothing"
        raise first.error(f"holds {came}", "write query with content, pos or doc_id, or _id with text or html")
    named = _documents(records)
    return Collection(tuple(named), tuple(named.values()), (), path)


def _corpus(path: Path) -> dict[str, Document]:
    return _documents(json_lines(path))


def _documents(records: Sequence[Record]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for record in records:
        name = record.name(*_ID)
        if name in found:
            raise record.error(f"has the document '{name}' again", "give every document a name of its own")
        body = record.text(*_BODY)
        title = record.values.get("title")
        if isinstance(title, str) and title.strip() and "html" not in record.values:
            body = f"<h1>{_safe(title)}</h1>{body if '<' in body else f'<p>{_safe(body)}</p>'}"
        document = parse_html(body)
        if not document.elements:
            raise record.error(f"has no text in the document '{name}'", "leave the document out")
        found[name] = document
    return found


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;") if "&" not in text else text.replace("<", "&lt;")


def _queries(records: Sequence[Record], places: Mapping[str, int] | None) -> tuple[list[Query], dict[str, int]]:
    """Queries, and the line of each; a query may name its document itself."""
    found: list[Query] = []
    lines: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        name = record.name("_id", "id", "query_id") if record.first("_id", "id", "query_id") else str(number)
        if name in lines:
            raise record.error(f"has the query '{name}' again", "give every query a name of its own")
        lines[name] = record.line
        query = Query(name, record.text("query", "text").strip(), kind=_optional(record, "kind"))
        query = replace(query, part=_part(record))
        if places is not None and record.first("doc_id", "document") is not None:
            document = record.name("doc_id", "document")
            if document not in places:
                raise record.error(
                    f"names the document '{document}'; {suggest(document, places)}"[:300], "check its name"
                )
            query = replace(query, relevant=((places[document], 1.0),))
        found.append(query)
    return found, lines


def _part(record: Record) -> str | None:
    """The part that a field "split" names."""
    stated = _optional(record, "split")
    part = next((part for part, names in _PARTS.items() if stated is not None and stated.lower() in names), None)
    if stated is not None and part is None:
        raise record.error(f"has the split '{stated[:40]}'", "use train, valid (or val, validation, dev) and test")
    return part


def _optional(record: Record, field: str) -> str | None:
    return record.name(field) if record.first(field) is not None else None


def _joined(path: Path, named: Mapping[str, Document], queries: Path | None) -> Collection:
    places = {name: place for place, name in enumerate(named)}
    if queries is None:
        return Collection(tuple(named), tuple(named.values()), (), path)
    found, _ = _queries(json_lines(queries), places)
    numbers = {query.id: number for number, query in enumerate(found)}
    relevant: list[dict[int, float]] = [dict(query.relevant) for query in found]
    parts: list[str | None] = [query.part for query in found]
    for file, part in _judgement_files(path):
        for asked, document, grade, line in judgements(file):
            for name, known, what in ((asked, numbers, "query"), (document, places, "document")):
                if name not in known:
                    said = f"line {line} names the {what} '{name[:60]}', which is not in the collection"
                    raise DataError(said, file=file, mend="check that ids are written alike in all files")
            row = numbers[asked]
            if part is not None and parts[row] not in (None, part):
                said = f"line {line} puts the query '{asked}' into '{part}', and it is in '{parts[row]}' already"
                raise DataError(said, file=file, mend="keep each query in one part")
            parts[row] = part or parts[row]
            if grade > 0:
                relevant[row][places[document]] = grade
    rows = tuple(
        replace(query, relevant=tuple(sorted(answers.items())), part=part)
        for query, answers, part in zip(found, relevant, parts)
    )
    return Collection(tuple(named), tuple(named.values()), rows, path)


def _judgement_files(path: Path) -> list[tuple[Path, str | None]]:
    found: list[tuple[Path, str | None]] = [
        (path / name, None) for name in ("qrels.tsv", "qrels.txt") if (path / name).is_file()
    ]
    for part, names in _PARTS.items():
        found += [
            (path / "qrels" / f"{name}.tsv", part) for name in names if (path / "qrels" / f"{name}.tsv").is_file()
        ]
    return found


def _pairs(path: Path, records: Sequence[tuple[Record, str | None]]) -> Collection:
    """Rows that hold their documents: equal documents are one."""
    places: dict[str, int] = {}
    documents: list[Document] = []
    queries: list[Query] = []

    def place(text: str, record: Record) -> int:
        found = places.get(text)
        if found is None:
            document = parse_html(text)
            if not document.elements:
                raise record.error("has a document without text", "leave the row out")
            found = places[text] = len(documents)
            documents.append(document)
        return found

    for number, (record, part) in enumerate(records, start=1):
        text = record.text("query").strip()
        positives = record.texts("pos") if record.first("pos") else [record.text("content", "pos")]
        answers = dict.fromkeys((place(one, record) for one in positives), 1.0)
        negatives = tuple(sorted({place(one, record) for one in record.texts("neg")} - set(answers)))
        part = _part(record) or part
        name = record.name("query_id", "id") if record.first("query_id", "id") else str(number)
        queries.append(Query(name, text, tuple(sorted(answers.items())), negatives, part, _optional(record, "kind")))
    if len({query.id for query in queries}) < len(queries):
        raise DataError("two queries have one id", file=path, mend="give every query an id of its own, or none")
    return Collection(
        tuple(f"d{number}" for number in range(1, len(documents) + 1)), tuple(documents), tuple(queries), path
    )
