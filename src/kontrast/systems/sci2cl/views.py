"""Views: from cells on disk to the chosen features in memory, their neighbours, and masked batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse

from kontrast.data.omics import Cells, Modality, normalised
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng
from kontrast.systems.sci2cl.config import Sci2CLConfig
from kontrast.training import IndexedBatches, ShuffledSampler

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
LABELS = ("cell_type", "celltype", "cell_type_l2", "cell_type_l1", "cell_label", "annotation", "Y")
"""Names of obs columns that are taken for cell types, the first that is there."""
LEVEL = 1e4


@dataclass(frozen=True, eq=False)
class OmicsData:
    """Cells with the labels they are measured by.

    Attributes:
        cells: the measurements.
        labels: (n,) texts, None where a cell has no label or one that is not measured; or None without labels.
        column: obs column that the labels come from.
    """

    cells: Cells
    labels: npt.NDArray[np.object_] | None
    column: str | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: npt.ArrayLike) -> OmicsData:
        """The cells at these positions."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(self, cells=self.cells.take(chosen), labels=None if self.labels is None else self.labels[chosen])

    def labelled(self) -> Rows:
        """Positions of the cells with a label."""
        if self.labels is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero([label is not None for label in self.labels])


def with_labels(cells: Cells, config: Sci2CLConfig) -> OmicsData:
    """Cells with the labels that the options name.

    Raises:
        DataError: if a named column is missing.
    """
    column = config.label or next((name for name in LABELS if name in cells.obs.columns), None)
    if column is None:
        return OmicsData(cells, None)
    texts = _texts(cells.column(column))
    ignored = {word.lower() for word in config.ignore}
    known = np.asarray([text is not None and text.lower() not in ignored for text in texts], dtype=bool)
    counts = pd.Series(texts[known]).value_counts()
    # A small file, such as a template, may have no type of that size at all.
    least = min(config.rare, int(counts.max())) if len(counts) else 1
    frequent = set(counts[counts >= least].index)
    labels = np.asarray([text if keep and text in frequent else None for text, keep in zip(texts, known)], dtype=object)
    return OmicsData(cells, labels, column)


def _texts(column: pd.Series[Any]) -> npt.NDArray[np.object_]:
    missing = column.isna().to_numpy()
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return np.asarray([None if gone else str(value) for value, gone in zip(column, missing)], dtype=object)


@dataclass(frozen=True)
class ModalityFacts:
    """What the model knows of a modality from the training cells, JSON-able.

    Attributes:
        name: of the modality.
        kind: of its values.
        features: names of the features that are kept.
        level: counts to which RNA is scaled.
    """

    name: str
    kind: Any
    features: list[str]
    level: float

    @classmethod
    def of(cls, modality: Modality, most: int) -> ModalityFacts:
        """From training cells: features that vary, at most `most` of them.

        Raises:
            DataError: if fewer than two features vary.
        """
        mean, variance = moments(modality)
        varying = np.flatnonzero(variance > 0)
        if len(varying) < 2:
            what = f"modality '{modality.name}' has {len(varying)} features that vary among the training cells"
            raise DataError(what, mend="give at least two")
        if len(varying) > most:
            score = mean if modality.kind == "atac" else excess_variance(mean, variance)
            varying = np.sort(varying[np.argsort(-score[varying], kind="stable")[:most]])
        level = float(np.median(modality.totals[modality.totals > 0])) if (modality.totals > 0).any() else 1.0
        return cls(modality.name, modality.kind, modality.features[varying].tolist(), level)


def moments(modality: Modality) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(features,) mean and variance over cells of log-normalised RNA, else of log(1 + value), in one pass."""
    width = modality.counts.shape[1]
    sums, squares = np.zeros(width), np.zeros(width)
    for positions, rows in modality.counts.blocks():
        data = rows.data.astype(np.float64)
        if modality.kind == "rna":
            data = data * np.repeat(LEVEL / np.maximum(modality.totals[positions], 1.0), np.diff(rows.indptr))
        logs = data if modality.kind == "real" else np.log1p(data)
        sums += np.bincount(rows.indices, weights=logs, minlength=width)
        squares += np.bincount(rows.indices, weights=logs**2, minlength=width)
    n = max(modality.counts.shape[0], 1)
    mean = sums / n
    variance = squares / n - mean**2
    return mean, np.where(variance > 1e-10 * (1 + mean**2), variance, 0.0)


def excess_variance(mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log dispersion above what is usual at a feature's mean, in units of its spread among features of a like mean."""
    seen = variance > 0
    dispersion = np.log(np.where(seen, variance, 1.0) / np.maximum(mean, 1e-12))
    edges = np.quantile(mean[seen], np.linspace(0, 1, 21)[1:-1])
    bins = np.searchsorted(edges, mean)
    score = np.full(len(mean), -np.inf)
    for number in range(20):
        inside = seen & (bins == number)
        if inside.any():
            middle = np.median(dispersion[inside])
            spread = np.median(np.abs(dispersion[inside] - middle)) + 1e-6
            score[inside] = (dispersion[inside] - middle) / spread
    return score


class Prepared:
    """The chosen features of a modality, sparse and in memory; rows become dense a batch at a time.

    Args:
        modality: the cells' counts.
        facts: of the training cells.

    Raises:
        DataError: if fewer than half of the features that the model knows are there.
    """

    def __init__(self, modality: Modality, facts: ModalityFacts) -> None:
        places = pd.Index(modality.features).get_indexer(pd.Index(facts.features))
        self.present = places >= 0
        if self.present.mean() < 0.5:
            what = (
                f"modality '{modality.name}' has {int(self.present.sum())} of the {len(facts.features)} features that "
                f"the model learned (such as '{facts.features[int(np.argmin(self.present))]}')"
            )
            raise DataError(what, mend="give features of the same genome, annotation and naming")
        self.facts = facts
        self.totals = modality.totals
        found = modality.counts.select(places[self.present])
        columns = np.flatnonzero(self.present).astype(found.indices.dtype)
        self.counts = sparse.csr_array(
            (found.data, columns[found.indices], found.indptr), shape=(found.shape[0], len(places))
        )

    def __len__(self) -> int:
        return len(self.totals)

    def reordered(self, order: Rows) -> Prepared:
        """The same with other cells in each row: the null control."""
        made = object.__new__(Prepared)
        made.present, made.facts = self.present, self.facts
        made.totals, made.counts = self.totals[order], self.counts[order]
        return made

    def dense(self, rows: Rows) -> Floats:
        """(n, features) counts."""
        return np.asarray(self.counts[rows].todense(), dtype=np.float32)

    def values(self, rows: Rows, weights: Floats) -> Floats:
        """(n, features) normalised values; `weights` are the inverse document frequencies of ATAC."""
        return normalised(self.counts[rows], self.facts.kind, self.totals[rows], self.facts.level, weights)

    def frequencies(self) -> Floats:
        """(features,) ln(1 + n / cells with the feature)."""
        cells = np.bincount(self.counts.indices[self.counts.data > 0], minlength=self.counts.shape[1])
        return np.asarray(np.log1p(len(self) / np.maximum(cells, 1)), dtype=np.float32)


def prepare(cells: Cells, facts: Sequence[ModalityFacts]) -> list[Prepared | None]:
    """The modalities that the model knows; None for one that these cells lack.

    Raises:
        DataError: if the cells have none of them.
    """
    found = [Prepared(cells.modalities[fact.name], fact) if fact.name in cells.modalities else None for fact in facts]
    if not any(part is not None for part in found):
        wanted = " or ".join(f"'{fact.name}'" for fact in facts)
        came = ", ".join(cells.modalities)
        raise DataError(f"has the modalities {came}, and the model knows {wanted}", file=cells.path)
    return found


@dataclass(frozen=True)
class Training:
    """What batches are made of.

    Attributes:
        modalities: the prepared features, row i of all being training cell i (or its partner in the null control).
        weights: inverse document frequencies of each modality.
        neighbours: (n, k) nearest training cells, or None.
        labels: (n,) codes of cell types, −1 for none, or None: only for the matching term with labels.
    """

    modalities: list[Prepared]
    weights: list[Floats]
    neighbours: Rows | None
    labels: Rows | None


class CellBatches(IndexedBatches):
    """Batches of cells: normalised values, counts, masks, and a neighbour of each cell.

    Args:
        data: training cells.
        config: sizes and seed.
        contrast: whether the second stage's contrastive parts are needed.
        name: of the stage.
    """

    def __init__(self, data: Training, config: Sci2CLConfig, *, contrast: bool, name: str) -> None:
        self.training, self.config, self.contrast = data, config, contrast
        digest = hashlib.sha256()
        for part in data.modalities:
            digest.update(part.counts.data.tobytes())
            digest.update(part.counts.indices.tobytes())
        sampler = ShuffledSampler(len(data.modalities[0]), config.batch_size, seed=config.seed)
        super().__init__(sampler, self.collated, seed=_seed(config.seed, name), data=digest.hexdigest()[:16])

    def collated(self, rows: Rows, rng: np.random.Generator) -> dict[str, Any]:
        """Tensors of one batch.

        For modality m: "values m" (n, d), "counts m" (n, d); with contrast also "near m" (n, d) of each cell's
        neighbour, "keep m" and "near keep m" (n, d) what masks leave, "views m" (n, views, d). For the batch: "cell"
        and "neighbour" (n,) numbers of training cells, and "others" (n, negatives) rows of the batch that do not match.
        """
        config, data = self.config, self.training
        batch: dict[str, Any] = {"cell": torch.from_numpy(rows)}
        near = rows
        if self.contrast and data.neighbours is not None:
            near = data.neighbours[rows, rng.integers(data.neighbours.shape[1], size=len(rows))]
        batch["neighbour"] = torch.from_numpy(near)
        for number, (part, weights) in enumerate(zip(data.modalities, data.weights)):
            values = part.values(rows, weights)
            batch[f"values {number}"] = torch.from_numpy(values)
            batch[f"counts {number}"] = torch.from_numpy(part.dense(rows))
            if not self.contrast:
                continue
            batch[f"keep {number}"] = self._mask(values.shape, rng)
            if data.neighbours is not None:
                batch[f"near {number}"] = torch.from_numpy(part.values(near, weights))
                batch[f"near keep {number}"] = self._mask(values.shape, rng)
            if config.intra in ("pool", "both"):
                masks = [self._mask(values.shape, rng) for _ in range(config.views)]
                batch[f"views {number}"] = torch.stack(masks, dim=1)
        if self.contrast and config.itm != "off":
            batch["others"] = torch.from_numpy(self._others(rows, rng))
        return batch

    def _mask(self, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
        """(n, d) what is kept."""
        by_cell = self.config.mask_by == "cell"
        kept = torch.from_numpy(rng.random(shape if by_cell else (1, shape[1]), dtype=np.float32) >= self.config.mask)
        return kept if by_cell else kept.repeat(shape[0], 1)

    def _others(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """(n, negatives) rows of the batch that are no match of a cell; −1 where there is none."""
        data, n = self.training, len(rows)
        allowed = ~np.eye(n, dtype=bool)
        if data.labels is not None:
            codes = data.labels[rows]
            allowed &= (codes[:, None] != codes[None]) & (codes[:, None] >= 0) & (codes[None] >= 0)
        elif data.neighbours is not None:
            near = (data.neighbours[rows][:, :, None] == rows[None, None, :]).any(1)
            allowed &= ~(near | near.T)
        order = np.argsort(np.where(allowed, rng.random((n, n)), 2.0), axis=1)[:, : self.config.negatives]
        return np.where(np.take_along_axis(allowed, order, axis=1), order, -1)


def _seed(seed: int, name: str) -> int:
    return int(numpy_rng(seed, "stage", name).integers(2**62))


def facts_of(stored: Sequence[Mapping[str, Any]]) -> list[ModalityFacts]:
    """From their JSON form."""
    return [ModalityFacts(**fact) for fact in stored]
