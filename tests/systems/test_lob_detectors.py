"""lob's detectors: equal to scikit-learn's, higher where vectors are odd, and saved as plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.errors import CheckpointError, DataError
from kontrast.randomness import derive_seed
from kontrast.systems.lob.detectors import DETECTORS, TREES, Forest, OneClassSvm, detector_from_arrays


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(600, 6)).astype(np.float32) * 0.3 + np.eye(6, dtype=np.float32)[0]
    marked = rng.normal(size=(60, 6)).astype(np.float32) * 0.3 + 2 * np.eye(6, dtype=np.float32)[1]
    return normal, marked


@pytest.mark.parametrize("name", list(DETECTORS))
def test_scores_are_higher_for_manipulation_and_survive_saving(vectors, name):
    normal, marked = vectors
    detector = DETECTORS[name].fit(normal, marked, 0)
    low, high = detector.scores(normal), detector.scores(marked)
    assert np.median(high) > np.quantile(low, 0.9)
    assert np.ptp(low) > 0
    again = detector_from_arrays(name, detector.arrays())
    assert np.array_equal(again.scores(marked), high)
    assert np.array_equal(DETECTORS[name].fit(normal, marked, 0).scores(marked), high)
    np.testing.assert_allclose(detector.scores(marked[5:6]), high[5:6], rtol=1e-6, atol=1e-9)


def test_the_forest_equals_scikit_learns(vectors):
    from sklearn.ensemble import IsolationForest

    normal, marked = vectors
    seed = derive_seed(3, "iforest") % (1 << 31)
    reference = IsolationForest(n_estimators=TREES, random_state=seed).fit(normal)
    both = np.concatenate([normal, marked])
    np.testing.assert_allclose(Forest.fit(normal, marked, 3).scores(both), -reference.score_samples(both), rtol=1e-9)


def test_the_one_class_svm_equals_scikit_learns(vectors):
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import SGDOneClassSVM
    from sklearn.pipeline import make_pipeline

    normal, marked = vectors
    seed = derive_seed(3, "ocsvm") % (1 << 31)
    rows = normal.astype(np.float64)
    reference = make_pipeline(
        Nystroem(gamma=10 / (len(rows) * rows.var()), n_components=100, random_state=seed),
        SGDOneClassSVM(nu=0.5, tol=1e-4, random_state=seed),
    ).fit(rows)
    found = OneClassSvm.fit(normal, marked, 3).scores(marked)
    np.testing.assert_allclose(found, -reference.score_samples(marked.astype(np.float64)), rtol=1e-5, atol=1e-8)


def test_vectors_pressed_together_do_not_make_constant_scores():
    rng = np.random.default_rng(0)
    normal = (np.eye(8)[0] + 1e-5 * rng.normal(size=(500, 8))).astype(np.float32)
    marked = np.eye(8, dtype=np.float32)[1:2]
    for name in ("ocsvm", "iforest", "svdd"):
        detector = DETECTORS[name].fit(normal, marked, 0)
        scores = detector.scores(np.concatenate([normal, marked]))
        assert np.isfinite(scores).all()
        assert scores[-1] > np.median(scores[:-1])
        assert np.ptp(scores) > 0


def test_detectors_that_need_labels_say_so(vectors):
    for name in ("logistic", "knn"):
        with pytest.raises(DataError, match="needs manipulated windows"):
            DETECTORS[name].fit(vectors[0], vectors[1][:0], 0)


def test_unknown_and_partial_detectors_are_refused():
    with pytest.raises(CheckpointError, match="no detector 'oracle'"):
        detector_from_arrays("oracle", {})
    with pytest.raises(CheckpointError, match="no detector 'svdd'"):
        detector_from_arrays("svdd", {"radius": np.ones(1)})
