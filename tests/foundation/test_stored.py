"""What a system keeps beside its model: written, read back, and refused in one sentence when damaged."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.contract import loading_stored, save_stored
from kontrast.errors import CheckpointError

NAMES = ("numbers.safetensors", "facts.json")


@pytest.fixture
def folder(tmp_path):
    arrays = {"plain": np.arange(6.0).reshape(2, 3), "turned": np.arange(6).reshape(2, 3).T, "none": np.zeros((0, 4))}
    save_stored(tmp_path / "kept", arrays, {"ids": ["a", "b"]}, names=NAMES)
    return tmp_path / "kept"


def test_arrays_and_facts_come_back(folder):
    with loading_stored(folder, names=NAMES) as (arrays, facts):
        assert facts == {"ids": ["a", "b"]}
        np.testing.assert_array_equal(arrays["plain"], np.arange(6.0).reshape(2, 3))
        np.testing.assert_array_equal(arrays["turned"], np.arange(6).reshape(2, 3).T)
        assert arrays["none"].shape == (0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name), loading_stored(folder, names=NAMES):
        pass


def test_a_cut_file_is_damage(folder):
    whole = (folder / NAMES[0]).read_bytes()
    (folder / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is damaged"), loading_stored(folder, names=NAMES):
        pass


def test_what_the_reader_misses_is_damage(folder):
    damaged = pytest.raises(CheckpointError, match=r"is damaged \('weights'\)")
    with damaged, loading_stored(folder, names=NAMES) as (arrays, _):
        arrays["weights"]
