"""Views: entities (cohorts or patients), their counts by gene and by chromosome, and the draws of a training step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from kontrast.data.mutations import CHROMOSOMES, CLASSES, MutationCounts, collapse_matrix
from kontrast.errors import DataError
from kontrast.randomness import derive_seed, numpy_rng
from kontrast.systems.ms_contab.config import DrawSection, MSConTabConfig, ProfileSection
from kontrast.training import Shard

VIEWS = ("gene", "chromosome")
DRAWS = 2
THIN = (0.3, 0.9)
WHOLE = Shard()
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Entities:
    """Cohorts or patients: what has one vector.

    Attributes:
        counts: the samples that entities are made of; they stay whole whatever `take` chooses.
        names: of the n entities, distinct.
        members: positions of each entity's samples.
        truth: cohort of each entity, or None where it is not known.
        level: "cohort" or "patient".
        whole: read and not split.
    """

    counts: MutationCounts
    names: tuple[str, ...]
    members: tuple[Rows, ...]
    truth: tuple[str, ...] | None
    level: str
    whole: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> Entities:
        """The entities at these positions."""
        chosen = np.asarray(rows, dtype=np.int64).tolist()
        return replace(
            self,
            names=tuple(self.names[row] for row in chosen),
            members=tuple(self.members[row] for row in chosen),
            truth=None if self.truth is None else tuple(self.truth[row] for row in chosen),
        )

    def samples(self) -> Rows:
        """Positions of all members, sorted."""
        return np.unique(np.concatenate(self.members)) if self.members else np.zeros(0, np.int64)

    def summed(self, table: sparse.csr_array) -> npt.NDArray[np.float32]:
        """(n, width) the sums of a table of samples over the members of each entity."""
        return add_up(table, self.members)

    def totals(self) -> npt.NDArray[np.int64]:
        """(n,) substitutions of each entity."""
        per_sample = self.counts.totals()
        return np.array([per_sample[members].sum() for members in self.members], dtype=np.int64)


def cohort_entities(counts: MutationCounts, *, whole: bool = False) -> Entities:
    """One entity per cohort, sorted by name.

    Raises:
        DataError: if the files name no cohorts.
    """
    if counts.cohorts is None:
        mend = "give a column 'cohort', one file per cohort, or level=patient"
        raise DataError("names no cohorts", file=counts.path, mend=mend)
    names, codes = np.unique(np.array(counts.cohorts), return_inverse=True)
    order = np.argsort(codes.ravel(), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes.ravel()))[:-1])
    listed = tuple(map(str, names))
    return Entities(counts, listed, tuple(members), listed, "cohort", whole)


def patient_entities(counts: MutationCounts, least: int, *, whole: bool = False) -> Entities:
    """One entity per patient with at least `least` substitutions.

    Raises:
        DataError: if the samples are whole cohorts, or no patient has so many.
    """
    if counts.whole_cohorts:
        raise DataError("holds whole cohorts, not patients", file=counts.path, mend="use level=cohort")
    rows = np.flatnonzero(counts.totals() >= least)
    if not len(rows):
        what = f"has no patient with {least} substitutions (option 'min_mutations')"
        raise DataError(what, file=counts.path, mend="give patients with more, or lower the option")
    truth = None if counts.cohorts is None else tuple(counts.cohorts[row] for row in rows)
    names = tuple(counts.samples[row] for row in rows)
    return Entities(counts, names, tuple(rows[:, None]), truth, "patient", whole)


def single_patients(data: Entities, least: int) -> Entities | None:
    """The patients of some entities; None where there are none whose cohort is known and who have enough mutations."""
    counts = data.counts.take(data.samples())
    if counts.whole_cohorts or counts.cohorts is None or (counts.totals() < least).all():
        return None
    return patient_entities(counts, least)


def make_entities(counts: MutationCounts, config: MSConTabConfig, *, whole: bool = False) -> Entities:
    """The entities of the level that the options ask for."""
    if config.level == "cohort":
        return cohort_entities(counts, whole=whole)
    return patient_entities(counts, config.min_mutations, whole=whole)


def view_table(counts: MutationCounts, view: str, genes: Sequence[str], section: ProfileSection) -> sparse.csr_array:
    """(samples, width) what `add_up` adds: the genes of a vocabulary or the 24 chromosomes, times 12 or 6 classes.

    Counts, or with ``pool=roots`` their square roots over that of the sample's total.
    """
    table = counts.gene_counts(genes) if view == "gene" else counts.by_chromosome
    if section.classes != CLASSES:
        names = len(genes) if view == "gene" else len(CHROMOSOMES)
        collapse = sparse.kron(sparse.eye_array(names), collapse_matrix(), format="csr")
        table = sparse.csr_array((table @ collapse).astype(np.int64))
    if not section.roots:
        return table
    totals = np.maximum(np.asarray(table.sum(1)).ravel(), 1)
    return sparse.csr_array(sparse.diags_array(1 / np.sqrt(totals)) @ table.sqrt())


def pooled(sums: npt.NDArray[np.float32], section: ProfileSection) -> npt.NDArray[np.float32]:
    """Counts (n, width) of entities from the sums of a `view_table`.

    Of square roots the squares, so that what comes after may take the square roots of shares of an entity as it does
    of one patient: the result is the mean of the patients' vectors, scaled to length 1.
    """
    return np.square(sums) if section.roots else sums


def add_up(table: sparse.csr_array, members: Sequence[Rows]) -> npt.NDArray[np.float32]:
    """(n, width) sums over some rows of a table."""
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in members])])
    columns = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int64)
    chooser = sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(members), table.shape[0]))
    return np.asarray((chooser @ table).todense(), dtype=np.float32)


def thinned(counts: npt.NDArray[np.float32], share: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Counts (n, width) of which each mutation is kept with the probability `share`, one per row or one for all."""
    shares = np.broadcast_to(np.asarray(share, dtype=np.float64), (len(counts),))
    row, column = np.nonzero(counts)
    kept = np.zeros_like(counts)
    kept[row, column] = rng.binomial(counts[row, column].astype(np.int64), shares[row])
    return kept


def thinned_samples(counts: MutationCounts, share: float, keys: Sequence[int | str]) -> MutationCounts:
    """The samples with each mutation kept with the probability `share`, by a sample's name and `keys` alone."""
    tables = {}
    for name in ("by_gene", "by_chromosome"):
        table: sparse.csr_array = getattr(counts, name)
        data = np.zeros_like(table.data)
        for row, sample in enumerate(counts.samples):
            some = slice(table.indptr[row], table.indptr[row + 1])
            data[some] = numpy_rng(*keys, name, sample).binomial(table.data[some], share)
        tables[name] = sparse.csr_array((data, table.indices, table.indptr), shape=table.shape)
    return replace(counts, **tables)


def split_counts(counts: MutationCounts, shares: Sequence[float], seed: int) -> list[MutationCounts]:
    """Each mutation dealt to one of several parts: independent replicates of samples that cannot be divided.

    If counts are Poisson distributed, the parts are independent (data thinning, arXiv 2301.07276). The draw depends on
    the name of a sample and the seed alone.
    """
    tables: list[dict[str, sparse.csr_array]] = [{} for _ in shares]
    for name in ("by_gene", "by_chromosome"):
        table: sparse.csr_array = getattr(counts, name)
        dealt = np.zeros((len(shares), table.nnz), dtype=np.int64)
        for row, sample in enumerate(counts.samples):
            some = slice(table.indptr[row], table.indptr[row + 1])
            rng = numpy_rng(seed, "split of counts", name, sample)
            dealt[:, some] = rng.multinomial(table.data[some], shares).T
        for part, values in zip(tables, dealt):
            made = sparse.csr_array((values, table.indices.copy(), table.indptr.copy()), shape=table.shape)
            made.eliminate_zeros()
            part[name] = made
    return [replace(counts, **part) for part in tables]


class DrawBatches:
    """Steps of training: two draws of both views of some entities.

    Args:
        data: training entities.
        tables: the samples' counts by view, see `view_table`.
        config: sizes, draws, seed, null control.
        thin: range of the probability that a draw keeps a mutation; none keeps all.
    """

    def __init__(
        self,
        data: Entities,
        tables: dict[str, sparse.csr_array],
        config: MSConTabConfig,
        thin: Sequence[float] | None = None,
    ) -> None:
        self.data, self.tables, self.config, self.thin = data, tables, config, thin
        section = config.profile
        self.whole = {view: pooled(data.summed(table), section) for view, table in tables.items()}
        n = len(data)
        # A step with a single entity has no negatives, and batch norm fails on it: steps of nearly equal size.
        self.steps = max(1, n // min(config.batch, n))

    def count(self, epoch: int) -> int:
        """Steps of an epoch."""
        return self.steps * self.config.passes

    def fingerprint(self) -> str:
        """Equal for equal data and options."""
        digest = hashlib.sha256(b"".join(counts.tobytes() for counts in self.whole.values())).hexdigest()[:16]
        return f"{len(self.data)} entities {digest} {self.config.draw} {self.thin} seed={self.config.seed}"

    def get(self, epoch: int, index: int, shard: Shard = WHOLE) -> dict[str, Any]:
        """One step: for each view counts (rows, 2, width), and the positions of the rows' entities.

        In the null control each view and each draw of a row belongs to another entity, chosen anew in every step.
        """
        if not 0 <= index < self.count(epoch):
            raise IndexError(f"epoch {epoch} has {self.count(epoch)} steps, step {index} was asked for")
        seed, turn = self.config.seed, divmod(index, self.steps)
        order = numpy_rng(seed, "order", epoch, turn[0]).permutation(len(self.data))
        rows = np.array_split(order, self.steps)[turn[1]]
        batch: dict[str, Any] = {}
        for view in VIEWS:
            draws = []
            for draw in range(DRAWS):
                chosen = rows
                if self.config.contrast == "shuffled":
                    chosen = numpy_rng(seed, "null control", epoch, index, view, draw).permutation(rows)
                rng = numpy_rng(seed, "draw", epoch, index, view, draw, shard.rank)
                draws.append(self.draw(view, shard.take(chosen), rng))
            batch[view] = torch.from_numpy(np.stack(draws, axis=1))
        batch["entity"] = torch.from_numpy(shard.take(rows))
        return batch

    def draw(self, view: str, rows: Rows, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """(len(rows), width) a view of some entities, drawn anew."""
        section = self.config.draw
        counts = self.whole[view][rows]
        if section.patients < 1 and any(len(self.data.members[row]) > 1 for row in rows):
            some = [_some(self.data.members[row], section.patients, rng) for row in rows]
            counts = pooled(add_up(self.tables[view], some), self.config.profile)
        return degraded(counts, self.thin, section.drop, self.config.profile.classes, rng)


def degraded(
    counts: npt.NDArray[np.float32], thin: Sequence[float] | None, drop: float, classes: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Counts thinned by a share of their own per row, and without some genes or chromosomes."""
    if thin is not None:
        counts = thinned(counts, rng.uniform(thin[0], thin[1], len(counts)), rng)
    if drop:
        names = counts.reshape(len(counts), -1, classes)
        kept = rng.random(names.shape[:2], dtype=np.float32) >= drop
        counts = (names * kept[:, :, None]).reshape(counts.shape).astype(np.float32)
    return counts


def thin_range(data: Entities, section: DrawSection) -> list[float] | None:
    """The range that the option `thin` means for these training entities."""
    if section.thin == "auto":
        return None if any(len(members) > 1 for members in data.members) else list(THIN)
    return None if section.thin == "none" else list(section.thin)


def _some(members: Rows, share: float, rng: np.random.Generator) -> Rows:
    return rng.choice(members, max(1, round(share * len(members))), replace=False)


def dealt_patients(counts: MutationCounts, shares: tuple[float, float, float], seed: int) -> npt.NDArray[np.str_]:
    """(samples,) "train", "valid" or "test": within each cohort by a hash of the patients' names."""
    cohorts = counts.cohorts or ("",) * len(counts)
    hashes = np.array([derive_seed(seed, "split of patients", name) for name in counts.samples])
    parts = np.full(len(counts), "train", dtype="<U5")
    for cohort in sorted(set(cohorts)):
        rows = np.flatnonzero(np.array(cohorts) == cohort)
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        place = (np.arange(len(rows)) + 0.5) / len(rows)
        parts[rows[place >= shares[0]]] = "valid"
        parts[rows[place >= shares[0] + shares[1]]] = "test"
    return parts
