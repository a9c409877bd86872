"""System: the estimator over mutation counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.mutations import MutationCounts, read_mutations
from kontrast.data.splits import Splits
from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.evaluation.retrieval import RetrievalValues
from kontrast.randomness import numpy_rng
from kontrast.systems.ms_contab.answers import answer, write_folder
from kontrast.systems.ms_contab.baselines import profile_baselines
from kontrast.systems.ms_contab.clusters import cluster_quality, unit
from kontrast.systems.ms_contab.config import MSConTabConfig
from kontrast.systems.ms_contab.example import write_example_mafs
from kontrast.systems.ms_contab.figures import cohort_figures
from kontrast.systems.ms_contab.known import Known
from kontrast.systems.ms_contab.measuring import burden_correlation, found_cohorts, patient_metrics, reported
from kontrast.systems.ms_contab.model import MSConTabModel, NormalisedModel, loss_weights, rebuilds
from kontrast.systems.ms_contab.views import (
    VIEWS,
    DrawBatches,
    Entities,
    cohort_entities,
    dealt_patients,
    make_entities,
    patient_entities,
    pooled,
    single_patients,
    split_counts,
    thin_range,
    view_table,
)
from kontrast.training import Stage

Vectors = npt.NDArray[np.float32]
SHARES = (0.5, 0.1, 0.4)
COUNT_SHARES = (0.6, 0.1, 0.3)
_BLOCK = 512


class MSConTab(System[MSConTabConfig, Entities]):
    """Contrast between mutation profiles of two scales, genes and chromosomes."""

    card: ClassVar[Card] = Card(
        name="ms_contab",
        title="one vector per cancer type (or patient) from its somatic mutations",
        summary=(
            "Substitutions are counted by gene and by chromosome. Two TabNet encoders bring the two profiles of a "
            "cohort together and keep those of different cohorts apart; each step sums up other patients of a cohort, "
            "and the contrast also holds within each scale. The vectors group cohorts that share mutational processes, "
            "find a cohort's relatives, and tell the cohort of a patient."
        ),
        task="retrieval and clustering of cohorts",
        modalities=("mutations",),
        formats=(
            "MAF (.maf, .maf.gz), COSMIC exports (.tsv) and VCF, a file or a folder of them",
            "folder of tables of counts: patients with patient_gene_sub and patient_chrom_sub, or gene_counts with "
            "chrom_counts; the official .xlsx workbooks",
            "long table (.parquet, .csv, .jsonl): sample, cohort, gene, chromosome, substitution, n",
        ),
        primary_metric="mrr",
        higher_is_better=True,
        ablation="contrast (the encoders learn as autoencoders on the same draws)",
        null_control="which cohort a view belongs to",
        unit="cohorts",
        arxiv="2508.19424",
        citation="Dou, Khadre, Petreaca, Mirzaei, MS-ConTab, arXiv 2508.19424, 2025",
        extras=("mutations",),
    )
    Config = MSConTabConfig
    model_: MSConTabModel
    known_: Known
    smoke: ClassVar[dict[str, Any]] = {
        "epochs": 4,
        "passes": 10,
        "profile": {"genes": 40},
        "draw": {"patients": 0.5},
        "tower": {"kind": "tabnet", "head": 1, "tabnet": {"decision": 16, "attention": 8}, "dim": 16},
        "optimiser": {"learning_rate": 1e-2},
    }
    answer_options: ClassVar[tuple[str, ...]] = (
        "ask", "top_k", "clusters", "method", "neighbours", "level", "min_mutations",
    )  # fmt: skip

    answer_files: ClassVar[dict[str, str]] = {
        "": "a folder: answers.csv, embeddings.parquet (by view), neighbours.csv, clusters.csv"
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> Entities:
        build = self.config.profile.build
        counts = read_mutations(path, build=None if build == "auto" else build)
        if purpose == "predict" and counts.cohorts is None:
            # New patients of whom nothing is known but their mutations.
            return patient_entities(counts, self.config.min_mutations, whole=True)
        return make_entities(counts, self.config, whole=True)

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_mafs(path)

    def split(self, data: Entities) -> Splits[Entities]:
        counts = data.counts
        chosen = np.unique(np.concatenate(data.members))
        if len(chosen) < len(counts):
            counts = counts.take(chosen)
        if counts.whole_cohorts:
            parts = split_counts(counts, COUNT_SHARES, self.config.split_seed)
            return Splits(*(make_entities(part, self.config) for part in parts))
        names = self._parts(counts)
        made: dict[str, Entities | None] = {}
        for name in ("train", "valid", "test"):
            rows = np.flatnonzero(names == name)
            made[name] = make_entities(counts.take(rows), self.config) if len(rows) else None
        train = made["train"]
        if train is None:
            raise DataError(
                "its split has no training patients", file=counts.path, mend="mark some as train, or half A"
            )
        return Splits(train, made["valid"], made["test"])

    def _parts(self, counts: MutationCounts) -> npt.NDArray[np.str_]:
        """(samples,) part of each patient."""
        wanted: str = self.config.split_by
        columns = counts.columns
        if wanted == "auto":
            order = ("half", "split") if self.config.level == "cohort" else ("split", "half")
            wanted = next((name for name in order if name in columns), "seed")
        if wanted == "seed":
            return dealt_patients(counts, SHARES, self.config.split_seed)
        if wanted not in columns:
            raise ConfigError(f"option 'split_by': the data have no column '{wanted}'.")
        stated = np.array([word.strip().lower() for word in columns.get("split", ("train",) * len(counts))])
        allowed = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
        strange = sorted(set(stated.tolist()) - allowed.keys())
        if strange:
            raise DataError(f"column 'split' holds '{strange[0]}'", file=counts.path, mend="use train, valid and test")
        parts = np.array([allowed[word] for word in stated], dtype="<U5")
        if wanted == "split":
            return parts
        half = np.array([word.strip().upper() for word in columns["half"]])
        strange = sorted(set(half.tolist()) - {"A", "B"})
        if strange:
            raise DataError(f"column 'half' holds '{strange[0]}'", file=counts.path, mend="use A and B")
        # Half A is known, and half B is looked for. What the column 'split' holds for validation serves as such in A.
        if "split" not in columns:
            return np.where(half == "B", "test", dealt_patients(counts, (0.85, 0.15, 0.0), self.config.split_seed))
        return np.where(half == "B", "test", np.where(parts == "valid", "valid", "train"))

    def size(self, data: Entities) -> int:
        return len(data)

    def take(self, data: Entities, rows: Sequence[int] | npt.NDArray[Any]) -> Entities:
        return data.take(rows)

    def permuted(self, data: Entities, seed: int) -> Entities:
        """The names of the cohorts dealt out anew, of whole cohorts or of patients."""
        if data.truth is None:
            raise DataError("names no cohorts", file=data.counts.path)
        order = numpy_rng(seed, "permuted truth").permutation(len(data))
        return replace(data, truth=tuple(data.truth[row] for row in order))

    def chance(self, data: Entities) -> float:
        """The expected reciprocal rank of a random order of the known cohorts."""
        count = len(self.known_.names) if hasattr(self, "known_") else len(set(data.truth or ()))
        return float(np.mean(1 / np.arange(1, count + 1)))

    def leaks(self, train: Entities, test: Entities) -> LeakReport:
        """Patients that stand in both; of whole cohorts, equal counts."""
        return check_leaks({"sample": _fingerprints(train)}, {"sample": _fingerprints(test)})

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: Entities) -> dict[str, Any]:
        counts = train.counts.take(train.samples())
        genes = _vocabulary(counts, self.config)
        build = self.config.profile.build
        facts = {
            "genes": genes,
            "build": build if build != "auto" else counts.build or "hg38",
            "strand": counts.strand,
            "thin": thin_range(train, self.config.draw),
        }
        self._means = {
            view: pooled(train.summed(self._table(train.counts, view, facts)), self.config.profile) for view in VIEWS
        }
        return facts

    def build(self, facts: dict[str, Any]) -> MSConTabModel:
        kind = NormalisedModel if self.config.tower.kind == "tabnet" else MSConTabModel
        model = kind(facts, self.config)
        means: dict[str, npt.NDArray[np.float32]] | None = self.__dict__.pop("_means", None)
        if means is not None:
            for view in VIEWS:
                model.tower(view).scaling.learn(means[view])
        return model

    def _table(self, counts: MutationCounts, view: str, facts: Mapping[str, Any]) -> Any:
        return view_table(counts, view, facts["genes"], self.config.profile)

    def stages(self, train: Entities, valid: Entities | None) -> Iterator[Stage]:
        config = self.config
        if len(train) < 2:
            what = f"there is one {config.level} to train on"
            raise DataError(what, file=train.counts.path, mend="contrast needs at least two")
        if config.contrast == "off" and not rebuilds(config):
            return
        # Thinning needs whole mutations; of entities of one sample the profile is the same either way.
        drawn = config if self.facts_["thin"] is None else config.changed(**{"profile.pool": "counts"})
        tables = {view: view_table(train.counts, view, self.facts_["genes"], drawn.profile) for view in VIEWS}
        validate = None
        if valid is not None and valid.truth is not None and train.truth is not None and len(valid) > 1:
            validate = partial(self._validate, train, valid)
        yield Stage(
            name="contrast",
            model=self.model_,
            batches=DrawBatches(train, tables, drawn, self.facts_["thin"]),
            epochs=config.epochs,
            optimiser=config.optimiser,
            seed=config.seed,
            weights=loss_weights(config),
            validate=validate,
        )

    def _validate(self, train: Entities, valid: Entities) -> dict[str, float]:
        return reported(self._retrieved(valid, self._known(train, patients=valid.level == "patient")))

    def finish(self, train: Entities, valid: Entities | None) -> None:
        self.known_ = self._known(train, valid)

    def _known(self, train: Entities, valid: Entities | None = None, *, patients: bool = True) -> Known:
        """Vectors of the cohorts and, where wanted, of the patients of the training (and validation) data."""
        parts = [train, *([] if valid is None else [valid])]
        dim = self.config.tower.dim
        none = np.zeros((0, dim), np.float32)
        counts = [part.counts.take(part.samples()) for part in parts]
        if any(each.cohorts is None for each in counts):
            return Known((), none, none, none, none, np.zeros(0, np.int64))
        names = sorted({name for each in counts for name in each.cohorts or ()})
        profiles = {}
        for view in VIEWS:
            tables = [self._table(each, view, self.facts_) for each in counts]
            profiles[view] = np.zeros((len(names), tables[0].shape[1]), np.float32)
            for each, table in zip(counts, tables):
                cohorts = cohort_entities(each)
                profiles[view][np.searchsorted(names, cohorts.names)] += cohorts.summed(table)
            profiles[view] = pooled(profiles[view], self.config.profile)
        singles, classes = [none], [np.zeros(0, np.int64)]
        for part in parts if patients else []:
            single = single_patients(part, self.config.min_mutations)
            if single is not None:
                singles.append(self.vectors(single))
                classes.append(np.searchsorted(names, single.truth or ()).astype(np.int64))
        return Known(
            tuple(names),
            self.joined(profiles),
            self.projections("gene", profiles["gene"]),
            self.projections("chromosome", profiles["chromosome"]),
            np.concatenate(singles),
            np.concatenate(classes),
        )

    # ---- use -----------------------------------------------------------------------------------------------------

    def view_counts(self, data: Entities, view: str) -> npt.NDArray[np.float32]:
        """(n, names·classes) counts of one view, in the model's vocabulary."""
        self._check_fits(data.counts)
        return pooled(data.summed(self._table(data.counts, view, self.facts_)), self.config.profile)

    @torch.no_grad()
    def projections(self, view: str, counts: npt.NDArray[np.float32]) -> Vectors:
        """(n, dim) projections of the counts of one view."""
        tower = self.model_.tower(view)
        device = next(tower.parameters()).device
        parts = [
            tower(torch.from_numpy(counts[start : start + _BLOCK]).to(device))[0]
            for start in range(0, len(counts), _BLOCK)
        ]
        return torch.cat(parts).float().cpu().numpy() if parts else np.zeros((0, self.config.tower.dim), np.float32)

    def joined(self, counts: Mapping[str, npt.NDArray[np.float32]]) -> Vectors:
        """(n, dim) embeddings of the counts of both views: the mean of their projections."""
        gene, chromosome = (self.projections(view, counts[view]) for view in VIEWS)
        if self.config.joined == "unit":
            gene, chromosome = unit(gene), unit(chromosome)
        return np.asarray((gene + chromosome) / 2, dtype=np.float32)

    def view_vectors(self, data: Entities, view: str) -> Vectors:
        """(n, dim) projections of one view of entities."""
        return self.projections(view, self.view_counts(data, view))

    def vectors(self, data: Entities) -> Vectors:
        """(n, dim) embeddings of entities."""
        return self.joined({view: self.view_counts(data, view) for view in VIEWS})

    def _check_fits(self, counts: MutationCounts) -> None:
        self.check_fitted()
        stated = self.facts_["strand"]
        if self.config.profile.classes == 12 and counts.strand != stated:
            what = f"names alleles on the {counts.strand} strand, and the model learned from the {stated} one"
            mend = "train with profile.classes=6, which does not depend on the strand"
            raise DataError(what, file=counts.path, mend=mend)

    def embed(self, data: Entities) -> Embeddings:
        vectors = self.vectors(data)
        columns: dict[str, Sequence[Any]] = {"mutations": data.totals().tolist()}
        if data.truth is not None:
            columns["cohort"] = list(data.truth)
        return Embeddings(vectors, list(data.names), data.level, columns, label="cohort" if data.truth else None)

    def predict(self, data: Entities) -> pd.DataFrame:
        """The answer to the question `ask`, as `kontrast.systems.ms_contab.answers` describes each."""
        self.check_fitted()
        return answer(self, data)

    def write_answers(self, answers: pd.DataFrame, data: Entities, path: Path) -> None:
        write_folder(self, data, answers, path)

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measure(self, data: Entities) -> Measurement:
        """How well held-out replicates find their cohort among the known ones, and the rest of the list.

        "mrr", "recall@1", "recall@5" and "median rank" of the embedding; of cohorts the same for each view that looks
        for the other ("gene to chromosome mrr"), and the quality of clusters; "patient ..." of single patients; and
        "burden", the rank correlation of the first axis with the number of mutations.

        Raises:
            DataError: if the data name no cohort, or none that is known.
        """
        self.check_fitted()
        if data.truth is None:
            raise DataError("names no cohorts to measure against", file=data.counts.path, mend="give their names")
        values = self._retrieved(data, self.known_)
        if not values.n_evaluated:
            mend = f"known are {', '.join(self.known_.names[:5])} ..."
            raise DataError("has no cohort that the model knows", file=data.counts.path, mend=mend)
        metrics = reported(values)
        if data.level == "cohort":
            metrics |= self._crossed(data, self.known_)
            if len(data) > 3:
                metrics |= {name: value for name, value in cluster_quality(self, data).items() if value == value}
        metrics["burden"] = burden_correlation(self.vectors(data), data.totals())
        metrics |= self._patients(data, self.known_)
        has = ~np.isnan(values.rank)
        names = [name for name, there in zip(data.names, has) if there]
        return Measurement(metrics, values.per_query["mrr"][has], names)

    def _retrieved(self, data: Entities, known: Known) -> RetrievalValues:
        candidates = known.cohorts if data.level == "cohort" else known.prototypes()
        return found_cohorts(self.vectors(data), candidates, known.places(data.truth or ()))

    def _crossed(self, data: Entities, known: Known) -> dict[str, float]:
        places = known.places(data.truth or ())
        metrics: dict[str, float] = {}
        for view, other in (VIEWS, VIEWS[::-1]):
            values = found_cohorts(self.view_vectors(data, view), getattr(known, other), places)
            metrics |= {f"{view} to {other} {name}": value for name, value in reported(values).items()}
        return metrics

    def _patients(self, data: Entities, known: Known) -> dict[str, float]:
        single = data if data.level == "patient" else single_patients(data, self.config.min_mutations)
        if single is None or len(np.unique(known.classes)) < 2:
            return {}
        # k-means starts from the first rows, so the order is that of the names.
        single = single.take(np.argsort(np.array(single.names)))
        classes = [known.names[place] for place in known.classes]
        found = patient_metrics(
            known.patients, classes, self.vectors(single), list(single.truth or ()), self.config.neighbours
        )
        return {f"patient {name}": value for name, value in found.items()}

    def baselines(self, train: Entities, test: Entities) -> dict[str, dict[str, float]]:
        """Profiles as they are, NMF, principal axes of patients, the untrained encoders, chance."""
        found = profile_baselines(self, train, test)
        untrained = type(self)(self.config)
        untrained.facts_ = untrained.learn_facts(train)
        untrained.initialise()
        untrained.finish(train, None)
        found["untrained encoders"] = reported(untrained._retrieved(test, untrained.known_))
        found["chance"] = {self.card.primary_metric: self.chance(test)}
        return found

    def figures(self, data: Entities) -> list[Figure]:
        """Map, tree and similarities; substitutions, chromosomes and genes of the clusters; how good these are."""
        return cohort_figures(self, data)

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The vectors of known cohorts and patients."""
        self.known_.save(folder / "known")

    def load_extra(self, folder: Path) -> None:
        self.known_ = Known.load(folder / "known")


def _fingerprints(data: Entities) -> list[str]:
    """A text for each sample: its name, or of a whole cohort also its counts, since replicates share the name."""
    counts = data.counts
    if not counts.whole_cohorts:
        return [counts.samples[row] for row in data.samples()]
    table = counts.by_chromosome
    return [f"{counts.samples[row]} {table[[row]].toarray().ravel().tolist()}" for row in data.samples()]


def _vocabulary(counts: MutationCounts, config: MSConTabConfig) -> list[str]:
    """The genes that are columns: those of the option's file, or those mutated in most training samples."""
    section = config.profile
    if section.vocabulary is not None:
        try:
            words = section.vocabulary.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read ({error})", file=section.vocabulary) from None
        genes = list(dict.fromkeys(words))
        if not set(genes) & set(counts.genes):
            raise DataError("names no gene of the data", file=section.vocabulary, mend="give one gene per line")
        return genes
    if not counts.genes:
        raise DataError("names no genes", file=counts.path, mend="give mutations with their genes")
    table = counts.by_gene.tocoo()
    shape = (len(counts), len(counts.genes))
    mutated = np.zeros(shape, dtype=bool)
    mutated[table.row, table.col // 12] = True
    samples = mutated.sum(0)
    totals = np.bincount(table.col // 12, weights=table.data, minlength=shape[1])
    order = np.lexsort((np.array(counts.genes), -totals, -samples))
    return [counts.genes[place] for place in order[: section.genes]]
