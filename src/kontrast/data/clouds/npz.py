"""Views of objects as NumPy archives: points with poses, and meshes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.clouds.cloud import CATEGORIES, POINTS, UNKNOWN, CloudSet, Poses, check_rotations, exactly
from kontrast.errors import DataError

Arrays = Mapping[str, npt.NDArray[Any]]


def read_archive(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an .npz file by name; nothing in it is executed.

    Raises:
        DataError: if it is missing, damaged, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError("no such file", file=path, mend="check the path") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"is not a whole .npz file ({reason})", file=path, mend="copy it again") from None
    except (ValueError, SyntaxError, NotImplementedError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"holds something that is no array of numbers or text ({reason})", file=path) from None


def views_from_arrays(arrays: Arrays, path: Path, *, category: str | None = None, split: str | None = None) -> CloudSet:
    """Views from arrays by name; see `kontrast.data.clouds.read_clouds` for the names.

    Args:
        arrays: of one file.
        path: named in messages.
        category: of all views, where the arrays do not say.
        split: of all views, where the arrays do not say.

    Raises:
        DataError: for a missing or wrong array.
    """
    points = _points(arrays, path)
    n = len(points)
    categories = _categories(arrays, n, path, category)
    ids = _texts(arrays, "id", n, path) or tuple(f"{path.stem} {row:05d}" for row in range(n))
    if len(set(ids)) < n:
        twice = next(one for one in ids if ids.count(one) > 1)
        raise DataError(f"'id' has '{twice}' twice", file=path, mend="give each view a name of its own")
    stated = _texts(arrays, "split", n, path)
    handle = _array(arrays, "handle_visible", (n,), path) if "handle_visible" in arrays else np.full(n, UNKNOWN)
    camera = None
    if "K" in arrays:
        given = _array(arrays, "K", None, path).astype(np.float32)
        if given.shape not in ((3, 3), (n, 3, 3)):
            raise DataError(f"'K' has the shape {given.shape}, (3, 3) or ({n}, 3, 3) is wanted", file=path)
        camera = np.broadcast_to(given, (n, 3, 3)).copy()
    return CloudSet(
        points,
        categories,
        ids,
        _poses(arrays, n, path),
        _texts(arrays, "instance", n, path),
        stated if stated is not None else (None if split is None else (split,) * n),
        handle.astype(np.int8),
        intrinsics=camera,
        path=path,
    )


def _points(arrays: Arrays, path: Path) -> npt.NDArray[np.float32]:
    if "points" not in arrays:
        known = ", ".join(sorted(arrays)[:8]) or "nothing"
        raise DataError(f"has no array 'points', only {known}", file=path, mend="save points as (n, p, 3)")
    points = arrays["points"]
    if points.dtype.kind not in "fiu":
        raise DataError(f"'points' is of type {points.dtype}, numbers are wanted", file=path)
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[2] != 3:
        raise DataError(f"'points' has the shape {points.shape}, (n, p, 3) is wanted", file=path)
    if len(points) == 0:
        raise DataError("'points' has no views", file=path)
    scale = arrays.get("point_scale", np.ones(()))
    if scale.size != 1 or scale.dtype.kind not in "fiu" or not float(scale.reshape(-1)[0]) > 0:
        raise DataError("'point_scale' must be one number above 0, the metres of a unit of 'points'", file=path)
    metres = points.astype(np.float32) * np.float32(scale.reshape(-1)[0])
    return np.stack([exactly(one, POINTS, f"{row}", path) for row, one in enumerate(metres)])


def _categories(arrays: Arrays, n: int, path: Path, category: str | None) -> tuple[str, ...]:
    if "category" not in arrays:
        if category is None:
            what = "does not say of which category the objects are"
            raise DataError(what, file=path, mend="add an array 'category', or give --category mug")
        return (category,) * n
    given = arrays["category"]
    if given.shape != (n,):
        raise DataError(f"'category' has the shape {given.shape}, ({n},) is wanted", file=path)
    if given.dtype.kind == "U":
        return tuple(given.tolist())
    if given.dtype.kind not in "iu":
        raise DataError(f"'category' is of type {given.dtype}; numbers or names are wanted", file=path)
    names = tuple(map(str, arrays["category_names"].tolist())) if "category_names" in arrays else CATEGORIES
    wrong = given[(given < 0) | (given >= len(names))]
    if len(wrong):
        what = f"'category' has {int(wrong[0])}, and there are {len(names)} categories (0 is {names[0]})"
        raise DataError(what, file=path)
    return tuple(names[int(one)] for one in given)


def _poses(arrays: Arrays, n: int, path: Path) -> Poses | None:
    there = [name for name in ("R", "t", "size") if name in arrays]
    if not there:
        return None
    if len(there) < 3:
        missing = next(name for name in ("R", "t", "size") if name not in there)
        raise DataError(f"has {' and '.join(there)} but not '{missing}'", file=path, mend="give R, t and size, or none")
    rotation = check_rotations(_array(arrays, "R", (n, 3, 3), path), path)
    translation, size = (_array(arrays, name, (n, 3), path).astype(np.float32) for name in ("t", "size"))
    if not np.isfinite(translation).all():
        raise DataError("'t' has numbers that are not finite", file=path)
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise DataError("'size' has edges that are not above 0", file=path, mend="give metres")
    return Poses(rotation, translation, size)


def _array(arrays: Arrays, name: str, shape: tuple[int, ...] | None, path: Path) -> npt.NDArray[Any]:
    value = arrays[name]
    if value.dtype.kind not in "fiub":
        raise DataError(f"'{name}' is of type {value.dtype}, numbers are wanted", file=path)
    if shape is not None and value.shape != shape:
        raise DataError(f"'{name}' has the shape {value.shape}, {shape} is wanted", file=path)
    return value


def _texts(arrays: Arrays, name: str, n: int, path: Path) -> tuple[str, ...] | None:
    if name not in arrays:
        return None
    value = arrays[name]
    if value.shape != (n,):
        raise DataError(f"'{name}' has the shape {value.shape}, ({n},) is wanted", file=path)
    return tuple(map(str, value.tolist()))
