"""Views of meshes as a depth camera sees them: one side, noisy, partly covered.

The surface is sampled densely, projected into a depth image (z-buffer), what lies behind is dropped, noise of a
structured-light sensor is added and the image is projected back. Every view is a function of its generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import minimum_filter
from scipy.spatial.transform import Rotation

from kontrast.data.clouds.cloud import LEAST_POINTS, POINTS, UNKNOWN, CloudSet, Floats, Poses
from kontrast.data.clouds.meshes import Mesh
from kontrast.randomness import numpy_rng

REAL_CAMERA = np.array([[591.0125, 0, 322.525], [0, 590.16775, 244.11084], [0, 0, 1]], np.float32)
"""Intrinsics of the camera of REAL275, 640 x 480 pixels."""
SYNTHETIC_CAMERA = np.array([[577.5, 0, 319.5], [0, 577.5, 239.5], [0, 0, 1]], np.float32)
"""Intrinsics of CAMERA25, 640 x 480 pixels."""


@dataclass(frozen=True)
class Sensor:
    """What the camera does to a surface.

    Attributes:
        samples: points of the surface from which the depth image is made.
        behind: metres behind the nearest depth of the 3 x 3 pixels around from which a pixel counts as hidden.
        noise: (a, b), standard deviation a + b (z - 0.4)² in metres at depth z.
        step: metres to which depth is rounded.
        dropout: share of pixels that get no depth.
        covered: share of views that a half-plane covers, by up to `cover` of their pixels.
        cover: see `covered`.
        flying: share of pixels that fly 2 to 6 cm off.
    """

    samples: int = 30_000
    behind: float = 0.006
    noise: tuple[float, float] = (0.0012, 0.0019)
    step: float = 0.001
    dropout: float = 0.05
    covered: float = 0.3
    cover: float = 0.4
    flying: float = 0.02


def draw_pose(
    rng: np.random.Generator, camera: npt.NDArray[np.floating] = REAL_CAMERA, *, upright: float = 0.7
) -> tuple[Floats, Floats]:
    """Rotation (3, 3) and translation (3,) of an object somewhere in the image, 0.5 to 1.3 m away.

    A share `upright` stands on a table that the camera looks down on by 15 to 75 degrees, at any yaw and rolled by a
    few degrees; the others are turned at random.
    """
    if rng.random() < upright:
        elevation, yaw = np.radians(rng.uniform(15, 75)), rng.uniform(0, 2 * np.pi)
        roll = np.radians(rng.normal(0, 8))
        # The object's y is up and the camera's y is down: turned by 180 degrees about x, then down by the elevation.
        rotation = Rotation.from_euler("z", roll) * Rotation.from_euler("x", np.pi + elevation)
        rotation = rotation * Rotation.from_euler("y", yaw)
    else:
        rotation = Rotation.from_quat(rng.normal(size=4))
    depth, u, v = rng.uniform(0.5, 1.3), rng.uniform(120, 520), rng.uniform(100, 380)
    place = np.array([(u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1], 1.0]) * depth
    return rotation.as_matrix().astype(np.float32), place.astype(np.float32)


def render_view(
    surface: Floats,
    rotation: Floats,
    translation: Floats,
    rng: np.random.Generator,
    *,
    camera: npt.NDArray[np.floating] = REAL_CAMERA,
    sensor: Sensor | None = None,
) -> Floats:
    """Points (p, 3) that the camera sees of a sampled surface, metres in the camera's frame.

    Args:
        surface: (s, 3) points of the surface in the object's frame, metres, already of the wanted scale.
        rotation: (3, 3), object to camera.
        translation: (3,), metres.
        rng: of noise, dropout and cover.
        camera: (3, 3) intrinsics, pixels.
        sensor: the default sensor if None.
    """
    sensor = sensor or Sensor()
    seen = surface @ rotation.T + translation
    seen = seen[seen[:, 2] > 0.05]
    if not len(seen):
        return np.zeros((0, 3), np.float32)
    fx, fy, cx, cy = camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2]
    u = np.rint(fx * seen[:, 0] / seen[:, 2] + cx).astype(np.int64)
    v = np.rint(fy * seen[:, 1] / seen[:, 2] + cy).astype(np.int64)
    # The image of the object alone, with a border of one pixel for the filter.
    left, top = u.min() - 1, v.min() - 1
    width, height = int(u.max() - left) + 2, int(v.max() - top) + 2
    pixels = np.full(width * height, np.inf, np.float32)
    np.minimum.at(pixels, (v - top) * width + (u - left), seen[:, 2].astype(np.float32))
    image = pixels.reshape(height, width)
    nearest = minimum_filter(image, 3, mode="nearest")
    rows, columns = np.nonzero(np.isfinite(image) & (image <= nearest + sensor.behind))
    z = image[rows, columns].astype(np.float64)
    kept = rng.random(len(z)) >= sensor.dropout
    if rng.random() < sensor.covered:
        angle = rng.uniform(0, 2 * np.pi)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        kept &= along >= np.quantile(along, rng.uniform(0, sensor.cover))
    rows, columns, z = rows[kept], columns[kept], z[kept]
    z = z + rng.normal(size=len(z)) * (sensor.noise[0] + sensor.noise[1] * (z - 0.4) ** 2)
    if sensor.step > 0:
        z = np.rint(z / sensor.step) * sensor.step
    fly = rng.random(len(z)) < sensor.flying
    z = z + fly * rng.choice([-1.0, 1.0], len(z)) * rng.uniform(0.02, 0.06, len(z))
    return np.stack([(columns + left - cx) * z / fx, (rows + top - cy) * z / fy, z], 1).astype(np.float32)


def render_views(
    meshes: Sequence[Mesh],
    views: int,
    *,
    seed: int = 0,
    count: int = POINTS,
    scale: tuple[float, float] = (0.85, 1.15),
    upright: float = 0.7,
    sensor: Sensor | None = None,
    camera: npt.NDArray[np.floating] = REAL_CAMERA,
) -> CloudSet:
    """Views of each mesh at random poses and scales.

    Args:
        meshes: at least one; the name of a mesh, the number of the view and the seed decide the view.
        views: of each mesh.
        seed: of everything random.
        count: points of a view.
        scale: range of the factor on the size of the mesh.
        upright: share of objects that stand upright, see `draw_pose`.
        sensor: see `render_view`.
        camera: (3, 3) intrinsics, pixels.
    """
    sensor = sensor or Sensor()
    n = len(meshes) * views
    points = np.empty((n, count, 3), np.float32)
    rotation = np.empty((n, 3, 3), np.float32)
    translation, size = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
    row = 0
    for mesh in meshes:
        surface = mesh.sample(sensor.samples, numpy_rng(seed, "surface", mesh.name))
        for number in range(views):
            rng = numpy_rng(seed, "view", mesh.name, number)
            seen = np.zeros((0, 3), np.float32)
            while len(seen) < LEAST_POINTS:
                factor = np.float32(rng.uniform(*scale))
                rotation[row], translation[row] = draw_pose(rng, camera, upright=upright)
                seen = render_view(surface * factor, rotation[row], translation[row], rng, camera=camera, sensor=sensor)
            order = rng.permutation(len(seen))
            points[row] = seen[np.resize(order, count)]
            size[row] = mesh.size * factor
            row += 1
    names = [(mesh, number) for mesh in meshes for number in range(views)]
    return CloudSet(
        points,
        tuple(mesh.category for mesh, _ in names),
        tuple(f"{mesh.name} {number:04d}" for mesh, number in names),
        Poses(rotation, translation, size),
        tuple(mesh.name for mesh, _ in names),
        handle=np.full(n, UNKNOWN, np.int8),
        intrinsics=np.broadcast_to(camera.astype(np.float32), (n, 3, 3)).copy(),
    )
