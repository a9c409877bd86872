"""Detection and link metrics against scikit-learn, brute force and chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from kontrast.errors import DataError
from kontrast.evaluation import (
    auroc,
    average_precision,
    detection_interval,
    detection_metrics,
    link_metrics,
    link_ranks,
    link_values,
)

steady = settings(deadline=None, max_examples=50, derandomize=True)


@steady
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_auroc_and_best_f1(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, 40).astype(float), rng.integers(0, 2, 40)
    labels[:2] = 0, 1
    found = detection_metrics(scores, labels)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    best = max(f1_score(labels, scores >= cut, zero_division=0) for cut in np.unique(scores))
    assert found["f1_max"] == pytest.approx(best)


def test_a_constant_scorer_gets_chance() -> None:
    labels = np.repeat([0, 1], [90, 10])
    assert auroc(np.zeros(100), labels) == 0.5
    assert average_precision(np.zeros(100), labels) == pytest.approx(0.1)
    found = link_metrics(np.zeros(5), np.zeros(99), (10,))
    assert found["hits@10"] == pytest.approx(0.1)
    assert found["mrr"] == pytest.approx(1 / 50.5)


@steady
@given(st.integers(0, 10_000), st.booleans())
def test_link_ranks_by_brute_force(seed: int, own: bool) -> None:
    rng = np.random.default_rng(seed)
    positives = rng.integers(0, 4, 6)
    negatives = rng.integers(0, 4, (6, 15) if own else 15)
    higher, same = link_ranks(positives, negatives)
    for i, score in enumerate(positives):
        others = negatives[i] if own else negatives
        rank = ((others >= score).sum() + (others > score).sum()) / 2 + 1
        assert higher[i] + same[i] / 2 + 1 == rank
        assert link_values(positives, negatives)["mrr"][i] == pytest.approx(1 / rank)


def test_hits_without_ties_are_above_the_kth_highest_negative() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1, 1, 80), rng.normal(size=200)
    found = link_metrics(positives, negatives, (1, 10, 50))
    for k in (1, 10, 50):
        assert found[f"hits@{k}"] == pytest.approx((positives > np.sort(negatives)[-k]).mean())
    assert found["auroc"] == pytest.approx((positives[:, None] > negatives).mean())


def test_interval_covers_the_truth_and_groups_widen_it() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10)
    labels = np.tile([0, 1], 150)
    scores = labels + rng.normal(size=300) + 2 * rng.normal(size=30)[groups] * labels
    alone = detection_interval(scores, labels, resamples=300)
    grouped = detection_interval(scores, labels, groups=groups, resamples=300)
    assert alone.low < alone.value < alone.high
    assert grouped.high - grouped.low > alone.high - alone.low
    assert detection_interval(scores, labels, resamples=300) == alone


def test_bad_arguments() -> None:
    with pytest.raises(DataError, match="there are positive rows only"):
        auroc([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="0 or 1"):
        auroc([0.1, 0.2], [1, 2])
    with pytest.raises(ValueError, match="NaN"):
        auroc([0.1, np.nan], [1, 0])
    with pytest.raises(ValueError, match=r"\(2,\) and \(3, 4\)"):
        link_ranks(np.zeros(2), np.zeros((3, 4)))
