"""Cells that were measured in several modalities at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.omics.kinds import KINDS, Kind, Values, check_kind, guess_kind, look_through
from kontrast.data.omics.matrix import CountMatrix
from kontrast.errors import DataError, suggest


@dataclass(frozen=True, eq=False)
class Modality:
    """One measurement of every cell.

    Attributes:
        name: such as "rna".
        kind: what its values are.
        counts: (n, features).
        features: (features,) unique names.
        totals: (n,) sum of each cell over all features; for ATAC the number of open peaks.
    """

    name: str
    kind: Kind
    counts: CountMatrix
    features: npt.NDArray[np.str_]
    totals: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.int64]) -> Modality:
        """The same of the cells at these positions."""
        return replace(self, counts=self.counts.take(rows), totals=self.totals[rows])


@dataclass(frozen=True, eq=False)
class Cells:
    """Paired measurements: row i of every modality is cell i.

    Attributes:
        ids: (n,) unique barcodes.
        obs: n rows of facts about the cells, such as type, batch and split.
        modalities: by name, in the order of the file.
        path: where they were read.
        dropped: how many cells each modality had beyond those that all modalities share.
    """

    ids: npt.NDArray[np.object_]
    obs: pd.DataFrame
    modalities: Mapping[str, Modality]
    path: Path | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.ArrayLike) -> Cells:
        """The cells at these positions, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        parts = {name: modality.take(chosen) for name, modality in self.modalities.items()}
        return replace(self, ids=self.ids[chosen], obs=self.obs.iloc[chosen], modalities=parts)

    def column(self, name: str) -> pd.Series[Any]:
        """A column of `obs`.

        Raises:
            DataError: if there is none of this name.
        """
        if name not in self.obs.columns:
            raise DataError(
                f"has no column '{name}' in obs; {suggest(name, map(str, self.obs.columns))}", file=self.path
            )
        return self.obs[name]

    def fingerprints(self) -> list[str | None]:
        """A hash of each cell's counts in all modalities; None for a cell without any count."""
        digests = [hashlib.blake2b(digest_size=12) for _ in range(len(self))]
        empty = np.ones(len(self), dtype=bool)
        for name, modality in self.modalities.items():
            for positions, rows in modality.counts.blocks():
                for row, position in enumerate(positions.tolist()):
                    entries = slice(rows.indptr[row], rows.indptr[row + 1])
                    digests[position].update(name.encode())
                    digests[position].update(rows.indices[entries].astype(np.int64).tobytes())
                    digests[position].update(rows.data[entries].tobytes())
                    empty[position] &= entries.start == entries.stop
        return [None if nothing else digest.hexdigest() for digest, nothing in zip(digests, empty)]


@dataclass(frozen=True, eq=False)
class RawModality:
    """A modality as a file holds it: its own cells in its own order."""

    name: str
    counts: CountMatrix
    features: npt.NDArray[np.object_]
    ids: npt.NDArray[np.object_]


def pair_cells(
    raw: Sequence[RawModality],
    obs: pd.DataFrame,
    path: Path,
    kinds: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
) -> Cells:
    """The cells that all modalities share, in the order of the first, checked.

    Args:
        raw: modalities with their own cells.
        obs: facts about cells, indexed by barcode; cells without a row get missing values.
        path: the file, for messages.
        kinds: kinds by name of the modality, where they should not be guessed.
        only: names of the modalities to keep; None keeps all.

    Raises:
        DataError: for cells or features that are not unique, no shared cell, values that do not fit the kind, or names
            that the file does not have.
    """
    known = [part.name for part in raw]
    for wanted in [*(only or ()), *(kinds or {})]:
        if wanted not in known:
            raise DataError(f"has no modality '{wanted}'; {suggest(wanted, known)}", file=path)
    if only is not None:
        raw = [part for name in only for part in raw if part.name == name]
    if not raw:
        raise DataError("holds no modality", file=path, mend="give a MuData file with at least one")
    for part in raw:
        _check_names(part, path)
    shared = pd.Index(raw[0].ids)
    for part in raw[1:]:
        shared = shared[shared.isin(pd.Index(part.ids))]
    if not len(shared):
        examples = ", ".join(f"{part.name}: {part.ids[0]!r}" for part in raw if len(part.ids))
        mend = "give both modalities the same barcodes"
        raise DataError(f"its modalities share no cell ({examples})", file=path, mend=mend)
    modalities = {}
    for part in raw:
        places = pd.Index(part.ids).get_indexer(shared)
        counts = part.counts if np.array_equal(places, np.arange(len(part.ids))) else part.counts.take(places)
        values = look_through(counts, part.name, path)
        kind = _kind(part.name, values, (kinds or {}).get(part.name), path)
        modalities[part.name] = Modality(
            part.name, kind, counts, part.features.astype(np.str_), _totals(counts, kind, values)
        )
    dropped = {part.name: len(part.ids) - len(shared) for part in raw if len(part.ids) > len(shared)}
    facts = obs.reindex(shared) if len(obs.columns) else pd.DataFrame(index=shared)
    return Cells(np.asarray(shared, dtype=object), facts, modalities, path, dropped)


def _kind(name: str, values: Values, given: str | None, path: Path) -> Kind:
    if given is None:
        return guess_kind(name, values)
    kind = next((kind for kind in KINDS if kind == given), None)
    if kind is None:
        raise DataError(f"modality '{name}' cannot be of kind '{given}'; {suggest(given, KINDS)}", file=path)
    check_kind(name, kind, values, path)
    return kind


def _totals(counts: CountMatrix, kind: Kind, values: Values) -> npt.NDArray[np.float32]:
    if kind != "atac" or values.binary:
        return values.totals.astype(np.float32)
    open_peaks = np.zeros(counts.shape[0], dtype=np.float32)
    for positions, rows in counts.blocks():
        open_peaks[positions] = np.asarray((rows > 0).sum(axis=1)).ravel()
    return open_peaks


def _check_names(part: RawModality, path: Path) -> None:
    for what, names, count, mend in (
        ("cell", part.ids, part.counts.shape[0], "make barcodes unique (obs_names_make_unique)"),
        ("feature", part.features, part.counts.shape[1], "make names unique (var_names_make_unique)"),
    ):
        if len(names) != count:
            what_came = f"modality '{part.name}' has {len(names)} {what} names for {count} {what}s"
            raise DataError(what_came, file=path, mend="write the file again")
        if not count:
            raise DataError(f"modality '{part.name}' has no {what}s", file=path, mend=f"give at least one {what}")
        doubled = pd.Index(names).duplicated()
        if doubled.any():
            example = names[int(np.flatnonzero(doubled)[0])]
            came = f"modality '{part.name}' has the {what} '{example}' more than once"
            raise DataError(came, file=path, mend=mend)
