"""Kinds of measurement, what their values may be, and how they are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from kontrast.data.omics.matrix import CountMatrix
from kontrast.errors import DataError

Kind = Literal["rna", "atac", "protein", "composition", "real"]
Floats = npt.NDArray[np.float32]
KINDS: tuple[Kind, ...] = ("rna", "atac", "protein", "composition", "real")

_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("composition", ("topic", "lda", "composition")),
    ("atac", ("atac", "peak", "chromatin", "dnase", "methyl")),
    ("protein", ("prot", "adt", "antibody", "cite", "surface")),
    ("rna", ("rna", "gex", "gene", "expression", "transcript")),
)
SCALE = 1e4
"""What TF-IDF frequencies are multiplied by before their logarithm (Stuart et al. 2019)."""


@dataclass(frozen=True)
class Values:
    """What one pass over a matrix found.

    Attributes:
        totals: (n,) sum of each cell.
        integers: whether all values are whole numbers.
        binary: whether all stored values are 1.
        negative: whether there are values below 0.
    """

    totals: npt.NDArray[np.float64]
    integers: bool
    binary: bool
    negative: bool


def look_through(counts: CountMatrix, name: str, file: object = None) -> Values:
    """One pass over all values.

    Raises:
        DataError: if a value is NaN or infinite; the message names modality and row.
    """
    totals = np.zeros(counts.shape[0])
    integers, binary, negative = True, True, False
    for positions, rows in counts.blocks():
        values = rows.data
        if not np.isfinite(values).all():
            bad = int(positions[np.flatnonzero(~np.isfinite(rows.sum(axis=1)))[0]])
            what = f"modality '{name}' holds NaN or infinity in cell {bad + 1}"
            raise DataError(what, file=str(file) if file else None, mend="remove the cell or give whole counts")
        totals[positions] = rows.sum(axis=1, dtype=np.float64)
        integers = integers and bool((values == np.rint(values)).all())
        binary = binary and bool((values == 1).all())
        negative = negative or bool((values < 0).any())
    return Values(totals, integers, binary, negative)


def guess_kind(name: str, values: Values) -> Kind:
    """The kind of a modality from its name and, where the name says nothing, its values."""
    lowered = name.lower()
    for kind, words in _WORDS:
        if any(word in lowered for word in words):
            if kind in ("rna", "protein") and not values.integers:
                return "real"
            return "real" if values.negative else kind
    if values.negative or not values.integers:
        return "real"
    return "atac" if values.binary else "rna"


def check_kind(name: str, kind: Kind, values: Values, file: object = None) -> None:
    """Raises DataError if the values cannot be of this kind."""
    where = str(file) if file else None
    if kind == "real":
        return
    if values.negative:
        mend = "give raw counts (such as layers['counts']), or say that its kind is real"
        raise DataError(f"modality '{name}' of kind {kind} holds values below 0", file=where, mend=mend)
    if kind in ("rna", "protein") and not values.integers:
        mend = "give raw counts (such as layers['counts']), or say that its kind is real"
        raise DataError(f"modality '{name}' of kind {kind} holds fractions, not counts", file=where, mend=mend)


def normalised(rows: sparse.csr_array, kind: Kind, totals: Floats, level: float, weights: Floats | None) -> Floats:
    """The values that a network or a PCA sees, dense float32 (n, k); each row from itself alone.

    RNA: log(1 + count / total · level). ATAC: log(1 + 10⁴ · TF-IDF) of open or closed peaks. Proteins and compositions:
    centred log-ratio of count + 1. Real values: as they are.

    Args:
        rows: (n, k) counts of the chosen features.
        kind: of the modality.
        totals: (n,) sum over all features of each cell (the number of open peaks for ATAC).
        level: median total of the training cells.
        weights: (k,) inverse document frequencies for ATAC.
    """
    if kind == "real":
        return np.asarray(rows.todense(), dtype=np.float32)
    if kind in ("protein", "composition"):
        logs = np.log1p(np.asarray(rows.todense(), dtype=np.float32))
        return np.asarray(logs - logs.mean(axis=1, keepdims=True), dtype=np.float32)
    scaled = sparse.csr_array(rows, dtype=np.float32, copy=True)
    per_entry = np.repeat(1.0 / np.maximum(totals, 1.0), np.diff(scaled.indptr)).astype(np.float32)
    if kind == "rna":
        scaled.data *= per_entry * np.float32(level)
    else:
        if weights is None:
            raise ValueError("ATAC needs the inverse document frequencies of its features")
        scaled.data = per_entry * weights[scaled.indices] * np.float32(SCALE)
    np.log1p(scaled.data, out=scaled.data)
    return np.asarray(scaled.todense(), dtype=np.float32)
