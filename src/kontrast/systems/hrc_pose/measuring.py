"""Measuring: the benchmark's thresholds and overlaps, and how far features are ordered like poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from kontrast.data.clouds import HIDDEN, CloudSet, Poses
from kontrast.errors import DataError
from kontrast.evaluation.poses import (
    box_overlap,
    flip_tolerant_errors,
    pose_metrics,
    rotation_errors,
    translation_errors,
    within,
)
from kontrast.systems.hrc_pose.estimating import Estimates
from kontrast.systems.hrc_pose.model import label_distances, rank_labels
from kontrast.systems.hrc_pose.views import handles

Floats = npt.NDArray[np.float64]
PRIMARY = "10deg5cm"
TABLE = ("5deg2cm", "5deg5cm", "10deg2cm", "10deg5cm")


def check_poses(data: CloudSet) -> Poses:
    """The true poses.

    Raises:
        DataError: if there are none.
    """
    if data.poses is None:
        what = "has no poses to learn from or to compare with"
        raise DataError(what, file=data.path, mend="add R, t and size")
    return data.poses


def axis_only(data: CloudSet, symmetric: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n,) objects of which only the y axis counts: those symmetric about it, and mugs that the data mark as seen
    without their handle. Where the data mark nothing, a mug counts with its full rotation, as in the benchmark."""
    round_ones = np.asarray([name in symmetric for name in data.categories])
    return round_ones if data.handle is None else round_ones | (data.handle == HIDDEN)


def pose_errors(found: Poses, true: Poses, symmetric: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """Errors by name: "degrees" and "centimetres", (n,)."""
    return {
        "degrees": rotation_errors(found.rotation, true.rotation, symmetric),
        "centimetres": translation_errors(found.translation, true.translation),
    }


def all_metrics(
    found: Poses, data: CloudSet, symmetric: Sequence[str], confidence: npt.NDArray[np.float64] | None = None
) -> dict[str, float]:
    """Metrics of poses, means over categories; see `kontrast.evaluation.poses.pose_metrics` for most names.

    Further ones: "iou50 script" and so on, by the benchmark's own script; "10deg5cm mug" and so on, of a category;
    "10deg5cm can, either end up", whose y axis counts without its sign; "10deg5cm, hidden handles free", where a mug
    whose handle no point lies on counts by its y axis.
    """
    true, one = check_poses(data), axis_only(data, symmetric)
    errors = pose_errors(found, true, one)
    boxes = [(poses.rotation, poses.translation, poses.size) for poses in (found, true)]
    errors["iou"] = box_overlap(boxes[0], boxes[1], one)
    metrics = pose_metrics(errors, data.categories, confidence)
    script = box_overlap(boxes[0], boxes[1], one, how="script")
    names = np.asarray(data.categories)
    kinds = sorted(set(data.categories))
    for percent in (50, 75):
        shares = [(script[names == kind] > percent / 100).mean() for kind in kinds]
        metrics[f"iou{percent} script"] = float(np.mean(shares))
    for kind in kinds:
        rows = names == kind
        for name in TABLE:
            metrics[f"{name} {kind}"] = float(within(errors["degrees"][rows], errors["centimetres"][rows], name).mean())
        metrics[f"rotation error {kind}"] = float(np.median(errors["degrees"][rows]))
        metrics[f"translation error {kind}"] = float(np.median(errors["centimetres"][rows]))
    if "can" in kinds:
        rows = names == "can"
        either = flip_tolerant_errors(found.rotation[rows], true.rotation[rows])
        for name in TABLE:
            metrics[f"{name} can, either end up"] = float(within(either, errors["centimetres"][rows], name).mean())
    if "mug" in kinds:
        free = one | (handles(data) == HIDDEN)
        eased = pose_errors(found, true, free)
        for name in TABLE:
            good = within(eased["degrees"], eased["centimetres"], name)
            metrics[f"{name}, hidden handles free"] = float(np.mean([good[names == kind].mean() for kind in kinds]))
    return metrics


def hits(found: Poses, data: CloudSet, symmetric: Sequence[str]) -> Floats:
    """(n,) whether the primary metric counts a row, weighted so that the mean over rows is the mean over categories."""
    errors = pose_errors(found, check_poses(data), axis_only(data, symmetric))
    return within(errors["degrees"], errors["centimetres"], PRIMARY) * category_weights(data.categories)


def category_weights(categories: Sequence[str]) -> Floats:
    """(n,) weights of mean 1 that give each category the same sum."""
    names, place, counts = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    return np.asarray(len(categories) / (len(names) * counts[place]), np.float64)


def chance_of_pairs(found: Poses, data: CloudSet, symmetric: Sequence[str]) -> float:
    """What the primary metric is on the mean if each answer is held against the truth of another view of its category.

    Rotations and the places relative to the visible points are dealt out, see `dealt`.
    """
    true, one = check_poses(data), axis_only(data, symmetric)
    middle = data.points.mean(1)
    names = np.asarray(data.categories)
    means = []
    for kind in sorted(set(data.categories)):
        rows = np.flatnonzero(names == kind)
        first, second = (index.ravel() for index in np.meshgrid(rows, rows, indexing="ij"))
        if len(rows) > 1:
            first, second = first[first != second], second[first != second]
        degrees = rotation_errors(found.rotation[first], true.rotation[second], one[second])
        answer = found.translation[first] - middle[first]
        shift = translation_errors(answer, true.translation[second] - middle[second])
        means.append(within(degrees, shift, PRIMARY).mean())
    return float(np.mean(means))


def dealt(data: CloudSet, order: npt.NDArray[np.int64]) -> Poses:
    """True poses dealt out anew: row i gets those of row ``order[i]``, moved to its own points."""
    true = check_poses(data).take(order)
    middle = data.points.mean(1)
    return Poses(true.rotation, true.translation - middle[order] + middle, true.size)


def order_correlations(estimates: Estimates, data: CloudSet, symmetric: Sequence[str]) -> dict[str, float]:
    """Spearman's correlation of distances between features and between poses, over pairs of views of one category,
    averaged over categories: "rotation spearman", "translation spearman" of the encoders' features, and the same with
    " space" of what is ranked."""
    true = check_poses(data)
    place = true.translation - data.points.mean(1)
    turns = ~(axis_only(data, symmetric) | (handles(data) == HIDDEN))
    labels = rank_labels(*(torch.from_numpy(value) for value in (true.rotation, place, turns))).double()
    spaces = {
        "rotation spearman": (0, estimates.rotation_features),
        "translation spearman": (1, estimates.translation_features),
        "rotation spearman space": (0, estimates.rotation_space),
        "translation spearman space": (1, estimates.translation_space),
    }
    names = np.asarray(data.categories)
    found: dict[str, list[float]] = {}
    for kind in sorted(set(data.categories)):
        rows = np.flatnonzero(names == kind)
        if len(rows) < 4:
            continue
        upper = np.triu_indices(len(rows), 1)
        mine = labels[torch.from_numpy(rows)]
        apart = [matrix.numpy()[upper] for matrix in label_distances(mine, mine, which=(0, 1))]
        for name, (label, features) in spaces.items():
            own = torch.from_numpy(features[rows]).double()
            value = spearmanr(torch.cdist(own, own).numpy()[upper], apart[label]).statistic
            found.setdefault(name, []).append(float(np.nan_to_num(value)))
    return {name: float(np.mean(values)) for name, values in found.items()}
