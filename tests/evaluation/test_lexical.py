"""BM25: the formula by hand, identifiers, and ties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kontrast.errors import DataError
from kontrast.evaluation import BM25, bm25_values, retrieval_values_from_scores, tokenise

pytest.importorskip("bm25s")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat, THE dog.", ["the", "cat", "the", "dog"]),
        ("read_csv", ["read_csv", "read", "csv"]),
        ("getHTTPResponse", ["gethttpresponse", "get", "http", "response"]),
        ("os.path.joinAll", ["os.path.joinall", "os", "path", "join", "all"]),
        ("conv2d", ["conv2d", "conv", "2", "d"]),
        ("Größe naïve", ["größe", "naïve"]),
        ("数据 2024", ["数据", "2024"]),
        ("... --- ", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


def test_scores_follow_the_formula() -> None:
    documents = ["apple banana apple", "banana", "cherry banana date egg"]
    scores = BM25(documents, k1=1.2, b=0.75).scores(["apple banana", "cherry", "none of it"])
    lengths = np.array([3, 1, 4])

    def term(counts: list[int]) -> np.ndarray:
        tf = np.array(counts)
        held = np.sum(tf > 0)
        idf = math.log(1 + (3 - held + 0.5) / (held + 0.5))
        return idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * lengths / lengths.mean()))

    np.testing.assert_allclose(scores[0], term([2, 0, 0]) + term([1, 1, 1]), rtol=1e-5)
    np.testing.assert_allclose(scores[1], term([0, 0, 1]), rtol=1e-5)
    assert not scores[2].any()


def test_a_query_without_known_words_gets_chance() -> None:
    values = bm25_values(["zzz", "alpha"], ["alpha", "beta", "gamma", "delta"], [2, 0], (1,))
    assert values.per_query["recall@1"].tolist() == [0.25, 1.0]


def test_blocks_equal_the_whole() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    documents = [" ".join(rng.choice(words, 6)) for _ in range(50)]
    queries = [" ".join(rng.choice(words, 2)) for _ in range(23)]
    index, targets = BM25(documents), rng.integers(0, 50, 23)
    ranks = index.rank(queries, targets, exclude=(targets + 1) % 50, query_rows=4)
    whole = index.rank(queries, targets, exclude=(targets + 1) % 50)
    assert (ranks.above == whole.above).all()
    assert (ranks.tied == whole.tied).all()
    values = retrieval_values_from_scores(index.scores(queries), targets, exclude=(targets + 1) % 50)
    assert bm25_values(queries, documents, targets, exclude=(targets + 1) % 50).means() == values.means()


def test_documents_without_words() -> None:
    with pytest.raises(DataError, match="none of the 2 documents"):
        BM25(["", "--"])
