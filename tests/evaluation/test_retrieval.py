"""Retrieval metrics against a twin that averages over every order of the ties, and against other libraries."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kontrast.errors import DataError
from kontrast.evaluation import (
    Relevance,
    rank_positives,
    rank_positives_from_scores,
    read_qrels,
    read_run,
    retrieval_metrics,
    retrieval_values,
    retrieval_values_from_run,
    retrieval_values_from_scores,
)

KS = (1, 2, 4)
steady = settings(deadline=None, max_examples=60, derandomize=True)


def ordered_metrics(grades: np.ndarray, ks: tuple[int, ...]) -> dict[str, float]:
    """Textbook metrics of one fully ordered list of grades, best first."""
    hits = grades > 0
    places = np.flatnonzero(hits) + 1
    out = {}
    for k in ks:
        top = hits[:k].sum()
        out[f"recall@{k}"] = top / hits.sum()
        out[f"precision@{k}"] = top / k
        out[f"hit@{k}"] = float(top > 0)
        out[f"mrr@{k}"] = 1 / places[0] if places[0] <= k else 0.0
        discount = 1 / np.log2(np.arange(2, len(grades) + 2))
        best = np.sort(grades)[::-1]
        out[f"ndcg@{k}"] = (grades * discount)[:k].sum() / (best * discount)[:k].sum()
    out["mrr"] = 1 / places[0]
    out["map"] = np.mean([hits[:place].mean() for place in places])
    out["rank"] = float(places[0])
    return out


def twin(scores: np.ndarray, grades: np.ndarray, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """Mean of the textbook metrics over all orders that agree with the scores."""
    lists = {
        order: ordered_metrics(grades[list(order)], ks)
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    }
    return {name: float(np.mean([one[name] for one in lists.values()])) for name in next(iter(lists.values()))}


@steady
@given(st.data())
def test_equals_the_mean_over_all_orders_of_ties(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    scores = data.draw(hnp.arrays(np.float64, (n, m), elements=st.sampled_from([0.0, 0.5, 1.0])))
    grades = data.draw(hnp.arrays(np.float64, (n, m), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0])))
    rows, columns = np.nonzero(grades)
    relevance = Relevance.from_pairs(rows, columns, grades[rows, columns], n_queries=n)
    values = retrieval_values_from_scores(scores, relevance, KS)
    for query in range(n):
        if not grades[query].any():
            assert np.isnan(values.rank[query])
            assert all(np.isnan(value[query]) for value in values.per_query.values())
            continue
        expected = twin(scores[query], grades[query])
        assert values.rank[query] == pytest.approx(expected.pop("rank"))
        assert {name: value[query] for name, value in values.per_query.items()} == pytest.approx(expected)


@steady
@given(st.integers(0, 10_000), st.sampled_from(["cosine", "dot"]), st.booleans())
def test_embeddings_equal_their_score_matrix(seed: int, similarity: str, dense: bool) -> None:
    rng = np.random.default_rng(seed)
    n, m, d = rng.integers(1, 12), rng.integers(1, 30), rng.integers(1, 5)
    # Few distinct integer vectors, zero rows included: exact ties everywhere.
    queries, candidates = rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (m, d))
    grades = rng.integers(0, 3, (n, m)) * (rng.random((n, m)) < (0.7 if dense else 0.15))
    excluded = rng.random((n, m)) < 0.2
    scores = (queries @ candidates.T).astype(np.float64)
    if similarity == "cosine":
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(candidates, axis=1)
        scores = np.round(scores / np.maximum(lengths, 1e-9), 6)
    relevance = Relevance.from_pairs(*np.nonzero(grades), grades[np.nonzero(grades)], n_queries=n)
    exclude = Relevance.from_pairs(*np.nonzero(excluded), n_queries=n)
    ranks = rank_positives(
        queries, candidates, relevance, similarity=similarity, exclude=exclude, query_rows=5, candidate_rows=7
    )
    brute = {}
    for i, j in zip(*np.nonzero((grades > 0) & ~excluded)):
        others = scores[i][~excluded[i]]
        brute.setdefault(i, []).append(((others > scores[i, j]).sum(), (others == scores[i, j]).sum(), grades[i, j]))
    found: dict[int, list[tuple[int, int, float]]] = {}
    for query, above, tied, gain in zip(ranks.query, ranks.above, ranks.tied, ranks.gain):
        found.setdefault(query, []).append((above, tied, gain))
    assert {key: sorted(value) for key, value in found.items()} == {key: sorted(value) for key, value in brute.items()}


@steady
@given(st.integers(0, 10_000))
def test_ndcg_equals_scikit_learn_with_ties(seed: int) -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(seed)
    scores, grades = rng.integers(0, 4, (5, 20)).astype(float), rng.integers(0, 4, (5, 20)).astype(float)
    grades[:, 0] = 1
    rows, columns = np.nonzero(grades)
    relevance = Relevance.from_pairs(rows, columns, grades[rows, columns], n_queries=5)
    means = retrieval_values_from_scores(scores, relevance, (3, 10)).means()
    for k in (3, 10):
        assert means[f"ndcg@{k}"] == pytest.approx(ndcg_score(grades, scores, k=k))


@steady
@given(st.integers(0, 10_000))
def test_map_and_mrr_equal_other_libraries_without_ties(seed: int) -> None:
    from sklearn.metrics import label_ranking_average_precision_score
    from torchmetrics.functional.retrieval import retrieval_precision, retrieval_recall, retrieval_reciprocal_rank

    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(30.0), (6, 1)), axis=1)
    relevant = rng.random((6, 30)) < 0.2
    relevant[:, 3] = True
    values = retrieval_values_from_scores(scores, Relevance.from_pairs(*np.nonzero(relevant), n_queries=6), (5,))
    assert values.means()["map"] == pytest.approx(label_ranking_average_precision_score(relevant, scores))
    for query in range(6):
        pair = torch.from_numpy(scores[query]), torch.from_numpy(relevant[query])
        assert values.per_query["mrr"][query] == pytest.approx(float(retrieval_reciprocal_rank(*pair)), abs=1e-6)
        assert values.per_query["recall@5"][query] == pytest.approx(float(retrieval_recall(*pair, top_k=5)), abs=1e-6)
        assert values.per_query["precision@5"][query] == pytest.approx(
            float(retrieval_precision(*pair, top_k=5)), abs=1e-6
        )


def test_a_constant_scorer_gets_chance() -> None:
    m = 1000
    vectors = np.ones((m, 16), np.float32)
    means = retrieval_metrics(vectors[:7], vectors, np.arange(7), (1, 10))
    assert means["recall@1"] == pytest.approx(1 / m)
    assert means["recall@10"] == pytest.approx(10 / m)
    assert means["mrr"] == pytest.approx(np.mean(1 / np.arange(1, m + 1)))
    values = retrieval_values(vectors[:7], vectors, np.arange(7))
    # Half of the 999 negatives tie from above and half from below.
    assert values.rank.tolist() == [(999 + 0) / 2 + 1] * 7


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_equal_candidates_tie_wherever_they_stand_in_a_tile(similarity: str) -> None:
    generator = torch.Generator().manual_seed(3)
    queries = torch.randn(9, 387, generator=generator)
    candidates = torch.randn(1, 387, generator=generator).expand(1003, -1) * 1.7
    ranks = rank_positives(queries, candidates, np.arange(9) * 100, similarity=similarity, candidate_rows=97)
    assert (ranks.above == 0).all()
    assert (ranks.tied == 1003).all()


def test_tile_sizes_and_long_lists_change_nothing() -> None:
    rng = np.random.default_rng(1)
    labels, others = rng.integers(0, 4, 90), rng.integers(0, 4, 70)
    queries, candidates = rng.normal(size=(90, 8)), rng.normal(size=(70, 8))
    relevance = Relevance.from_lists([np.flatnonzero(others == label) for label in labels])
    whole = rank_positives(queries, candidates, relevance)
    parts = rank_positives(queries, candidates, relevance, query_rows=11, candidate_rows=13)
    assert (whole.above == parts.above).all()
    assert (whole.tied == parts.tied).all()


def test_tiny_and_huge_vectors_keep_their_directions() -> None:
    directions = np.eye(4)
    scale = np.array([1e-200, 1e200, 1.0, 1e-320])[:, None]
    assert retrieval_metrics(directions, directions * scale, np.arange(4), (1,))["recall@1"] == 1.0


def test_run_files_equal_full_lists(tmp_path) -> None:
    scores = np.array([[0.9, 0.1, 0.5, 0.5], [0.2, 0.3, 0.8, 0.1]])
    (tmp_path / "a.run").write_text(
        "\n".join(f"q{i} Q0 d{j} 0 {scores[i, j]} test" for i in range(2) for j in range(4)) + "\n"
    )
    (tmp_path / "a.qrels").write_text("q0 0 d2 2\nq0 0 d1 1\nq1 0 d3 1\nq1 0 d0 0\n")
    run, qrels = read_run(tmp_path / "a.run"), read_qrels(tmp_path / "a.qrels")
    listed, names = retrieval_values_from_run(run, qrels, (1, 2))
    full = retrieval_values_from_scores(scores, (np.array([0, 2, 3]), np.array([2, 1, 3]), [2, 1, 1]), (1, 2))
    assert names == ["q0", "q1"]
    assert listed.means() == pytest.approx(full.means())


def test_what_a_run_does_not_list_was_not_found() -> None:
    values, _ = retrieval_values_from_run({"a": {"x": 2.0, "y": 1.0}}, {"a": {"y": 1, "z": 1}, "b": {"x": 1}}, (2,))
    assert values.per_query["recall@2"].tolist() == [0.5, 0.0]
    assert values.per_query["mrr"].tolist() == [0.5, 0.0]
    assert values.per_query["map"].tolist() == [0.25, 0.0]
    assert values.rank.tolist() == [2.0, np.inf]


@pytest.mark.parametrize(
    ("text", "message"),
    [("q d 1\n", "line 1 has 3 fields, not 4"), ("q 0 d x\n", "'x' is not a number"), ("q 0 d 1\nq 0 d 2\n", "again")],
)
def test_a_malformed_file_is_named(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "bad.qrels"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_qrels(path)
    assert "bad.qrels" in str(error.value)


def test_minus_infinity_ties_at_the_end_of_the_list() -> None:
    scores = np.array([[1.0, -np.inf, -np.inf, 0.0]])
    ranks = rank_positives_from_scores(scores, [2], exclude=[3])
    assert (ranks.above.tolist(), ranks.tied.tolist()) == ([1], [2])


def test_scores_are_not_changed() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0]])
    retrieval_values_from_scores(scores, [0, 1])
    assert scores.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_no_relevant_candidate_at_all() -> None:
    with pytest.raises(DataError, match="none of the 2 queries"):
        retrieval_metrics(np.eye(2), np.eye(2), (np.zeros(3, int), np.empty(0, int)))


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        ([0, 1, 2], "3 queries, but there are 2"),
        ([0, 5], r"must lie in 0\.\.1"),
        ((np.array([0, 2, 2]), np.array([1, 1])), "query 0 lists the same"),
        ((np.array([0, 1, 2]), np.array([0, 1]), [1.0, -1.0]), "not negative"),
        ([0.5, 1.0], "vector of integers"),
    ],
)
def test_malformed_relevance(relevance, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(np.eye(2), np.eye(2), relevance)


def test_malformed_embeddings() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 3\)"):
        retrieval_metrics(np.eye(2), np.eye(3), [0, 1])
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        retrieval_metrics(np.array([[1.0], [np.nan]]), np.eye(2)[:, :1], [0, 1])
    with pytest.raises(ValueError, match="positive integers"):
        retrieval_metrics(np.eye(2), np.eye(2), [0, 1], (0,))


def test_sparse_matrix_and_exponential_gains() -> None:
    from scipy.sparse import csr_matrix

    scores = np.array([[3.0, 2.0, 1.0]])
    values = retrieval_values_from_scores(scores, csr_matrix([[1.0, 0.0, 3.0]]), (3,), gains="exponential")
    best = 7 + 1 / np.log2(3)
    assert values.per_query["ndcg@3"][0] == pytest.approx((1 + 7 / 2) / best)
