"""Matching of two views, neighbours, and clusters without labels."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.errors import DataError
from kontrast.evaluation.clustering import cluster_agreement, leiden, neighbour_graph, number_of_clusters
from kontrast.evaluation.matching import matching_metrics, neighbour_lists, neighbour_overlap


def test_equal_views_match_and_random_views_are_at_chance():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 16))
    assert matching_metrics(rows, rows) == {"matching_recall@1": 1.0, "foscttm": 0.0}
    found = [matching_metrics(rows, rows[rng.permutation(200)]) for _ in range(10)]
    assert np.mean([one["matching_recall@1"] for one in found]) == pytest.approx(1 / 200, abs=0.005)
    assert np.mean([one["foscttm"] for one in found]) == pytest.approx(0.5, abs=0.02)


def test_ties_count_in_part():
    same = np.ones((4, 3))
    assert matching_metrics(same, same) == {"matching_recall@1": pytest.approx(0.25), "foscttm": pytest.approx(0.5)}
    with pytest.raises(ValueError, match="same rows"):
        matching_metrics(same, same[:2])
    with pytest.raises(DataError, match="at least two rows"):
        matching_metrics(same[:1], same[:1])


def test_foscttm_equals_its_definition():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 30, 5))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)]
    cosine = unit[0] @ unit[1].T
    closer = [(table > np.diag(table)[:, None]).sum(1).mean() / 29 for table in (cosine, cosine.T)]
    assert matching_metrics(first, second)["foscttm"] == pytest.approx(np.mean(closer))


def test_neighbours_are_the_nearest_and_their_overlap_is_a_share():
    rows = np.asarray([[0.0], [1.0], [2.1], [10.0]])
    assert neighbour_lists(rows, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    first = np.asarray([[1, 2], [0, 2]])
    assert neighbour_overlap(first, first[:, ::-1]) == 1
    assert neighbour_overlap(first, np.asarray([[1, 3], [3, 4]])) == 0.25
    assert neighbour_lists(rows, 99).shape == (4, 3)
    assert neighbour_lists(rows, 1, among=np.asarray([0, 3])).tolist() == [[3], [0], [0], [0]]
    same = neighbour_lists(np.zeros((5, 2)), 2)
    assert all(row not in found for row, found in enumerate(same))


def blobs(groups=4, each=40):
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((groups, 5))
    labels = np.repeat(np.arange(groups), each)
    return centres[labels] + rng.standard_normal((groups * each, 5)), labels


def test_leiden_and_silhouette_find_clear_groups():
    rows, labels = blobs()
    assert cluster_agreement(labels, leiden(rows, resolution=0.5))["ari"] == 1
    assert np.array_equal(leiden(rows, seed=3), leiden(rows, seed=3))
    assert np.bincount(leiden(rows)).tolist() == sorted(np.bincount(leiden(rows)), reverse=True)
    count, width = number_of_clusters(rows)
    assert count == 4
    assert width > 0.7
    assert number_of_clusters(rows[:2])[0] == 1


def test_the_neighbour_graph_is_symmetric_and_keeps_copies_joined():
    rows = np.asarray([[0.0], [0.0], [1.0], [5.0]])
    graph = neighbour_graph(rows, 1).todense()
    assert np.array_equal(graph, graph.T)
    assert 0 < graph[0, 1] < 1e-100
    assert neighbour_graph(rows[:1], 5).shape == (1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        neighbour_graph(rows, 0)
