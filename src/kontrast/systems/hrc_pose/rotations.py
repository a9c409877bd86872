"""Rotations from two predicted axes, and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def compose(green: Tensor, red: Tensor, trust: Tensor) -> Tensor:
    """(n, 3, 3) rotations from the images of the y axis and of the x axis (GPV-Pose's rule).

    Both axes are turned in their common plane until they are at right angles, the less trusted one farther.

    Args:
        green: (n, 3) of length 1, image of y.
        red: (n, 3) of length 1, image of x; where it is parallel to green any direction at right angles is taken.
        trust: (n, 2) confidence in green and in red, at least 0; red's is 0 for objects that are symmetric about y.

    Returns:
        Columns are the images of x, y and z.
    """
    red = torch.where((green * red).sum(1, keepdim=True).abs() > 1 - 1e-6, _across(green), red)
    angle = torch.acos((green * red).sum(1).clamp(-1, 1))
    # Red's direction in the plane, at right angles to green.
    side = F.normalize(red - (green * red).sum(1, keepdim=True) * green, dim=1)
    total = trust.sum(1).clamp(min=1e-12)
    share = torch.where(trust.sum(1) > 0, trust[:, 1] / total, 0.5)
    # Positive where the two are too far apart: green then turns towards red.
    turn = (angle - torch.pi / 2) * share
    up = torch.cos(turn)[:, None] * green + torch.sin(turn)[:, None] * side
    right = -torch.sin(turn)[:, None] * green + torch.cos(turn)[:, None] * side
    return torch.stack([right, up, torch.linalg.cross(right, up)], 2)


def _across(green: Tensor) -> Tensor:
    """Directions that are not parallel to green: the coordinate axis along which it is shortest."""
    return F.one_hot(green.abs().argmin(1), 3).to(green.dtype)
