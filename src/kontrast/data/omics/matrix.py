"""Counts of cells by features that may stay on disk: rows are read in blocks, and only chosen features are kept.

A file of 100,000 cells with 20,000 genes does not fit into a laptop's memory as a dense matrix, and often not as a
sparse one beside everything else. All that training needs are sums over rows and a few thousand chosen features; both
come from one pass over blocks of rows in the order in which they lie in the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.errors import DataError
from kontrast.extras import require

Positions = npt.NDArray[np.int64]
IN_MEMORY = 20_000_000
"""Stored entries up to which a sparse matrix of a file is read at once (160 MB)."""
BLOCK = 2048
"""Rows that are read at a time."""


class Source(ABC):
    """Where the rows of a count matrix come from."""

    shape: tuple[int, int]

    @abstractmethod
    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows `start` to `stop`, float32 (stop − start, features), columns rising within a row."""


@dataclass(frozen=True, eq=False)
class InMemory(Source):
    """A sparse matrix that is there."""

    matrix: sparse.csr_array

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(cells, features)."""
        rows, columns = self.matrix.shape
        return rows, columns

    def read(self, start: int, stop: int) -> sparse.csr_array:
        return self.matrix[start:stop]


@dataclass(frozen=True, eq=False)
class SparseOnDisk(Source):
    """Compressed rows in an HDF5 group with `data`, `indices` and `indptr`; the file is open only while it is read.

    Args:
        file: the HDF5 file.
        group: path of the group.
        shape: (cells, features) of what is seen.
        starts: (cells + 1,) where each row's entries start.
        columns: (features,) the stored columns that are seen, rising, or None for all.
        width: number of stored columns.
    """

    file: Path
    group: str
    shape: tuple[int, int]
    starts: Positions
    columns: Positions | None = None
    width: int = 0

    def read(self, start: int, stop: int) -> sparse.csr_array:
        h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
        first, last = int(self.starts[start]), int(self.starts[stop])
        try:
            with h5py.File(self.file, "r") as stream:
                group = stream[self.group]
                data, indices = group["data"][first:last], group["indices"][first:last]
        except (OSError, KeyError) as error:
            raise damaged(self.file, error) from None
        width = self.width or self.shape[1]
        found = checked_csr(data, indices, self.starts[start : stop + 1] - first, width, self.file, self.group)
        return found if self.columns is None else found[:, self.columns]


@dataclass(frozen=True, eq=False)
class DenseOnDisk(Source):
    """A two-dimensional HDF5 dataset of cells by features."""

    file: Path
    dataset: str
    shape: tuple[int, int]

    def read(self, start: int, stop: int) -> sparse.csr_array:
        h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
        try:
            with h5py.File(self.file, "r") as stream:
                rows = stream[self.dataset][start:stop]
        except (OSError, KeyError) as error:
            raise damaged(self.file, error) from None
        return sparse.csr_array(np.asarray(rows, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class CountMatrix:
    """Some rows of a source, in any order; nothing is read before it is asked for.

    Attributes:
        source: all the rows.
        rows: (n,) which of them, as positions in the source.
    """

    source: Source
    rows: Positions

    @classmethod
    def of(cls, matrix: Any) -> CountMatrix:
        """From a dense or sparse matrix (cells, features) in memory."""
        csr = sparse.csr_array(matrix, dtype=np.float32)
        csr.sum_duplicates()
        return cls(InMemory(csr), np.arange(csr.shape[0], dtype=np.int64))

    @classmethod
    def whole(cls, source: Source) -> CountMatrix:
        """All rows of a source, in memory if they are few."""
        if isinstance(source, SparseOnDisk) and int(source.starts[-1]) <= IN_MEMORY:
            source = InMemory(source.read(0, source.shape[0]))
        return cls(source, np.arange(source.shape[0], dtype=np.int64))

    @property
    def shape(self) -> tuple[int, int]:
        """(cells, features)."""
        return len(self.rows), self.source.shape[1]

    def take(self, rows: npt.ArrayLike) -> CountMatrix:
        """The rows at these positions, in this order."""
        return CountMatrix(self.source, self.rows[np.asarray(rows, dtype=np.int64)])

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[Positions, sparse.csr_array]]:
        """(positions, rows) in the order of the file: `rows[i]` is the row at `positions[i]` of this matrix."""
        order = np.argsort(self.rows, kind="stable")
        wanted = self.rows[order]
        edges = np.searchsorted(wanted, np.arange(0, self.source.shape[0] + size, size))
        for left, right in pairwise(edges.tolist()):
            if left == right:
                continue
            first, last = int(wanted[left]), int(wanted[right - 1]) + 1
            rows = self.source.read(first, last)
            if right - left != last - first or not np.array_equal(wanted[left:right], np.arange(first, last)):
                rows = rows[wanted[left:right] - first]
            yield order[left:right], rows

    def select(self, columns: Positions | None = None) -> sparse.csr_array:
        """The rows with some features only, in memory and in order: float32 (n, k)."""
        parts, places = [], []
        for positions, rows in self.blocks():
            parts.append(rows if columns is None else rows[:, columns])
            places.append(positions)
        width = self.shape[1] if columns is None else len(columns)
        if not parts:
            return sparse.csr_array((0, width), dtype=np.float32)
        stacked = sparse.vstack(parts, format="csr") if len(parts) > 1 else sparse.csr_array(parts[0])
        order = np.concatenate(places)
        if not np.array_equal(order, np.arange(len(order))):
            stacked = stacked[np.argsort(order)]
        stacked.sort_indices()
        return stacked


def checked_csr(
    data: npt.NDArray[Any], indices: npt.NDArray[Any], starts: Positions, width: int, file: Path, what: str
) -> sparse.csr_array:
    """Compressed rows whose parts fit together.

    Raises:
        DataError: if lengths or column numbers do not fit, or values are not numbers.
    """
    mend = "write the file again"
    if len(data) != len(indices) or len(data) != int(starts[-1]) or (np.diff(starts) < 0).any():
        raise DataError(f"'{what}' is damaged (its data, indices and indptr do not fit together)", file=file, mend=mend)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < width:
        raise DataError(f"'{what}' names feature {int(indices.max())} of {width}", file=file, mend=mend)
    if data.dtype.kind not in "fiub":
        raise DataError(f"'{what}' holds {data.dtype} values, not numbers", file=file, mend=mend)
    index = np.int32 if width < 2**31 and len(data) < 2**31 else np.int64
    csr = sparse.csr_array(
        (data.astype(np.float32, copy=False), indices.astype(index, copy=False), starts.astype(index)),
        shape=(len(starts) - 1, width),
    )
    csr.sum_duplicates()
    return csr


def damaged(file: Path, error: Exception) -> DataError:
    """The sentence for a file that HDF5 cannot read."""
    reason = " ".join(str(error).split())[:160]
    return DataError(f"is damaged or cut short ({reason})", file=file, mend="copy it again")
