"""System: the estimator over images of surfaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.splits import Splits
from kontrast.data.surfaces import ANOMALOUS, NORMAL, SurfaceSet, read_surfaces
from kontrast.errors import DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.randomness import numpy_rng
from kontrast.systems.cozad.answers import Trained, threshold_table, weight_table, write_maps
from kontrast.systems.cozad.baselines import surface_baselines
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.example import write_example_surfaces
from kontrast.systems.cozad.features import Backbone, Describer, FilterBackbone, PretrainedBackbone, backbone_name
from kontrast.systems.cozad.figures import surface_figures
from kontrast.systems.cozad.inspection import Inspector
from kontrast.systems.cozad.measuring import beaten_shares, surface_metrics
from kontrast.systems.cozad.model import CoZADModel
from kontrast.systems.cozad.pool import Pool, TaskBatches, digests_of, loader, make_pool
from kontrast.systems.cozad.scoring import Maps, Scoring, choose_scoring, pooled_maps
from kontrast.systems.cozad.splitting import split_surfaces, whole_domains
from kontrast.systems.cozad.transduction import adapted
from kontrast.training import Stage


@dataclass(frozen=True)
class Scored:
    """Scores of some images.

    Attributes:
        scores: (n,) image scores, higher is odder.
        maps: n maps (side / 8, side / 8).
        vectors: (n, d) mean contrasted vectors.
    """

    scores: npt.NDArray[np.float64]
    maps: list[Maps]
    vectors: npt.NDArray[np.float32]


class CoZAD(System[CoZADConfig, SurfaceSet]):
    """Zero-shot anomaly detection: trained on some domains, used on another one at once.

    A row is an image. Training sees normal images of the source domains; images of the held-out domain are not opened
    before they are scored.
    """

    card: ClassVar[Card] = Card(
        name="cozad",
        title="which images, and where in them, show a defect, in a product that was never seen before",
        summary=(
            "Patches of frozen features are looked at relative to their own image. A small net learns from other "
            "domains' normal images and from anomalies drawn on them: a meta-learning loop over domains, a soft "
            "confidence in every training image, a weight decay that follows the covariance of the losses, and a "
            "contrastive term that makes normal patches compact. What comes out is a score for an image and a heat map."
        ),
        task="anomaly detection",
        modalities=("image",),
        formats=(
            "folders of MVTec AD, BTAD, MPDD or DTD-Synthetic: train/good, test/<type>, ground_truth/<type>",
            "VisA with its split CSV; KolektorSDD and KolektorSDD2; folders yes and no (BrainMRI)",
            "CSV index: file, domain, split, label, type, mask",
            "zip archives of these, read in place; for prediction single PNG, JPEG, BMP, TIFF, DICOM or NIfTI images",
        ),
        primary_metric="auroc",
        higher_is_better=True,
        ablation="the contrastive term",
        null_control="which patches count as normal in the contrastive term",
        unit="anomalous images",
        arxiv="2508.17827",
        citation="Aqeel, Skocaj, Cristani, Setti, CoZAD, ICCV 2025 Workshops",
        extras=("surfaces", "lite0"),
    )
    Config = CoZADConfig
    model_: CoZADModel
    trained_: Trained
    smoke: ClassVar[dict[str, Any]] = {
        "features": {"side": 64, "cache": "memory", "backbone": "filters"},
        "net": {"hidden": 16, "projection": 8},
        "epochs": 2,
        "iterations": 4,
        "copies": 1,
    }
    answer_options: ClassVar[tuple[str, ...]] = ("ask", "fpr", "top_k", "adapt")
    answer_files: ClassVar[dict[str, str]] = {"": "scores.csv with a heat map and an overlay of every image, as PNG"}

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> SurfaceSet:
        data = read_surfaces(path)
        if purpose == "train" and not (data.labels >= 0).any():
            mend = "sort them into train/good and test/<type>, or list them in index.csv"
            raise DataError("does not say which images are normal", file=path, mend=mend)
        return data

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_surfaces(path)

    def split(self, data: SurfaceSet) -> Splits[SurfaceSet]:
        return split_surfaces(data, self.config)

    def size(self, data: SurfaceSet) -> int:
        return len(data)

    def take(self, data: SurfaceSet, rows: Sequence[int] | npt.NDArray[Any]) -> SurfaceSet:
        return data.take(rows)

    def permuted(self, data: SurfaceSet, seed: int) -> SurfaceSet:
        """Labels and types dealt out anew among the images of a domain; masks no longer fit and are left out."""
        rows = list(data.rows)
        for domain in data.domains:
            here = np.flatnonzero(data.of(domain))
            for place, other in zip(here, numpy_rng(seed, "permuted truth", domain).permutation(here)):
                source = data.rows[int(other)]
                rows[int(place)] = replace(data.rows[int(place)], label=source.label, kind=source.kind, mask=None)
        return replace(data, rows=tuple(rows), masked=frozenset())

    def chance(self, data: SurfaceSet) -> float:
        return 0.5

    def leaks(self, train: SurfaceSet, test: SurfaceSet) -> LeakReport:
        """Test images whose content is that of a training image; whole domains are apart by the split."""
        return check_leaks({"image": digests_of(train)}, {"image": digests_of(test)})

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: SurfaceSet) -> dict[str, Any]:
        chosen = backbone_name(self.config.features.backbone)
        channels = (
            FilterBackbone.SCALES * FilterBackbone.COMPONENTS
            if chosen == "filters"
            else sum(PretrainedBackbone.CHANNELS)
        )
        return {"backbone": chosen, "channels": channels, "images": len(train), "sources": sorted(train.domains)}

    def build(self, facts: dict[str, Any]) -> CoZADModel:
        return CoZADModel(facts, self.config)

    def stages(self, train: SurfaceSet, valid: SurfaceSet | None) -> Iterator[Stage]:
        config, model = self.config, self.model_
        if self.facts_["backbone"] == "filters":
            rng = numpy_rng(config.split_seed, "filters")
            images = loader(train, config.features.side)(range(len(train)))
            model.filters.copy_(FilterBackbone.learn(images, rng))
        pool = make_pool(train, self.describer(), config)
        model.scale.copy_(deviation(pool))
        model.pool = pool
        yield Stage(
            name="meta",
            model=model,
            batches=TaskBatches(pool, config),
            epochs=config.epochs,
            optimiser=config.optimiser,
            seed=config.seed,
        )

    def finish(self, train: SurfaceSet, valid: SurfaceSet | None) -> None:
        """Weighs the training images a last time, and chooses on the sources how maps become scores."""
        model, config = self.model_, self.config
        if config.confidence.soft:
            model.weigh()
        model.pool = None
        inspector = self.inspector()
        if valid is not None and whole_domains(valid):
            evidence, words = inspector.evidence(valid), f"labelled test images of {', '.join(sorted(valid.domains))}"
        else:
            some = valid if valid is not None and len(valid) else train
            evidence = inspector.drawn_evidence(some, config.split_seed)
            words = f"anomalies drawn on normal images of {', '.join(sorted(some.domains))}"
        scoring = choose_scoring(evidence, words, free=config.choose != "fixed")
        self.facts_["scoring"] = scoring.to_json()
        self.trained_ = Trained.of(train, evidence, scoring)

    # ---- use -----------------------------------------------------------------------------------------------------

    def backbone(self) -> Backbone:
        """The frozen backbone; the packaged one is loaded once."""
        if self.facts_["backbone"] == "filters":
            return FilterBackbone(self.model_.filters.cpu())
        return PretrainedBackbone.shared()

    def describer(self) -> Describer:
        """Gives frozen features."""
        section = self.config.features
        return Describer(self.backbone(), side=section.side, nearest=section.nearest, cache=section.cache)

    def inspector(self) -> Inspector:
        """Looks at images with the model as it is."""
        return Inspector(self.describer(), self.model_)

    @property
    def scoring(self) -> Scoring:
        """How maps become scores."""
        return Scoring.from_json(self.facts_["scoring"])

    def scored(self, data: SurfaceSet) -> Scored:
        """Scores, maps and vectors of images: the one way to them, for every verb."""
        self.check_fitted()
        inspector, scoring = self.inspector(), self.scoring
        if self.config.adapt == "transductive" and len(data) > 1:
            inspector = Inspector(inspector.describer, adapted(self.model_, data, inspector.describer, self.config))
        scores, maps, vectors = [], [], []
        for found in inspector(data):
            scores.append(scoring.image_score(pooled_maps(found.maps)))
            maps.append(scoring.anomaly_map(found.maps))
            vectors.append(found.vector)
        return Scored(np.array(scores), maps, np.array(vectors, dtype=np.float32).reshape(len(scores), -1))

    def embed(self, data: SurfaceSet) -> Embeddings:
        """The mean contrasted vector of each image."""
        found = self.scored(data)
        words = {NORMAL: "normal", ANOMALOUS: "anomalous"}
        columns: dict[str, Sequence[Any]] = {
            "domain": [row.domain for row in data.rows],
            "state": [words.get(row.label, "unknown") for row in data.rows],
            "type": [row.kind for row in data.rows],
            "score": [float(score) for score in found.scores],
        }
        return Embeddings(found.vectors, [row.id for row in data.rows], "image", columns, label="state", hover="type")

    def predict(self, data: SurfaceSet) -> pd.DataFrame:
        """By `ask`: scores of the images; the training images that are least trusted; or a threshold."""
        self.check_fitted()
        if self.config.ask == "weights":
            return weight_table(self.trained_, self.model_, self.config.top_k)
        if self.config.ask == "threshold":
            return threshold_table(self.trained_, self.config.fpr)
        found = self.scored(data)
        return pd.DataFrame(
            {
                "id": [row.id for row in data.rows],
                "domain": [row.domain for row in data.rows],
                "score": found.scores,
                "highest": [float(each.max()) for each in found.maps],
            }
        )

    def write_answers(self, answers: pd.DataFrame, data: SurfaceSet, path: Path) -> None:
        """scores.csv, and for each image a heat map and an overlay of the image's own size."""
        maps = self.scored(data).maps if self.config.ask == "scores" else []
        write_maps(answers, data, maps, path, self.trained_.map_range, self.config.smoothing)

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measured_rows(self, data: SurfaceSet) -> SurfaceSet:
        """What is measured of data that were not split: labelled test images, of unseen domains if there are any."""
        labelled = data.take(data.labels >= 0)
        if any(row.part == "test" for row in labelled.rows):
            labelled = labelled.take(np.array([row.part != "train" for row in labelled.rows]))
        unseen = [name for name in labelled.domains if name not in self.facts_["sources"]]
        if unseen and self.config.protocol == "zero-shot":
            labelled = labelled.take(labelled.of(*unseen))
        if not len(labelled):
            raise DataError("has no labelled test image", file=data.path, mend="give test/good and test/<type>")
        return labelled

    def measure(self, data: SurfaceSet) -> Measurement:
        """Metrics of labelled images; items are anomalous images, each with the share of normal ones it outscores."""
        self.check_fitted()
        data = self.measured_rows(data)
        found = self.scored(data)
        config = self.config
        metrics = surface_metrics(found.scores, found.maps, data, side=config.map_side, smoothing=config.smoothing)
        shares, rows = beaten_shares(found.scores, data)
        return Measurement(metrics, shares, [data.rows[row].id for row in rows])

    def baselines(self, train: SurfaceSet, test: SurfaceSet) -> dict[str, dict[str, float]]:
        """In-image distance without training, other domains' images, labelled sources, and an upper reference."""
        self.check_fitted()
        return surface_baselines(self.describer(), train, test, self.config)

    def figures(self, data: SurfaceSet) -> list[Figure]:
        """Heat maps, scores, ROC, confidence, regulariser."""
        data = self.measured_rows(data)
        return surface_figures(self, data, self.scored(data))

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """Names of the training images and scores of normal source images."""
        self.trained_.save(folder / "sources.json")

    def load_extra(self, folder: Path) -> None:
        self.trained_ = Trained.load(folder / "sources.json")


def deviation(pool: Pool) -> torch.Tensor:
    """(channels,) mean over domains of the deviation of median-centred patches."""
    found = [pool.images[pool.domain == number].float().flatten(0, 1).std(0) for number in range(len(pool.domains))]
    return torch.stack(found).mean(0).clamp_min(1e-4)
