"""Views: what training draws from, rendered views included, and how a batch is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.data.catalogue import cache_folder
from kontrast.data.clouds import (
    HIDDEN,
    SEEN,
    UNKNOWN,
    CloudSet,
    Mesh,
    Poses,
    Sensor,
    has_recipe,
    procedural_mesh,
    render_views,
)
from kontrast.data.clouds.npz import read_archive, views_from_arrays
from kontrast.data.clouds.read import joined
from kontrast.errors import DataError
from kontrast.files import replacing
from kontrast.progress import say
from kontrast.systems.hrc_pose.config import AugmentSection, PoolSection
from kontrast.systems.hrc_pose.model import rank_labels

Floats = npt.NDArray[np.float32]

HANDLE_SHARE = 0.01
"""A handle is in view if at least this share of the points lies on it."""
_RENDERING = "1"
"""Changes whenever rendering changes, so that older files in the cache are not used."""
_STEP = 1e-4
"""Metres of a step of the points in the cache."""
_TAPERED = ("bowl", "mug")


def training_pool(train: CloudSet, section: PoolSection, symmetric: Sequence[str]) -> CloudSet:
    """The placed views of the training part, rendered ones of its meshes and of random shapes, with handles known.

    Only categories that the training part has are rendered. Rendering is done once; the same meshes and options find
    the views in the cache.
    """
    sets = [train]
    known = sorted(set(train.categories))
    meshes = [mesh for mesh in train.meshes if mesh.category in known]
    if section.views and meshes:
        sets.append(_rendered(meshes, section.views, section))
    if section.instances and section.instance_views:
        shapes = [
            procedural_mesh(category, number)
            for category in known
            if has_recipe(category)
            for number in range(section.instances)
        ]
        if shapes:
            sets.append(_rendered(shapes, section.instance_views, section))
    bare = [replace(one, meshes=(), split=None, images=None, intrinsics=None) for one in sets]
    return replace(joined(bare, path=train.path), handle=np.concatenate([handles(one) for one in sets]))


def _rendered(meshes: Sequence[Mesh], views: int, section: PoolSection) -> CloudSet:
    """Views of meshes, from the cache if they are there."""
    settings = repr((_RENDERING, views, sorted(asdict(Sensor()).items()), [mesh.digest() for mesh in meshes]))
    place = cache_folder() / "views" / f"{hashlib.sha256(settings.encode()).hexdigest()[:24]}.npz"
    if section.cache == "disk" and place.is_file():
        try:
            return views_from_arrays(read_archive(place), place)
        except DataError:
            place.unlink()
    say(f"rendering {len(meshes) * views} views of {len(meshes)} shapes.")
    made = render_views(meshes, views)
    if section.cache == "disk":
        write_views(made, place)
        # What comes from the cache is rounded, and a run must not depend on who rendered first.
        return views_from_arrays(read_archive(place), place)
    return made


def write_views(views: CloudSet, path: Path) -> Path:
    """Writes views with poses as the .npz that `read_clouds` reads, points rounded to a tenth of a millimetre."""
    assert views.poses is not None
    arrays = {
        "points": np.rint(views.points / _STEP).clip(-32767, 32767).astype(np.int16),
        "point_scale": np.float32(_STEP),
        "R": views.poses.rotation,
        "t": views.poses.translation,
        "size": views.poses.size,
        "category": np.asarray(views.categories),
        "id": np.asarray(views.ids),
        "instance": np.asarray(views.instances if views.instances is not None else [""] * len(views)),
    }
    # np.savez would add the ending to a path that lacks it, so it is given an open file.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def handles(data: CloudSet) -> npt.NDArray[np.int8]:
    """(n,) SEEN or HIDDEN for mugs, as the data say or else as the points do; SEEN for everything else.

    The body of a mug is as wide as its box is deep and begins at the box's -x side; points beyond it are the handle.
    """
    stated = data.handle if data.handle is not None else np.full(len(data), UNKNOWN, np.int8)
    if data.poses is None:
        return stated
    inside = data.poses.to_object(data.points)
    size = data.poses.size
    body = -size[:, 0] / 2 + 1.05 * size[:, 2]
    share = (inside[:, :, 0] > body[:, None]).mean(1)
    found = np.where(share >= HANDLE_SHARE, SEEN, HIDDEN)
    mug = np.asarray([category == "mug" for category in data.categories])
    return np.where(mug, np.where(stated == UNKNOWN, found, stated), SEEN).astype(np.int8)


class PoseViews:
    """Makes batches of a pool: a choice of points, augmentation, then labels.

    Args:
        pool: views with poses and handles.
        categories: names in the order of the model's numbers.
        symmetric: categories that are symmetric about y.
        points: points of a view in a batch.
        augment: what is changed, or None: nothing.
        shuffled: whether the labels that are ranked are dealt out anew within each category (the null control).
    """

    def __init__(
        self,
        pool: CloudSet,
        categories: Sequence[str],
        symmetric: Sequence[str],
        points: int,
        augment: AugmentSection | None,
        *,
        shuffled: bool = False,
    ) -> None:
        assert pool.poses is not None
        self.pool, self.poses = pool, pool.poses
        numbers = {name: number for number, name in enumerate(categories)}
        self.category = np.asarray([numbers[name] for name in pool.categories], np.int64)
        round_ones = np.asarray([name in symmetric for name in pool.categories])
        self.round = round_ones
        hidden = np.zeros(len(pool), bool) if pool.handle is None else pool.handle == HIDDEN
        self.turns = ~round_ones & ~hidden
        self.tapered = np.asarray([name in _TAPERED for name in pool.categories])
        self.points, self.augment, self.shuffled = points, augment, shuffled

    def batch(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Tensor]:
        """The batch of some rows."""
        every = self.pool.points.shape[1]
        if self.augment is None:
            points = self.pool.points[rows][:, : self.points]
        else:
            start = rng.permutation(every)[: self.points]
            points = self.pool.points[rows[:, None], start[None, :]]
        poses = self.poses.take(rows)
        if self.augment is not None:
            points, poses = augmented(points, poses, self.round[rows], self.tapered[rows], self.augment, rng)
        middle = points.mean(1)
        category, turns = self.category[rows], self.turns[rows]
        made = {
            "points": torch.from_numpy(points - middle[:, None]),
            "category": torch.from_numpy(category),
            "rotation": torch.from_numpy(poses.rotation),
            "place": torch.from_numpy(poses.translation - middle),
            "size": torch.from_numpy(poses.size),
            "turns": torch.from_numpy(turns),
        }
        rank = rank_labels(made["rotation"], made["place"], made["turns"])
        if self.shuffled:
            rank = rank[torch.from_numpy(within(category, rng))]
        return {**made, "rank": rank}


def within(groups: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A permutation that moves every row within its group: each takes the place of the next in a random order, so
    that none stays where it is unless it is alone."""
    order = np.arange(len(groups))
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        order[members] = np.roll(members, 1)
    return order


def augmented(
    points: Floats,
    poses: Poses,
    symmetric: npt.NDArray[np.bool_],
    tapered: npt.NDArray[np.bool_],
    section: AugmentSection,
    rng: np.random.Generator,
) -> tuple[Floats, Poses]:
    """Changed views with the poses that go with them.

    Args:
        points: (n, p, 3) in the camera's frame.
        poses: of the n views.
        symmetric: (n,) whether x and z must keep one scale.
        tapered: (n,) whether tapering suits the shape.
        section: how often and how much.
        rng: of everything random.
    """
    n = len(points)
    low, high = 1 - section.factor, 1 + section.factor
    own, size = poses.to_object(points), poses.size

    factors = rng.uniform(low, high, (n, 3)).astype(np.float32)
    factors[symmetric, 2] = factors[symmetric, 0] = factors[symmetric][:, [0, 2]].mean(1)
    factors[rng.random(n) >= section.stretch] = 1
    own, size = own * factors[:, None], size * factors

    ends = rng.uniform(low, high, (n, 2)).astype(np.float32)
    ends[(rng.random(n) >= section.taper) | ~tapered] = 1
    height = own[:, :, 1] / size[:, None, 1] + 0.5
    wider = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * height
    own = np.stack([own[:, :, 0] * wider, own[:, :, 1], own[:, :, 2] * wider], 2)
    # Bowls and mugs are widest at the top, or the same all the way up.
    top = ends.max(1)
    size = np.stack([size[:, 0] * top, size[:, 1], size[:, 2] * top], 1)

    inflated = (rng.random(n) < section.inflate)[:, None, None]
    own = own * (1 + inflated * rng.uniform(0, 0.2, own.shape)).astype(np.float32)

    rotation, translation = poses.rotation, poses.translation
    moved = np.einsum("nij,npj->npi", rotation, own) + translation[:, None]
    mirrored = rng.random(n) < section.mirror
    sign = np.where(mirrored, -1, 1).astype(np.float32)
    # A mirror image of an object whose two halves along z are alike is the object itself, at another pose.
    flip = np.stack([sign, np.ones_like(sign), np.ones_like(sign)], 1)
    moved, translation = moved * flip[:, None], translation * flip
    rotation = rotation * flip[:, :, None] * np.stack([np.ones_like(sign), np.ones_like(sign), sign], 1)[:, None]

    turn = _small_turns(n, section, rng)
    middle = moved.mean(1)
    moved = np.einsum("nij,npj->npi", turn, moved - middle[:, None]) + middle[:, None]
    translation = np.einsum("nij,nj->ni", turn, translation - middle) + middle
    rotation = turn @ rotation
    return moved.astype(np.float32), Poses(
        rotation.astype(np.float32), translation.astype(np.float32), size.astype(np.float32)
    )


def _small_turns(n: int, section: AugmentSection, rng: np.random.Generator) -> Floats:
    """(n, 3, 3) rotations about the camera's axes, one after another."""
    angles = np.radians(rng.uniform(-section.degrees, section.degrees, (n, 3)))
    angles[rng.random(n) >= section.turn] = 0
    result = np.broadcast_to(np.eye(3), (n, 3, 3))
    for axis in range(3):
        c, s = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        step = np.zeros((n, 3, 3))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step[:, axis, axis] = 1
        step[:, i, i], step[:, i, j], step[:, j, i], step[:, j, j] = c, -s, s, c
        result = result @ step
    return result.astype(np.float32)
