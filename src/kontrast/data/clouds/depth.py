"""Depth images: 16-bit PNG in millimetres, with a mask of the objects beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.clouds.cloud import POINTS, UNKNOWN, CloudSet, exactly
from kontrast.errors import DataError
from kontrast.extras import require

Floats = npt.NDArray[np.float32]
Intrinsics = tuple[float, float, float, float]

REAL_INTRINSICS: Intrinsics = (591.0125, 590.16775, 322.525, 244.11084)
SYNTHETIC_INTRINSICS: Intrinsics = (577.5, 577.5, 319.5, 239.5)
_BACKGROUND = (0, 255)
"""Values of a mask that are no object: NOCS writes 255 for the background, most tools 0."""


@dataclass(frozen=True)
class Camera:
    """How a depth image becomes points.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels.
        unit: metres of one step of the depth image.
        mask: the mask's file; None: the file beside the image whose name ends in _mask instead of _depth.
    """

    intrinsics: Intrinsics = REAL_INTRINSICS
    unit: float = 0.001
    mask: Path | None = None

    def matrix(self) -> Floats:
        """(3, 3) intrinsics."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def load_image(path: Path) -> npt.NDArray[Any]:
    """Pixels (h, w) or (h, w, c) as the file has them: uint8, uint16 or int32.

    Raises:
        DataError: for a missing, damaged or foreign file.
        MissingExtraError: without Pillow.
    """
    pil = require("PIL.Image", extra="clouds", purpose="to read depth images")
    try:
        with pil.open(path) as file:
            file.load()
            return np.asarray(file)
    except FileNotFoundError:
        raise DataError("no such file", file=path, mend="check the path") from None
    except IsADirectoryError:
        raise DataError("is a folder, not an image", file=path, mend="give a PNG file") from None
    except pil.UnidentifiedImageError:
        raise DataError("is not an image", file=path, mend="give a PNG file") from None
    except Exception as error:  # each decoder reports damage in its own way
        raise DataError(f"is a damaged image ({error})", file=path, mend="copy it again") from None


def load_depth(path: Path) -> npt.NDArray[np.int32]:
    """(h, w) steps of depth, 0 where there is none. Composed depth of NOCS (three channels) is put together.

    Raises:
        DataError: for an image that is no depth image.
    """
    pixels = load_image(path)
    if pixels.ndim == 3 and pixels.shape[2] >= 3 and pixels.dtype == np.uint8:
        # CAMERA stores 16 bits as two 8-bit channels, the green one high.
        return np.asarray(pixels[:, :, 1].astype(np.int32) * 256 + pixels[:, :, 2], np.int32)
    if pixels.ndim != 2 or pixels.dtype == np.uint8:
        what = f"has {pixels.dtype} pixels of shape {pixels.shape}; depth is one channel of 16 bits"
        raise DataError(what, file=path, mend="save depth in millimetres as 16-bit PNG")
    return pixels.astype(np.int32)


def load_mask(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(h, w) numbers of objects; a colour mask counts by its first channel.

    Raises:
        DataError: if its shape is not that of the depth image.
    """
    pixels = load_image(path)
    mask = pixels[:, :, 0] if pixels.ndim == 3 else pixels
    if mask.shape != shape:
        raise DataError(f"has {mask.shape} pixels and the depth image {shape}", file=path, mend="do not resize either")
    return mask.astype(np.int32)


def back_project(depth: npt.NDArray[np.int32], chosen: npt.NDArray[np.bool_], camera: Camera) -> Floats:
    """(p, 3) points of the chosen pixels that have a depth: x = (u - cx) z / fx, y = (v - cy) z / fy, metres."""
    fx, fy, cx, cy = camera.intrinsics
    rows, columns = np.nonzero(chosen & (depth > 0))
    z = depth[rows, columns] * camera.unit
    return np.stack([(columns - cx) * z / fx, (rows - cy) * z / fy, z], 1).astype(np.float32)


def mask_beside(depth: Path) -> Path:
    """The mask's usual name."""
    stem = depth.stem.removesuffix("_depth")
    return depth.with_name(f"{stem}_mask{depth.suffix}")


def read_depth(files: Sequence[Path], category: str | None, camera: Camera) -> CloudSet:
    """One view for each object of the masks: a mask of 0 and 255 has one object, others one for each number.

    Raises:
        DataError: for files that do not fit together, or objects with fewer than 50 pixels of depth.
    """
    if category is None:
        raise DataError("does not say of which category the object is", file=files[0], mend="give --category mug")
    if camera.mask is not None and len(files) > 1:
        raise DataError(f"one mask cannot serve {len(files)} depth images", file=camera.mask, mend="leave --mask out")
    points, ids, images = [], [], []
    for file in files:
        depth = load_depth(file)
        path = camera.mask or mask_beside(file)
        mask = load_mask(path, depth.shape)
        numbers = [int(one) for one in np.unique(mask) if one not in _BACKGROUND]
        if not numbers and (mask == 255).any() and (mask == 0).any():
            numbers = [255]
        if not numbers:
            raise DataError("marks no object: all its pixels are background", file=path, mend="check the mask")
        for number in numbers:
            name = file.stem.removesuffix("_depth") + (f" {number}" if len(numbers) > 1 else "")
            points.append(exactly(back_project(depth, mask == number, camera), POINTS, name, file))
            ids.append(name)
            images.append(file)
    n = len(ids)
    return CloudSet(
        np.stack(points),
        (category,) * n,
        tuple(ids),
        handle=np.full(n, UNKNOWN, np.int8),
        intrinsics=np.broadcast_to(camera.matrix(), (n, 3, 3)).copy(),
        images=tuple(images),
        path=files[0],
    )
