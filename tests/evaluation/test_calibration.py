"""Platt scaling and calibration error: against their definitions, an independent fit, and hard cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.errors import DataError
from kontrast.evaluation.calibration import (
    PlattScaling,
    brier_score,
    expected_calibration_error,
    fit_platt,
    reliability,
)


def drawn(n, slope=1.5, intercept=-0.5, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, n)
    return scores, (rng.random(n) < PlattScaling(slope, intercept).probabilities(scores)).astype(int)


def test_the_true_curve_is_found():
    found = fit_platt(*drawn(40_000))
    assert found.slope == pytest.approx(1.5, rel=0.05)
    assert found.intercept == pytest.approx(-0.5, abs=0.05)


def test_it_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    scores, labels = drawn(2_000, seed=3)
    other = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(scores[:, None], labels)
    found = fit_platt(scores, labels)
    # The smoothed targets move it by about one part in the number of rows.
    assert found.slope == pytest.approx(float(other.coef_[0, 0]), rel=0.02)
    assert found.intercept == pytest.approx(float(other.intercept_[0]), abs=0.02)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.floats(1e-3, 1e3), st.floats(-50, 50), st.integers(0, 100))
def test_scale_and_offset_of_scores_do_not_matter(scale, offset, seed):
    scores, labels = drawn(60, seed=seed)
    if labels.min() == labels.max():
        return
    one, other = fit_platt(scores, labels), fit_platt(scale * scores + offset, labels)
    np.testing.assert_allclose(
        one.probabilities(scores), other.probabilities(scale * scores + offset), rtol=1e-5, atol=1e-7
    )


def test_the_gradient_is_zero_at_the_fit():
    scores, labels = drawn(300, seed=1)
    found = fit_platt(scores, labels)
    positives = labels.sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    error = found.probabilities(scores) - targets
    assert abs(error.sum()) < 1e-5
    assert abs(error @ scores) < 1e-4


def test_separated_and_constant_scores_stay_finite():
    apart = fit_platt([0.0, 1.0, 2.0, 10.0, 11.0, 12.0], [0, 0, 0, 1, 1, 1])
    assert apart.slope > 0
    assert 0 < apart.probabilities([0.0])[0] < 0.5 < apart.probabilities([12.0])[0] < 1
    flat = fit_platt(np.zeros(8), [1, 1, 0, 0, 0, 0, 0, 0])
    assert flat.probabilities([0.0])[0] == pytest.approx((2 * 3 / 4 + 6 / 8) / 8)
    turned = fit_platt([3.0, 2.0, 1.0, 0.0], [0, 0, 1, 1])
    assert turned.slope < 0


def test_huge_scores_give_probabilities():
    assert PlattScaling(1.0, 0.0).probabilities([-1e6, 0.0, 1e6]).tolist() == [0.0, 0.5, 1.0]


def test_another_share_of_positives():
    scores, labels = drawn(60_000, intercept=0.0, seed=5)
    kept = (labels == 1) | (np.random.default_rng(0).random(len(labels)) < 0.1)
    fitted = fit_platt(scores, labels)
    moved = fitted.shifted(labels.mean(), labels[kept].mean())
    assert expected_calibration_error(fitted.probabilities(scores[kept]), labels[kept]) > 0.1
    assert expected_calibration_error(moved.probabilities(scores[kept]), labels[kept]) < 0.02
    with pytest.raises(ValueError, match="shares"):
        fitted.shifted(0.5, 1.0)


def test_calibration_error_is_its_definition():
    probabilities, labels = np.array([0.05, 0.15, 0.95, 1.0, 0.5]), np.array([0, 1, 1, 1, 0])
    found = reliability(probabilities, labels, bins=2)
    assert found.counts.tolist() == [2, 3]
    np.testing.assert_allclose(found.predicted, [0.1, 2.45 / 3])
    np.testing.assert_allclose(found.observed, [0.5, 2 / 3])
    assert found.expected_error == pytest.approx((2 * 0.4 + 3 * 0.15) / 5)
    assert found.largest_error == pytest.approx(0.4)
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1
    assert brier_score([0.0, 0.5], [1, 0]) == pytest.approx(0.625)


def test_calibrated_probabilities_have_a_small_error():
    scores, labels = drawn(20_000, seed=7)
    fitted = fit_platt(scores[:10_000], labels[:10_000])
    held = expected_calibration_error(fitted.probabilities(scores[10_000:]), labels[10_000:])
    raw = expected_calibration_error(PlattScaling(10.0, 0.0).probabilities(scores[10_000:]), labels[10_000:])
    assert held < 0.02 < raw


def test_it_is_stored_as_json():
    found = fit_platt(*drawn(50))
    assert PlattScaling.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for wrong in ({"slope": 1.0}, None, {"slope": float("nan"), "intercept": 0.0}, {"slope": [1], "intercept": 0}):
        with pytest.raises(ValueError, match="slope"):
            PlattScaling.from_dict(wrong)


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="both classes"):
        fit_platt([1.0, 2.0], [1, 1])
    with pytest.raises(ValueError, match="finite"):
        fit_platt([1.0, np.nan], [1, 0])
    with pytest.raises(ValueError, match="equal length"):
        fit_platt([1.0], [1, 0])
    with pytest.raises(ValueError, match="0 or 1"):
        fit_platt([1.0, 2.0], [1, 2])
    for call in (reliability, brier_score):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            call([1.5], [1])
        with pytest.raises(ValueError, match="at least one"):
            call(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="bin"):
        reliability([0.5], [1], bins=0)
