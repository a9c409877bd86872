"""The lexical baseline: BM25 over words and the parts of identifiers.

A contrastive encoder that does not beat BM25 on a person's own data is no gain; the report always shows both, through
the same metrics and the same rule for ties.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.ranks import PositiveRanks, rank_positives_from_scores
from kontrast.evaluation.relevance import Relevance, RelevanceLike
from kontrast.evaluation.retrieval import KS, RetrievalValues, values_of_ranks
from kontrast.extras import require

_WORD = re.compile(r"\w+(?:\.\w+)*")
_PART = re.compile(r"[^\W\d_a-z]+(?![a-z])|[^\W\d_a-z]?[^\W\d_A-Z]+|\d+")


def tokenise(text: str) -> list[str]:
    """Lower-cased words; an identifier gives itself and its parts.

    ``"os.path.joinAll"`` gives ``["os.path.joinall", "os", "path", "join", "all"]``, and ``HTTP_status404`` gives
    ``["http_status404", "http", "status", "404"]``. Parts end at dots, underscores, digits and changes of case.
    """
    tokens: list[str] = []
    for word in _WORD.findall(text):
        parts = [part.lower() for part in _PART.findall(word)]
        whole = word.lower()
        if parts != [whole]:
            tokens.append(whole)
        tokens.extend(parts)
    return tokens


class BM25:
    """BM25 scores of documents for queries (Robertson and Zaragoza 2009; Lucene's variant), extra ``text``.

    Args:
        documents: the texts to search in.
        k1: how fast repeated words saturate, ≥ 0.
        b: how much long documents are held back, in [0, 1].

    Raises:
        DataError: if there are no documents, or none has a word.
        MissingExtraError: if bm25s is not installed.
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        bm25s = require("bm25s", extra="text", purpose="for the BM25 baseline")
        words = [tokenise(text) for text in documents]
        if not any(words):
            raise DataError(f"none of the {len(words)} documents has a word to search for")
        self.n_documents = len(words)
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        self._index.index(words, show_progress=False)
        self._known = {word for document in words for word in document}

    def scores(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Scores (len(queries), n_documents) ≥ 0; 0 where no word is shared."""
        out = np.zeros((len(queries), self.n_documents), np.float32)
        for row, query in enumerate(queries):
            known = [word for word in tokenise(query) if word in self._known]
            if known:
                out[row] = self._index.get_scores(known)
        return out

    def rank(
        self,
        queries: Sequence[str],
        relevance: RelevanceLike,
        *,
        exclude: RelevanceLike | None = None,
        query_rows: int = 256,
    ) -> PositiveRanks:
        """Positions of the relevant documents, a block of queries at a time: memory O(query_rows · n_documents)."""
        relevant = Relevance.of(relevance, len(queries), self.n_documents)
        left_out = None if exclude is None else Relevance.of(exclude, len(queries), self.n_documents)
        parts = []
        for start in range(0, len(queries), query_rows):
            stop = min(start + query_rows, len(queries))
            part = rank_positives_from_scores(
                self.scores(queries[start:stop]),
                relevant.slice(start, stop),
                exclude=None if left_out is None else left_out.slice(start, stop),
            )
            parts.append((start, part))
        return PositiveRanks(
            np.concatenate([np.empty(0, np.int64), *(start + part.query for start, part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.above for _, part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.tied for _, part in parts)]),
            np.concatenate([np.empty(0), *(part.gain for _, part in parts)]),
            len(queries),
        )


def bm25_values(
    queries: Sequence[str],
    documents: Sequence[str],
    relevance: RelevanceLike,
    ks: Sequence[int] = KS,
    *,
    exclude: RelevanceLike | None = None,
) -> RetrievalValues:
    """BM25's retrieval metrics per query; arguments as for `retrieval_values`, with texts for vectors."""
    return values_of_ranks(BM25(documents).rank(queries, relevance, exclude=exclude), ks)
