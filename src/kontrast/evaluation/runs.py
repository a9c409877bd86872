"""Writing TREC run files, the counterpart of `kontrast.evaluation.ranks.read_run`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kontrast.errors import DataError
from kontrast.files import write_text


def write_run(path: str | Path, rows: Iterable[tuple[str, str, float]], *, tag: str = "kontrast") -> Path:
    """Writes lines ``query Q0 document rank score tag``.

    Args:
        path: the file.
        rows: query, document and score; the documents of a query in falling order of score. Ranks count from 1.
        tag: name of the system, one word.

    Raises:
        DataError: if an id holds a blank, which would end its column.
    """
    lines = []
    rank: dict[str, int] = {}
    for query, document, score in rows:
        for what, name in (("query", query), ("document", document)):
            if not name or name.split() != [name]:
                problem = f"the id '{name}' of a {what} holds a blank, and columns of a run file end at blanks"
                raise DataError(problem, file=path, mend="rename it, or write a table (.csv, .jsonl, .parquet)")
        rank[query] = rank.get(query, 0) + 1
        lines.append(f"{query} Q0 {document} {rank[query]} {score:.6f} {tag}\n")
    return write_text(path, "".join(lines))
