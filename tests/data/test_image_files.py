"""Decoding images: sizes, colours and damaged files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from kontrast.data.images import load_images
from kontrast.errors import DataError

Image = pytest.importorskip("PIL.Image")


def test_images_become_square_rgb(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (255, 128, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.full((30, 10), 7, np.uint8)).save(tmp_path / "grey.png")
    images = load_images([tmp_path / "wide.png", tmp_path / "grey.png"], 10)
    assert images.shape == (2, 3, 10, 10)
    assert images.dtype == np.uint8
    assert images[0, :, 5, 5].tolist() == [255, 128, 0]
    assert (images[1] == 7).all()


def test_damaged_images_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    cut.write_bytes(whole.read_bytes()[:-1000])
    text.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"cut\.jpg: is a damaged image .*truncated"):
        load_images([whole, cut], 8)
    with pytest.raises(DataError, match=r"text\.png: is not an image"):
        load_images([text], 8)
    with pytest.raises(DataError, match="no such image file"):
        load_images([tmp_path / "none.png"], 8)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        load_images([], 0)


@pytest.mark.parametrize("seed", range(10))
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / ("a.png" if seed % 2 else "a.gif")
    Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    for place in rng.integers(8, len(data), size=6):
        data[place] = rng.integers(256)
    path.write_bytes(bytes(data))
    with contextlib.suppress(DataError):
        assert load_images([path], 8).shape == (1, 3, 8, 8)
