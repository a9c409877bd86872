"""Leak checks find what is shared, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kontrast.evaluation import check_leaks, check_retrieval_leaks


def test_exact_and_normalised_text() -> None:
    train = {"text": ["Hello, world!", "alpha beta", "", "x"]}
    test = {"text": ["Hello, world!", "HELLO   world", "gamma", "", "ＡＬＰＨＡ－beta"]}
    report = check_leaks(train, test)
    exact, loose = report["text", "exact"], report["text", "normalised"]
    # An empty text repeats nothing.
    assert (exact.n_test, exact.n_leaked) == (4, 1)
    assert (loose.n_test, loose.n_leaked) == (4, 3)
    assert [(one.test_row, one.train_row) for one in loose.examples] == [(0, 0), (1, 0), (4, 1)]
    assert report.sentence == "Leak: 3 of 4 test rows (75.0%) repeat a training row in 'text' (1 exactly)."
    assert json.loads(json.dumps(report.to_dict()))["leaks"][0]["share"] == 0.25


def test_texts_of_signs_only_are_told_apart() -> None:
    report = check_leaks({"text": ["???"]}, {"text": ["!!!", "???"]})
    assert report["text", "normalised"].n_leaked == 1


def test_clean_data() -> None:
    report = check_leaks({"id": [1, 2], "text": ["a", "b"]}, {"id": [3, 4], "text": ["c", "d"]})
    assert report.clean
    assert report.sentence == "No test row repeats a training row (compared by 'id', 'text')."


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_vectors(make) -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(30, 6)).astype(np.float32)
    test = np.concatenate([train[4:5], train[7:8] * 3, rng.normal(size=(5, 6)), np.zeros((1, 6))]).astype(np.float32)
    report = check_leaks({"vector": make(train)}, {"vector": make(test)})
    assert report["vector", "exact"].n_leaked == 1
    assert report["vector", "normalised"].n_leaked == 2
    assert report["vector", "normalised"].examples[1].train_row == 7


def test_groups_on_both_sides() -> None:
    report = check_leaks(
        {"patient": np.array(["p1", "p1", "p2"]), "row": [0, 1, 2]},
        {"patient": ["p3", "p2", None], "row": [3, 4, 5]},
        groups=["patient"],
    )
    leak = report["patient", "group"]
    assert (leak.n_test, leak.n_leaked, leak.examples[0].value) == (2, 1, "p2")
    assert report.sentence == "Leak: 1 of 2 test rows (50.0%) belong to a 'patient' that was trained on."


def test_retrieval_pairs() -> None:
    report = check_retrieval_leaks(["q1", "q2"], ["shared", "t2"], ["q3", "Q2", "q2"], ["shared", "t2!", "other"])
    assert report["target", "exact"].n_leaked == 1
    assert report["query", "normalised"].n_leaked == 2
    assert report["pair", "exact"].n_leaked == 0
    assert report["pair", "normalised"].n_leaked == 1


def test_fields_must_agree() -> None:
    with pytest.raises(ValueError, match="same fields"):
        check_leaks({"a": [1]}, {"b": [1]})
    with pytest.raises(ValueError, match="unknown fields"):
        check_leaks({"a": [1]}, {"a": [1]}, groups=["b"])
