"""Pseudotime along known curves, rank correlation, and the graph of types."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.errors import DataError
from kontrast.evaluation.trajectory import backbone, edge_f1, order_correlation, path_edges, pseudotime, type_graph


@pytest.fixture
def spiral():
    """A rolled-up line: neighbours in space that are far along the course lie on other turns."""
    along = np.sort(np.random.default_rng(0).random(300))
    angle = 3 * np.pi * (0.3 + along)
    return along, np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1)


@pytest.mark.parametrize("method", ["geodesic", "diffusion"])
def test_pseudotime_follows_a_rolled_up_course(spiral, method):
    along, points = spiral
    far = pseudotime(points, [0], method=method, neighbours=8)
    assert far[0] == pytest.approx(0, abs=0.02 if method == "diffusion" else 0)
    assert np.nanmax(far) == 1
    assert order_correlation(far, along) > 0.97
    straight = np.linalg.norm(points - points[0], axis=1)
    assert order_correlation(straight, along) < 0.9


@pytest.mark.parametrize("method", ["geodesic", "diffusion"])
def test_pseudotime_does_not_depend_on_the_order_of_rows(spiral, method):
    _, points = spiral
    order = np.random.default_rng(1).permutation(len(points))
    first = pseudotime(points, [0, 1], method=method, neighbours=8)
    second = pseudotime(points[order], np.flatnonzero(order < 2), method=method, neighbours=8)
    assert np.allclose(first[order], second, atol=1e-6, equal_nan=True)


def test_geodesic_is_the_sum_of_steps_on_a_line():
    points = np.asarray([[0.0], [1.0], [3.0], [6.0]])
    assert pseudotime(points, [0], neighbours=1).tolist() == pytest.approx([0, 1 / 6, 3 / 6, 1])


def test_parts_are_bridged_by_their_shortest_edges():
    points = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [30.0], [31.0], [32.0]])
    assert np.isnan(pseudotime(points, [0], neighbours=2)[3:]).all()
    far = pseudotime(points, [0], neighbours=2, bridged=True)
    assert far.tolist() == pytest.approx((points[:, 0] / 32).tolist())
    assert np.isfinite(pseudotime(points, [0], method="diffusion", neighbours=2, bridged=True)).all()
    order = np.random.default_rng(0).permutation(9)
    again = pseudotime(points[order], np.flatnonzero(order == 0), neighbours=2, bridged=True)
    assert np.allclose(again, far[order])


def test_rows_without_a_path_are_nan():
    points = np.concatenate([np.arange(10.0), 1000 + np.arange(10.0)])[:, None]
    for method in ("geodesic", "diffusion"):
        far = pseudotime(points, [0], method=method, neighbours=2)
        assert np.isfinite(far[:10]).all()
        assert np.isnan(far[10:]).all()


def test_bad_roots_are_refused():
    for roots in ([], [5], [-1]):
        with pytest.raises(ValueError, match="roots must name rows"):
            pseudotime(np.zeros((3, 1)), roots)


def test_order_correlation_is_spearman_over_known_rows():
    found = [0.1, 0.2, np.nan, 0.9, 0.4]
    assert order_correlation(found, [1, 2, 3, 9, 4]) == pytest.approx(1)
    assert order_correlation(found, [-1, -2, -3, -9, np.nan]) == pytest.approx(-1)
    assert np.isnan(order_correlation([1, 2], [1, 2]))
    assert np.isnan(order_correlation([1, 1, 1], [1, 2, 3]))
    with pytest.raises(ValueError, match="equal length"):
        order_correlation([1, 2], [1, 2, 3])


def test_the_backbone_of_types_on_a_line_is_the_line():
    rng = np.random.default_rng(0)
    along = rng.random(400)
    points = np.stack([along, 0.01 * rng.random(400)], axis=1)
    types = np.asarray(list("ABCD"))[np.minimum((along * 4).astype(int), 3)]
    names, ratio = type_graph(points, types)
    assert names == list("ABCD")
    assert np.array_equal(ratio, ratio.T)
    assert (np.diag(ratio) == 0).all()
    found = backbone(names, ratio)
    assert found == path_edges("ABCD") == {frozenset("AB"), frozenset("BC"), frozenset("CD")}
    assert edge_f1(found, path_edges("ABCD")) == 1
    with pytest.raises(DataError, match="at least two types"):
        type_graph(points, ["A"] * 400)


def test_edge_f1_counts_shared_edges():
    assert edge_f1([("a", "b"), ("b", "c")], [("b", "a"), ("c", "d"), ("d", "e")]) == pytest.approx(2 / 5)
    assert edge_f1([], [("a", "b")]) == 0
    assert np.isnan(edge_f1([("a", "b")], []))
    with pytest.raises(ValueError, match="two different groups"):
        edge_f1([("a", "a")], [("a", "b")])
