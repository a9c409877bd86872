"""Probes read what is there, and chance where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.errors import DataError
from kontrast.evaluation import knn_probe, linear_probe
from kontrast.evaluation.probing import CS


def blobs(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return np.eye(5)[labels] * 6 + spread * rng.normal(size=(n, 5)), np.array(["a", "b", "c"])[labels]


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_separated_classes_are_read_off(probe) -> None:
    result = probe(*blobs(300, 0), *blobs(100, 1))
    assert result.accuracy > 0.97
    assert result.macro_f1 > 0.97
    assert result.majority_accuracy < 0.5
    assert result.metrics()["accuracy"] == result.accuracy


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_permuted_labels_give_chance(probe) -> None:
    x, y = blobs(600, 0)
    result = probe(x, np.random.default_rng(2).permutation(y), *blobs(600, 1))
    assert result.accuracy == pytest.approx(1 / 3, abs=0.08)


def test_scale_and_shift_do_not_change_the_linear_probe() -> None:
    (x, y), (x_test, y_test) = blobs(200, 0, 3.0), blobs(200, 1, 3.0)
    plain = linear_probe(x, y, x_test, y_test)
    moved = linear_probe(x * 1000 + 7, y, x_test * 1000 + 7, y_test)
    assert (plain.predicted == moved.predicted).mean() > 0.99


def test_c_is_chosen_on_the_validation_rows_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)), rng.integers(0, 2, 60)
    valid, valid_labels = rng.normal(size=(300, 40)), rng.integers(0, 2, 300)
    chosen = {
        linear_probe(x, y, x, labels, valid=valid, valid_labels=valid_labels).setting["C"] for labels in (y, 1 - y)
    }
    assert len(chosen) == 1
    # Validation rows equal to the training rows reward a probe that fits those by heart.
    by_heart = linear_probe(x, y, valid, valid_labels, valid=x, valid_labels=y)
    assert by_heart.setting["C"] > CS[0]


def test_majority_baseline_and_an_unseen_class() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    result = knn_probe(x, [0] * 15 + [1] * 5, x[:4], [0, 0, 1, 2], k=3)
    assert result.majority_accuracy == 0.5
    assert result.majority_macro_f1 == pytest.approx((2 * 2 / 4 / (2 / 4 + 1)) / 3)


def test_knn_votes_by_hand() -> None:
    train = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    result = knn_probe(train, [1, 0, 0], [[1.0, 0.2]], [1], k=3, temperature=float("inf"))
    assert result.predicted.tolist() == [0]
    assert knn_probe(train, [1, 0, 0], [[1.0, 0.2]], [1], k=3, temperature=0.07).predicted.tolist() == [1]


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_one_class_cannot_be_probed(probe) -> None:
    with pytest.raises(DataError, match="at least two classes, but the training labels hold only the class"):
        probe(np.eye(3), ["a"] * 3, np.eye(3), ["a"] * 3)
    with pytest.raises(ValueError, match="3 rows"):
        probe(np.eye(3), ["a", "b"], np.eye(3), ["a"] * 3)
