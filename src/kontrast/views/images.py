"""Views of images, uint8 (n, 3, side, side), whole batches at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kontrast.views.base import check_share

Images = npt.NDArray[np.uint8]
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Luma weights of ITU-R BT.601."""


@dataclass(frozen=True)
class RandomCrop:
    """Cuts a random rectangle and scales it back to the image's size, bilinearly (SimCLR, arXiv 2002.05709, app. A).

    Attributes:
        least: smallest share of the area that is kept, in (0, 1]; the share is uniform in [least, 1].
        ratio: the aspect ratio is log-uniform in [1/ratio, ratio]; at least 1.
    """

    least: float = 0.3
    ratio: float = 4 / 3

    def __post_init__(self) -> None:
        check_share("least", self.least)
        if self.least == 0 or not self.ratio >= 1:
            raise ValueError(f"least must be above 0 and ratio at least 1, got {self.least} and {self.ratio}")

    def __call__(self, batch: Images, rng: np.random.Generator, /) -> Images:
        """The cropped images, of the same size."""
        n, _, height, width = batch.shape
        draws = rng.random((n, 4))
        area = self.least + (1 - self.least) * draws[:, 0]
        stretch = self.ratio ** (draws[:, 1] - 0.5)
        tall, wide = np.minimum(np.sqrt(area) * stretch, 1) * height, np.minimum(np.sqrt(area) / stretch, 1) * width
        top, left = draws[:, 2] * (height - tall), draws[:, 3] * (width - wide)
        rows, row_share = _places(top, tall, height)
        columns, column_share = _places(left, wide, width)
        pick = np.arange(n)[:, None, None]
        channels_last = batch.transpose(0, 2, 3, 1)
        total = np.zeros((n, height, width, batch.shape[1]), dtype=np.float32)
        for row_step in (0, 1):
            for column_step in (0, 1):
                weight = (row_share if row_step else 1 - row_share)[:, :, None]
                weight = weight * (column_share if column_step else 1 - column_share)[:, None, :]
                at_row = np.minimum(rows + row_step, height - 1)[:, :, None]
                at_column = np.minimum(columns + column_step, width - 1)[:, None, :]
                total += weight[..., None] * channels_last[pick, at_row, at_column]
        return np.rint(total).astype(np.uint8).transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors each image left to right with probability `share`, in [0, 1]."""

    share: float = 0.5

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def __call__(self, batch: Images, rng: np.random.Generator, /) -> Images:
        """The images, some of them mirrored."""
        flipped = rng.random(len(batch)) < self.share
        return np.where(flipped[:, None, None, None], batch[..., ::-1], batch)


@dataclass(frozen=True)
class ColourJitter:
    """Changes brightness, contrast and saturation of each image by random factors, in this order.

    Attributes:
        brightness, contrast, saturation: each factor is uniform in [1 - value, 1 + value]; values in [0, 1].
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check_share(name, getattr(self, name))

    def __call__(self, batch: Images, rng: np.random.Generator, /) -> Images:
        """The images with other colours."""
        strength = np.array([self.brightness, self.contrast, self.saturation], dtype=np.float32)
        factors = 1 + strength * (2 * rng.random((len(batch), 3), dtype=np.float32) - 1)
        light, contrast, colour = factors.T[:, :, None, None, None]
        pixels = batch.astype(np.float32) * light
        level = _grey(pixels).mean((2, 3), keepdims=True)
        pixels = level + contrast * (pixels - level)
        grey = _grey(pixels)
        pixels = grey + colour * (pixels - grey)
        jittered: Images = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
        return jittered


def _grey(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Luma of images (n, 3, h, w), as (n, 1, h, w)."""
    grey: npt.NDArray[np.float32] = np.einsum("nchw,c->nhw", pixels, _GREY)[:, None]
    return grey


def _places(
    start: npt.NDArray[np.float64], length: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each of `size` output pixels the input pixel before it, and how far on it lies; both (n, size)."""
    centres = start[:, None] + (np.arange(size) + 0.5) * (length[:, None] / size) - 0.5
    centres = np.clip(centres, 0, size - 1)
    before = np.floor(centres).astype(np.int64)
    return before, (centres - before).astype(np.float32)
