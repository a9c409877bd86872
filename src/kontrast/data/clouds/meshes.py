"""Meshes of objects in the frame of NOCS: y up, centre of the box at 0, a mug's handle towards +x; metres."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.extras import require

Floats = npt.NDArray[np.float32]

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".off")


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes:
        name: of the instance.
        category: such as "mug".
        vertices: float32 (v, 3), metres.
        faces: int32 (f, 3).
        split: "train", "valid" or "test"; "" where nothing is said.
    """

    name: str
    category: str
    vertices: Floats
    faces: npt.NDArray[np.int32]
    split: str = ""

    @property
    def size(self) -> Floats:
        """(3,) lengths of the edges of the box around it, metres."""
        return np.asarray(np.ptp(self.vertices, axis=0), np.float32)

    def centred(self) -> Mesh:
        """The same mesh with the centre of its box at 0."""
        middle = (self.vertices.max(0) + self.vertices.min(0)) / 2
        return Mesh(self.name, self.category, self.vertices - middle, self.faces, self.split)

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        """(count, 3) points spread evenly over the surface."""
        corners = self.vertices[self.faces]
        edges = corners[:, 1:] - corners[:, :1]
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).astype(np.float64)
        chosen = np.searchsorted(np.cumsum(area), rng.random(count) * area.sum(), side="right")
        chosen = np.minimum(chosen, len(area) - 1)
        a, b = rng.random((2, count, 1), dtype=np.float32)
        over = a + b > 1
        a, b = np.where(over, 1 - a, a), np.where(over, 1 - b, b)
        return np.asarray(corners[chosen, 0] + a * edges[chosen, 0] + b * edges[chosen, 1], np.float32)

    def digest(self) -> str:
        """Text that is equal for equal meshes."""
        parts = repr((self.name, self.category)).encode() + self.vertices.tobytes() + self.faces.tobytes()
        return hashlib.sha256(parts).hexdigest()[:24]


def make_mesh(
    name: str, category: str, vertices: Any, faces: Any, *, split: str = "", path: Path | None = None
) -> Mesh:
    """A checked mesh.

    Raises:
        DataError: for wrong shapes, numbers that are not finite, or faces that name no vertex.
    """
    points, triangles = np.asarray(vertices), np.asarray(faces)
    if points.ndim != 2 or points.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        came = f"vertices {points.shape} and faces {triangles.shape}"
        raise DataError(f"mesh '{name}' has {came}, (v, 3) and (f, 3) are wanted", file=path)
    if len(triangles) == 0:
        raise DataError(f"mesh '{name}' has no faces", file=path, mend="give a mesh, not a cloud of points")
    if points.dtype.kind not in "fiu" or triangles.dtype.kind not in "iu" or not np.isfinite(points).all():
        raise DataError(f"mesh '{name}' has numbers that are not finite, or faces that are not whole", file=path)
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise DataError(f"mesh '{name}' has faces of vertices that are not there", file=path)
    return Mesh(name, category, points.astype(np.float32), triangles.astype(np.int32), split)


def read_mesh(path: Path, *, category: str, name: str | None = None) -> Mesh:
    """A mesh from .obj, .ply, .stl or .off, centred; coordinates are metres, y is up.

    Raises:
        DataError: for a missing or damaged file, or one without faces.
        MissingExtraError: without trimesh.
    """
    loaded = load_geometry(path)
    faces = getattr(loaded, "faces", np.zeros((0, 3), np.int64))
    return make_mesh(name or path.stem, category, loaded.vertices, faces, path=path).centred()


def load_geometry(path: Path) -> Any:
    """What trimesh makes of a file: an object with `vertices` and, if it is a mesh, `faces`.

    Raises:
        DataError: for a missing or damaged file, or one without a vertex.
        MissingExtraError: without trimesh.
    """
    trimesh = require("trimesh", extra="clouds", purpose="to read meshes and PLY clouds")
    if not path.is_file():
        raise DataError("no such file", file=path, mend="check the path")
    try:
        loaded = trimesh.load(path, process=False, maintain_order=True, skip_materials=True)
        if hasattr(loaded, "geometry"):
            loaded = loaded.to_geometry() if hasattr(loaded, "to_geometry") else loaded.dump(concatenate=True)
        vertices = np.asarray(loaded.vertices)
    except Exception as error:  # every reader of trimesh reports damage in its own way
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"is not a whole {path.suffix} file ({reason})", file=path, mend="export it again") from None
    if vertices.ndim != 2 or vertices.shape[-1] != 3 or not len(vertices):
        raise DataError("has no vertices", file=path, mend="export it again")
    return loaded


def meshes_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> tuple[Mesh, ...]:
    """Meshes from an archive with ``NAME/V`` (v, 3), ``NAME/F`` (f, 3) and ``NAME/split``; the category is NAME's first
    word, up to an underscore.

    Raises:
        DataError: for arrays that are missing or of another shape.
    """
    names = sorted({key.rsplit("/", 1)[0] for key in arrays if key.endswith("/V")})
    found = []
    for name in names:
        if f"{name}/F" not in arrays:
            raise DataError(f"has '{name}/V' and no '{name}/F'", file=path)
        split = str(arrays[f"{name}/split"]) if f"{name}/split" in arrays else ""
        category = name.split("_", 1)[0]
        vertices, faces = arrays[f"{name}/V"], arrays[f"{name}/F"]
        found.append(make_mesh(name, category, vertices, faces, split=split, path=path).centred())
    return tuple(found)
