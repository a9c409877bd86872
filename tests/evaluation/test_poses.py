"""Errors of poses, overlaps of boxes and average precision, against closed forms and slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kontrast.evaluation.poses import (
    BOX_EDGES,
    average_precision_of_poses,
    box_corners,
    box_overlap,
    flip_tolerant_errors,
    pose_metrics,
    rotation_errors,
    translation_errors,
    within,
)

RNG = np.random.default_rng(0)
TURNS = Rotation.from_rotvec(RNG.normal(size=(20, 3))).as_matrix()
PLACES = RNG.normal(size=(20, 3))
SIZES = RNG.uniform(0.1, 0.3, (20, 3))


def turn(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, [degrees], degrees=True).as_matrix().reshape(3, 3)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 5.0, 90.0, 179.9])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_turn_by_so_many_degrees_is_that_error(axis, degrees):
    errors = rotation_errors(TURNS @ turn(axis, degrees), TURNS)
    np.testing.assert_allclose(errors, degrees, atol=1e-6)


def test_symmetric_objects_ignore_turns_about_y_and_nothing_else():
    about_y = TURNS @ turn("y", 70)
    np.testing.assert_allclose(rotation_errors(about_y, TURNS, np.ones(20, bool)), 0, atol=1e-6)
    about_x = TURNS @ turn("y", 70) @ turn("x", 8)
    np.testing.assert_allclose(rotation_errors(about_x, TURNS, np.ones(20, bool)), 8, atol=1e-6)
    mixed = rotation_errors(about_y, TURNS, np.arange(20) < 10)
    np.testing.assert_allclose(mixed[:10], 0, atol=1e-6)
    np.testing.assert_allclose(mixed[10:], 70, atol=1e-6)


def test_a_can_upside_down_is_right_only_if_flips_are_tolerated():
    upside_down = TURNS @ turn("x", 180)
    np.testing.assert_allclose(rotation_errors(upside_down, TURNS, np.ones(20, bool)), 180, atol=1e-5)
    np.testing.assert_allclose(flip_tolerant_errors(upside_down, TURNS), 0, atol=1e-5)
    np.testing.assert_allclose(flip_tolerant_errors(TURNS @ turn("x", 30), TURNS), 30, atol=1e-5)


def test_errors_agree_with_the_trace_formula():
    other = Rotation.from_rotvec(RNG.normal(size=(20, 3))).as_matrix()
    trace = np.einsum("nij,nij->n", other, TURNS)
    wanted = np.degrees(np.arccos((trace - 1) / 2))
    np.testing.assert_allclose(rotation_errors(other, TURNS), wanted, atol=1e-6)


def test_translations_are_measured_in_centimetres():
    assert translation_errors(np.array([[0.03, 0.0, 0.04]]), np.zeros((1, 3)))[0] == pytest.approx(5.0)


def test_thresholds_are_strict_and_joint():
    degrees, centimetres = np.array([4.9, 5.0, 4.9, 30.0]), np.array([1.9, 1.9, 2.0, 0.1])
    assert within(degrees, centimetres, "5deg2cm").tolist() == [True, False, False, False]
    assert within(degrees, centimetres, "5deg").tolist() == [True, False, True, False]
    assert within(degrees, centimetres, "2cm").tolist() == [True, True, False, True]


# ---- overlap ---------------------------------------------------------------------------------------------------------


def test_a_box_overlaps_itself_whole_and_its_neighbour_not_at_all():
    box = (TURNS, PLACES, SIZES)
    np.testing.assert_allclose(box_overlap(box, box), 1, atol=1e-9)
    np.testing.assert_allclose(box_overlap(box, box, how="script"), 1, atol=1e-9)
    for share, wanted in ((1.0, 0.0), (0.5, 1 / 3), (0.25, 0.6)):
        moved = PLACES + np.einsum("nij,nj->ni", TURNS, SIZES * [share, 0, 0])
        np.testing.assert_allclose(box_overlap((TURNS, moved, SIZES), box), wanted, atol=1e-7)


def test_rotations_of_single_precision_are_exact_enough():
    box = tuple(part.astype(np.float32) for part in (TURNS, PLACES, SIZES))
    np.testing.assert_allclose(box_overlap(box, box), 1, atol=1e-5)
    round_ones = np.ones(20, bool)
    np.testing.assert_allclose(box_overlap(box, box, round_ones), 1, atol=1e-5)


def test_a_box_in_a_box_overlaps_by_the_share_of_volumes():
    box = (TURNS, PLACES, SIZES)
    np.testing.assert_allclose(box_overlap((TURNS, PLACES, SIZES * 0.5), box), 1 / 8, atol=1e-9)


def test_overlap_agrees_with_counting_random_points():
    turned = TURNS @ turn("x", 35) @ turn("z", 20)
    found, true = (turned[:6], PLACES[:6] + 0.04, SIZES[:6]), (TURNS[:6], PLACES[:6], SIZES[:6])
    values = box_overlap(found, true)
    for row, value in enumerate(values):
        points = (RNG.random((100_000, 3)) - 0.5) * SIZES[row]
        world = points @ turned[row].T + found[1][row]
        inside = (np.abs((world - PLACES[row]) @ TURNS[row]) <= SIZES[row] / 2).all(1).mean()
        assert value == pytest.approx(inside / (2 - inside), abs=0.01)


def test_symmetric_boxes_take_the_best_turn():
    turned = (TURNS @ turn("y", 54), PLACES, SIZES)
    true = (TURNS, PLACES, SIZES)
    assert (box_overlap(turned, true) < 0.99).any()
    # 54 degrees are three of the twenty turns.
    np.testing.assert_allclose(box_overlap(turned, true, np.ones(20, bool)), 1, atol=1e-7)


def test_the_script_takes_each_corners_extremes():
    # A unit cube at (3, 0, 0): by corner, the smallest coordinates are those of y and z, the largest that of x.
    corners = box_corners(np.eye(3)[None], np.array([[3.0, 0, 0]]), np.ones((1, 3)))[0]
    lows, highs = corners.min(1), corners.max(1)
    other = box_corners(np.eye(3)[None], np.array([[3.2, 0, 0]]), np.ones((1, 3)))[0]
    edges = np.minimum(highs, other.max(1)) - np.maximum(lows, other.min(1))
    common = np.prod(edges)
    wanted = common / (np.prod(highs - lows) + np.prod(other.max(1) - other.min(1)) - common)
    box = (np.eye(3)[None], np.array([[3.0, 0, 0]]), np.ones((1, 3)))
    moved = (np.eye(3)[None], np.array([[3.2, 0, 0]]), np.ones((1, 3)))
    assert box_overlap(moved, box, how="script")[0] == pytest.approx(wanted)


def test_edges_join_corners_that_differ_in_one_coordinate():
    corners = box_corners(np.eye(3)[None], np.zeros((1, 3)), np.array([[1.0, 2.0, 3.0]]))[0]
    lengths = sorted(round(float(np.linalg.norm(corners[a] - corners[b])), 6) for a, b in BOX_EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


# ---- average precision and the whole table ---------------------------------------------------------------------------


def slow_average_precision(right: list[bool], confidence: list[float], truths: int) -> float:
    """As the benchmark's script writes it: precision, recall, envelope, area."""
    order = sorted(range(len(right)), key=lambda i: -confidence[i])
    precision, recall, good = [0.0], [0.0], 0
    for count, place in enumerate(order, start=1):
        good += right[place]
        precision.append(good / count)
        recall.append(good / truths)
    precision.append(0.0)
    recall.append(1.0)
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def test_average_precision_equals_its_slow_twin():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        right, sure = rng.random(15) < 0.5, rng.random(15)
        truths = int(right.sum()) + seed % 4 or 1
        wanted = slow_average_precision(right.tolist(), sure.tolist(), truths)
        assert average_precision_of_poses(right, sure, truths) == pytest.approx(wanted, abs=1e-12)


def test_average_precision_at_its_ends():
    assert average_precision_of_poses([True, True], [0.1, 0.2], 2) == 1.0
    assert average_precision_of_poses([False, False], [0.1, 0.2], 2) == 0.0
    # Confidence that ranks the right half first is worth twice as much as none.
    assert average_precision_of_poses([True, False], [0.9, 0.1], 2) == 0.5


def test_metrics_are_means_over_categories():
    errors = {
        "degrees": np.array([1.0, 1.0, 1.0, 90.0]),
        "centimetres": np.ones(4),
        "iou": np.array([0.8, 0.6, 0.3, 0.1]),
    }
    found = pose_metrics(errors, ["can", "can", "can", "mug"], np.ones(4))
    assert found["5deg2cm"] == pytest.approx(0.5)
    assert found["iou50"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["ap 5deg2cm"] == pytest.approx(0.5)
    assert found["rotation error"] == pytest.approx((1 + 90) / 2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: rotation_errors(TURNS, TURNS[:3]), "both sides"),
        (lambda: rotation_errors(TURNS[:, :2], TURNS[:, :2]), r"\(n, 3, 3\)"),
        (lambda: translation_errors(PLACES, PLACES[:, :2]), "translations"),
        (lambda: within(np.ones(2), np.ones(2), "1deg"), "known: 5deg2cm"),
        (lambda: box_overlap((TURNS, PLACES, SIZES), (TURNS, PLACES, SIZES), how="boxy"), "known: oriented"),  # type: ignore[arg-type]
        (lambda: average_precision_of_poses([True, True], [1.0, 1.0], 1), "2 right answers for 1"),
        (lambda: average_precision_of_poses([True], [1.0, 1.0], 2), "one length"),
        (lambda: pose_metrics({"degrees": np.ones(2), "centimetres": np.ones(2)}, []), "one length"),
    ],
)
def test_wrong_input_is_named(action, message):
    with pytest.raises(ValueError, match=message):
        action()
