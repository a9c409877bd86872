"""The written example: clearly synthetic surfaces of three domains in the layout of MVTec AD."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.extras import require
from kontrast.files import replacing
from kontrast.randomness import numpy_rng

SIDE = 64
TRAIN = 8
TEST = {"dots": 8, "stripes": 8, "weave": 24}
"""Normal and as many anomalous test images; the last domain is the one held out, and measured on more."""

Floats = npt.NDArray[np.float64]


def _dots(rows: Floats, columns: Floats) -> Floats:
    return np.asarray(110 + 60 * np.cos(rows / 2.2) * np.cos(columns / 2.2))


def _stripes(rows: Floats, columns: Floats) -> Floats:
    return np.asarray(130 + 50 * np.sin((rows + 0.4 * columns) / 2.5))


def _weave(rows: Floats, columns: Floats) -> Floats:
    return np.asarray(120 + 45 * np.sin(rows / 1.9) + 45 * np.sin(columns / 1.9))


_TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {"dots": _dots, "stripes": _stripes, "weave": _weave}


def write_example_surfaces(folder: str | Path) -> Path:
    """Writes ``surfaces/<domain>/train/good``, ``test/good``, ``test/stain`` and ``ground_truth/stain``, as PNG.

    Three textures with a random phase and noise; anomalous images have a dark or bright stain, which the mask shows.
    """
    pil = require("PIL.Image", extra="surfaces", purpose="to write images")
    target = Path(folder) / "surfaces"
    with replacing(target) as temporary:
        for domain, count in TEST.items():
            rng = numpy_rng(0, "example of cozad", domain)
            for place, number, odd in (
                ("train/good", TRAIN, False),
                ("test/good", count, False),
                ("test/stain", count, True),
            ):
                for index in range(number):
                    image, mask = _surface(domain, rng, odd=odd)
                    _write(pil, image, temporary / domain / place / f"{index:03d}.png")
                    if odd:
                        _write(pil, mask, temporary / domain / "ground_truth" / "stain" / f"{index:03d}_mask.png")
    return target


def _surface(domain: str, rng: np.random.Generator, *, odd: bool) -> tuple[Floats, Floats]:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    shift = rng.uniform(0, 20, 2)
    values = _TEXTURES[domain](rows + shift[0], columns + shift[1]) + rng.normal(0, 6, (SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE))
    if odd:
        centre, radius = rng.uniform(12, SIDE - 12, 2), rng.uniform(6, 10)
        inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
        values[inside] = rng.choice([25.0, 235.0]) + rng.normal(0, 6, int(inside.sum()))
        mask[inside] = 255
    return values, mask


def _write(pil: Any, values: Floats, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    pil.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8)).save(stream, format="PNG")
    path.write_bytes(stream.getvalue())
