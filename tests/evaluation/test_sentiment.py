"""Sentiment metrics against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from kontrast.evaluation.sentiment import correlation, sentiment_metrics, seven_classes, weighted_f1


def test_halves_go_to_the_even_class_and_scores_are_clipped():
    scores = [-4.2, -2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 9.0]
    assert seven_classes(scores).tolist() == [-3, -2, -2, 0, 0, 0, 2, 2, 3]


def test_both_conventions_by_hand():
    truth = [-2.0, -0.4, 0.0, 0.0, 1.0, 3.0]
    scores = [-1.0, 0.2, -0.1, 0.3, 0.0, 2.0]
    metrics = sentiment_metrics(scores, truth)
    assert metrics["mae"] == pytest.approx((1.0 + 0.6 + 0.1 + 0.3 + 1.0 + 1.0) / 6)
    # Not negative or negative, all six: -1 right, 0.2 wrong, -0.1 wrong, 0.3 right, 0.0 right, 2.0 right.
    assert metrics["acc2 nonneg"] == pytest.approx(4 / 6)
    # Positive or not, the four that are not 0: -1 right, 0.2 wrong, 0.0 wrong, 2.0 right.
    assert metrics["acc2 posneg"] == pytest.approx(2 / 4)
    # Rounded: -1/-2, 0/0, 0/0, 0/0, 0/1, 2/3.
    assert metrics["acc7"] == pytest.approx(3 / 6)
    assert metrics["corr"] == pytest.approx(np.corrcoef(scores, truth)[0, 1])


def test_an_exact_zero_counts_as_not_negative_and_as_not_positive():
    metrics = sentiment_metrics([0.0, 0.0], [1.0, -1.0])
    assert metrics["acc2 nonneg"] == 0.5
    assert metrics["acc2 posneg"] == 0.5
    assert sentiment_metrics([0.0], [0.5])["acc2 posneg"] == 0.0
    assert sentiment_metrics([0.0], [0.5])["acc2 nonneg"] == 1.0


def test_a_constant_has_no_correlation_and_truths_of_zero_have_no_polarity():
    assert correlation([1.0, 1.0, 1.0], [0.0, 1.0, 2.0]) == 0.0
    metrics = sentiment_metrics([0.1, 0.2], [0.0, 0.0])
    assert "acc2 posneg" not in metrics
    assert "f1 posneg" not in metrics


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=30))
def test_weighted_f1_is_the_usual_one(pairs):
    found, real = (np.array(column) for column in zip(*pairs))
    assert weighted_f1(found, real) == pytest.approx(f1_score(real, found, average="weighted", zero_division=0))


@pytest.mark.parametrize(
    ("scores", "truth"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([np.nan], [1.0]), ([1.0], [np.inf])]
)
def test_what_cannot_be_measured_is_refused(scores, truth):
    with pytest.raises(ValueError, match="scores and truth must"):
        sentiment_metrics(scores, truth)
