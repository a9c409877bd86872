"""Encoders of point clouds: 3-D graph convolution with hybrid-scope layers, and a small PointNet.

3-D graph convolution (3D-GCN, Lin et al., CVPR 2020) compares the directions from a point to its neighbours with
learned directions, so that its response does not depend on where the cloud is or how large it is. Hybrid-scope layers
(HS-Pose, Zheng et al., CVPR 2023) add what it lacks: neighbours in feature space, the mean response of the
neighbourhoods of the whole cloud, and a branch that sees the coordinates themselves, hence size.

A cloud's points are expected in random order: pooling keeps the first quarter, which then is a random choice in
training (where the order changes) and a fixed one in evaluation. A row's result depends on the row alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Scope = Literal["space", "features"]

_CHUNK = 1 << 18
"""Entries of a tile on a CPU: large enough to hide what a call costs, small enough for the second-level cache."""


@dataclass(frozen=True)
class CloudFeatures:
    """What an encoder makes of n clouds.

    Attributes:
        whole: (n, width), of the whole cloud: the largest response over its points.
        levels: (n, points_l, width_l) of each level; later levels stand on the first points of earlier ones.
        points: (n, points, 3), the points that level 0 stands on.
    """

    whole: Tensor
    levels: tuple[Tensor, ...]
    points: Tensor

    def pooled(self) -> Tensor:
        """(n, sum of widths) the largest response over the points, for each level."""
        return torch.cat([level.max(1).values for level in self.levels], 1)

    def per_point(self) -> Tensor:
        """(n, points, sum of widths): each level carried to all points from the nearest point that has it."""
        parts = []
        for level in self.levels:
            if level.shape[1] == self.points.shape[1]:
                parts.append(level)
                continue
            away = torch.cdist(self.points, self.points[:, : level.shape[1]])
            nearest = away.argmin(2)[:, :, None].expand(-1, -1, level.shape[2])
            parts.append(level.gather(1, nearest))
        return torch.cat(parts, 2)


def nearest_neighbours(vectors: Tensor, k: int) -> Tensor:
    """(n, p, k) places of the k nearest other rows of each cloud (n, p, d), by Euclidean distance, nearest first.

    Raises:
        ValueError: if a cloud has no k other points.
    """
    most = min(vectors.shape[1] - 1, 255)
    if not 1 <= k <= most:
        raise ValueError(f"'k' must be between 1 and {most} for {vectors.shape[1]} points, got {k}")
    with torch.no_grad():
        squared = vectors.square().sum(2)
        # The row's own |x|² moves no rank, so it is left out.
        away = squared[:, None, :] - 2 * vectors @ vectors.transpose(1, 2)
        away.diagonal(dim1=1, dim2=2).fill_(math.inf)
        return away.topk(k, dim=2, largest=False, sorted=True).indices


def directions_to(points: Tensor, neighbours: Tensor) -> Tensor:
    """(n, p, k, 3) unit vectors from each point to its neighbours; zero where both stand in one place."""
    away = gather_points(points, neighbours) - points[:, :, None]
    return nn.functional.normalize(away, dim=3)


def gather_points(values: Tensor, places: Tensor) -> Tensor:
    """(n, p, k, d) rows of `values` (n, v, d) at `places` (n, p, k)."""
    n, v, d = values.shape
    flat = (places + torch.arange(n, device=places.device)[:, None, None] * v).reshape(-1)
    return values.reshape(n * v, d).index_select(0, flat).reshape(*places.shape, d)


def _largest(table: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima (n, p, d) of a table (n, p, k, d) over k and their places, as uint8; of equal ones the last.

    Two passes without indices are faster on a CPU than one that carries them.
    """
    best = table.amax(2, keepdim=True)
    place = torch.arange(table.shape[2], dtype=torch.uint8, device=table.device)[:, None]
    return best[:, :, 0], ((table == best) * place).amax(2)


class _StrongestResponse(torch.autograd.Function):
    """max_j relu(d_ij · u_c) h_j[c] over neighbours j, with h = 1 where no values are given.

    Made in tiles that fit a cache, and the gradient goes to the neighbour that won alone, so that neither pass keeps
    the k times larger table of all responses.
    """

    @staticmethod
    def forward(ctx: Any, directions: Tensor, supports: Tensor, values: Tensor | None, neighbours: Tensor) -> Tensor:
        n, p, k, _ = directions.shape
        channels = supports.shape[1]
        step = n if directions.is_cuda else max(1, _CHUNK // (p * k * channels))
        best = directions.new_empty(n, p, channels)
        winner = torch.empty(n, p, channels, dtype=torch.uint8, device=directions.device)
        for start in range(0, n, step):
            part = slice(start, start + step)
            response = torch.relu(directions[part] @ supports)
            if values is not None:
                response = response * gather_points(values[part], neighbours[part])
            best[part], winner[part] = _largest(response)
        ctx.save_for_backward(directions, supports, values, neighbours, winner)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, Tensor | None, None]:
        directions, supports, values, neighbours, winner = ctx.saved_tensors
        n, p, channels = winner.shape
        for_supports = torch.zeros_like(supports)
        for_values = None if values is None else torch.zeros_like(values)
        step = n if directions.is_cuda else max(1, _CHUNK // (p * channels))
        for start in range(0, n, step):
            part = slice(start, start + step)
            chosen, gradient = winner[part].long(), upstream[part]
            # The direction to the winner, one coordinate at a time.
            toward = [directions[part, :, :, axis].gather(2, chosen) for axis in range(3)]
            response = toward[0] * supports[0] + toward[1] * supports[1] + toward[2] * supports[2]
            active = response > 0
            if values is not None and for_values is not None:
                places = neighbours[part].gather(2, chosen)
                held = values[part].gather(1, places)
                for_values[part].scatter_add_(1, places, gradient * response * active)
                gradient = gradient * held
            gradient = gradient * active
            for axis in range(3):
                for_supports[axis] += (gradient * toward[axis]).sum((0, 1))
        return None, for_supports, for_values, None


def strongest_response(directions: Tensor, supports: Tensor, values: Tensor | None, neighbours: Tensor) -> Tensor:
    """(n, p, c) max over neighbours of relu(direction · support), times the neighbour's value if values are given.

    Args:
        directions: (n, p, k, 3) unit vectors to the neighbours; no gradient reaches them.
        supports: (3, c) directions of length 1.
        values: (n, v, c) or None.
        neighbours: (n, p, k) places among the v rows.
    """
    with torch.autocast(directions.device.type, enabled=False):
        return _StrongestResponse.apply(  # type: ignore[no-any-return,no-untyped-call]
            directions.float(), supports.float(), None if values is None else values.float(), neighbours
        )


class _LargestNeighbour(torch.autograd.Function):
    """max_j h_j over neighbours j, in tiles, with the gradient for the winner alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbours: Tensor) -> Tensor:
        n, v, d = values.shape
        _, p, k = neighbours.shape
        step = n if values.is_cuda else max(1, _CHUNK // (p * k * d))
        best = values.new_empty(n, p, d)
        winner = torch.empty(n, p, d, dtype=torch.uint8, device=values.device)
        for start in range(0, n, step):
            part = slice(start, start + step)
            held = gather_points(values[part], neighbours[part])
            best[part], winner[part] = _largest(held)
        ctx.save_for_backward(neighbours, winner)
        ctx.rows = v
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        neighbours, winner = ctx.saved_tensors
        gradient = upstream.new_zeros(len(upstream), ctx.rows, upstream.shape[2])
        return gradient.scatter_add_(1, neighbours.gather(2, winner.long()), upstream), None


def largest_neighbour(values: Tensor, neighbours: Tensor) -> Tensor:
    """(n, p, d) the largest of the values (n, v, d) of each point's neighbours (n, p, k), channel by channel."""
    return _LargestNeighbour.apply(values, neighbours)  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class Neighbourhood:
    """Points with their neighbours in space, for all layers that stand on them.

    Attributes:
        points: (n, p, 3).
        near: (n, p, k) places of the neighbours, nearest first.
        toward: (n, p, k, 3) directions to them.
    """

    points: Tensor
    near: Tensor
    toward: Tensor

    @classmethod
    def of(cls, points: Tensor, neighbours: int) -> Neighbourhood:
        """With k = `neighbours`, but at most an eighth of the points."""
        near = nearest_neighbours(points, max(1, min(neighbours, points.shape[1] // 8)))
        return cls(points, near, directions_to(points, near))


class SurfaceLayer(nn.Module):
    """3-D graph convolution of bare geometry: f_i[k] = mean_s max_j relu(d_ij · u_sk), plus the hybrid scope.

    Args:
        width: kernels K.
        supports: directions S of a kernel.
    """

    def __init__(self, width: int, supports: int) -> None:
        super().__init__()
        self.supports = supports
        bound = 1 / math.sqrt(width * (supports + 1))
        self.directions = nn.Parameter(torch.empty(3, supports * width).uniform_(-bound, bound))
        self.scope = GlobalTerm(width)
        self.direct = nn.Linear(3, width, bias=False)

    def forward(self, around: Neighbourhood) -> Tensor:
        """(n, p, width) from the points alone."""
        unit = nn.functional.normalize(self.directions, dim=0)
        found = strongest_response(around.toward, unit, None, around.near)
        response = found.reshape(*found.shape[:2], self.supports, -1).mean(2)
        result: Tensor = self.scope(response, around.near) + self.direct(around.points)
        return result


class GraphLayer(nn.Module):
    """3-D graph convolution of features: f_i = h_i[centre] + mean_s max_j relu(d_ij · u_sk) h_j[s, k], h = X W + b.

    Args:
        inputs: width of the features that come in.
        width: kernels K.
        supports: directions S of a kernel.
        scope: neighbours in "features" (HS-Pose) or in "space" (3D-GCN; cheaper).
    """

    def __init__(self, inputs: int, width: int, supports: int, scope: Scope) -> None:
        super().__init__()
        self.width, self.supports, self.neighbourhood = width, supports, scope
        bound = 1 / math.sqrt(width * (supports + 1))
        self.weight = nn.Parameter(torch.empty(inputs, (supports + 1) * width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty((supports + 1) * width).uniform_(-bound, bound))
        self.directions = nn.Parameter(torch.empty(3, supports * width).uniform_(-bound, bound))
        self.scope = GlobalTerm(width)
        self.direct = nn.Linear(inputs, width, bias=False)

    def forward(self, features: Tensor, around: Neighbourhood) -> Tensor:
        """(n, p, inputs) on points with their neighbours in space to (n, p, width)."""
        near, toward = around.near, around.toward
        if self.neighbourhood == "features":
            near = nearest_neighbours(features.detach().float(), near.shape[2])
            toward = directions_to(around.points, near)
        mapped = features @ self.weight + self.bias
        centre, support = mapped[..., : self.width], mapped[..., self.width :]
        unit = nn.functional.normalize(self.directions, dim=0)
        found = strongest_response(toward, unit, support.contiguous(), near)
        response = centre + found.reshape(*found.shape[:2], self.supports, -1).mean(2)
        result: Tensor = self.scope(response, around.near) + self.direct(features)
        return result


class GlobalTerm(nn.Module):
    """Adds what the whole cloud responds with: f + W [f, g], g the mean over points of the maximum over neighbours.

    A mean of maxima is moved little by a few points that fly off.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(n, p, width) and (n, p, k) neighbours in space to (n, p, width)."""
        width = features.shape[2]
        whole = largest_neighbour(features, neighbours).mean(1)
        local = nn.functional.linear(features, self.join.weight[:, :width], self.join.bias)
        return features + local + (whole @ self.join.weight[:, width:].T)[:, None]


class PointNorm(nn.BatchNorm1d):
    """Batch norm of (n, p, width) over rows and points."""

    def forward(self, input: Tensor) -> Tensor:
        """The same shape, normalised."""
        return super().forward(input.flatten(0, 1)).view_as(input)


class GraphEncoder(nn.Module):
    """Five hybrid-scope layers on three levels of points: all, a quarter, a sixteenth.

    Args:
        widths: of the five layers.
        neighbours: k; a level of v points has at most v / 8.
        supports: S.
        scope: see `GraphLayer`.
        unit: metres that count as 1 in the branch that sees coordinates; sizes stay comparable between clouds.
    """

    def __init__(
        self,
        widths: Sequence[int] = (128, 128, 256, 256, 512),
        *,
        neighbours: int = 20,
        supports: int = 7,
        scope: Scope = "features",
        unit: float = 0.1,
    ) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"'widths' must be five numbers, got {list(widths)}")
        self.widths, self.neighbours, self.unit = tuple(widths), neighbours, unit
        self.surface = SurfaceLayer(widths[0], supports)
        self.layers = nn.ModuleList(GraphLayer(before, width, supports, scope) for before, width in pairwise(widths))
        self.norms = nn.ModuleList(PointNorm(width) for width in widths[1:4])
        self.dim, self.total = widths[4], sum(widths)

    def around(self, points: Tensor) -> tuple[Neighbourhood, ...]:
        """The three levels' points, neighbours and directions of clouds (n, p, 3) in metres; encoders of one setting
        can share them."""
        scaled = points.detach() / self.unit
        counts = (scaled.shape[1], scaled.shape[1] // 4, scaled.shape[1] // 16)
        return tuple(Neighbourhood.of(scaled[:, :count], self.neighbours) for count in counts)

    def forward(self, points: Tensor, around: tuple[Neighbourhood, ...] | None = None) -> CloudFeatures:
        """Features of clouds (n, p, 3), metres, centred; p at least 32, in random order.

        Args:
            points: the clouds.
            around: what `around` gave for them, if it is there already.
        """
        fine, middle, coarse = around if around is not None else self.around(points)
        first = torch.relu(self.surface(fine))
        second = torch.relu(self.norms[0](self.layers[0](first, fine)))
        third = torch.relu(self.norms[1](self.layers[1](_pooled(second, fine), middle)))
        fourth = torch.relu(self.norms[2](self.layers[2](third, middle)))
        fifth = self.layers[3](_pooled(fourth, middle), coarse)
        return CloudFeatures(fifth.max(1).values, (first, second, third, fourth, fifth), fine.points)


def _pooled(features: Tensor, around: Neighbourhood) -> Tensor:
    """The maximum over four neighbours and the point itself, at the first quarter of the points."""
    kept = features.shape[1] // 4
    return torch.maximum(largest_neighbour(features, around.near[:, :kept, :4]), features[:, :kept])


class PointNet(nn.Module):
    """Each point by itself through a small network, then the maximum over points (Qi et al., CVPR 2017).

    Args:
        widths: of its layers.
        unit: see `GraphEncoder`.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256), *, unit: float = 0.1) -> None:
        super().__init__()
        self.widths, self.unit = tuple(widths), unit
        self.layers = nn.ModuleList(nn.Linear(before, width) for before, width in zip((3, *widths), widths))
        self.norms = nn.ModuleList(PointNorm(width) for width in widths)
        self.dim, self.total = widths[-1], sum(widths)

    def forward(self, points: Tensor) -> CloudFeatures:
        """Features of clouds (n, p, 3), metres, centred."""
        points = points.detach() / self.unit
        levels, features = [], points
        for layer, norm in zip(self.layers, self.norms):
            features = torch.relu(norm(layer(features)))
            levels.append(features)
        return CloudFeatures(features.max(1).values, tuple(levels), points)
