"""Counts of single-base substitutions per sample, by gene and by chromosome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from kontrast.data.mutations.substitutions import CHROMOSOMES, SUBSTITUTIONS, Build, Strand
from kontrast.errors import DataError

Integers = npt.NDArray[np.int64]
CLASSES = len(SUBSTITUTIONS)


@dataclass(frozen=True, eq=False)
class MutationCounts:
    """Samples (patients, or whole cohorts) with their substitutions.

    Attributes:
        samples: n distinct names.
        cohorts: cohort (cancer type) of each sample, or None where the files do not say.
        genes: names of the g genes that were counted.
        by_gene: (n, g·12) counts; column gene·12 + class, classes in the order of `SUBSTITUTIONS`.
        by_chromosome: (n, 24·12) counts; column chromosome·12 + class. It also holds what no counted gene holds.
        whole_cohorts: each sample is a cohort of which single patients are not known.
        strand: "genomic" where alleles are those of the reference's plus strand, "coding" where they are the gene's.
        build: of the positions, where the files say it.
        columns: further facts of each sample, such as "split" and "half".
        path: where they come from.
    """

    samples: tuple[str, ...]
    cohorts: tuple[str, ...] | None
    genes: tuple[str, ...]
    by_gene: sparse.csr_array
    by_chromosome: sparse.csr_array
    whole_cohorts: bool = False
    strand: Strand = "genomic"
    build: Build | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        n = len(self.samples)
        shapes = {"by_gene": (n, CLASSES * len(self.genes)), "by_chromosome": (n, CLASSES * len(CHROMOSOMES))}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {getattr(self, name).shape}")
        if len(set(self.samples)) < n:
            twice = next(name for name in self.samples if self.samples.count(name) > 1)
            raise DataError(f"names the sample '{twice}' more than once", file=self.path, mend="name each sample once")

    def __len__(self) -> int:
        return len(self.samples)

    def totals(self) -> Integers:
        """(n,) substitutions of each sample."""
        return np.asarray(self.by_chromosome.sum(1), dtype=np.int64).ravel()

    def take(self, rows: npt.ArrayLike) -> MutationCounts:
        """The samples at these positions, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        pick = chosen.tolist()
        return replace(
            self,
            samples=tuple(self.samples[row] for row in pick),
            cohorts=None if self.cohorts is None else tuple(self.cohorts[row] for row in pick),
            by_gene=self.by_gene[chosen],
            by_chromosome=self.by_chromosome[chosen],
            columns={name: tuple(values[row] for row in pick) for name, values in self.columns.items()},
        )

    def gene_counts(self, vocabulary: Sequence[str]) -> sparse.csr_array:
        """(n, len(vocabulary)·12) counts of these genes in this order; a gene that was not counted is all zeros."""
        place = {gene: number for number, gene in enumerate(self.genes)}
        known = [(new, place[gene]) for new, gene in enumerate(vocabulary) if gene in place]
        classes = np.arange(CLASSES)
        new = np.array([pair[0] for pair in known], dtype=np.int64)[:, None] * CLASSES + classes
        old = np.array([pair[1] for pair in known], dtype=np.int64)[:, None] * CLASSES + classes
        shape = (CLASSES * len(self.genes), CLASSES * len(vocabulary))
        ones = np.ones(new.size, dtype=np.int64)
        return sparse.csr_array(self.by_gene @ sparse.csr_array((ones, (old.ravel(), new.ravel())), shape=shape))

    def to_frame(self) -> pd.DataFrame:
        """The counts in long form: sample, cohort, view ("gene" or "chromosome"), name, substitution, n."""
        parts = []
        for view, table, names in (
            ("gene", self.by_gene, self.genes),
            ("chromosome", self.by_chromosome, CHROMOSOMES),
        ):
            entries = table.tocoo()
            order = np.lexsort((entries.col, entries.row))
            rows, columns = entries.row[order], entries.col[order]
            kept = entries.data[order] != 0
            rows, columns = rows[kept], columns[kept]
            cohorts = self.cohorts or ("",) * len(self)
            parts.append(
                pd.DataFrame(
                    {
                        "sample": np.asarray(self.samples, dtype=object)[rows],
                        "cohort": np.asarray(cohorts, dtype=object)[rows],
                        "view": view,
                        "name": np.asarray(names, dtype=object)[columns // CLASSES],
                        "substitution": np.asarray(SUBSTITUTIONS, dtype=object)[columns % CLASSES],
                        "n": entries.data[order][kept],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Events:
    """Single mutations, one per entry.

    Attributes:
        sample: (m,) names of patients.
        cohort: (m,) or None.
        gene: (m,) names; "" where a mutation lies in no gene.
        chromosome: (m,) places in `CHROMOSOMES`, -1 for others.
        position: (m,) base pairs.
        substitution: (m,) places in `SUBSTITUTIONS`, -1 for what is no change of one base.
    """

    sample: npt.NDArray[np.object_]
    cohort: npt.NDArray[np.object_] | None
    gene: npt.NDArray[np.object_]
    chromosome: Integers
    position: Integers
    substitution: Integers

    @classmethod
    def joined(cls, parts: Sequence[Events]) -> Events:
        """All events of several files."""
        cohort = None
        if all(part.cohort is not None for part in parts):
            cohort = np.concatenate([part.cohort for part in parts if part.cohort is not None])
        return cls(
            np.concatenate([part.sample for part in parts]),
            cohort,
            np.concatenate([part.gene for part in parts]),
            np.concatenate([part.chromosome for part in parts]),
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.substitution for part in parts]),
        )

    def count(self, path: Path, *, strand: Strand, build: Build | None) -> MutationCounts:
        """Counts per patient; changes of other kinds than one base, other sequences and repetitions are left out.

        A repetition is the same change at the same place of the same patient, as it comes from several barcodes of one
        patient or from several transcripts of one gene.

        Raises:
            DataError: if nothing is left, or a patient stands in two cohorts.
        """
        kept = (self.chromosome >= 0) & (self.substitution >= 0)
        frame = pd.DataFrame(
            {
                "sample": self.sample,
                "gene": self.gene,
                "chromosome": self.chromosome,
                "position": self.position,
                "substitution": self.substitution,
            }
        )
        if self.cohort is not None:
            frame["cohort"] = self.cohort
        names = np.unique(self.sample.astype(str))
        frame = frame[kept].drop_duplicates(["sample", "chromosome", "position", "substitution"])
        if not len(frame):
            what = f"none of its {len(self.sample)} mutations changes one base on the chromosomes 1 to 22, X and Y"
            raise DataError(what, file=path, mend="give single-nucleotide variants")
        rows = np.searchsorted(names, frame["sample"].to_numpy(dtype=object).astype(str))
        genes = np.unique(frame["gene"].to_numpy(dtype=object).astype(str))
        genes = genes[genes != ""]
        found = frame["gene"].to_numpy(dtype=object).astype(str)
        inside = found != ""
        gene = np.searchsorted(genes, found[inside])
        classes = frame["substitution"].to_numpy(np.int64)
        return MutationCounts(
            samples=tuple(names.tolist()),
            cohorts=self._cohorts(names, path),
            genes=tuple(genes.tolist()),
            by_gene=count_table(rows[inside], gene * CLASSES + classes[inside], (len(names), CLASSES * len(genes))),
            by_chromosome=count_table(
                rows,
                frame["chromosome"].to_numpy(np.int64) * CLASSES + classes,
                (len(names), CLASSES * len(CHROMOSOMES)),
            ),
            strand=strand,
            build=build,
            path=path,
        )

    def _cohorts(self, names: npt.NDArray[np.str_], path: Path) -> tuple[str, ...] | None:
        if self.cohort is None:
            return None
        pairs = pd.DataFrame({"sample": self.sample, "cohort": self.cohort}).drop_duplicates()
        twice = pairs["sample"][pairs["sample"].duplicated()]
        if len(twice):
            name = twice.iloc[0]
            where = sorted(map(str, pairs["cohort"][pairs["sample"] == name]))[:2]
            what = f"the patient '{name}' stands in the cohorts '{where[0]}' and '{where[1]}'"
            raise DataError(what, file=path, mend="give every patient one cohort")
        known = dict(zip(pairs["sample"].astype(str), pairs["cohort"].astype(str)))
        return tuple(known[name] for name in names.tolist())


def count_table(
    rows: npt.ArrayLike, columns: npt.ArrayLike, shape: tuple[int, int], values: npt.ArrayLike | None = None
) -> sparse.csr_array:
    """A table of counts, equal places added up; int64."""
    places = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    data = np.ones(len(places[0]), dtype=np.int64) if values is None else np.asarray(values, dtype=np.int64)
    table = sparse.csr_array((data, places), shape=shape)
    table.sum_duplicates()
    table.eliminate_zeros()
    return table
