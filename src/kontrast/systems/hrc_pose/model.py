"""Model: two encoders, two spaces ranked by pose, and heads that read the pose off."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.encoders.clouds import CloudFeatures, GraphEncoder, PointNet, PointNorm
from kontrast.losses import ranked_sets_contrast
from kontrast.systems.hrc_pose.config import HrcPoseConfig
from kontrast.training import Progress, TrainableModel

UNIT = 0.1
"""Metres that count as 1 inside the networks."""

# Weights of the pose losses, as in the released code.
POSE_WEIGHTS = {
    "green": 8.0, "green_cos": 8.0, "red": 8.0, "red_cos": 8.0, "right_angle": 4.0,
    "place": 8.0, "size": 8.0, "trust": 1.0, "points": 1.0,
}  # fmt: skip
_SHARPNESS = 13.7


class Projection(nn.Module):
    """Features to the space that is ranked; nothing scales them to length 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        projected: Tensor = self.layers(features)
        return projected


class Head(nn.Module):
    """Features to a few numbers, from the whole cloud or from its points.

    Args:
        inputs: width of the features with whatever is appended.
        outputs: how many numbers.
        width: of the first layers.
        on: "whole" or "points".
        dropout: before the last layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int, on: str, dropout: float) -> None:
        super().__init__()
        norm = PointNorm if on == "points" else nn.BatchNorm1d
        self.first = nn.Sequential(
            nn.Linear(inputs, width), norm(width), nn.ReLU(), nn.Linear(width, width), norm(width), nn.ReLU()
        )
        half, quarter = max(8, width // 2), max(8, width // 4)
        self.last = nn.Sequential(
            nn.Linear(width, half), nn.BatchNorm1d(half), nn.ReLU(),
            nn.Linear(half, quarter), nn.BatchNorm1d(quarter), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(quarter, outputs),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) or (n, points, inputs) to (n, outputs)."""
        found = self.first(features)
        answer: Tensor = self.last(found.max(1).values if found.ndim == 3 else found)
        return answer


class HrcPoseModel(TrainableModel):
    """Both encoders, both projections and the three heads.

    Args:
        facts: "categories" and their "mean_size" (metres).
        config: sizes, losses.
    """

    mean_size: Tensor

    def __init__(self, facts: Mapping[str, Any], config: HrcPoseConfig) -> None:
        super().__init__()
        self.config = config
        categories = len(facts["categories"])
        self.rotation = _encoder(config)
        self.translation = None if config.shared else _encoder(config)
        self.project_rotation = Projection(self.rotation.dim)
        self.project_translation = Projection(self.rotation.total + 6)
        on, width, dropout = config.heads.on, config.heads.width, config.heads.dropout
        inputs = self.rotation.total + categories + (3 if on == "points" else 6)
        self.green = Head(inputs, 4, width, on, dropout)
        self.red = Head(inputs, 4, width, on, dropout)
        self.place = Head(inputs, 6, width, on, dropout)
        self.register_buffer("mean_size", torch.tensor(facts["mean_size"], dtype=torch.float32))

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Spaces and predictions of centred clouds ``points`` (n, p, 3) of ``category`` (n,).

        Returns:
            ``space_rotation``, ``space_translation``: what is ranked; ``whole_rotation``, ``whole_translation``: the
            features before the projections; ``green``, ``red`` (n, 3) of length 1; ``trust`` (n, 2) logits; ``place``
            (n, 3) centre of the box less the centroid of the points, and ``size`` (n, 3), metres.
        """
        points, category = batch["points"], batch["category"]
        # Both encoders look at the same neighbours.
        around = (self.rotation.around(points),) if isinstance(self.rotation, GraphEncoder) else ()
        turned = self.rotation(points, *around)
        moved = turned if self.translation is None else self.translation(points, *around)
        extent = torch.cat([points.amax(1), points.amin(1)], 1) / UNIT
        known = F.one_hot(category, len(self.mean_size)).to(points.dtype)
        pooled = torch.cat([moved.pooled(), extent], 1)
        seen = [self._seen(features, points, extent, known) for features in (turned, moved)]
        green, red, place = self.green(seen[0]), self.red(seen[0]), self.place(seen[1])
        return {
            "whole_rotation": turned.whole,
            "whole_translation": pooled,
            "space_rotation": self.project_rotation(turned.whole),
            "space_translation": self.project_translation(pooled),
            "green": F.normalize(green[:, 1:], dim=1),
            "red": F.normalize(red[:, 1:], dim=1),
            "trust": torch.stack([green[:, 0], red[:, 0]], 1),
            "place": place[:, :3] * UNIT,
            "size": place[:, 3:] * UNIT + self.mean_size[category],
        }

    def _seen(self, features: CloudFeatures, points: Tensor, extent: Tensor, known: Tensor) -> Tensor:
        """What a head reads: features, coordinates and the category."""
        if self.config.heads.on == "whole":
            return torch.cat([features.pooled(), extent, known], 1)
        every = known[:, None].expand(-1, points.shape[1], -1)
        return torch.cat([features.per_point(), points / UNIT, every], 2)

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """The terms of the pose, and the ranking in both spaces."""
        terms = pose_losses(encoded, batch)
        if self.config.ranks:
            terms["rank_rotation"] = self._ranked(encoded["space_rotation"], batch, own=0)
            terms["rank_translation"] = self._ranked(encoded["space_translation"], batch, own=1)
        return terms

    def _ranked(self, space: Tensor, batch: Mapping[str, Tensor], own: int) -> Tensor:
        """The ranking of one space; `own` is the place of its label among (rotation, translation)."""
        ranking = self.config.ranking
        classes = None if ranking.across else batch["category"]

        def term(which: tuple[int, ...]) -> Tensor:
            apart = partial(label_distances, which=which)
            return ranked_sets_contrast(space, batch["rank"], apart, ranking.temperature, classes=classes)

        total = space.new_zeros(())
        if ranking.sets != "task":
            total = total + term((0, 1))
        if ranking.sets != "strict":
            total = total + (1.0 if ranking.sets == "task" else ranking.task_weight) * term((own,))
        return total


def rank_labels(rotation: Tensor, place: Tensor, turns: Tensor) -> Tensor:
    """(n, 10) what `label_distances` compares: g, r, t' and whether r counts.

    Args:
        rotation: (n, 3, 3).
        place: (n, 3) centre less centroid, metres.
        turns: (n,) whether turning the object about y changes what is seen of it.
    """
    return torch.cat([rotation[:, :, 1], rotation[:, :, 0], place, turns[:, None].to(place.dtype)], 1)


def label_distances(mine: Tensor, everyone: Tensor, *, which: tuple[int, ...]) -> list[Tensor]:
    """Distances (b, n) of poses: 0 is rotation, D_R = (1 - g·g') + (1 - r·r') without the second term where one of the
    two looks the same from all sides; 1 is translation, the mean squared difference of t'."""
    found = []
    for label in which:
        if label == 0:
            both = mine[:, None, 9] * everyone[None, :, 9]
            found.append(_bend(mine[:, :3], everyone[:, :3]) + both * _bend(mine[:, 3:6], everyone[:, 3:6]))
        else:
            found.append((mine[:, None, 6:9] - everyone[None, :, 6:9]).square().mean(2))
    return found


def _bend(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of unit vectors, by differences: exact 0 for equal ones and never below."""
    return (a[:, None] - b[None]).square().sum(2) / 2


def pose_losses(encoded: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean absolute errors of axes, place and size, the confidences, and the canonical coordinates of the points."""
    rotation, turns = batch["rotation"], batch["turns"].to(torch.float32)
    truths = {"green": rotation[:, :, 1], "red": rotation[:, :, 0]}
    count = turns.sum().clamp(min=1)
    weights = {"green": torch.ones_like(turns) / len(turns), "red": turns / count}
    trust = torch.sigmoid(encoded["trust"])
    terms: dict[str, Tensor] = {}
    confident = []
    for place, (name, truth) in enumerate(truths.items()):
        found, weight = encoded[name], weights[name]
        terms[name] = ((found - truth).abs().mean(1) * weight).sum()
        terms[f"{name}_cos"] = 2 * ((1 - (found * truth).sum(1)) * weight).sum()
        wanted = torch.exp(-_SHARPNESS * (found.detach() - truth).square().sum(1))
        confident.append(((trust[:, place] - wanted).abs() * weight).sum())
    terms["right_angle"] = ((encoded["green"] * encoded["red"]).sum(1).abs() * weights["red"]).sum()
    # In metres these would be a tenth as large, and axes would take all of the training.
    terms["place"] = (encoded["place"] - batch["place"]).abs().mean() / UNIT
    terms["size"] = (encoded["size"] - batch["size"]).abs().mean() / UNIT
    terms["trust"] = confident[0] + confident[1]
    terms["points"] = _canonical(encoded, batch, truths, weights)
    return terms


def _canonical(
    encoded: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    truths: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> Tensor:
    """How far the points' coordinates along the predicted axes are from those along the true ones."""
    found = batch["points"] - encoded["place"][:, None]
    wanted = batch["points"] - batch["place"][:, None]
    total = found.new_zeros(())
    for name, truth in truths.items():
        along = (found * encoded[name][:, None]).sum(2) - (wanted * truth[:, None]).sum(2)
        total = total + (along.abs().mean(1) * weights[name]).sum() / UNIT
    return total


def _encoder(config: HrcPoseConfig) -> GraphEncoder | PointNet:
    section = config.encoder
    if section.kind == "pointnet":
        return PointNet(section.widths, unit=UNIT)
    return GraphEncoder(
        section.widths, neighbours=section.neighbours, supports=section.supports, scope=section.scope, unit=UNIT
    )
