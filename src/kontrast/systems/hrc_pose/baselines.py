"""What a reader would try first: the mean pose, and a small network on an occupancy grid (scikit-learn)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from kontrast.data.clouds import CloudSet, Poses
from kontrast.systems.hrc_pose.measuring import all_metrics, check_poses
from kontrast.systems.hrc_pose.rotations import compose

Floats = npt.NDArray[np.float32]
_CELLS = 10
_PASSES = 30
_HIDDEN_LAYERS = (256, 128)


def simple_baselines(
    train: CloudSet, test: CloudSet, symmetric: Sequence[str], seed: int
) -> dict[str, dict[str, float]]:
    """Metrics of both baselines, learned from the placed views of the training part alone."""
    return {
        "mean pose": all_metrics(mean_pose(train, test), test, symmetric),
        "mlp on occupancy": all_metrics(occupancy_network(train, test, seed), test, symmetric),
    }


def mean_pose(train: CloudSet, test: CloudSet) -> Poses:
    """The mean axes, size and offset from the visible points' centroid of each category."""
    truth, offset = check_poses(train), check_poses(train).translation - train.points.mean(1)
    names = np.asarray(train.categories)
    by_category = {}
    for name in sorted(set(train.categories)):
        rows = names == name
        axes = truth.rotation[rows].mean(0)
        by_category[name] = np.concatenate([axes[:, 1], axes[:, 0], offset[rows].mean(0), truth.size[rows].mean(0)])
    return _poses(np.stack([by_category[name] for name in test.categories]), test)


def occupancy_network(train: CloudSet, test: CloudSet, seed: int) -> Poses:
    """Two hidden layers from a 10 x 10 x 10 grid over the cloud's box, its extents and the category."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import StandardScaler

    truth = check_poses(train)
    targets = np.concatenate(
        [truth.rotation[:, :, 1], truth.rotation[:, :, 0], truth.translation - train.points.mean(1), truth.size], 1
    )
    categories = sorted(set(train.categories))
    inputs, scale = StandardScaler().fit(_grid(train, categories)), StandardScaler().fit(targets)
    # A few passes: on other objects it becomes worse with more, whatever its own training views say.
    network = MLPRegressor(hidden_layer_sizes=_HIDDEN_LAYERS, alpha=1e-3, max_iter=_PASSES, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(inputs.transform(_grid(train, categories)), scale.transform(targets))
    answers = scale.inverse_transform(network.predict(inputs.transform(_grid(test, categories))))
    return _poses(answers, test)


def _grid(data: CloudSet, categories: Sequence[str]) -> Floats:
    """(n, 1000 + 3 + categories) shares of points by cell, extents in metres and the category."""
    low, high = data.points.min(1, keepdims=True), data.points.max(1, keepdims=True)
    edge = np.maximum((high - low).max(2, keepdims=True), 1e-6)
    # A cube around the cloud's centre keeps proportions.
    cells = ((data.points - (low + high) / 2) / edge + 0.5) * _CELLS
    index = np.clip(cells.astype(np.int64), 0, _CELLS - 1)
    flat = (index[..., 0] * _CELLS + index[..., 1]) * _CELLS + index[..., 2]
    n, points = flat.shape
    counts = np.bincount((np.arange(n)[:, None] * _CELLS**3 + flat).ravel(), minlength=n * _CELLS**3)
    known = np.asarray([[name == other for other in categories] for name in data.categories], np.float32)
    shares = counts.reshape(n, -1) / points
    return np.concatenate([shares, (high - low)[:, 0], known], 1).astype(np.float32)


def _poses(answers: npt.NDArray[np.floating], test: CloudSet) -> Poses:
    """Poses from rows of g, r, offset and size."""
    numbers = torch.from_numpy(np.ascontiguousarray(answers, np.float32))
    green, red = F.normalize(numbers[:, :3], dim=1), F.normalize(numbers[:, 3:6], dim=1)
    trust = torch.tensor([[1.0, 0.0]]).expand(len(numbers), 2)
    place = numbers[:, 6:9].numpy() + test.points.mean(1)
    return Poses(compose(green, red, trust).numpy(), place, np.maximum(numbers[:, 9:].numpy(), 1e-3))
