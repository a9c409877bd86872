"""Training, validation and test parts that share nothing.

A split column in the data is obeyed. Without one, rows that share a value (the same query, the same answer, the same
patient) are joined into groups, and whole groups are dealt out: no value stands on both sides of a border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kontrast.data.tables import Table
from kontrast.errors import DataError

T = TypeVar("T")
U = TypeVar("U")

PARTS = ("train", "valid", "test")
_ALIASES = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Splits(Generic[T]):
    """The parts of a data set; `valid` and `test` may be missing."""

    train: T
    valid: T | None = None
    test: T | None = None

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """The parts that are there, as (name, data), in the order train, valid, test."""
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                yield name, part

    def map(self, function: Callable[[T], U]) -> Splits[U]:
        """The same parts, each passed through `function`."""
        return Splits(**{name: function(part) for name, part in self})


def split_table(
    table: Table,
    keys: Sequence[str],
    *,
    group: str | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.05, 0.15),
    column: str = "split",
    require: Sequence[str] = ("train",),
) -> Splits[Table]:
    """The parts of a table: by its split column if it has one, else leak-free by the values of `keys`.

    Args:
        table: the rows.
        keys: columns whose equal values must stay together (compared after trimming and case folding).
        group: a further such column (patient, author, document); its values are compared exactly.
        seed: chooses among leak-free splits.
        fractions: shares of train, valid and test; they add up to 1, and 0 leaves a part out.
        column: name of the split column ("train", "valid", "test"; also val, validation, dev).
        require: parts that must not be empty.

    Returns:
        Tables whose rows keep their order and their numbers. A part without rows is None.

    Raises:
        DataError: for unknown split names, an empty required part, or rows that all hang together.
    """
    if column in table.columns:
        parts = _stated_parts(table, column)
    else:
        parts = leak_free_parts(
            [*(fold_case(table.column(key)) for key in keys), *([table.ids(group)] if group else [])], seed, fractions
        )
    for name in require:
        if not (parts == name).any():
            came = ", ".join(f"{part} {int((parts == part).sum())}" for part in PARTS)
            mend = (
                f"mark some rows '{name}' in column '{column}'"
                if column in table.columns
                else f"add a column '{column}' with train, valid and test, or give more rows that share no value"
            )
            raise DataError(f"the part '{name}' has no rows ({came})", file=table.path, mend=mend)
    found = {name: table.take(parts == name) if (parts == name).any() else None for name in PARTS}
    train = found["train"]
    if train is None:
        raise DataError("the part 'train' has no rows", file=table.path, mend="mark some rows 'train'")
    return Splits(train, found["valid"], found["test"])


def leak_free_parts(
    keys: Sequence[Sequence[Any]],
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.05, 0.15),
) -> npt.NDArray[np.str_]:
    """Deals rows out to "train", "valid" and "test" so that no key value stands in two parts.

    Rows that share a value of any key form one group (connected components). Groups are put in the order of a hash of
    their values and fill test, then valid, then train; a group larger than the share of a part goes to train. The
    result depends on the set of rows and the seed, not on the order of the rows.

    Args:
        keys: one or more sequences of n values; None or NaN joins nothing.
        seed: changes the order of the groups.
        fractions: shares of train, valid and test; non-negative, adding up to 1, train above 0.

    Returns:
        (n,) part names.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or shares[0] <= 0 or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be three non-negative shares that add up to 1, train > 0; got {fractions}")
    groups = connected_groups(keys)
    sizes = np.bincount(groups)
    order = np.argsort(_group_hashes(keys, groups, seed), kind="stable")
    assigned = np.full(len(sizes), "train", dtype="<U5")
    for part, share in (("test", shares[2]), ("valid", shares[1])):
        quota = share * len(groups)
        if not quota:
            continue
        room = order[(assigned[order] == "train") & (sizes[order] <= max(quota, 1))]
        before = np.concatenate([[0], np.cumsum(sizes[room])])
        # A group belongs to the part in which its middle falls; small data thus still get every part.
        inside = (before[:-1] + before[1:]) / 2 <= max(quota, 0.5)
        if inside.sum() < (assigned == "train").sum():
            assigned[room[inside]] = part
    return assigned[groups]


def connected_groups(keys: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """Numbers of the groups that rows form when every shared value of any key joins its rows; (n,), from 0.

    Args:
        keys: one or more sequences of n values. None or NaN joins nothing.
    """
    if not keys:
        raise ValueError("at least one key is needed")
    n = len(keys[0])
    rows, nodes, count = [], [], n
    for number, key in enumerate(keys):
        if len(key) != n:
            raise ValueError(f"key 0 has {n} values and key {number} has {len(key)}")
        codes, values = pd.factorize(pd.Series(list(key), dtype=object))
        present = np.flatnonzero(codes >= 0)
        rows.append(present)
        nodes.append(codes[present] + count)
        count += len(values)
    row, node = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, node)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1][:n]
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def leaked_rows(train: Table, test: Table, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of the rows of `test` that share a value of any of `keys` with `train` (trimmed, case folded)."""
    hit = np.zeros(len(test), dtype=bool)
    for key in keys:
        known = set(fold_case(train.column(key)))
        hit |= np.fromiter((value in known for value in fold_case(test.column(key))), bool, len(test))
    return np.flatnonzero(hit)


def fold_case(column: pd.Series[Any]) -> list[Any]:
    """Values made comparable: strings trimmed, inner spaces joined and case folded; lists as tuples."""
    return [
        " ".join(cell.split()).casefold()
        if isinstance(cell, str)
        else (tuple(np.asarray(cell).tolist()) if isinstance(cell, (list, tuple, np.ndarray)) else cell)
        for cell in column
    ]


def _stated_parts(table: Table, column: str) -> npt.NDArray[np.str_]:
    stated = table.ids(column)
    known = {value: _ALIASES.get(value.strip().lower()) for value in set(stated)}
    unknown = sorted(value for value, part in known.items() if part is None)
    if unknown:
        what = f"column '{column}' holds {', '.join(map(repr, unknown[:3]))}"
        mend = "use train, valid (or val, validation, dev) and test"
        raise DataError(what, file=table.path, mend=mend)
    return np.array([known[value] for value in stated], dtype="<U5")


def _group_hashes(keys: Sequence[Sequence[Any]], groups: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """One hash per group: the least over its members' values, so that row order cannot matter."""
    least = np.full(int(groups.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    for number, key in enumerate(keys):
        codes, values = pd.factorize(pd.Series(list(key), dtype=object))
        hashes = np.array([_hash(f"{seed}\x1f{number}\x1f{value!r}") for value in values], dtype=np.uint64)
        present = codes >= 0
        np.minimum.at(least, groups[present], hashes[codes[present]])
    return least


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
