"""Config: languages, prompt, encoder, the two stages and the two contrasts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.encoders import TextEncoderConfig
from kontrast.encoders.layered import Place
from kontrast.training import OptimiserConfig

CODE = "released code of arXiv 2508.19464"
OURS = "reconstruction, chosen on a development language"
Numerator = Literal["own", "batch_sum"]
Trained = Literal["adapter", "layers", "all"]


class SourceSection(BaseConfig):
    """Stage 1: the classifier of the source language."""

    epochs: int = param(25, "passes over the source language's training texts", ge=1, paper=5, source=CODE)
    batch_size: int = param(32, "texts of a batch", ge=1, paper=64, source=CODE)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=1e-3, weight_decay=0.01, schedule="linear"),
        "optimiser and learning rate",
        paper={"learning_rate": 2e-5, "weight_decay": 0.0},
        source=CODE,
    )
    reuse: bool = param(
        True, "keep what this stage learned in the cache folder, for runs with the same texts, options and seed"
    )


class ColapConfig(SystemConfig):
    """Options of `colap`; the ``paper`` preset is the released code's recipe for an XLM-R-like folder."""

    source: str | None = param(
        None, "language with many labels; none: English if it is there, else the one with most labels"
    )
    targets: list[str] | None = param(None, "languages to adapt to; none: all others with labelled training texts")
    k: int = param(50, "labelled examples of each target language, dealt evenly to the classes", ge=0, source=CODE)
    translations: bool = param(
        True, "the source examples are the translations of the target examples; false: others of the same class"
    )
    prompt: Path | None = param(None, "YAML file with template, words and columns; none: a built-in one that fits")

    text: TextEncoderConfig = param(
        lambda: TextEncoderConfig(name="e5"), "multilingual encoder: e5, or a folder such as XLM-R's"
    )
    train: Trained = param(
        "adapter", "what learns: an adapter behind the frozen encoder, its last layers, or all of it with embeddings",
        paper="all", source=CODE,
    )  # fmt: skip
    frozen: int | None = param(None, "with train=layers: first layers that stay frozen; none: half of them", ge=0)
    adapter: int = param(192, "with train=adapter: width of the adapter's bottleneck", ge=1, source=OURS)
    place: Place = param(
        "mean", "where a text is read: mean over its tokens, the slot (mask), or the last token (eos)", paper="mask",
        source=CODE,
    )  # fmt: skip
    contrast_layer: int | None = param(
        None, "layer whose vectors are contrasted, counted from 1; none: three quarters up; not for an adapter",
        ge=1, source=CODE,
    )  # fmt: skip
    cache: Literal["disk", "memory", "off"] = param("disk", "where what the frozen layers say of a text is kept")

    source_stage: SourceSection = param(SourceSection, "stage 1, the source language")

    xrcl: float = param(1.0, "weight of the contrast of translations", ge=0, source=CODE)
    xccl: float = param(0.0, "weight of the contrast of classes", ge=0, source=CODE)
    xrcl_numerator: Numerator = param(
        "own", "numerator of XRCL: the pair's own similarity, or the sum over the batch as the released code has it"
    )
    source_ce: float = param(0.0, "weight of a cross-entropy on the source examples beside the target's", ge=0)
    temperature: float = param(0.05, "softmax temperature of both contrasts", gt=0, le=10, source=CODE)
    epochs: int = param(40, "stage 2: passes over the examples of a target language", ge=1, paper=10, source=CODE)
    batch_size: int = param(64, "stage 2: pairs of a batch", ge=2, source=CODE)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=3e-4, weight_decay=0.0, schedule="linear"),
        "stage 2: optimiser and learning rate",
        paper={"learning_rate": 2e-5},
        source=CODE,
    )

    language: str | None = param(
        None, "language of texts that predict is asked about, where their file does not say it"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.targets is not None and not self.targets:
            raise ValueError("option 'targets' must name at least one language, or be left out")
        if self.targets is not None and self.source in self.targets:
            raise ValueError(f"option 'targets' must not name the source language '{self.source}'")
        return self

    @property
    def contrasts(self) -> bool:
        """Whether a contrast is part of the second stage's loss."""
        return self.contrast != "off" and self.xrcl + self.xccl > 0
