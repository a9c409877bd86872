"""Sets of point clouds of single objects, with their categories, poses and meshes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kontrast.data.clouds.meshes import Mesh
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

Floats = npt.NDArray[np.float32]
Rows = Sequence[int] | npt.NDArray[Any]

POINTS = 1024
"""Points that are kept of a view."""
LEAST_POINTS = 50
"""A view with fewer points is refused: what is visible of the object is too little."""
FARTHEST = 50.0
"""Metres; farther points come from data in other units."""

CATEGORIES = ("bottle", "bowl", "camera", "can", "laptop", "mug")
"""The categories of NOCS, in its order; its files count them from 1, tables here by name."""

SEEN, HIDDEN, UNKNOWN = 1, 0, -1
"""Whether the handle of a mug is in view."""


@dataclass(frozen=True, eq=False)
class Poses:
    """Where n objects are.

    Attributes:
        rotation: float32 (n, 3, 3), object to camera; columns are the images of the object's x, y and z axes.
        translation: float32 (n, 3), centre of the box in the camera's frame, metres.
        size: float32 (n, 3), lengths of the box's edges along the object's axes, metres.
    """

    rotation: Floats
    translation: Floats
    size: Floats

    def __post_init__(self) -> None:
        n = len(self.rotation)
        for name, shape in (("rotation", (n, 3, 3)), ("translation", (n, 3)), ("size", (n, 3))):
            came = getattr(self, name).shape
            if came != shape:
                raise ValueError(f"'{name}' must have the shape {shape}, got {came}")

    def __len__(self) -> int:
        return len(self.rotation)

    def take(self, rows: Rows) -> Poses:
        """The poses of some rows, in the order given."""
        index = np.asarray(rows)
        return Poses(self.rotation[index], self.translation[index], self.size[index])

    def to_object(self, points: Floats) -> Floats:
        """Points (n, p, 3) of the camera's frame in the objects' own frames, metres."""
        moved = points - self.translation[:, None]
        return np.asarray(np.einsum("nji,npj->npi", self.rotation, moved), np.float32)


@dataclass(frozen=True, eq=False)
class CloudSet:
    """Views of single objects; a row is one view of one object.

    Attributes:
        points: float32 (n, p, 3), metres in the camera's frame (x right, y down, z forward); points stand in random
            order, so that the first k of them are a random choice.
        categories: (n,) names, such as "mug".
        ids: (n,) unique names of the views.
        poses: of all rows, or None where they are not known.
        instances: (n,) names of the objects, or None.
        split: (n,) "train", "valid" or "test", or None.
        handle: int8 (n,), SEEN, HIDDEN or UNKNOWN.
        meshes: shapes of objects, for rendering more views.
        intrinsics: (n, 3, 3) of the camera, or None.
        images: (n,) the depth image that a view was cut from, or None.
        path: where all this was read from.
    """

    points: Floats
    categories: tuple[str, ...]
    ids: tuple[str, ...]
    poses: Poses | None = None
    instances: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    handle: npt.NDArray[np.int8] | None = None
    meshes: tuple[Mesh, ...] = ()
    intrinsics: Floats | None = None
    images: tuple[Path | None, ...] | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        n = len(self.points)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("meshes", "path") and value is not None and len(value) != n:
                raise ValueError(f"'{field.name}' has {len(value)} entries for {n} views")

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: Rows) -> Self:
        """The same set restricted to some rows, in the order given; meshes stay."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        places = index.tolist()

        def of(values: Sequence[Any] | None) -> Any:
            return None if values is None else tuple(values[place] for place in places)

        return replace(
            self,
            points=self.points[index],
            categories=of(self.categories),
            ids=of(self.ids),
            poses=None if self.poses is None else self.poses.take(index),
            instances=of(self.instances),
            split=of(self.split),
            handle=None if self.handle is None else self.handle[index],
            intrinsics=None if self.intrinsics is None else self.intrinsics[index],
            images=of(self.images),
        )

    def digest(self) -> str:
        """Text that is equal for equal views, poses and meshes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.points).tobytes())
        digest.update(repr((self.categories, self.ids, self.instances)).encode())
        if self.poses is not None:
            for name in ("rotation", "translation", "size"):
                digest.update(np.ascontiguousarray(getattr(self.poses, name)).tobytes())
        for mesh in self.meshes:
            digest.update(mesh.digest().encode())
        return digest.hexdigest()[:24]


def exactly(points: npt.NDArray[Any], count: int, key: str, path: Path | None = None) -> Floats:
    """A random choice of `count` points in random order; where there are fewer, points come several times.

    The choice depends on `key` alone, so that a view is the same whatever is read beside it.

    Args:
        points: (p, 3), metres.
        count: how many are wanted.
        key: name of the view.
        path: named in messages.

    Raises:
        DataError: for fewer than 50 finite points, or points more than 50 m away.
    """
    points = np.asarray(points, np.float32).reshape(-1, 3)
    points = points[np.isfinite(points).all(1)]
    if len(points) < LEAST_POINTS:
        what = f"view '{key}' has {len(points)} valid points, at least {LEAST_POINTS} are needed"
        raise DataError(what, file=path, mend="check the mask and the depth, or leave the view out")
    far = float(np.abs(points).max())
    if far > FARTHEST:
        what = f"view '{key}' has a point at {far:,.0f}, and coordinates are metres"
        raise DataError(what, file=path, mend="divide millimetres by 1000")
    rng = numpy_rng("points of a view", key)
    order = rng.permutation(len(points))
    while len(order) < count:
        order = np.concatenate([order, rng.permutation(len(points))])
    return points[order[:count]]


def check_rotations(rotation: npt.NDArray[Any], path: Path | None, field: str = "R") -> Floats:
    """float32 (n, 3, 3).

    Raises:
        DataError: naming the first matrix that is no rotation.
    """
    wide = np.asarray(rotation, np.float64)
    if wide.ndim != 3 or wide.shape[1:] != (3, 3):
        raise DataError(f"'{field}' has the shape {wide.shape}, (n, 3, 3) is wanted", file=path)
    unit = np.einsum("nij,nkj->nik", wide, wide) - np.eye(3)
    bad = ~(np.isfinite(wide).all((1, 2)) & (np.abs(unit).max((1, 2), initial=0) < 1e-2) & (np.linalg.det(wide) > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = f"'{field}' of row {row} is no rotation (columns must be of length 1, at right angles and right-handed)"
        raise DataError(what, file=path, mend="divide the scale out, and check for a transposed or mirrored matrix")
    return wide.astype(np.float32)
