"""Poses of boxes: rotation, translation and size of rigid objects, measured as the benchmark NOCS measures them.

NOCS (Wang et al., CVPR 2019) counts a pose as right if its rotation is off by less than so many degrees and its
translation by less than so many centimetres, and a box if its overlap with the true one is above a threshold; both are
averaged per category, then over categories. Bottles, bowls and cans look the same from all sides: of their rotation the
y axis alone counts, and their overlap is the best over turns of the predicted box about y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

Floats = npt.NDArray[np.float64]
Array = npt.ArrayLike
Box = tuple[Floats, Floats, Floats]
Overlap = Literal["oriented", "script"]

THRESHOLDS: dict[str, tuple[float | None, float | None]] = {
    "5deg2cm": (5, 2),
    "5deg5cm": (5, 5),
    "10deg2cm": (10, 2),
    "10deg5cm": (10, 5),
    "5deg": (5, None),
    "10deg": (10, None),
    "2cm": (None, 2),
    "5cm": (None, 5),
}
"""Name to largest rotation error in degrees and largest translation error in centimetres."""

TURNS = 20
"""Turns about y that are tried for boxes of symmetric objects, as in the benchmark's script."""

_SLACK = 1e-7
"""How far outside a box, in its longest edge, a point still counts as on its face."""

# Corners of the unit cube around 0, in the order that the box's edges below are written for.
_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
BOX_EDGES = ((0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7), (6, 7))
"""Pairs of corners of `box_corners` that an edge joins."""


def rotation_errors(found: Array, true: Array, symmetric: Array | None = None) -> Floats:
    """(n,) angles between rotations, in degrees: arccos((tr(R1 R2') - 1) / 2).

    Args:
        found: (n, 3, 3).
        true: (n, 3, 3).
        symmetric: (n,) objects of which the y axis alone counts; none if None.

    Raises:
        ValueError: for shapes that do not agree.
    """
    a, b = _pair(found, true, (3, 3), "rotations")
    # By the sine of half the angle: the cosine of a small angle has lost it in rounding.
    half = np.sqrt(np.square(a - b).sum((1, 2)) / 8).clip(0, 1)
    errors = 2 * np.arcsin(half)
    if symmetric is not None:
        # Columns are images of axes; the chord of two unit vectors gives their angle.
        chord = np.linalg.norm(a[:, :, 1] - b[:, :, 1], axis=1)
        errors = np.where(np.asarray(symmetric, bool), 2 * np.arcsin((chord / 2).clip(0, 1)), errors)
    return np.asarray(np.degrees(errors))


def flip_tolerant_errors(found: Array, true: Array) -> Floats:
    """(n,) angles in degrees between y axes without their sign: for cans, whose ends look alike."""
    a, b = _pair(found, true, (3, 3), "rotations")
    up = np.linalg.norm(a[:, :, 1] - b[:, :, 1], axis=1)
    down = np.linalg.norm(a[:, :, 1] + b[:, :, 1], axis=1)
    return np.asarray(np.degrees(2 * np.arcsin((np.minimum(up, down) / 2).clip(0, 1))))


def translation_errors(found: Array, true: Array) -> Floats:
    """(n,) distances in centimetres between translations (n, 3) in metres."""
    a, b = _pair(found, true, (3,), "translations")
    return np.asarray(100 * np.linalg.norm(a - b, axis=1))


def within(degrees: Array, centimetres: Array, name: str) -> npt.NDArray[np.bool_]:
    """(n,) whether errors are below a threshold of `THRESHOLDS`, such as "5deg2cm".

    Raises:
        ValueError: for an unknown name.
    """
    if name not in THRESHOLDS:
        raise ValueError(f"unknown threshold '{name}'; known: {', '.join(THRESHOLDS)}")
    most_degrees, most_centimetres = THRESHOLDS[name]
    turn, shift = np.asarray(degrees, np.float64), np.asarray(centimetres, np.float64)
    good = np.ones(turn.shape, bool)
    if most_degrees is not None:
        good &= turn < most_degrees
    if most_centimetres is not None:
        good &= shift < most_centimetres
    return good


def box_corners(rotation: Array, translation: Array, size: Array) -> Floats:
    """(n, 8, 3) corners of boxes; `BOX_EDGES` says which of them an edge joins."""
    turn, place, edges = (np.asarray(value, np.float64) for value in (rotation, translation, size))
    corners = _CORNERS[None] * edges[:, None]
    return np.asarray(np.einsum("nij,npj->npi", turn, corners) + place[:, None])


def box_overlap(
    found: tuple[Array, Array, Array],
    true: tuple[Array, Array, Array],
    symmetric: Array | None = None,
    *,
    how: Overlap = "oriented",
    turns: int = TURNS,
) -> Floats:
    """(n,) intersection over union of boxes.

    "oriented" is the volume of the true intersection of the two boxes. "script" is what the benchmark's evaluation
    script computes: it takes maxima and minima of the corners' coordinates over the wrong axis of its array, so that
    each corner's largest and smallest coordinate stand for the box. Published IoU numbers are mostly of this kind; it
    depends on where the box is, and is no overlap of volumes.

    Args:
        found: rotation (n, 3, 3), translation (n, 3), size (n, 3).
        true: the same of the true boxes.
        symmetric: (n,) objects for which the best over `turns` turns of the found box about its y axis counts.
        how: see above.
        turns: how many.

    Raises:
        ValueError: for shapes that do not agree, or an unknown `how`.
    """
    if how not in ("oriented", "script"):
        raise ValueError(f"unknown overlap '{how}'; known: oriented, script")
    n = len(np.asarray(found[0]))
    for part, shape, name in zip(range(3), ((3, 3), (3,), (3,)), ("rotations", "translations", "sizes")):
        _pair(found[part], true[part], shape, name)
    round_ones = np.zeros(n, bool) if symmetric is None else np.asarray(symmetric, bool)
    angles = 2 * np.pi * np.arange(turns) / turns
    about_y = Rotation.from_euler("y", angles[:, None]).as_matrix()
    values = np.zeros(n)
    sides = [
        (_orthonormal(turn), np.asarray(at, np.float64), np.asarray(by, np.float64)) for turn, at, by in (found, true)
    ]
    for row in range(n):
        (r1, t1, s1), (r2, t2, s2) = (tuple(part[row] for part in side) for side in sides)
        # Boxes whose balls do not touch have nothing in common.
        if how == "oriented" and np.linalg.norm(t1 - t2) >= (np.linalg.norm(s1) + np.linalg.norm(s2)) / 2:
            continue
        tried = [r1 @ turn for turn in about_y] if round_ones[row] else [r1]
        measure = _oriented if how == "oriented" else _as_the_script
        values[row] = max(measure((turned, t1, s1), (r2, t2, s2)) for turned in tried)
    return values


def average_precision_of_poses(right: Array, confidence: Array, truths: int) -> float:
    """Average precision as the benchmark's script computes it, in [0, 1].

    Answers are ranked by confidence (ties: in the order given); precision is made non-increasing from the right, and
    the area under it over recall is summed.

    Args:
        right: (n,) whether an answer is within the threshold of its own truth; each truth has at most one answer.
        confidence: (n,) higher is surer.
        truths: how many objects there are, answered or not.

    Raises:
        ValueError: for shapes that do not agree, or fewer truths than right answers.
    """
    hits, sure = np.asarray(right, bool), np.asarray(confidence, np.float64)
    if hits.shape != sure.shape or hits.ndim != 1:
        raise ValueError(f"'right' and 'confidence' must be of one length, got {hits.shape} and {sure.shape}")
    if truths < int(hits.sum()) or truths < 1:
        raise ValueError(f"there are {int(hits.sum())} right answers for {truths} truths")
    ordered = hits[np.argsort(-sure, kind="stable")]
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall rises by 1/truths at each right answer.
    return float(envelope[ordered].sum() / truths)


def pose_metrics(
    errors: Mapping[str, Floats],
    categories: Sequence[str],
    confidence: Array | None = None,
) -> dict[str, float]:
    """Means over categories of what share of poses is within each threshold, and medians of the errors.

    Args:
        errors: "degrees" (n,), "centimetres" (n,), and if there are any "iou" (n,).
        categories: (n,) names.
        confidence: (n,) if given, "ap 5deg2cm" and so on: average precision instead of shares.

    Returns:
        "5deg2cm" ..., "iou25", "iou50", "iou75" where there are overlaps, "rotation error" (degrees) and
        "translation error" (cm), medians averaged over categories.

    Raises:
        ValueError: for no rows, or lengths that do not agree.
    """
    names = np.asarray(categories)
    degrees, centimetres = errors["degrees"], errors["centimetres"]
    if not len(names) or any(len(value) != len(names) for value in errors.values()):
        raise ValueError(f"errors and categories must be of one length above 0, got {len(names)} categories")
    kinds = [names == one for one in sorted(set(names.tolist()))]

    def mean(value: Any) -> float:
        return float(np.mean([value(kind) for kind in kinds]))

    found: dict[str, float] = {}
    sure = np.asarray(0.0 if confidence is None else confidence, np.float64)
    for name in THRESHOLDS:
        good = within(degrees, centimetres, name)
        found[name] = mean(lambda kind, good=good: good[kind].mean())
        if confidence is not None:
            found[f"ap {name}"] = mean(
                lambda kind, good=good: average_precision_of_poses(good[kind], sure[kind], int(kind.sum()))
            )
    if "iou" in errors:
        for percent in (25, 50, 75):
            found[f"iou{percent}"] = mean(lambda kind, percent=percent: (errors["iou"][kind] > percent / 100).mean())
    found["rotation error"] = mean(lambda kind: np.median(degrees[kind]))
    found["translation error"] = mean(lambda kind: np.median(centimetres[kind]))
    return found


def _pair(a: Array, b: Array, shape: tuple[int, ...], what: str) -> tuple[Floats, Floats]:
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if one.shape != other.shape or one.ndim != 1 + len(shape) or one.shape[1:] != shape:
        wanted = ", ".join(map(str, ("n", *shape)))
        raise ValueError(f"{what} must be ({wanted}) on both sides, got {one.shape} and {other.shape}")
    return one, other


def _orthonormal(rotation: Array) -> Floats:
    """The nearest exact rotations: float32 ones are off by more than corners may be moved."""
    left, _, right = np.linalg.svd(np.asarray(rotation, np.float64))
    return np.asarray(left @ right)


def _oriented(one: Box, other: Box) -> float:
    """Volume of the intersection over that of the union.

    The corners of the intersection are those corners of either box that lie in the other one, and the points where
    edges of the one pass through faces of the other.
    """
    volumes = [float(np.prod(box[2])) for box in (one, other)]
    corners = np.concatenate([_corners_within(one, other), _corners_within(other, one)])
    if len(corners) < 4:
        return 0.0
    try:
        common = min(float(ConvexHull(corners).volume), *volumes)
    except QhullError:
        # So thin that there is no volume to speak of.
        return 0.0
    return common / (volumes[0] + volumes[1] - common)


def _corners_within(one: Box, other: Box) -> Floats:
    """(k, 3) corners of `one` inside `other`, and points where edges of `one` pass through faces of `other`, in the
    frame of `other`'s parent."""
    rotation, translation, size = other
    corners = ((_CORNERS * one[2]) @ one[0].T + one[1] - translation) @ rotation
    half = size / 2
    slack = _SLACK * float(size.max())
    starts, ends = (corners[[edge[side] for edge in BOX_EDGES]] for side in (0, 1))
    along = ends - starts
    # Where the line of an edge meets the two planes of each axis: (edges, axes, sides).
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.stack([-half, half], 1)[None] - starts[:, :, None]) / along[:, :, None]
    hit = np.isfinite(share) & (share >= 0) & (share <= 1)
    edge, _, _ = np.nonzero(hit)
    crossings = starts[edge] + share[hit][:, None] * along[edge]
    points = np.concatenate([corners, crossings])
    inside = (np.abs(points) <= half + slack).all(1)
    return np.asarray(points[inside] @ rotation.T + translation)


def _as_the_script(one: Box, other: Box) -> float:
    lows, highs = [], []
    for rotation, translation, size in (one, other):
        corners = (_CORNERS * size) @ rotation.T + translation
        # Over the coordinates of each corner, as published; over the corners would be meant.
        lows.append(corners.min(1))
        highs.append(corners.max(1))
    edges = np.minimum(*highs) - np.maximum(*lows)
    common = 0.0 if edges.min() < 0 else float(np.prod(edges))
    volumes = [float(np.prod(high - low)) for low, high in zip(lows, highs)]
    return common / (volumes[0] + volumes[1] - common)
