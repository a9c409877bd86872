"""Which entries of the n × m logits take part, said by structure and never as an n × m mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

# The least and the greatest key of each stripe of rows or columns.
_Ranges: TypeAlias = list[tuple[int, int]]


@dataclass(frozen=True)
class Mask:
    """The entries (i, j) that a statistic leaves out.

    Args:
        diagonals: every entry with j − i equal to one of these numbers is left out (0: the anchor itself).
        keys: pairs of integer tensors (n,) and (m,); entries with equal keys are left out (labels, ids of duplicates).
        pairs: integer tensors (k,) and (k,) of rows and columns to leave out (a sparse list of positives).
        within: integer tensors (n,) and (m,); if given, only entries with equal keys take part at all.
    """

    diagonals: tuple[int, ...] = ()
    keys: tuple[tuple[Tensor, Tensor], ...] = ()
    pairs: tuple[Tensor, Tensor] | None = None
    within: tuple[Tensor, Tensor] | None = None

    def excluded(self, n: int, m: int, device: torch.device) -> Tensor | None:
        """The same mask written out, bool (n, m), for the dense path; None if nothing is left out."""
        out: Tensor | None = None
        if self.within is not None:
            out = self.within[0][:, None] != self.within[1][None, :]
        for rows, columns in self.keys:
            same = rows[:, None] == columns[None, :]
            out = same if out is None else out | same
        rows, columns = self.entries(n, m, device)
        if len(rows):
            out = torch.zeros(n, m, dtype=torch.bool, device=device) if out is None else out.clone()
            out[rows, columns] = True
        return out

    def entries(self, n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and columns of the entries named one by one (diagonals and pairs)."""
        rows: list[Tensor] = []
        columns: list[Tensor] = []
        for offset in self.diagonals:
            first, last = max(0, -offset), min(n, m - offset)
            rows.append(torch.arange(first, max(first, last), device=device))
            columns.append(rows[-1] + offset)
        if self.pairs is not None:
            rows.append(self.pairs[0].to(device))
            columns.append(self.pairs[1].to(device))
        if not rows:
            empty = torch.empty(0, dtype=torch.long, device=device)
            return empty, empty
        return torch.cat(rows), torch.cat(columns)


@dataclass(frozen=True)
class Tile:
    """Rows r0:r1 and columns c0:c1 of the (sorted) logits, and what is to be left out of them."""

    r0: int
    r1: int
    c0: int
    c1: int
    compare: tuple[int, ...]
    entries: tuple[Tensor, Tensor] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tile."""
        return self.r1 - self.r0, self.c1 - self.c0


class TilePlan:
    """A mask laid over a grid of tiles.

    Rows and columns are sorted by the first key: equal keys then lie in a band of tiles, and all others need no
    comparison. Tiles without any entry left are not listed.

    Args:
        mask: what to leave out.
        n, m: rows and columns.
        tile: rows and columns of a tile.
        least: the least side of a tile worth its fixed cost.
        symmetric: list only tiles on and above the diagonal (rows and columns are the same set, the mask symmetric).
        device: where the codes and entries are needed.
    """

    def __init__(
        self,
        mask: Mask,
        n: int,
        m: int,
        tile: tuple[int, int],
        *,
        symmetric: bool,
        least: int = 64,
        device: torch.device | None = None,
    ) -> None:
        device = device or torch.device("cpu")
        self.n, self.m, self.symmetric = n, m, symmetric
        self.within = mask.within is not None
        pairs_of_keys = ([mask.within] if mask.within is not None else []) + list(mask.keys)
        codes = [_codes(*pair, device) for pair in pairs_of_keys]
        if self.within and len(codes[0][1]):
            # What takes part is a chain of blocks along the diagonal: tiles of about a block's size leave least over.
            block = m // (int(codes[0][1].max()) + 1)
            side = max(least, 1 << block.bit_length())
            tile = (min(tile[0], side), min(tile[1], side))
        if symmetric:
            tile = (min(tile),) * 2
        self.tile = (min(tile[0], max(n, 1)), min(tile[1], max(m, 1)))
        self.row_order: Tensor | None = None
        self.column_order: Tensor | None = None
        rows, columns = mask.entries(n, m, device)
        if codes:
            self.row_order = torch.argsort(codes[0][0], stable=True)
            self.column_order = self.row_order if symmetric else torch.argsort(codes[0][1], stable=True)
            codes = [(row[self.row_order], column[self.column_order]) for row, column in codes]
            rows, columns = _inverse(self.row_order)[rows], _inverse(self.column_order)[columns]
        self.codes = codes
        self.entries = rows, columns
        self.tiles = self._list_tiles(rows, columns)

    def _list_tiles(self, rows: Tensor, columns: Tensor) -> list[Tile]:
        height, width = self.tile
        down, across = -(-self.n // height), -(-self.m // width)
        where = rows // height * across + columns // width
        order = torch.argsort(where, stable=True)
        ends = torch.bincount(where, minlength=down * across).cumsum(0).tolist()
        rows, columns = rows[order] % height, columns[order] % width
        ranges = [(_ranges(row, height), _ranges(column, width)) for row, column in self.codes]
        tiles = []
        for i in range(down):
            for j in range(i if self.symmetric else 0, across):
                compare = self._compare(ranges, i, j)
                if compare is None:
                    continue
                index = i * across + j
                first, last = (ends[index - 1] if index else 0), ends[index]
                entries = (rows[first:last], columns[first:last]) if last > first else None
                r0, c0 = i * height, j * width
                tiles.append(Tile(r0, min(r0 + height, self.n), c0, min(c0 + width, self.m), compare, entries))
        return tiles

    def _compare(self, ranges: list[tuple[_Ranges, _Ranges]], i: int, j: int) -> tuple[int, ...] | None:
        """Which keys must be compared entry by entry in tile (i, j); None if it has no entry left."""
        compare = []
        for key, (down, across) in enumerate(ranges):
            relation = _relation(down[i], across[j])
            keep_equal = self.within and key == 0
            if relation == "mixed":
                compare.append(key)
            elif (relation == "differ") == keep_equal:
                return None
        return tuple(compare)


def _relation(rows: tuple[int, int], columns: tuple[int, int]) -> Literal["equal", "differ", "mixed"]:
    if rows[1] < columns[0] or columns[1] < rows[0]:
        return "differ"
    return "equal" if rows[0] == rows[1] == columns[0] == columns[1] else "mixed"


def _ranges(codes: Tensor, size: int) -> _Ranges:
    return [(int(part.min()), int(part.max())) for part in torch.split(codes.cpu(), size)]


def _codes(rows: Tensor, columns: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keys as small integers: four bytes each to compare, whatever the labels were."""
    both = torch.cat([rows.reshape(-1).to(device), columns.reshape(-1).to(device)])
    _, codes = torch.unique(both, return_inverse=True)
    return codes[: len(rows)].int(), codes[len(rows) :].int()


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse
