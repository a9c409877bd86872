"""Images from files, decoded to one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.extras import require


def load_images(paths: Sequence[str | Path], size: int) -> npt.NDArray[np.uint8]:
    """Decodes images to RGB, scales the shorter side to `size` and cuts the centre.

    Args:
        paths: n files of any format Pillow reads.
        size: pixels per side of the result.

    Returns:
        uint8 (n, 3, size, size), channels first, values 0 to 255.

    Raises:
        DataError: for a file that is missing, damaged or cut short, or that is no image.
        MissingExtraError: without Pillow.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)
    for position, path in enumerate(paths):
        images[position] = _load(Path(path), size)
    return images


def _load(path: Path, size: int) -> npt.NDArray[np.uint8]:
    pil = require("PIL.Image", extra="images", purpose="to read images")
    try:
        with pil.open(path) as file:
            image = file.convert("RGB")
    except FileNotFoundError:
        raise DataError("no such image file", file=path, mend="check the path") from None
    except pil.UnidentifiedImageError:
        raise DataError("is not an image", file=path, mend="give PNG, JPEG, WebP, BMP, GIF or TIFF files") from None
    except Exception as error:  # each decoder reports damage in its own way: OSError, SyntaxError, struct.error, ...
        raise DataError(f"is a damaged image ({error})", file=path, mend="copy it again or drop its row") from None
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), pil.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return pixels.transpose(2, 0, 1)
