"""Views: from a table to batches of two sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.splits import connected_groups
from kontrast.data.tables import ColumnKind, Table, read_table
from kontrast.encoders import Encoder
from kontrast.errors import DataError
from kontrast.evaluation.relevance import Relevance
from kontrast.randomness import numpy_rng
from kontrast.systems.pairs.config import PairsConfig, ViewsConfig
from kontrast.training import BucketedSampler, GroupedSampler, IndexedBatches, Sampler, ShuffledSampler
from kontrast.views import ColourJitter, FeatureMask, HorizontalFlip, RandomCrop, SpanCrop, TokenDropout, compose

RESERVED = ("split",)
Side = Literal["left", "right"]
View = Callable[[Any, np.random.Generator], Any]


@dataclass(frozen=True)
class PairTable:
    """Rows of a table with the roles of its columns.

    Attributes:
        table: the rows.
        left, right: names of the columns; `right` is None for views of one column, or where only the left is given.
        kinds: how each of them is read.
        id, group, label: names of further columns, where there are.
    """

    table: Table
    left: str
    right: str | None
    kinds: dict[str, ColumnKind]
    id: str | None = None
    group: str | None = None
    label: str | None = None

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> PairTable:
        """The rows at these positions."""
        return replace(self, table=self.table.take(np.asarray(rows, dtype=np.int64)))

    def ids(self) -> list[str]:
        """Names of the rows."""
        return self.table.ids(self.id)

    def column(self, side: Side) -> str:
        """Name of the column of one side; both sides are the left one for views of one column."""
        return self.right if side == "right" and self.right is not None else self.left

    def cells(self, side: Side) -> Any:
        """What the encoder of that side prepares: texts, paths, or a float32 matrix."""
        name = self.column(side)
        kind = self.kinds[name]
        readers: dict[str, Callable[[str], Any]] = {
            "text": self.table.texts,
            "image": self.table.images,
            "vector": self.table.vectors,
            "number": lambda column: self.table.numbers(column).astype(np.float32)[:, None],
        }
        return readers[kind](name)

    def keys(self, side: Side) -> list[str]:
        """One string per row, equal where the cells are equal."""
        cells = self.cells(side)
        if isinstance(cells, np.ndarray):
            return [row.tobytes().hex() for row in np.ascontiguousarray(cells)]
        return [str(cell).strip() for cell in cells]

    def words(self, side: Side) -> list[str]:
        """What a person reads for the cells of one side: the text, the file's name, or the row's name."""
        kind = self.kinds[self.column(side)]
        if kind == "text":
            return self.table.texts(self.column(side))
        if kind == "image":
            return [Path(path).name for path in self.table.images(self.column(side))]
        return self.ids()

    def with_right_from(self, rows: npt.NDArray[np.int64]) -> PairTable:
        """Row i with the right-hand cell of row ``rows[i]`` (of one column: with that row's cell on its right)."""
        source = self.column("right")
        name = source if self.right is not None else f"{source} of another row"
        cells = self.table.column(source)
        moved = pd.Series(list(cells.iloc[rows]), index=cells.index, dtype=cells.dtype)
        table = Table(self.table.frame.assign(**{name: moved}), self.table.path, self.table.counted)
        return replace(self, table=table, right=name, kinds={**self.kinds, name: self.kinds[source]})

    def joined(self, other: PairTable) -> PairTable:
        """These rows, then those of `other`."""
        frame = pd.concat([self.table.frame, other.table.frame])
        return replace(self, table=Table(frame, self.table.path, self.table.counted))


@dataclass(frozen=True)
class Queries:
    """What retrieval asks of a table: which rows stand for the distinct cells of either side, and who answers whom.

    Attributes:
        sides: the side that asks and the side that is searched.
        queries, candidates: positions of the first row of each distinct cell.
        relevance: the candidates that stand in a row with a query.
    """

    sides: tuple[Side, Side]
    queries: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int64]
    relevance: Relevance

    @classmethod
    def of(cls, data: PairTable, *, backwards: bool) -> Queries:
        """The queries from left to right, or from right to left if `backwards`."""
        sides: tuple[Side, Side] = ("right", "left") if backwards else ("left", "right")
        (queries, asked), (candidates, answer) = (
            np.unique(data.keys(side), return_index=True, return_inverse=True)[1:] for side in sides
        )
        return cls(sides, queries, candidates, Relevance.from_pairs(asked, answer, n_queries=len(queries)))


def read_pairs(
    path: str | Path, config: PairsConfig, purpose: Literal["train", "predict"], known: dict[str, Any]
) -> PairTable:
    """Reads the table and decides which column plays which role.

    Args:
        path: parquet, CSV, TSV, JSONL or plain text.
        config: names and kinds of columns.
        purpose: "predict" needs the left-hand column only.
        known: facts of a fitted system: names and kinds that training settled.

    Raises:
        DataError: if columns are missing, ambiguous or hold what cannot be read.
    """
    table = read_table(path)
    left, right = known.get("left") or config.left, known.get("right", config.right)
    roles = {"id": config.id, "group": config.group, "label": config.label}
    if known:
        # Other data than those of training need neither names nor groups.
        roles = {name: column if column in table.columns else None for name, column in roles.items()}
    if purpose == "predict" and left is not None:
        right = right if right in table.columns else None
        if left not in table.columns and len(table.columns) == 1:
            table = Table(table.frame.set_axis([left], axis=1), table.path, table.counted)
        table.column(left)
    else:
        for column in (left, right, *roles.values()):
            if column is not None:
                table.column(column)
        taken = {column for column in (*roles.values(), *RESERVED) if column}
        free = [name for name in table.columns if name not in taken]
        left, right = _choose(path, free, left, right, alone="left" in known and known.get("right") is None)
    if left == right:
        mend = "name another column with --right, or leave it out to learn from views of one column"
        raise DataError(f"column '{left}' is named as the left and as the right one", file=path, mend=mend)
    if roles["id"] is not None:
        _check_unique(table, roles["id"])
    kinds: dict[str, ColumnKind] = {}
    for column, kind in (
        (left, known.get("left_kind", config.left_kind)),
        (right, known.get("right_kind", config.right_kind)),
    ):
        if column is not None and column not in kinds:
            kinds[column] = table.check(column, None if kind == "auto" else kind)
    return PairTable(table, str(left), right, kinds, **roles)


def _check_unique(table: Table, name: str) -> None:
    seen: dict[str, int] = {}
    for row, value in zip(table.frame.index, table.ids(name)):
        if value in seen:
            what = f"column '{name}' holds '{value}' at {table.counted} {seen[value]} and at {table.counted} {row}"
            raise DataError(what, file=table.path, mend="give every row a name of its own, or leave out --id")
        seen[value] = row


def _choose(
    path: str | Path, free: list[str], left: str | None, right: str | None, *, alone: bool
) -> tuple[str | None, str | None]:
    if left is not None and (right is not None or alone):
        return left, right
    others = [name for name in free if name not in (left, right)]
    if left is None and right is None and len(others) in (1, 2):
        return others[0], others[1] if len(others) == 2 else None
    if left is not None and len(others) <= 1:
        return left, others[0] if others else None
    if left is None and right is not None and len(others) == 1:
        return others[0], right
    if not free:
        mend = "columns named with --id, --group or --label, and 'split', are not among them"
        raise DataError("has no column left for the pairs", file=path, mend=mend)
    raise DataError(
        f"has the columns {', '.join(free)}, and it is not said which two are the pairs",
        file=path,
        mend="name them with --left and --right (columns that are neither: --id, --group, --label)",
    )


def meeting_groups(data: PairTable) -> npt.NDArray[np.int64]:
    """(n,) rows that are not each other's negatives share a number: equal left or right cells, or an equal group."""
    keys: list[Sequence[Any]] = [data.keys("left")]
    if data.right is not None:
        keys.append(data.keys("right"))
    if data.group is not None:
        keys.append(data.table.ids(data.group))
    return connected_groups(keys)


def shuffled_partners(groups: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """(n,) the pairing of the null control: a random permutation in which, where possible, no row keeps its group.

    It is possible where no group has more than half of the rows; a larger one keeps a few of its own.
    """
    rng = numpy_rng(seed, "null control")
    n = len(groups)
    partner = rng.permutation(n)
    for row in np.flatnonzero(groups[partner] == groups):
        own = groups[row]
        if groups[partner[row]] != own:  # an earlier exchange has helped it
            continue
        # A row outside the group whose partner is outside it too: of 2·size ≤ n there is always one.
        for other in rng.integers(n, size=20):
            if groups[other] != own and groups[partner[other]] != own:
                break
        else:
            free = np.flatnonzero((groups != own) & (groups[partner] != own))
            if not len(free):
                continue
            other = rng.choice(free)
        partner[[row, other]] = partner[[other, row]]
    return partner


def make_view(kind: ColumnKind, config: ViewsConfig) -> View:
    """The augmentation of prepared rows of one kind."""
    if kind == "text":
        return compose([SpanCrop(least=config.span), TokenDropout(share=config.token_dropout)])
    if kind == "image":
        jitter = ColourJitter(config.jitter, config.jitter, config.jitter)
        return compose([RandomCrop(least=config.crop), HorizontalFlip(share=config.flip), jitter])
    return FeatureMask(share=config.feature_mask, from_rows=True)


def fixed_view(rows: Any, keys: Sequence[str], view: View, rng: np.random.Generator) -> Any:
    """One view of all rows that depends on the set of rows and on `rng`, not on the rows' order."""
    order = np.argsort(np.asarray(keys), kind="stable")
    return view(rows[order], rng)[np.argsort(order, kind="stable")]


class PairBatches:
    """Batches of both sides.

    Args:
        data: training rows.
        left, right: encoders of the two sides.
        config: sampler, batch size, seeds, views, null control.
    """

    def __init__(self, data: PairTable, left: Encoder, right: Encoder, config: PairsConfig) -> None:
        groups = meeting_groups(data)
        self.left, self.right = left, right
        self.left_rows = left.prepare(data.cells("left"))
        self.right_rows = right.prepare(data.cells("right")) if data.right is not None else self.left_rows
        augment = config.augment or data.right is None
        kinds = (data.kinds[data.left], data.kinds[data.column("right")])
        self.views = tuple(make_view(kind, config.views) for kind in kinds) if augment else None
        self.groups = torch.from_numpy(groups)
        self.partner = shuffled_partners(groups, config.seed) if config.contrast == "shuffled" else np.arange(len(data))
        lengths = left.lengths(self.left_rows) + right.lengths(self.right_rows)
        self.sampler = make_sampler(groups, lengths, config)

    def stream(self, seed: int) -> IndexedBatches:
        """The batches as a function of (seed, epoch, index)."""
        return IndexedBatches(self.sampler, self.collate, seed=seed)

    def collate(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Any]:
        """Both sides of some rows: encoder batches under "left" and "right", and the rows' groups."""
        left, right = self.left_rows[rows], self.right_rows[self.partner[rows]]
        if self.views is not None:
            left, right = self.views[0](left, rng), self.views[1](right, rng)
        return {"left": self.left.collate(left), "right": self.right.collate(right), "groups": self.groups[rows]}


def make_sampler(groups: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], config: PairsConfig) -> Sampler:
    """The sampler that the configuration asks for."""
    n = len(groups)
    size = min(config.batch_size, n)
    seed = config.seed
    kind = config.sampler
    if kind == "auto":
        kind = "grouped" if len(np.unique(groups)) < n else "shuffled"
    if kind == "grouped":
        return GroupedSampler(groups, size, seed=seed)
    # A last batch of a single row has no negatives and teaches nothing.
    drop_last = n % size == 1
    if kind == "bucketed":
        return BucketedSampler(lengths, size, seed=seed, drop_last=drop_last)
    return ShuffledSampler(n, size, seed=seed, drop_last=drop_last)
