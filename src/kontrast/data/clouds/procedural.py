"""Random instances of the six categories of NOCS, made of cylinders, surfaces of revolution, boxes and tori.

They stand beside a handful of scans in training, so that a model meets more shapes than there are scans. Ranges are in
metres and wide on purpose; nothing here is meant to look like a product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from kontrast.data.clouds.meshes import Mesh
from kontrast.randomness import numpy_rng

Array = npt.NDArray[np.float64]
Part = tuple[Array, npt.NDArray[np.int64]]

_AROUND = 48


def procedural_mesh(category: str, number: int, seed: int = 0) -> Mesh:
    """Instance `number` of a category: a pure function of its arguments, centred, y up.

    Raises:
        ValueError: for a category without a recipe.
    """
    if category not in _RECIPES:
        raise ValueError(f"no recipe for '{category}'; known: {', '.join(_RECIPES)}")
    vertices, faces = _joined(_RECIPES[category](numpy_rng(seed, "instance", category, number)))
    name = f"{category}_made_{number:04d}"
    return Mesh(name, category, vertices.astype(np.float32), faces.astype(np.int32), "train").centred()


def has_recipe(category: str) -> bool:
    """Whether `procedural_mesh` can make instances of a category."""
    return category in _RECIPES


def _can(rng: np.random.Generator) -> list[Part]:
    radius, height, lip = rng.uniform(0.03, 0.055), rng.uniform(0.07, 0.15), rng.uniform(0.001, 0.003)
    inner, step = radius - 1.5 * lip, 0.02 * height
    # A can stands on a rim and has one on top; its lids lie a little inside.
    profile = [
        (0.0, lip), (inner, lip), (inner, 0.0), (radius, 0.0), (radius, step), (radius - lip, 2 * step),
        (radius - lip, height - 2 * step), (radius, height - step), (radius, height), (inner, height),
        (inner, height - lip), (0.0, height - lip),
    ]  # fmt: skip
    return [_revolved(profile)]


def _bottle(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.025, 0.05)
    neck, height = wide * rng.uniform(0.25, 0.5), rng.uniform(0.14, 0.32)
    shoulder = wide * rng.uniform(0.5, 0.9)
    at = np.array([0.0, 0.55, 0.75, 0.9, 1.0]) * height
    radius = np.array([wide, wide * rng.uniform(0.9, 1.1), shoulder, neck, neck])
    heights = np.linspace(0, height, 40)
    profile = [(0.0, 0.0), *zip(PchipInterpolator(at, radius)(heights).tolist(), heights.tolist()), (0.0, height)]
    vertices, faces = _revolved(profile)
    if rng.random() < 0.5:
        # Many bottles are oval; by convention they count as symmetric about y all the same.
        vertices = vertices * np.array([1.0, 1.0, rng.uniform(0.6, 0.9)])
    return [(vertices, faces)]


def _shell(outer: Callable[[Array], Array], height: float, thick: float, top: float = 1.0) -> Part:
    """An open vessel: up the outer wall, over the rim, down the inner wall."""
    up = np.linspace(0, height * top, 24)
    inner = np.maximum(outer(up) - thick, 1e-4)
    inside = up >= thick
    profile = [
        (0.0, 0.0), *zip(outer(up).tolist(), up.tolist()),
        *zip(inner[inside][::-1].tolist(), up[inside][::-1].tolist()), (0.0, thick),
    ]  # fmt: skip
    return _revolved(profile)


def _bowl(rng: np.random.Generator) -> list[Part]:
    radius, height = rng.uniform(0.05, 0.1), rng.uniform(0.04, 0.09)
    base, power = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8)
    wall = lambda y: radius * (base + (1 - base) * (y / height) ** power)  # noqa: E731
    return [_shell(wall, height, rng.uniform(0.003, 0.006))]


def _mug(rng: np.random.Generator) -> list[Part]:
    radius, height = rng.uniform(0.035, 0.05), rng.uniform(0.07, 0.14)
    taper = rng.uniform(0.8, 1.05)
    wall = lambda y: radius * (taper + (1 - taper) * y / height)  # noqa: E731
    body = _shell(wall, height, rng.uniform(0.003, 0.005))
    major, minor = height * rng.uniform(0.25, 0.4), rng.uniform(0.004, 0.008)
    return [body, _handle(major, minor, at=radius * (1 + taper) / 2, y=height * rng.uniform(0.45, 0.55))]


def _laptop(rng: np.random.Generator) -> list[Part]:
    width, thick, depth = rng.uniform(0.28, 0.4), rng.uniform(0.012, 0.02), rng.uniform(0.2, 0.28)
    base = _box((width, thick, depth))
    lid_vertices, lid_faces = _box((width, thick / 2, depth))
    opened = np.radians(180 - rng.uniform(80, 130))
    # The lid lies on the base when closed, and turns about the back edge (z = -depth/2, on top of the base).
    lid = lid_vertices + np.array([0.0, thick / 4, depth / 2])
    angle = -(np.pi - opened)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return [base, (lid @ turn.T + np.array([0.0, thick / 2, -depth / 2]), lid_faces)]


def _camera(rng: np.random.Generator) -> list[Part]:
    width, height, depth = rng.uniform(0.1, 0.15), rng.uniform(0.06, 0.1), rng.uniform(0.04, 0.07)
    lens_radius, lens_length = height * rng.uniform(0.25, 0.42), rng.uniform(0.03, 0.07)
    vertices, faces = _revolved([(0.0, 0.0), (lens_radius, 0.0), (lens_radius, lens_length), (0.0, lens_length)])
    # The axis of the lens is y as it is made, and z on the camera.
    lens = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], 1)
    lens = lens + np.array([width * rng.uniform(-0.15, 0.15), height * rng.uniform(-0.1, 0.1), depth / 2])
    top_height = height * rng.uniform(0.15, 0.3)
    top, top_faces = _box((width * rng.uniform(0.25, 0.4), top_height, depth * rng.uniform(0.5, 0.9)))
    top = top + np.array([width * rng.uniform(-0.25, 0.25), (height + top_height) / 2, 0.0])
    return [_box((width, height, depth)), (lens, faces), (top, top_faces)]


_RECIPES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "bottle": _bottle,
    "bowl": _bowl,
    "camera": _camera,
    "can": _can,
    "laptop": _laptop,
    "mug": _mug,
}


def _revolved(profile: list[tuple[float, float]]) -> Part:
    """The surface of a profile of (radius, y) turned about y."""
    radius, y = np.asarray(profile, np.float64).T
    angle = np.arange(_AROUND) * 2 * np.pi / _AROUND
    rings = np.stack(
        [
            radius[:, None] * np.cos(angle),
            np.broadcast_to(y[:, None], (len(y), _AROUND)),
            radius[:, None] * np.sin(angle),
        ],
        2,
    )
    return rings.reshape(-1, 3), _grid(len(y), _AROUND, closed=True)


def _handle(major: float, minor: float, at: float, y: float) -> Part:
    """Half a torus in the xy plane, bulging towards +x."""
    along = np.linspace(-np.pi / 2, np.pi / 2, 24)
    around = np.arange(12) * 2 * np.pi / 12
    reach = major + minor * np.cos(around)[None]
    rings = np.stack(
        [at + reach * np.cos(along)[:, None], y + reach * np.sin(along)[:, None],
         np.broadcast_to(minor * np.sin(around)[None], (24, 12))], 2,
    )  # fmt: skip
    return rings.reshape(-1, 3), _grid(24, 12, closed=True)


def _box(size: tuple[float, float, float]) -> Part:
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return corners * np.asarray(size) / 2, np.asarray(faces, np.int64)


def _grid(rows: int, columns: int, *, closed: bool) -> npt.NDArray[np.int64]:
    """Triangles between neighbouring points of a grid whose rows are rings."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    k = (j + 1) % columns
    a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
    return np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3), np.stack([b, d, c], 2).reshape(-1, 3)])


def _joined(parts: list[Part]) -> Part:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    return (
        np.concatenate([vertices for vertices, _ in parts]),
        np.concatenate([faces + start for (_, faces), start in zip(parts, starts)]),
    )
