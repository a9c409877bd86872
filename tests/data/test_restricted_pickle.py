"""Pickles are read without running anything in them."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from kontrast.data.restricted_pickle import read_pickle
from kontrast.errors import DataError


def stored(tmp_path, value, protocol=4):
    path = tmp_path / "value.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol))
    return path


VALUES = {
    "numbers": np.arange(6, dtype=np.float32).reshape(2, 3),
    "order": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "big": np.arange(3, dtype=">f8"),
    "empty": np.zeros((0, 4), np.float64),
    "texts": np.array(["one", "zwölf"]),
    "bytes": np.array([b"a", b"bc"]),
    "objects": np.array(["x", 3, None], dtype=object),
    "flags": np.array([True, False]),
    "scalar": np.float32(1.5),
    "plain": [1, 2.5, "text", b"raw", None, True, (1, 2), {"a": [np.ones(2)]}],
}


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("name", VALUES)
def test_plain_values_and_arrays_come_back(tmp_path, name, protocol):
    value = VALUES[name]
    found = read_pickle(stored(tmp_path, {"value": value}, protocol))["value"]
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert found.tolist() == value.tolist()
    elif name == "plain":
        assert found[:-1] == value[:-1]
        assert found[-1]["a"][0].tolist() == [1.0, 1.0]
    else:
        assert found == value


def test_shared_parts_are_read_once(tmp_path):
    # Each level holds the one below twice: as a tree it would have 2 to the 40th leaves.
    nested = ["leaf"]
    for _ in range(40):
        nested = [nested, nested]
    found = read_pickle(stored(tmp_path, nested))
    assert found[0] is found[1]


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(DataError, match="mkdir"):
        read_pickle(stored(tmp_path, Runs(target)))
    assert not target.exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\ndtype\n.", "a function as a value"),
        (b"cnumpy\ndtype\n(N}S'__call__'\nI1\nstb.", "a function to be changed"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR.", "an array without content"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\nI2\nI3\ntb.", "a forged array"),
        (b"Pelsewhere\n.", "something outside"),
        (b"cnumpy.core.multiarray\nscalar\n(I1\nS'x'\ntR.", "a number without a type"),
        (pickle.dumps({1, 2}.__class__), "builtins.set"),
    ],
)
def test_forged_pickles_are_refused(tmp_path, value, said):
    with pytest.raises(DataError, match="which may run code or is not understood") as caught:
        read_pickle(stored(tmp_path, value))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_cannot_be_made_of_bytes(tmp_path):
    # A real numpy array restored like this would point wherever the bytes say.
    address = struct.pack("<q", 0x41414141)
    forged = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
        b"I00\n" + pickle.dumps(address, 0)[:-1].replace(b"p0\n", b"").replace(b"p1\n", b"") + b"tb."
    )
    with pytest.raises(DataError):
        read_pickle(stored(tmp_path, forged))


def test_broken_files_are_named(tmp_path):
    whole = pickle.dumps(VALUES)
    for broken in (b"", whole[: len(whole) // 2], b"\x00" * 50, b"no pickle at all"):
        with pytest.raises(DataError, match=r"value\.pkl"):
            read_pickle(stored(tmp_path, broken))
    with pytest.raises(DataError, match="no such file"):
        read_pickle(tmp_path / "absent.pkl")
    with pytest.raises(DataError):
        read_pickle(tmp_path)
    circle: list = []
    circle.append(circle)
    with pytest.raises(DataError):
        read_pickle(stored(tmp_path, circle))
