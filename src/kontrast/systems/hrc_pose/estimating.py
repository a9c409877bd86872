"""Estimating: from views to poses, and the features behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from kontrast.data.clouds import CloudSet, Poses
from kontrast.systems.hrc_pose.model import HrcPoseModel
from kontrast.systems.hrc_pose.rotations import compose

Floats = npt.NDArray[np.float32]
_BATCH = 64


@dataclass(frozen=True)
class Estimates:
    """What the model says of n views.

    Attributes:
        poses: in the camera's frame.
        trust: (n, 2) confidence in the y and in the x axis, in [0, 1].
        rotation_features: (n, d) of the encoder for rotation.
        translation_features: (n, e) of the encoder for translation and size.
        rotation_space: (n, d) what is ranked by rotation.
        translation_space: (n, e) what is ranked by translation.
    """

    poses: Poses
    trust: Floats
    rotation_features: Floats
    translation_features: Floats
    rotation_space: Floats
    translation_space: Floats

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """(n,) that ranks answers: the confidence in the y axis."""
        return self.trust[:, 0].astype(np.float64)


@torch.no_grad()
def estimate(
    model: HrcPoseModel, data: CloudSet, categories: Sequence[str], symmetric: Sequence[str], points: int, draws: int
) -> Estimates:
    """Poses of views, averaged over several choices of each view's points.

    A view is answered by itself: choices are the first points of the view, the next ones, and so on.
    """
    numbers = {name: number for number, name in enumerate(categories)}
    category = torch.tensor([numbers[name] for name in data.categories], dtype=torch.int64)
    device = model.mean_size.device
    count = max(1, min(draws, data.points.shape[1] // points))
    views = max(1, _BATCH // count)
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(data), views):
        rows = slice(start, start + views)
        # The choices of a view stand beside one another in the batch.
        seen = torch.from_numpy(data.points[rows, : count * points]).reshape(-1, points, 3)
        middle = seen.mean(1)
        batch = {"points": seen - middle[:, None], "category": category[rows].repeat_interleave(count)}
        encoded = dict(model.encode({name: value.to(device) for name, value in batch.items()}))
        encoded["place"] = encoded["place"] + middle.to(device)
        for name, value in encoded.items():
            found.setdefault(name, []).append(value.cpu().reshape(-1, count, value.shape[1]).mean(1))
    mean = {name: torch.cat(parts) for name, parts in found.items()}
    green, red = (F.normalize(mean[name], dim=1) for name in ("green", "red"))
    trust = torch.sigmoid(mean["trust"])
    turned = torch.tensor([name not in symmetric for name in data.categories], dtype=trust.dtype)
    trust = trust * torch.stack([torch.ones_like(turned), turned], 1)
    poses = Poses(compose(green, red, trust).numpy(), mean["place"].numpy(), mean["size"].clamp(min=1e-3).numpy())
    return Estimates(
        poses,
        trust.numpy(),
        mean["whole_rotation"].numpy(),
        mean["whole_translation"].numpy(),
        mean["space_rotation"].numpy(),
        mean["space_translation"].numpy(),
    )
