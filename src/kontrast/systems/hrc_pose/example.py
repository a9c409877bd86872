"""The written example: views of random shapes, as archives, and a depth image with its mask to predict from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kontrast.data.clouds import CloudSet, Sensor, procedural_mesh, render_views
from kontrast.data.clouds.rendering import REAL_CAMERA
from kontrast.extras import installed, require
from kontrast.systems.hrc_pose.views import write_views

CATEGORIES = ("bottle", "bowl", "can")
PARTS = (("train", 0, 8, 16), ("valid", 8, 2, 4), ("test", 10, 4, 5))
"""Name, number of the first shape, shapes of each category, views of each shape."""


def write_example_views(folder: str | Path) -> Path:
    """Writes ``shapes/views_train.npz``, ``_valid`` and ``_test`` into a folder, returns ``shapes``; beside it, where
    Pillow is installed, a depth image with its mask to predict from.

    The shapes are made of cylinders and surfaces of revolution; none of them exists. Objects stand upright. Shapes of
    one part are in no other.
    """
    place = Path(folder) / "shapes"
    place.mkdir(parents=True, exist_ok=True)
    for part, first, shapes, views in PARTS:
        write_views(example_views(first, shapes, views), place / f"views_{part}.npz")
    if installed("PIL"):
        write_example_scene(Path(folder))
    return place


def example_views(first: int, shapes: int, views: int) -> CloudSet:
    """Views of `shapes` random shapes of each category, counted from `first`."""
    meshes = [procedural_mesh(name, number, seed=1) for name in CATEGORIES for number in range(first, first + shapes)]
    return render_views(meshes, views, seed=1, count=256, upright=1.0, sensor=Sensor(samples=6000, covered=0.0))


def write_example_scene(folder: Path) -> Path:
    """Writes ``new_depth.png`` and ``new_mask.png`` into a folder: a bottle to predict the pose of.

    Raises:
        MissingExtraError: without Pillow.
    """
    pil = require("PIL.Image", extra="clouds", purpose="to write a depth image")
    cloud = example_views(20, 1, 1).points[0]
    u = np.rint(cloud[:, 0] / cloud[:, 2] * REAL_CAMERA[0, 0] + REAL_CAMERA[0, 2]).astype(int)
    v = np.rint(cloud[:, 1] / cloud[:, 2] * REAL_CAMERA[1, 1] + REAL_CAMERA[1, 2]).astype(int)
    depth, mask = np.zeros((480, 640), np.uint16), np.zeros((480, 640), np.uint8)
    depth[v, u], mask[v, u] = np.rint(cloud[:, 2] * 1000), 1
    pil.fromarray(depth).save(folder / "new_depth.png")
    pil.fromarray(mask).save(folder / "new_mask.png")
    return folder / "new_depth.png"
