"""System: the estimator over paired cells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.omics import FORMATS, Cells, annotate, read_cells, write_h5ad, write_h5mu
from kontrast.data.splits import Splits, split_table
from kontrast.data.tables import Table
from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.progress import say
from kontrast.randomness import numpy_rng
from kontrast.systems.sci2cl.baselines import component_spaces
from kontrast.systems.sci2cl.config import Sci2CLConfig
from kontrast.systems.sci2cl.example import write_example_cells
from kontrast.systems.sci2cl.figures import cell_figures
from kontrast.systems.sci2cl.learning import (
    agreement,
    fusion_shares,
    joint_neighbours,
    leading_scores,
    learn_front,
    learn_usual,
    separation,
)
from kontrast.systems.sci2cl.measuring import cluster_metrics, measured
from kontrast.systems.sci2cl.model import SIDES, Sci2CLModel
from kontrast.systems.sci2cl.questions import answer
from kontrast.systems.sci2cl.stored import Reference
from kontrast.systems.sci2cl.views import (
    CellBatches,
    ModalityFacts,
    OmicsData,
    Prepared,
    Training,
    facts_of,
    prepare,
    with_labels,
)
from kontrast.training import Stage

KEY = "X_sci2cl"
"""Where the vectors stand in `obsm`."""
BLOCK = 512
WARM_UP_STEPS, CONTRAST_STEPS = 20, 500


class Sci2CL(System[Sci2CLConfig, OmicsData]):
    """One embedding per cell from two measurements of it, such as RNA and open chromatin, or RNA and proteins.

    Rows are cells. Labels are read for metrics and label transfer; training does not see them unless the matching term
    is asked to (``itm=labels``, the authors' method).
    """

    card: ClassVar[Card] = Card(
        name="sci2cl",
        title="one embedding per cell from RNA and a second modality: cell types, labels, trajectories, markers",
        summary=(
            "An autoencoder per modality explains the counts. Then cells are contrasted within each modality (masked "
            "copies, neighbours) and between the modalities: what a cell's RNA says should be found in its chromatin "
            "or proteins. The two vectors of a cell side by side, the better separated modality counting more, are its "
            "embedding. No label is used."
        ),
        task="clustering",
        modalities=("RNA", "ATAC", "protein", "other counts"),
        formats=FORMATS,
        primary_metric="ari",
        higher_is_better=True,
        ablation="the contrastive terms within and between the modalities (the autoencoders alone, trained as long)",
        null_control="which cell's second modality belongs to which cell's first",
        unit="cells",
        arxiv="2508.18304",
        citation="Liu, Peng, Li, Zhang, Guan, Zhou, scI2CL: single-cell multi-omics by contrastive learning, 2025",
        extras=("omics",),
    )
    Config = Sci2CLConfig
    model_: Sci2CLModel
    smoke: ClassVar[dict[str, Any]] = {
        "warm_up": 2,
        "epochs": 12,
        "batch_size": 64,
        "network": {"hidden": [32], "dim": 8, "components": 12},
        "optimiser": {"learning_rate": 3e-3},
    }
    answer_options: ClassVar[tuple[str, ...]] = (
        "ask", "clusters", "method", "resolution", "of", "root", "course", "top", "votes", "label", "order", "kinds",
        "layer",
    )  # fmt: skip
    answer_files: ClassVar[dict[str, str]] = {
        ".h5mu": "the cells with the answer in obs and their vectors in obsm",
        ".h5ad": "the first modality with the answer in obs and the vectors in obsm",
    }
    embedding_files: ClassVar[dict[str, str]] = {
        ".h5mu": f"the cells with their vectors in obsm['{KEY}']",
        ".h5ad": f"the first modality with the vectors in obsm['{KEY}']",
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> OmicsData:
        config = self.config
        only = config.modalities
        if purpose == "predict" and hasattr(self, "facts_"):
            # A modality may be missing, and others may be there: whatever the model knows is kept.
            cells = read_cells(path, layer=config.layer, kinds=self._kinds())
            return with_labels(self._known(cells), config)
        cells = read_cells(path, layer=config.layer, kinds=config.kinds, only=only)
        names = list(cells.modalities)
        if purpose == "train" and len(names) != 2:
            mend = "name two with option 'modalities'" if len(names) > 2 else "give a second measurement of the cells"
            raise DataError(f"has {len(names)} modalities ({', '.join(names)}), not two", file=path, mend=mend)
        for name, count in cells.dropped.items():
            say(f"note: {count:,} cells of '{name}' have no partner in the other modality and are left out.")
        return with_labels(cells, config)

    def _kinds(self) -> dict[str, str]:
        return self.config.kinds

    def _known(self, cells: Cells) -> Cells:
        names = [fact["name"] for fact in self.facts_["modalities"]]
        kept = {name: cells.modalities[name] for name in names if name in cells.modalities}
        if not kept:
            came = ", ".join(cells.modalities)
            what = f"has the modalities {came}, and the model knows {' and '.join(names)}"
            raise DataError(what, file=cells.path, mend="name the modalities as in training")
        return replace(cells, modalities=kept)

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_cells(path)

    def split(self, data: OmicsData) -> Splits[OmicsData]:
        """The parts that obs names in its column "split", else seeded; a `group` stays on one side."""
        obs, group = data.cells.obs, self.config.group
        frame = pd.DataFrame({"row": np.arange(len(data)), "id": data.cells.ids.astype(str)})
        if group is not None:
            frame[group] = data.cells.column(group).to_numpy()
        if "split" in obs.columns:
            frame["split"] = obs["split"].astype(object).to_numpy()
        table = Table(frame, data.cells.path)
        parts = split_table(table, ["id"], group=group, seed=self.config.split_seed)
        return parts.map(lambda part: data.take(part.frame["row"].to_numpy(np.int64)))

    def size(self, data: OmicsData) -> int:
        return len(data)

    def take(self, data: OmicsData, rows: Sequence[int] | npt.NDArray[Any]) -> OmicsData:
        return data.take(rows)

    def permuted(self, data: OmicsData, seed: int) -> OmicsData:
        """Labels dealt out anew among the labelled cells."""
        if data.labels is None:
            return data
        rows, labels = data.labelled(), data.labels.copy()
        labels[rows] = labels[numpy_rng(seed, "permuted truth").permutation(rows)]
        return replace(data, labels=labels)

    def chance(self, data: OmicsData) -> float:
        return 0.0

    def leaks(self, train: OmicsData, test: OmicsData) -> LeakReport:
        """Cells of the test part with the barcode or exactly the counts of a training cell."""
        fields = []
        for data in (train, test):
            prints = [found if found is not None else f"empty {name}" for found, name in
                      zip(data.cells.fingerprints(), data.cells.ids)]  # fmt: skip
            fields.append({"cell": data.cells.ids.astype(str).tolist(), "counts": prints})
        return check_leaks(*fields)

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: OmicsData) -> dict[str, Any]:
        if len(train.cells.modalities) != 2:
            names = ", ".join(train.cells.modalities)
            raise DataError(f"training needs two modalities, got {names}", file=train.cells.path)
        if len(train) < 4:
            raise DataError(f"has {len(train)} training cells", file=train.cells.path, mend="give at least four")
        facts = [ModalityFacts.of(part, self.config.features) for part in train.cells.modalities.values()]
        return {"modalities": [asdict(fact) for fact in facts], "cells": len(train)}

    def build(self, facts: dict[str, Any]) -> Sci2CLModel:
        return Sci2CLModel(facts_of(facts["modalities"]), self.config)

    def stages(self, train: OmicsData, valid: OmicsData | None) -> Iterator[Stage]:
        config = self.config
        training = self._learned(train)
        epochs = self._epochs(len(train), config.warm_up, WARM_UP_STEPS)
        yield self._stage("warm-up", CellBatches(training, config, contrast=False, name="warm-up"), epochs, {})
        epochs = self._epochs(len(train), config.epochs, CONTRAST_STEPS)
        contrast = config.contrast != "off"
        weights = self._weights() if contrast else {}
        batches = CellBatches(training, config, contrast=contrast, name="contrast")
        yield self._stage("contrast", batches, epochs, weights)
        self._fuse(training)

    def _stage(self, name: str, batches: CellBatches, epochs: int, weights: dict[str, float]) -> Stage:
        config = self.config
        return Stage(
            name=name, model=self.model_, batches=batches, epochs=epochs, optimiser=config.optimiser,
            seed=config.seed, weights=weights,
        )  # fmt: skip

    def _weights(self) -> dict[str, float]:
        """Weights of the terms that are on."""
        config = self.config
        active = {
            "reconstruct": True,
            "inter": True,
            "intra": config.intra in ("neighbours", "both"),
            "pool": config.intra in ("pool", "both"),
            "itm": config.itm != "off",
        }
        weights = {name: config.weights.get(name, 1.0) for name, on in active.items() if on}
        if config.positives == "neighbours":
            # Where the modalities say different things, aligning them would only take from both.
            weights["inter"] *= self.agreement_.share
        return weights

    def _epochs(self, cells: int, given: int | None, steps: int) -> int:
        per_epoch = -(-cells // self.config.batch_size)
        return given if given is not None else max(1, round(steps / per_epoch))

    def _learned(self, train: OmicsData) -> Training:
        """Everything that is known before the first step, put into the model's buffers."""
        config, model = self.config, self.model_
        parts = [part for part in prepare(train.cells, facts_of(self.facts_["modalities"])) if part is not None]
        if config.contrast == "shuffled":
            # The null control: each cell's second modality is another cell's, from here on.
            order = numpy_rng(config.seed, "null control").permutation(len(train))
            parts[1] = parts[1].reordered(order)
        weights = [part.frequencies() for part in parts]
        for side, (part, own) in enumerate(zip(parts, weights)):
            model.get_buffer(f"frequencies_{side}").copy_(torch.from_numpy(own))
            learn_front(model.front(side), part, own, config.seed)
            learn_usual(model.decoder(side), part)
        fronts = [model.front(side) for side in SIDES]
        found = agreement(fronts, parts, weights, config.neighbours, config.seed)
        self.agreement_ = found
        say(f"agreement of the modalities: {found.value:.2f} (1: all that their own reliability allows)")
        if config.bank:
            self._fill_bank(parts, weights)
        neighbours = None
        needed = "neighbours" in (config.positives, config.itm) or config.intra in ("neighbours", "both")
        if config.contrast != "off" and needed:
            graph_shares = [1.0, 1.0]
            graph_shares[found.less_reliable] = found.share
            scores = [leading_scores(*each) for each in zip(fronts, parts, weights)]
            neighbours = joint_neighbours(scores, (graph_shares[0], graph_shares[1]), config.neighbours, config.seed)
        return Training(parts, weights, neighbours, self._codes(train) if config.itm == "labels" else None)

    def _codes(self, train: OmicsData) -> npt.NDArray[np.int64]:
        if train.labels is None or not len(train.labelled()):
            raise ConfigError("option 'itm': the training cells have no labels, and 'labels' needs them.")
        say("warning: itm=labels trains with the cell types; its clustering metrics are semi-supervised.")
        texts = ["" if label is None else str(label) for label in train.labels]
        codes, names = pd.factorize(np.asarray(texts, dtype=object), sort=True)
        return np.where(np.asarray(names)[codes] == "", -1, codes).astype(np.int64)

    @torch.no_grad()
    def _fill_bank(self, parts: list[Prepared], weights: list[npt.NDArray[np.float32]]) -> None:
        n = len(parts[0])
        chosen = np.sort(numpy_rng(self.config.seed, "bank").choice(n, self.config.bank, replace=n < self.config.bank))
        for side, (part, own) in enumerate(zip(parts, weights)):
            values = torch.from_numpy(part.values(chosen, own))
            self.model_.get_buffer(f"bank_{side}").copy_(self.model_.inputs(side, values))

    def _fuse(self, training: Training) -> None:
        """How much each modality counts, from the training cells' vectors."""
        units = self._units(list(training.modalities))
        widths = (separation(units[0], self.config.seed), separation(units[1], self.config.seed))
        shares = fusion_shares(self.agreement_, widths, self.config.balance)
        self.model_.shares.copy_(torch.tensor(shares))
        say(f"weights in the fused embedding: {shares[0]:.2f} and {shares[1]:.2f}")

    def finish(self, train: OmicsData, valid: OmicsData | None) -> None:
        rows = train.labelled()
        labels = np.asarray([], dtype=object) if train.labels is None else train.labels[rows]
        self.reference_ = Reference(self.vectors(train.take(rows)), labels, train.column)

    # ---- use -----------------------------------------------------------------------------------------------------

    def parts(self, data: OmicsData) -> dict[str, Prepared]:
        """The modalities that the model knows and the cells have, by name."""
        self.check_fitted()
        found = prepare(data.cells, facts_of(self.facts_["modalities"]))
        return {part.facts.name: part for part in found if part is not None}

    def vectors(self, data: OmicsData) -> npt.NDArray[np.float32]:
        """(n, d) embeddings."""
        return self.vectors_and_units(data)[0]

    def vectors_and_units(self, data: OmicsData) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """(n, d) embeddings, and the (n, e) unit vectors of each modality that is there."""
        self.check_fitted()
        parts = prepare(data.cells, facts_of(self.facts_["modalities"]))
        return self._forward(parts, len(data))

    def _units(self, parts: list[Prepared | None]) -> list[npt.NDArray[np.float32]]:
        return self._forward(parts, max(len(part) for part in parts if part is not None))[1]

    @torch.no_grad()
    def _forward(
        self, parts: Sequence[Prepared | None], n: int
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        model = self.model_
        device = next(model.parameters()).device
        weights = [model.get_buffer(f"frequencies_{side}").cpu().numpy() for side in SIDES]
        present = [
            None if part is None or part.present.all() else torch.from_numpy(part.present).to(device) for part in parts
        ]
        vectors: list[npt.NDArray[np.float32]] = []
        units: list[list[npt.NDArray[np.float32]]] = [[] for part in parts if part is not None]
        for start in range(0, n, BLOCK):
            rows = np.arange(start, min(start + BLOCK, n))
            values = [
                None if part is None else torch.from_numpy(part.values(rows, own)).to(device)
                for part, own in zip(parts, weights)
            ]
            fused, given = model.fused(values, present)
            vectors.append(fused.float().cpu().numpy())
            for side, unit in enumerate(given):
                units[side].append(unit.float().cpu().numpy())
        if not vectors:
            width = self.config.network.dim * (2 if model.matching is None else 1)
            return np.zeros((0, width), np.float32), []
        return np.concatenate(vectors), [np.concatenate(side) for side in units]

    def embed(self, data: OmicsData) -> Embeddings:
        """One vector per cell, with its label where there is one."""
        columns: dict[str, Sequence[Any]] = {}
        if data.labels is not None:
            columns["label"] = ["" if label is None else label for label in data.labels]
        vectors = self.vectors(data)
        return Embeddings(
            vectors, data.cells.ids.astype(str).tolist(), "cell", columns, label="label" if columns else None
        )

    def predict(self, data: OmicsData) -> pd.DataFrame:
        """The answer to the option `ask`: a row per cell, or for markers a row per group and feature."""
        self.check_fitted()
        return answer(self, data)

    def write_embeddings(self, embeddings: Embeddings, data: OmicsData, path: Path) -> None:
        """The user's own file with the vectors in `obsm`; from other formats a new h5mu or h5ad."""
        empty = pd.DataFrame(index=list(embeddings.ids))
        self._write(path, data, np.asarray(embeddings.ids, dtype=object), empty, embeddings.vectors)

    def write_answers(self, answers: pd.DataFrame, data: OmicsData, path: Path) -> None:
        """The user's own file with the answers in `obs` as columns "sci2cl_...", and the vectors in `obsm`."""
        if "id" not in answers.columns:
            raise ConfigError("markers are about groups, not cells; write them to .csv, .parquet or .jsonl.")
        named = answers.drop(columns=[name for name in ("id", "group") if name in answers.columns])
        named = named.add_prefix("sci2cl_").set_axis(answers["id"].astype(str).tolist(), axis=0)
        cells = data.take(pd.Index(data.cells.ids.astype(str)).get_indexer(named.index))
        self._write(path, data, cells.cells.ids, named, self.vectors(cells))

    def _write(
        self, path: Path, data: OmicsData, ids: npt.NDArray[Any], obs: pd.DataFrame, vectors: npt.NDArray[np.float32]
    ) -> None:
        source = data.cells.path
        if source is not None and source.is_file() and source.suffix == path.suffix:
            shutil.copyfile(source, path)
            annotate(path, ids, obs, {KEY: vectors})
            return
        facts = data.cells.obs.set_axis(data.cells.ids.astype(str), axis=0)
        modalities = [(part.name, part.counts, part.features) for part in data.cells.modalities.values()]
        if path.suffix == ".h5ad":
            write_h5ad(path, modalities[0][1], modalities[0][2], facts)
        else:
            write_h5mu(path, modalities, facts, {})
        annotate(path, ids, obs, {KEY: vectors})

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measure(self, data: OmicsData) -> Measurement:
        """Clusters against types ("ari", "nmi", "acc" of k-means with as many clusters as types), the same with k by
        silhouette and by Leiden, label transfer, matching of the modalities, and the order of a trajectory."""
        self.check_fitted()
        return Measurement(measured(self, data))

    def baselines(self, train: OmicsData, test: OmicsData) -> dict[str, dict[str, float]]:
        """K-means on principal components of each modality and of both, learned from the training cells."""
        facts = facts_of(self.facts_["modalities"])
        known, asked = ([part for part in prepare(data.cells, facts) if part is not None] for data in (train, test))
        found = {name: cluster_metrics(space, test) for name, space in component_spaces(known, asked).items()}
        wanted = ("ari", "nmi", "acc", "silhouette")
        made = {
            name: {metric: metrics[metric] for metric in wanted if metric in metrics}
            for name, metrics in found.items()
            if metrics
        }
        made["chance"] = {"ari": self.chance(test)}
        return made

    def figures(self, data: OmicsData) -> list[Figure]:
        """Maps by type, cluster, batch and pseudotime; types against clusters; agreement; markers."""
        return cell_figures(self, data)

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The labelled training cells, by which `predict` labels others."""
        self.reference_.save(folder)

    def load_extra(self, folder: Path) -> None:
        self.reference_ = Reference.load(folder)
