"""The tree of NOCS: CAMERA and Real, with labels as SPD's preprocessing writes them.

``.../{CAMERA,Real}/{train,val,test}/FOLDER/0000_depth.png``, beside it ``0000_mask.png`` (values are numbers of
objects, 255 is background), ``0000_meta.txt`` (a line "number class model" for each object) and ``0000_label.pkl``.
Labels are pickles; they are read by an interpreter that knows arrays and plain values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.clouds.cloud import (
    CATEGORIES,
    LEAST_POINTS,
    POINTS,
    UNKNOWN,
    CloudSet,
    Poses,
    check_rotations,
    exactly,
)
from kontrast.data.clouds.depth import SYNTHETIC_INTRINSICS, Camera, back_project, load_depth, load_mask
from kontrast.data.restricted_pickle import read_pickle
from kontrast.errors import DataError
from kontrast.progress import say

Floats = npt.NDArray[np.float32]
_META = "_meta.txt"
_PARTS = {"train": "train", "val": "valid", "valid": "valid", "test": "test"}


@dataclass(frozen=True)
class _Object:
    """One object of one image."""

    number: int
    category: str
    model: str
    pose: tuple[Floats, Floats, Floats] | None
    handle: int


def is_nocs(path: Path) -> bool:
    """Whether a folder is a tree of NOCS, or a part of one."""
    return next(path.rglob(f"*{_META}"), None) is not None


def read_nocs(path: Path) -> CloudSet:
    """All objects of the images below a folder; those with fewer than 50 points of depth are left out.

    Depth of CAMERA is taken from ``camera_full_depths`` where that folder lies beside it. Without a ``_label.pkl`` an
    image's objects have no poses. A folder ``val`` is the test part where there is no folder ``test``: CAMERA25.

    Raises:
        DataError: for files that are missing, damaged or do not fit together, or if some images have labels and others
            do not.
    """
    metas = sorted(path.rglob(f"*{_META}"))
    models = _Models(path)
    rows: list[tuple[Floats, _Object, str, Path, Camera, str]] = []
    small = 0
    for meta in metas:
        stem = meta.name.removesuffix(_META)
        camera = _camera(meta)
        file = _depth_file(meta, stem, path)
        depth = load_depth(file)
        mask = load_mask(meta.with_name(f"{stem}_mask.png"), depth.shape)
        for one in _objects(meta, stem, models):
            points = back_project(depth, mask == one.number, camera)
            if len(points) < LEAST_POINTS:
                small += 1
                continue
            name = f"{meta.parent.relative_to(path.parent).as_posix()}/{stem} {one.number}"
            rows.append((exactly(points, POINTS, name, file), one, name, file, camera, _part(meta)))
    if small:
        say(f"{small} objects with fewer than {LEAST_POINTS} points of depth are left out.")
    if not rows:
        raise DataError("has no object with enough points", file=path, mend="check depth and masks")
    posed = [row[1].pose is not None for row in rows]
    if any(posed) and not all(posed):
        lacking = rows[posed.index(False)]
        raise DataError("has no _label.pkl and other images have one", file=lacking[3], mend="label all, or none")
    parts = [row[5] for row in rows]
    if "test" not in parts:
        parts = ["test" if part == "valid" else part for part in parts]
    poses = [row[1].pose for row in rows if row[1].pose is not None]
    return CloudSet(
        np.stack([row[0] for row in rows]),
        tuple(row[1].category for row in rows),
        tuple(row[2] for row in rows),
        Poses(*(np.stack([pose[i] for pose in poses]) for i in range(3))) if poses else None,
        tuple(row[1].model for row in rows),
        tuple(parts) if all(parts) else None,
        np.asarray([row[1].handle for row in rows], np.int8),
        intrinsics=np.stack([row[4].matrix() for row in rows]),
        images=tuple(row[3] for row in rows),
        path=path,
    )


class _Models:
    """Sizes of models from ``obj_models/*.pkl``: points (k, 3) by name, read when first asked for."""

    def __init__(self, path: Path) -> None:
        places = [path, *path.resolve().parents[:3]]
        self.folder = next((place / "obj_models" for place in places if (place / "obj_models").is_dir()), None)
        self._sizes: dict[str, Floats] | None = None

    def size(self, name: str, label: Path) -> Floats:
        """(3,) edges of a model's box in its own unit."""
        if self._sizes is None:
            self._sizes = {}
            for file in sorted(self.folder.glob("*.pkl")) if self.folder is not None else ():
                held = read_pickle(file)
                if not isinstance(held, dict):
                    raise DataError(f"holds a {type(held).__name__}, not points by name of model", file=file)
                for key, points in held.items():
                    array = np.asarray(points)
                    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind != "f":
                        raise DataError(f"model '{key}' has the shape {array.shape}, (k, 3) is wanted", file=file)
                    self._sizes[str(key)] = 2 * np.abs(array).max(0).astype(np.float32)
        if name not in self._sizes:
            what = f"has no 'size', and model '{name}' is in no obj_models/*.pkl"
            raise DataError(what, file=label, mend="put obj_models of SPD beside the images")
        return self._sizes[name]


def _objects(meta: Path, stem: str, models: _Models) -> list[_Object]:
    label = meta.with_name(f"{stem}_label.pkl")
    return _labelled(label, models) if label.is_file() else _listed(meta)


def _listed(meta: Path) -> list[_Object]:
    """Objects of a _meta.txt: "number class ... model"; class 0 is clutter."""
    found = []
    try:
        lines = meta.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", file=meta) from None
    for place, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            number, kind = int(words[0]), int(words[1])
        except (ValueError, IndexError):
            what = f"line {place} is '{line[:40]}', and 'number class model' is wanted"
            raise DataError(what, file=meta) from None
        if kind > 0:
            found.append(_Object(number, _category(kind, meta), words[-1], None, UNKNOWN))
    return found


def _labelled(label: Path, models: _Models) -> list[_Object]:
    held = read_pickle(label)
    if not isinstance(held, dict):
        raise DataError(f"holds a {type(held).__name__}, not a dictionary", file=label)
    kinds = _numbers(held, "class_ids", label).astype(np.int64).ravel()
    n = len(kinds)
    numbers = _numbers(held, "instance_ids", label, (n,)).astype(np.int64)
    names = [str(name) for name in held.get("model_list") or held.get("obj_list") or [""] * n]
    if len(names) != n:
        raise DataError(f"has {len(names)} models for {n} objects", file=label)
    if "poses" in held:
        whole = _numbers(held, "poses", label, (n, 4, 4))
        turned, place = whole[:, :3, :3], whole[:, :3, 3]
        scale = np.cbrt(np.abs(np.linalg.det(turned)))
        turned = turned / np.maximum(scale, 1e-9)[:, None, None]
    else:
        turned = _numbers(held, "rotations", label, (n, 3, 3))
        place = _numbers(held, "translations", label, (n, 3))
        scale = _numbers(held, "scales", label, (n,))
    rotation = check_rotations(turned, label, "rotations")
    handle = _numbers(held, "handle_visibility", label, (n,)) if "handle_visibility" in held else np.full(n, UNKNOWN)
    sizes = (
        _numbers(held, "size", label, (n, 3))
        if "size" in held
        else np.stack([models.size(name, label) for name in names] or [np.zeros(3, np.float32)])[:n]
    )
    found = []
    for row in range(n):
        edges = np.asarray(sizes[row] * scale[row], np.float32)
        if not (np.isfinite(edges).all() and (edges > 0).all() and np.isfinite(place[row]).all()):
            raise DataError(f"object {row} has a size or translation that cannot be", file=label)
        pose = (rotation[row], np.asarray(place[row], np.float32), edges)
        category = _category(int(kinds[row]), label)
        found.append(_Object(int(numbers[row]), category, names[row], pose, int(handle[row])))
    return found


def _numbers(held: Mapping[str, Any], name: str, label: Path, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    if name not in held:
        raise DataError(f"has no '{name}', only {', '.join(map(str, list(held)[:8]))}", file=label)
    array = np.asarray(held[name])
    if array.dtype.kind not in "fiub" or (shape is not None and array.shape != shape):
        wanted = "numbers" if shape is None else f"numbers of shape {shape}"
        raise DataError(f"'{name}' is {array.dtype} of shape {array.shape}, {wanted} is wanted", file=label)
    return array


def _category(kind: int, file: Path) -> str:
    if not 1 <= kind <= len(CATEGORIES):
        raise DataError(f"has the class {kind}, NOCS has 1 to {len(CATEGORIES)}", file=file)
    return CATEGORIES[kind - 1]


def _camera(meta: Path) -> Camera:
    synthetic = any(part.lower().startswith("camera") for part in meta.parts)
    return Camera(SYNTHETIC_INTRINSICS) if synthetic else Camera()


def _depth_file(meta: Path, stem: str, root: Path) -> Path:
    """The depth image; for CAMERA the composed one, with the background in it, if it is there."""
    composed = Path("camera_full_depths", meta.parent.parent.name, meta.parent.name, f"{stem}_composed.png")
    for place in (root, *root.resolve().parents[:3]):
        if (place / composed).is_file():
            return place / composed
    return meta.with_name(f"{stem}_depth.png")


def _part(meta: Path) -> str:
    """The part that the nearest folder of a known name stands for; "" if there is none."""
    return next((_PARTS[part.lower()] for part in reversed(meta.parts[:-1]) if part.lower() in _PARTS), "")
