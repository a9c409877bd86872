"""Token ids of many texts in two flat arrays: cheap to keep, to save, to index and to augment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Ragged rows of token ids, without the special tokens that open and close a text.

    Attributes:
        ids: int32 (total,), the rows one after the other.
        offsets: int64 (n + 1,); row i is ``ids[offsets[i]:offsets[i + 1]]``.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Iterable[int]]) -> TokenIds:
        """From one sequence of ids per text."""
        lists = [list(row) for row in rows]
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        return cls.from_lengths(ids, lengths)

    @classmethod
    def from_lengths(cls, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> TokenIds:
        """From flat ids and the length of each row."""
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per row, (n,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, position: int) -> npt.NDArray[np.int32]:
        """The ids of one row."""
        return self.ids[self.offsets[position] : self.offsets[position + 1]]

    def __getitem__(self, index: npt.NDArray[np.int64] | slice) -> TokenIds:
        """The rows at these positions, in that order."""
        starts, lengths = self.offsets[:-1][index], self.lengths[index]
        return TokenIds.from_lengths(self.ids[flat_positions(starts, lengths)], lengths)

    def select(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> TokenIds:
        """From each row i the `lengths[i]` tokens from place `starts[i]` on; both (n,)."""
        return TokenIds.from_lengths(self.ids[flat_positions(self.offsets[:-1] + starts, lengths)], lengths)

    def keep(self, mask: npt.NDArray[np.bool_]) -> TokenIds:
        """The tokens where `mask` (total,) is true; rows may become empty."""
        kept = np.concatenate([[0], np.cumsum(mask)])[self.offsets]
        return TokenIds(self.ids[mask], kept.astype(np.int64))

    def truncate(self, most: int) -> TokenIds:
        """At most the first `most` tokens of every row."""
        lengths = np.minimum(self.lengths, most)
        return self if (lengths == self.lengths).all() else self.select(np.zeros_like(lengths), lengths)

    def padded(
        self, pad: int, before: Sequence[int] = (), after: Sequence[int] = ()
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Dense ids and mask, both int64 (n, longest): each row between `before` and `after`, padded on the right."""
        extra = len(before) + len(after)
        lengths = self.lengths + extra
        width = max(int(lengths.max(initial=0)), 1)
        dense = np.full((len(self), width), pad, dtype=np.int64)
        places = np.arange(width)
        inner = (places >= len(before)) & (places < (lengths - len(after))[:, None])
        dense[inner] = self.ids
        dense[:, : len(before)] = before
        for back, token in enumerate(reversed(after), start=1):
            dense[np.arange(len(self)), lengths - back] = token
        mask: npt.NDArray[np.int64] = (places < lengths[:, None]).astype(np.int64)
        return dense, mask


def flat_positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions starts[0], starts[0] + 1, ... of every run, one after the other; (sum of lengths,)."""
    ends = np.cumsum(lengths)
    positions: npt.NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0)
    positions += np.repeat(starts - (ends - lengths), lengths)
    return positions
