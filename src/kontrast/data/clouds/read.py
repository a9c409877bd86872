"""Any of the formats that views of objects come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kontrast.data.clouds.cloud import POINTS, UNKNOWN, CloudSet, Poses, exactly
from kontrast.data.clouds.depth import Camera, read_depth
from kontrast.data.clouds.meshes import Mesh, load_geometry, meshes_from_arrays
from kontrast.data.clouds.nocs import is_nocs, read_nocs
from kontrast.data.clouds.npz import read_archive, views_from_arrays
from kontrast.data.splits import PARTS
from kontrast.errors import DataError

_PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


def read_clouds(path: str | Path, *, category: str | None = None, camera: Camera | None = None) -> CloudSet:
    """Views of objects from a file or folder.

    - ``.npz`` with ``points`` (n, p, 3) in metres, or in units of ``point_scale`` metres; ``category`` (n,), names or
      numbers into ``category_names``; where poses are known ``R`` (n, 3, 3), ``t`` (n, 3) and ``size`` (n, 3); and if
      there are any ``instance``, ``split``, ``id``, ``handle_visible`` (1, 0 or -1), ``K``. An archive of
      ``NAME/V, NAME/F, NAME/split`` holds meshes.
    - ``.ply``: the points of one object.
    - ``.png``: a 16-bit depth image with a mask beside it.
    - a folder of NOCS: ``.../0000_depth.png, _mask.png, _meta.txt, _label.pkl``.
    - a folder of files of one of these kinds; archives named ``..._train``, ``..._valid``, ``..._test`` are parts.

    Args:
        path: file or folder.
        category: of objects in files that do not say.
        camera: intrinsics, depth unit and mask of depth images.

    Raises:
        DataError: naming the file, the field, what came and what is allowed.
        MissingExtraError: without Pillow for images, or trimesh for PLY.
    """
    path = Path(path)
    camera = camera or Camera()
    if path.is_dir():
        return _folder(path, category, camera)
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend="check the path")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        found, meshes = _archive(path, category)
        if found is None:
            raise DataError(f"holds {len(meshes)} meshes and no views", file=path, mend="give the folder that it is in")
        return found
    if suffix == ".ply":
        return _ply([path], category)
    if suffix == ".png":
        return read_depth([path], category, camera)
    raise DataError(
        f"'{suffix or path.name}' is no format of views", file=path, mend="give .npz, .ply, a depth .png or a folder"
    )


def joined(sets: Sequence[CloudSet], meshes: Sequence[Mesh] = (), path: Path | None = None) -> CloudSet:
    """One set of several, in order; what one of them does not know is unknown for its rows.

    Raises:
        DataError: if some have poses and others do not.
    """
    posed = [one.poses is not None for one in sets]
    if any(posed) and not all(posed):
        lacking = sets[posed.index(False)]
        raise DataError("has no poses and other files have some", file=lacking.path, mend="give R, t and size in all")
    poses = [one.poses for one in sets if one.poses is not None]

    def texts(name: str) -> tuple[str, ...] | None:
        values = [getattr(one, name) for one in sets]
        if all(value is None for value in values):
            return None
        return tuple(text for one, value in zip(sets, values) for text in (value or ("",) * len(one)))

    ids = tuple(name for one in sets for name in one.ids)
    cameras = [one.intrinsics for one in sets if one.intrinsics is not None]
    return CloudSet(
        np.concatenate([one.points for one in sets]),
        tuple(name for one in sets for name in one.categories),
        ids if len(set(ids)) == len(ids) else tuple(f"{i}: {name}" for i, one in enumerate(sets) for name in one.ids),
        Poses(*(np.concatenate([getattr(p, f) for p in poses]) for f in ("rotation", "translation", "size")))
        if poses
        else None,
        texts("instances"),
        texts("split"),
        np.concatenate([np.full(len(one), UNKNOWN, np.int8) if one.handle is None else one.handle for one in sets]),
        (*(mesh for one in sets for mesh in one.meshes), *meshes),
        np.concatenate(cameras) if len(cameras) == len(sets) else None,
        tuple(image for one in sets for image in (one.images or (None,) * len(one))),
        path,
    )


def _folder(path: Path, category: str | None, camera: Camera) -> CloudSet:
    if is_nocs(path):
        return read_nocs(path)
    archives = sorted(path.glob("*.npz"))
    if archives:
        sets, meshes = [], list[Mesh]()
        for file in archives:
            found, shapes = _archive(file, category)
            meshes.extend(shapes)
            if found is not None:
                sets.append(found)
        if not sets:
            raise DataError("holds meshes and no views", file=path, mend="add an archive of views")
        return replace(joined(sets, meshes, path), path=path)
    depths = [file for file in sorted(path.glob("*.png")) if not file.stem.endswith(("_mask", "_color", "_coord"))]
    if depths:
        return read_depth(depths, category, camera)
    plys = sorted(path.glob("*.ply"))
    if plys:
        return _ply(plys, category)
    raise DataError("holds no .npz, .ply or depth .png and is no folder of NOCS", file=path, mend="check the path")


def _archive(path: Path, category: str | None) -> tuple[CloudSet | None, tuple[Mesh, ...]]:
    arrays = read_archive(path)
    meshes = meshes_from_arrays(arrays, path)
    if meshes and "points" not in arrays:
        return None, meshes
    last = path.stem.rsplit("_", 1)[-1].lower()
    views = views_from_arrays(arrays, path, category=category, split=_PARTS.get(last))
    if views.split is not None:
        unknown = sorted(set(views.split) - set(PARTS))
        if unknown:
            raise DataError(f"'split' has '{unknown[0]}', known are {', '.join(PARTS)}", file=path)
    return replace(views, meshes=meshes), ()


def _ply(files: Sequence[Path], category: str | None) -> CloudSet:
    if category is None:
        raise DataError("does not say of which category the object is", file=files[0], mend="give --category mug")
    points = [exactly(load_geometry(file).vertices, POINTS, file.stem, file) for file in files]
    return CloudSet(np.stack(points), (category,) * len(files), tuple(file.stem for file in files), path=files[0])
