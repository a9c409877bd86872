"""Views: changes that leave a surface normal, and anomalies drawn on it with their mask.

Noise on features is no stand-in for anomalies: across domains it teaches the scale of the source features and little
else. So anomalies are drawn on images: pieces pasted elsewhere, thin scratches, blobs, and patches of another texture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def normal_view(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A flip, a quarter turn, brightness and contrast within a fifth, sometimes a light blur.

    Args:
        image: uint8 (side, side, 3).
        rng: decides.
    """
    if rng.random() < 0.5:
        image = image[:, ::-1]
    image = np.rot90(image, int(rng.integers(4)))
    values = image.astype(np.float64)
    level = values.mean()
    values = level + (values - level) * rng.uniform(0.8, 1.2)
    values = values * rng.uniform(0.8, 1.2)
    if rng.random() < 0.3:
        from scipy.ndimage import gaussian_filter

        values = gaussian_filter(values, (0.7, 0.7, 0))
    return _bytes(values)


def draw_anomaly(image: Pixels, other: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """One to three anomalies of a random kind on an image.

    Args:
        image: uint8 (side, side, 3).
        other: an image of another domain of the same size, whose texture one kind blends in.
        rng: decides.

    Returns:
        The changed image, and the mask (side, side) of the pixels that were drawn on; never empty.
    """
    values, mask = image.astype(np.float64), np.zeros(image.shape[:2], dtype=bool)
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    for _ in range(int(rng.integers(1, 4))):
        values, drawn = kind(values, other.astype(np.float64), rng)
        mask |= drawn
    if not mask.any():
        values, mask = _blob(values, other.astype(np.float64), rng)
    return _bytes(values), mask


def cell_shares(mask: Mask, cells: int) -> Floats:
    """(cells, cells) share of each cell that a mask (side, side) covers; `cells` divides the side."""
    size = mask.shape[0] // cells
    shares: Floats = mask.reshape(cells, size, cells, size).mean((1, 3))
    return shares


def _cut_paste(values: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """A piece of the image itself, perhaps turned and brighter, at another place (arXiv 2104.04015)."""
    side = values.shape[0]
    area, ratio = rng.uniform(0.005, 0.06) * side * side, rng.uniform(0.3, 3.3)
    height = int(np.clip(np.sqrt(area * ratio), 2, side // 2))
    width = int(np.clip(np.sqrt(area / ratio), 2, side // 2))
    piece = _cut(values, height, width, rng)
    turns = int(rng.integers(4))
    piece = np.rot90(piece, turns) + rng.uniform(-30, 30)
    top, left = (int(rng.integers(side - extent + 1)) for extent in piece.shape[:2])
    changed, mask = values.copy(), np.zeros(values.shape[:2], dtype=bool)
    place = np.s_[top : top + piece.shape[0], left : left + piece.shape[1]]
    changed[place], mask[place] = piece, True
    return changed, mask


def _cut(values: Floats, height: int, width: int, rng: np.random.Generator) -> Floats:
    side = values.shape[0]
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    return values[top : top + height, left : left + width]


def _scratch(values: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """A thin line that wanders, darker or brighter than what it crosses."""
    side = values.shape[0]
    points = int(rng.uniform(0.15, 0.9) * side) * 2
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.06, points))
    start = rng.uniform(0.1, 0.9, 2) * side
    rows = start[0] + np.cumsum(np.sin(heading)) / 2
    columns = start[1] + np.cumsum(np.cos(heading)) / 2
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    mask = np.zeros(values.shape[:2], dtype=bool)
    mask[rows[inside].astype(int), columns[inside].astype(int)] = True
    from scipy.ndimage import binary_dilation, gaussian_filter

    thick = int(rng.integers(0, max(2, side // 64)))
    if thick:
        mask = binary_dilation(mask, iterations=thick)
    soft = np.clip(gaussian_filter(mask.astype(np.float64), 0.6) * 1.3, 0, 1)[..., None]
    return values + soft * _shift(rng), mask


def _blob(values: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """An ellipse of another brightness, with a soft or a hard rim."""
    side = values.shape[0]
    centre, axes, angle = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0.02, 0.12, 2) * side, rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:side, :side] - centre[:, None, None]
    along = (np.cos(angle) * rows + np.sin(angle) * columns) / axes[0]
    across = (np.cos(angle) * columns - np.sin(angle) * rows) / axes[1]
    radius = np.sqrt(along**2 + across**2)
    soft = np.clip((1 - radius) * rng.uniform(1.5, 20), 0, 1)[..., None]
    return values + soft * _shift(rng), radius < 1


def _blend(values: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Mask]:
    """Texture of another domain where Perlin noise is high (arXiv 2108.07610)."""
    noise = perlin(values.shape[0], int(2 ** rng.integers(1, 4)), rng)
    mask = noise > np.quantile(noise, rng.uniform(0.86, 0.97))
    share = rng.uniform(0.3, 0.9)
    return np.where(mask[..., None], share * other + (1 - share) * values, values), mask


def perlin(side: int, cells: int, rng: np.random.Generator) -> Floats:
    """Gradient noise (side, side) with `cells` cells in either direction (Perlin, SIGGRAPH 1985)."""
    angles = rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1))
    gradients = np.stack([np.sin(angles), np.cos(angles)], -1)
    places = (np.arange(side) + 0.5) * cells / side
    cell = places.astype(int)
    offset = places - cell
    fade = offset**3 * (offset * (offset * 6 - 15) + 10)
    total = np.zeros((side, side))
    for down in (0, 1):
        for right in (0, 1):
            gradient = gradients[cell + down][:, cell + right]
            product = gradient[..., 0] * (offset - down)[:, None] + gradient[..., 1] * (offset - right)[None, :]
            by_row, by_column = (fade if step else 1 - fade for step in (down, right))
            total += product * by_row[:, None] * by_column[None, :]
    return total


def _shift(rng: np.random.Generator) -> float:
    """A change of brightness that can be seen, up or down."""
    return float(rng.choice([-1, 1]) * rng.uniform(30, 140))


def _bytes(values: Floats) -> Pixels:
    return np.ascontiguousarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


_KINDS: tuple[Callable[[Floats, Floats, np.random.Generator], tuple[Floats, Mask]], ...] = (
    _cut_paste, _scratch, _blob, _blend,
)  # fmt: skip
