"""Config: what an entity is, how its counts become two views, the encoders, the losses, and what may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.encoders.tabnet import TabNetConfig
from kontrast.training import OptimiserConfig

CODE = "official code, anonymous2025Aug/MS-ConTab"
OURS = "ours: chosen on validation data, see the documentation"
Scale = Literal["hellinger", "log_z", "raw"]
Ask = Literal["neighbours", "clusters", "class", "explain", "enrichment", "profile"]


class ProfileSection(BaseConfig):
    """How counts become the two views."""

    gene_view: Literal["aligned", "ranked"] = param(
        "aligned", "a column is a gene, or the rank of a gene among the entity's own most mutated ones",
        paper="ranked", source=CODE,
    )  # fmt: skip
    genes: int = param(300, "aligned: genes that are mutated in most training samples", ge=1, le=100_000, source=OURS)
    vocabulary: Path | None = param(None, "aligned: a text file with one gene per line instead")
    ranks: int = param(25, "ranked: most mutated genes of an entity", ge=1, le=1000, source=CODE)
    classes: Literal[12, 6] = param(
        12, "substitutions: 12 of one strand, or 6 with a pyrimidine first, which makes strands comparable", source=CODE
    )
    scale: Scale = param(
        "hellinger", "square roots of shares; logarithms, standardised; or raw counts and counts per base pair",
        paper="raw", source=CODE,
    )  # fmt: skip
    pool: Literal["roots", "counts"] = param(
        "roots", "how patients make a cohort: their square roots of shares are averaged, so that each counts alike "
        "(hellinger only), or their counts are summed, so that a few with many mutations may outweigh the others",
        paper="counts", source=CODE,
    )  # fmt: skip
    build: Literal["auto", "hg19", "hg38"] = param(
        "auto", "lengths of chromosomes; auto: the build that the files state, else hg38"
    )

    @property
    def roots(self) -> bool:
        """Whether patients are averaged as square roots of shares."""
        return self.pool == "roots" and self.scale == "hellinger"


class DrawSection(BaseConfig):
    """How a training step draws an entity's views."""

    patients: float = param(
        0.3, "share of an entity's patients that a draw sums up: a virtual cohort; 1: all of them, always the same",
        gt=0, le=1, paper=1.0, source=CODE,
    )  # fmt: skip
    thin: Literal["auto", "none"] | tuple[float, float] = param(
        "auto", "probability, drawn from this range, with which a draw keeps each mutation; none: 1; auto: from 0.3 to "
        "0.9 where an entity has no patients to choose from", paper="none", source=CODE,
    )  # fmt: skip
    drop: float = param(
        0.0, "probability that a draw lacks a gene or a chromosome", ge=0, le=0.9, paper=0.0, source=CODE
    )

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if isinstance(self.thin, tuple) and not 0 < self.thin[0] <= self.thin[1] <= 1:
            raise ValueError(f"option 'thin' needs 0 < low <= high <= 1, got {list(self.thin)}")
        return self


class TowerSection(BaseConfig):
    """One encoder per view, and the projection into the common space."""

    kind: Literal["tabnet", "mlp", "linear"] = param("mlp", "the encoders of both views", paper="tabnet", source=CODE)
    tabnet: TabNetConfig = param(
        lambda: TabNetConfig(
            decision=64, relaxation=3.0, shared=1, own=0, mask="entmax", normalise=False
        ),
        "sizes of the TabNet",
        paper={
            "decision": 128, "attention": 128, "relaxation": 1.5, "shared": 2, "own": 2, "mask": "sparsemax",
            "normalise": True, "output": "first",
        },
        source=CODE,
    )  # fmt: skip
    choose: Literal["columns", "names", "classes"] = param(
        "classes", "what TabNet's masks choose: single columns, whole genes and chromosomes, or substitutions",
        paper="columns", source=CODE,
    )  # fmt: skip
    hidden: int = param(512, "length of the hidden vectors of the mlp", ge=1, le=65_536)
    dim: int = param(256, "length of the embedding", ge=2, le=4096, paper=64, source=CODE)
    head: int = param(2, "linear maps of the projection", ge=1, le=4, source=CODE)


class MSConTabConfig(SystemConfig):
    """Options of `ms_contab`; the ``paper`` preset is the official code's recipe, in evaluation mode."""

    level: Literal["cohort", "patient"] = param("cohort", "what an entity is")
    min_mutations: int = param(10, "patients with fewer substitutions are left out where single patients count", ge=1)
    split_by: Literal["auto", "half", "split", "seed"] = param(
        "auto", "cohorts: train on half A and test on half B; patients: the column split; auto: the one that fits"
    )
    profile: ProfileSection = param(ProfileSection, "how counts become the two views")
    draw: DrawSection = param(DrawSection, "how a training step draws views")
    tower: TowerSection = param(TowerSection, "encoders and projections")

    objective: Literal["pairs", "groups"] = param(
        "groups", "NT-Xent over pairs of views, or one softmax in which all draws of an entity are positives",
        paper="pairs", source=CODE,
    )  # fmt: skip
    within: float = param(
        0.5, "pairs: weight of the contrast between two draws of one view, beside that between the views",
        ge=0, le=100, paper=0.0, source=CODE,
    )  # fmt: skip
    temperature: float = param(0.2, "softmax temperature", gt=0, le=10, paper=0.5, source=CODE)
    sparsity: float = param(1e-3, "weight of the entropy of TabNet's masks", ge=0, paper=0.0, source=CODE)
    without: Literal["autoencoder", "nothing"] = param(
        "autoencoder", "what is learned with contrast=off: to rebuild another draw of the view, or nothing"
    )
    joined: Literal["unit", "plain"] = param(
        "unit", "the embedding is the mean of the two projections, each scaled to length 1 or as it is",
        paper="plain", source=CODE,
    )  # fmt: skip

    batch: int = param(256, "entities of a step, if there are more", ge=2, paper=8, source=CODE)
    epochs: int = param(20, "epochs", ge=1, paper=100, source=CODE)
    passes: int = param(10, "passes over the entities in an epoch", ge=1, paper=1, source=CODE)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(name="adamw", learning_rate=1e-3, weight_decay=1e-2, schedule="constant"),
        "optimiser and learning rate",
        paper={"name": "adam", "weight_decay": 0.0}, source=CODE,
    )  # fmt: skip

    ask: Ask = param(
        "neighbours",
        "what predict answers: nearest known cohorts, clusters, a patient's class, what mattered (explain), "
        "substitutions of the clusters (enrichment), or the counts (profile)",
    )
    top_k: int = param(3, "neighbours, or names per view that predict gives for each entity", ge=1, source=CODE)
    clusters: int | None = param(None, "number of clusters; none: the one with the best silhouette", ge=2)
    method: Literal["kmeans", "ward"] = param("kmeans", "how entities are clustered", source=CODE)
    neighbours: int = param(15, "known patients that vote on the class of a patient", ge=1)
