"""Clustering agreement against closed forms and brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.errors import DataError
from kontrast.evaluation import cluster_agreement, clustering_metrics, kmeans, silhouette


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=25))
def test_acc_is_the_best_matching(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(pairs).T
    # Four clusters, three classes: one cluster stays without a class.
    best = max(np.mean(np.array(naming)[clusters] == labels) for naming in permutations([0, 1, 2, -1]))
    assert cluster_agreement(labels, clusters)["acc"] == pytest.approx(best)


def test_nmi_by_hand_and_renamed_clusters() -> None:
    labels, clusters = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    # I = H(labels) = ln 2; H(clusters) = 1.5 ln 2; arithmetic mean 1.25 ln 2.
    found = cluster_agreement(labels, clusters)
    assert found["nmi"] == pytest.approx(0.8)
    assert cluster_agreement(labels, np.array(["x", "z", "y", "y"])) == pytest.approx(found)
    assert cluster_agreement(labels, labels) == {"nmi": 1.0, "ari": 1.0, "acc": 1.0}


def test_random_clusters_get_chance() -> None:
    rng = np.random.default_rng(0)
    found = cluster_agreement(rng.integers(0, 4, 4000), rng.integers(0, 4, 4000))
    assert abs(found["ari"]) < 0.01
    assert found["nmi"] < 0.01
    assert found["acc"] < 0.3


def test_kmeans_finds_blobs_and_repeats() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    rows = np.eye(4)[labels] * 10 + rng.normal(size=(150, 4))
    found = clustering_metrics(rows, labels, seeds=(0, 1), restarts=3)
    assert found["acc"] == 1.0
    assert found["silhouette"] == pytest.approx(found["label_silhouette"])
    assert found["silhouette"] > 0.6
    assert (kmeans(rows, 5, seed=4, restarts=1) == kmeans(rows, 5, seed=4, restarts=1)).all()


def test_silhouette_of_a_subsample() -> None:
    rng = np.random.default_rng(0)
    rows, groups = rng.normal(size=(900, 3)), rng.integers(0, 2, 900)
    rows[groups == 1] += 5
    part = silhouette(rows, groups, max_rows=300)
    assert part == silhouette(rows, groups, max_rows=300)
    assert part == pytest.approx(silhouette(rows, groups), abs=0.05)
    assert np.isnan(silhouette(rows, np.zeros(900)))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="equal length"):
        cluster_agreement([0, 1], [0])
    with pytest.raises(ValueError, match=r"1\.\.3"):
        kmeans(np.eye(3), 4)
    with pytest.raises(DataError, match="two classes"):
        clustering_metrics(np.eye(3), [1, 1, 1])
