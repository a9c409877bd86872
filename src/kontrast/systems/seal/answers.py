"""What predict answers: documents with the element that matches best, bare-tag HTML, or mined negatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.documents import Collection, Document
from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.runs import write_run
from kontrast.files import write_text
from kontrast.systems.seal.corpus import Corpus
from kontrast.systems.seal.measuring import judged_rows
from kontrast.systems.seal.mining import mined_by_vectors
from kontrast.systems.seal.page import answer_page

if TYPE_CHECKING:
    from kontrast.systems.seal.system import Seal

SNIPPET = 300
COLUMNS = (
    "query_id", "query", "rank", "doc_id", "title", "score", "element", "element_number", "element_tag",
    "element_score",
)  # fmt: skip


def answer(system: Seal, data: Collection) -> pd.DataFrame:
    """The answer to the question that the option ``ask`` names."""
    if system.config.ask == "convert":
        return converted(data)
    if system.config.ask == "negatives":
        return negatives(system, data)
    if not data.queries:
        mend = "give a .txt with one question a line, or a collection with queries.jsonl (or ask for --ask convert)"
        raise DataError("holds no questions", file=data.path, mend=mend)
    return search(system, data, system.searched(data), system.config.top_k)


def search(system: Seal, data: Collection, corpus: Corpus, k: int) -> pd.DataFrame:
    """The k nearest documents of each query.

    Returns:
        query_id, query, rank, doc_id, title, score (cosine), and of the element that matches best its text (cut),
        element_number (position of its unit in the document, from 0), element_tag and element_score (cosine). Units
        of few words count less in the choice.
    """
    queries = system.query_vectors(data.texts)
    scores, found = corpus.index(system.config.search).search(queries, k)
    read = _Read(system, corpus)
    rows = []
    for row, query in enumerate(data.queries):
        hits = [(number, score) for number, score in zip(found[row].tolist(), scores[row].tolist()) if number >= 0]
        for rank, (number, score) in enumerate(hits, start=1):
            document, vectors = read(number)
            matches = vectors @ queries[row]
            unit = int((matches * _substance(document)).argmax())
            first = document.elements[document.units[unit][0]]
            rows.append(
                (
                    query.id, query.text, rank, corpus.ids[number], document.title, score,
                    _cut(document.unit_texts[unit]), unit, first.tag, float(matches[unit]),
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Read:
    """Documents of a corpus with the vectors of their units, each read once."""

    def __init__(self, system: Seal, corpus: Corpus) -> None:
        self.system, self.corpus = system, corpus
        self.held: dict[int, tuple[Document, npt.NDArray[np.float32]]] = {}

    def __call__(self, number: int) -> tuple[Document, npt.NDArray[np.float32]]:
        if number not in self.held:
            document = self.corpus.document(number)
            self.held[number] = (document, self.system.unit_vectors(document))
        return self.held[number]


def _substance(document: Document) -> npt.NDArray[np.float64]:
    """n / (n + 1) of the words of each unit: a lone word that a query holds says less than a sentence about it."""
    words = np.array([len(text.split()) for text in document.unit_texts], dtype=np.float64)
    return np.asarray(words / (words + 1))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else f"{line[: SNIPPET - 1].rstrip()}…"


def converted(data: Collection) -> pd.DataFrame:
    """One row per document: doc_id, title, elements, words, html.

    Raises:
        DataError: if there are no documents.
    """
    if not data.documents:
        raise DataError("holds no documents to convert", file=data.path, mend="give files or a corpus")
    rows = [
        (name, document.title, len(document), len(document.plain().split()), document.tagged())
        for name, document in zip(data.ids, data.documents)
    ]
    return pd.DataFrame(rows, columns=["doc_id", "title", "elements", "words", "html"])


def negatives(system: Seal, data: Collection) -> pd.DataFrame:
    """One row per query that has an answer: query_id, query, pos and neg, both lists of bare-tag HTML.

    The negatives are of the ranks that the option ``negative_ranks`` names.

    Raises:
        DataError: if there are no documents or no answers.
    """
    if not data.documents:
        mend = "give a collection with documents, queries and judgements"
        raise DataError("holds no documents to mine from", file=data.path, mend=mend)
    data = judged_rows(data)
    positives = [query.answers for query in data.queries]
    vectors = system.document_vectors(data.documents)
    pool = mined_by_vectors(system.query_vectors(data.texts), vectors, positives, system.config.negative_ranks)
    html = [document.tagged() for document in data.documents]
    rows = [
        (query.id, query.text, [html[place] for place in query.answers], [html[place] for place in row if place >= 0])
        for query, row in zip(data.queries, pool.tolist())
    ]
    return pd.DataFrame(rows, columns=["query_id", "query", "pos", "neg"])


def write_answer_file(system: Seal, answers: pd.DataFrame, data: Collection, path: Path) -> None:
    """Writes a page (.html) or a TREC run file (.trec, .run) of what `search` answered.

    Raises:
        ConfigError: if something else was asked.
    """
    if system.config.ask != "search":
        raise ConfigError(f"--ask {system.config.ask} is written as a table: .parquet, .csv or .jsonl.")
    if path.suffix == ".html":
        write_text(path, answer_page(answers, system.searched(data), system.card.title))
    else:
        write_run(path, zip(answers["query_id"], answers["doc_id"], answers["score"]), tag="seal")
