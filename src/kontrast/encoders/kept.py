"""Arrays that cost much to compute, kept by a key that says what they are of: in memory, and in one file on disk."""

from __future__ import annotations

import io
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from kontrast.data.catalogue import cache_folder

Where = Literal["disk", "memory", "off"]
Array = npt.NDArray[Any]
T = TypeVar("T")

_MOST = 600_000_000
_AT_ONCE = 500
_WAIT_S = 30.0


class RecentlyUsed(Generic[T]):
    """The values used last, up to a number of bytes; at least one.

    Args:
        most: bytes.
        size: of a value, in bytes.
    """

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self.most, self.size, self.bytes = most, size, 0
        self.held: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        """The value, if it is still held."""
        if key in self.held:
            self.held.move_to_end(key)
        return self.held.get(key)

    def put(self, key: str, value: T) -> None:
        """Holds a value, and lets go of those unused for longest."""
        if key in self.held:
            return
        self.held[key] = value
        self.bytes += self.size(value)
        while self.bytes > self.most and len(self.held) > 1:
            self.bytes -= self.size(self.held.popitem(last=False)[1])

    def clear(self) -> None:
        """Lets go of everything."""
        self.held.clear()
        self.bytes = 0


class KeptArrays:
    """Arrays by key, shared by all of one name in this process; on disk they outlive it.

    A damaged file, a full disk or a folder that cannot be written to costs time, never a run: what cannot be kept is
    computed again.

    Args:
        name: names the file: letters, digits, hyphens. Another name wherever equal keys would mean other arrays.
        where: "disk" (and memory), "memory", or "off".
    """

    def __init__(self, name: str, where: Where = "disk") -> None:
        self.name, self.where = name, where

    @property
    def path(self) -> Path:
        """The file, whether or not it is there."""
        return cache_folder() / "texts" / f"{self.name}.sqlite"

    def get(self, keys: Sequence[str]) -> dict[str, Array]:
        """The arrays that are kept, by key."""
        if self.where == "off":
            return {}
        found = {key: array for key in keys if (array := _memory.get(f"{self.name}/{key}")) is not None}
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if self.where == "disk" and missing:
            read = self._read(missing)
            self._remember(read)
            found |= read
        return found

    def put(self, arrays: Mapping[str, Array]) -> None:
        """Keeps arrays."""
        if self.where == "off":
            return
        self._remember(arrays)
        if self.where == "disk" and arrays:
            self._write(arrays)

    def _remember(self, arrays: Mapping[str, Array]) -> None:
        for key, array in arrays.items():
            _memory.put(f"{self.name}/{key}", array)

    def _read(self, keys: Sequence[str]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        if not self.path.is_file():
            return found
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as file:
            for some in _chunks(keys):
                marks = ",".join("?" * len(some))
                for key, value in file.execute(f"SELECT key, value FROM arrays WHERE key IN ({marks})", some):
                    with suppress(ValueError, EOFError, TypeError):
                        found[key] = np.load(io.BytesIO(value), allow_pickle=False)
        return found

    def _write(self, arrays: Mapping[str, Array]) -> None:
        rows = []
        for key, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=False)
            rows.append((key, stream.getvalue()))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS arrays (key TEXT PRIMARY KEY, value BLOB)")
                file.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?)", rows)
        except sqlite3.OperationalError:
            return  # locked, or no room: the next run computes them again
        except sqlite3.DatabaseError:
            with suppress(OSError):
                self.path.unlink()  # damaged: a new one is begun next time
        except OSError:
            return


_memory: RecentlyUsed[Array] = RecentlyUsed(_MOST, lambda array: array.nbytes)


def _chunks(keys: Sequence[str]) -> Iterable[list[str]]:
    return (list(keys[start : start + _AT_ONCE]) for start in range(0, len(keys), _AT_ONCE))
