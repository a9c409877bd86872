"""Exact search against sorting, faiss against exact search, saving against memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from kontrast.evaluation import SearchIndex, top_k
from kontrast.evaluation.tiles import CANDIDATE_ROWS


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_equals_a_stable_sort(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    queries, candidates = rng.integers(-2, 3, (7, 2)), rng.integers(-2, 3, (rng.integers(1, 40), 2))
    scores, found = top_k(queries, candidates, k, similarity="dot", query_rows=3)
    full = queries @ candidates.T
    order = np.argsort(-full, axis=1, kind="stable")[:, :k]
    assert (found == order).all()
    assert (scores == np.take_along_axis(full, order, 1)).all()


def test_ties_across_tiles_go_to_the_lower_index() -> None:
    candidates = torch.ones(CANDIDATE_ROWS * 2 + 5, 3)
    _, found = top_k(torch.ones(2, 3), candidates, 4)
    assert found.tolist() == [[0, 1, 2, 3]] * 2


def test_more_neighbours_than_rows() -> None:
    scores, found = top_k(np.eye(2), np.eye(2), 10)
    assert found.tolist() == [[0, 1], [1, 0]]
    assert scores.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF8,Flat"])
def test_faiss_finds_what_exact_search_finds(factory: str, similarity: str) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(600, 16)), rng.normal(size=(40, 16))
    exact_scores, exact = SearchIndex(rows, similarity=similarity).search(queries, 5)
    index = SearchIndex(rows, kind="faiss", factory=factory, similarity=similarity, probes=8)
    scores, found = index.search(queries, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact.tolist(), found.tolist())]) > 0.95
    if factory == "Flat":
        assert (found == exact).all()
        np.testing.assert_allclose(scores, exact_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "factory"), [("exact", "Flat"), ("faiss", "HNSW32"), ("faiss", "IVF4,Flat")])
def test_a_saved_index_answers_the_same(tmp_path, kind: str, factory: str) -> None:
    if kind == "faiss":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(200, 8)).astype(np.float32), rng.normal(size=(5, 8))
    index = SearchIndex(rows, [f"d{i}" for i in range(200)], kind, factory=factory, probes=2)
    loaded = SearchIndex.load(index.save(tmp_path / "index"))
    for one, two in zip(index.search(queries, 3), loaded.search(queries, 3)):
        assert (one == two).all()
    assert loaded.ids == index.ids
    assert not list((tmp_path / "index").glob("*.p*kl*"))


def test_a_damaged_index_is_refused(tmp_path) -> None:
    folder = SearchIndex(np.eye(3)).save(tmp_path / "index")
    (folder / "vectors.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        SearchIndex.load(folder)
    (folder / "index.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="format version 99"):
        SearchIndex.load(folder)
    with pytest.raises(DataError, match="no such file"):
        SearchIndex.load(tmp_path / "nothing")


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="unknown kind"):
        SearchIndex(np.eye(2), kind="annoy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 ids for 2 vectors"):
        SearchIndex(np.eye(2), ["a", "b", "c"])
    with pytest.raises(ValueError, match="k must be at least 1"):
        SearchIndex(np.eye(2)).search(np.eye(2), 0)
    with pytest.raises(ValueError, match="same width"):
        SearchIndex(np.eye(2)).search(np.eye(3), 1)


def test_bad_faiss_arguments() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match="unknown faiss factory 'Nope'"):
        SearchIndex(np.eye(2), kind="faiss", factory="Nope")
    with pytest.raises(ConfigError, match="needs at least 64 vectors, got 2"):
        SearchIndex(np.eye(2), kind="faiss", factory="IVF64,Flat")


def test_a_missing_faiss_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"kontrast\[search\]"):
        SearchIndex(np.eye(2), kind="faiss")
