"""Decoding: image files, DICOM and NIfTI slices to RGB of one size; masks to yes or no."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.surfaces.files import StoredFile, contents
from kontrast.data.surfaces.surface import SurfaceSet
from kontrast.errors import DataError
from kontrast.extras import require

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
SLICES = (".dcm", ".nii", ".nii.gz")
Pixels = npt.NDArray[np.uint8]
_MEND = "copy it again or leave it out"


@dataclass(frozen=True)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: uint8 (side, side, 3), RGB; the aspect ratio is not kept.
        size: height and width of the file.
        digest: hash of the file's bytes.
    """

    pixels: Pixels
    size: tuple[int, int]
    digest: str


def is_image(name: str) -> bool:
    """Whether a file's ending is one that is read."""
    return name.lower().endswith(IMAGES + SLICES)


def stem(name: str) -> str:
    """A file's name without folders and ending."""
    last = PurePosixPath(name).name
    ending = next((ending for ending in IMAGES + SLICES if last.lower().endswith(ending)), "")
    return last[: len(last) - len(ending)]


def decode(files: Sequence[StoredFile], side: int) -> Iterator[Decoded]:
    """Images scaled to `side` x `side` pixels, one after another.

    Grey images get three equal channels. Values of more than 8 bits are spread from the image's own least to its
    largest value.

    Raises:
        DataError: for a file that is missing, cut short or no image.
        MissingExtraError: without Pillow, or the package for a slice.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}")
    pil = require("PIL.Image", extra="surfaces", purpose="to read images")
    for file, data in zip(files, contents(files)):
        image = _image(file, data)
        height, width = image.size[1], image.size[0]
        small = image.resize((side, side), pil.Resampling.BILINEAR) if image.size != (side, side) else image
        yield Decoded(
            np.asarray(small, dtype=np.uint8), (height, width), hashlib.blake2b(data, digest_size=16).hexdigest()
        )


def load_masks(data: SurfaceSet, side: int) -> list[npt.NDArray[np.bool_]]:
    """Masks of all images of a set, each (side, side); an image without one has no anomalous pixel.

    A pixel is anomalous where the mask is brighter than half of its range; the nearest pixel is taken.

    Raises:
        DataError: for a mask that cannot be read, is empty, or has another size than its image.
    """
    pil = require("PIL.Image", extra="surfaces", purpose="to read masks")
    marked = [row for row in data.rows if row.mask is not None]
    found: dict[str, npt.NDArray[np.bool_]] = {}
    masks = contents([row.mask for row in marked if row.mask is not None])
    images = contents([row.file for row in marked])
    for row, mask_bytes, image_bytes in zip(marked, masks, images):
        assert row.mask is not None
        values = _mask(row.mask, mask_bytes)
        wanted = _size(row.file, image_bytes)
        if values.shape != wanted:
            what = (
                f"has {values.shape[1]} x {values.shape[0]} pixels, its image {row.file.name} {wanted[1]} x {wanted[0]}"
            )
            raise DataError(what, file=str(row.mask), mend="give a mask of the image's size")
        if not values.any():
            raise DataError(
                "marks no pixel of an anomalous image", file=str(row.mask), mend="mark it, or label it normal"
            )
        scaled = pil.fromarray(values.astype(np.uint8) * 255).resize((side, side), pil.Resampling.NEAREST)
        inside = np.asarray(scaled) > 127
        # A region smaller than a pixel of the smaller grid must not vanish.
        found[row.id] = inside if inside.any() else _touched(values, side)
    empty = np.zeros((side, side), dtype=bool)
    return [found.get(row.id, empty) for row in data.rows]


def marks_anything(file: StoredFile) -> bool:
    """Whether a mask file has a pixel above half of its range."""
    return bool(_mask(file, next(contents([file]))).any())


def _touched(values: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    inside = np.zeros((side, side), dtype=bool)
    rows, columns = np.nonzero(values)
    inside[rows * side // values.shape[0], columns * side // values.shape[1]] = True
    return inside


def _image(file: StoredFile, data: bytes) -> Any:
    """A Pillow image in RGB."""
    pil = require("PIL.Image", extra="surfaces", purpose="to read images")
    name = file.name.lower()
    if name.endswith(SLICES):
        values = _dicom(file, data) if name.endswith(".dcm") else _nifti(file, data)
        return pil.fromarray(_spread(values)).convert("RGB")
    opened = _opened(file, data)
    if opened.mode.startswith(("I", "F")):
        return pil.fromarray(_spread(np.asarray(opened, dtype=np.float64))).convert("RGB")
    return opened.convert("RGB")


def _opened(file: StoredFile, data: bytes) -> Any:
    pil = require("PIL.Image", extra="surfaces", purpose="to read images")
    if not data:
        raise DataError("is empty", file=str(file), mend=_MEND)
    try:
        opened = pil.open(io.BytesIO(data))
        opened.load()
    except pil.UnidentifiedImageError:
        raise DataError("is not an image", file=str(file), mend=f"give {', '.join(IMAGES)} files") from None
    except Exception as error:  # each decoder reports damage in its own way: OSError, SyntaxError, struct.error, ...
        raise DataError(f"is a damaged image ({error})", file=str(file), mend=_MEND) from None
    return opened


def _mask(file: StoredFile, data: bytes) -> npt.NDArray[np.bool_]:
    opened = _opened(file, data)
    values = np.asarray(opened if opened.mode.startswith(("I", "F", "1")) else opened.convert("L"), dtype=np.float64)
    # Masks come as 0 and 255, 0 and 1, or 0 and 65535.
    largest = 255.0 if 1 < values.max() <= 255 else max(float(values.max()), 1.0)
    return values > largest / 2


def _size(file: StoredFile, data: bytes) -> tuple[int, int]:
    if file.name.lower().endswith(SLICES):
        image = _image(file, data)
        return image.size[1], image.size[0]
    pil = require("PIL.Image", extra="surfaces", purpose="to read images")
    try:
        width, height = pil.open(io.BytesIO(data)).size
    except Exception:  # as in `_opened`, which words it
        width, height = _opened(file, data).size
    return height, width


def _spread(values: npt.NDArray[np.float64]) -> Pixels:
    """Finite values spread from 0 to 255; what is not finite is black."""
    finite = np.isfinite(values)
    low = float(values[finite].min()) if finite.any() else 0.0
    high = float(values[finite].max()) if finite.any() else 0.0
    scaled = np.where(finite, values - low, 0.0) * (255 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def _dicom(file: StoredFile, data: bytes) -> npt.NDArray[np.float64]:
    dicom = require("pydicom", extra="surfaces", purpose="to read DICOM slices")
    try:
        dataset = dicom.dcmread(io.BytesIO(data))
        values = np.asarray(dataset.pixel_array, dtype=np.float64)
        inverted = str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    except Exception as error:  # pydicom and its decoders raise many kinds for a damaged file
        raise DataError(f"is not a whole DICOM image ({error})", file=str(file), mend=_MEND) from None
    return _one_slice(file, -values if inverted else values)


def _nifti(file: StoredFile, data: bytes) -> npt.NDArray[np.float64]:
    nibabel = require("nibabel", extra="surfaces", purpose="to read NIfTI slices")
    ending = ".nii.gz" if file.name.lower().endswith(".gz") else ".nii"
    try:
        with tempfile.TemporaryDirectory(prefix="kontrast-nifti-") as folder:
            path = Path(folder) / f"slice{ending}"
            path.write_bytes(data)
            values = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise DataError(f"is not a whole NIfTI image ({error})", file=str(file), mend=_MEND) from None
    # The first axis runs from left to right, the second from back to front.
    return _one_slice(file, np.rot90(values.squeeze()) if values.squeeze().ndim == 2 else values)


def _one_slice(file: StoredFile, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    flat = values.squeeze()
    if flat.ndim != 2:
        what = f"holds an array of shape {values.shape}, not one grey slice"
        raise DataError(what, file=str(file), mend="save the slices that are to be looked at one by one")
    return flat


def sizes(data: SurfaceSet) -> list[tuple[int, int]]:
    """Height and width of each image in its file."""
    return [_size(row.file, found) for row, found in zip(data.rows, contents([row.file for row in data.rows]))]
