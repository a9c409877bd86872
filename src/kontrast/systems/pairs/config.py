"""Config: which columns, which encoders, which objective."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.encoders import ImageEncoderConfig, TextEncoderConfig, VectorEncoderConfig
from kontrast.training import OptimiserConfig

CLIP = "arXiv 2103.00020, table 18 and section 2.5"
Kind = Literal["auto", "text", "vector", "image"]


class ViewsConfig(BaseConfig):
    """How the views of a cell are made: of one column always, of two with ``augment``."""

    token_dropout: float = param(0.2, "texts: share of tokens left out", ge=0, lt=1, source="arXiv 1901.11196")
    span: float = param(
        0.7, "texts: shortest span that is kept, as a share of the text", gt=0, le=1, source="arXiv 2112.09118"
    )
    feature_mask: float = param(
        0.3, "vectors: share of entries taken from another row", ge=0, le=1, paper=0.6, source="arXiv 2106.15147"
    )
    crop: float = param(
        0.3, "images: smallest share of the area that is kept", gt=0, le=1, paper=0.08, source="arXiv 2002.05709"
    )
    flip: float = param(0.5, "images: probability of a mirror image", ge=0, le=1)
    jitter: float = param(
        0.4, "images: strength of changes of brightness, contrast and saturation", ge=0, le=1, paper=0.8
    )


class PairsConfig(SystemConfig):
    """Options of `pairs`; the ``paper`` preset is CLIP's recipe with a transformer text tower."""

    left: str | None = param(None, "left-hand column (the query); none: the first of the two columns there are")
    right: str | None = param(None, "right-hand column (what is searched); none: the other one, or views of the left")
    left_kind: Kind = param("auto", "how to read the left column")
    right_kind: Kind = param("auto", "how to read the right column")
    id: str | None = param(None, "column with names of the rows; none: row numbers")
    group: str | None = param(None, "column whose equal values never straddle a split and are never negatives")
    label: str | None = param(None, "column that colours the map; none: the group, else the side")

    text: TextEncoderConfig = param(
        TextEncoderConfig,
        "text encoders",
        paper={"name": "transformer", "dim": 512, "layers": 12, "heads": 8, "vocab_size": 49_152, "max_tokens": 76},
        source="arXiv 2103.00020, section 2.4",
    )
    vector: VectorEncoderConfig = param(VectorEncoderConfig, "vector encoders")
    image: ImageEncoderConfig = param(ImageEncoderConfig, "image encoders")
    share: bool = param(True, "one encoder for both columns where they are of one kind", paper=False, source=CLIP)
    head_layers: int = param(
        0, "layers of a projection head behind each encoder; 0: only where sizes differ", ge=0, le=4, paper=1
    )

    objective: Literal["clip", "info_nce", "siglip"] = param(
        "clip", "symmetric softmax, one-way softmax, or sigmoid per pair"
    )
    temperature: float = param(0.07, "softmax temperature at the start", gt=0, le=10, source=CLIP)
    learn_temperature: bool = param(True, "learn the temperature", source=CLIP)
    products: Literal["fp32", "bf16"] = param("fp32", "precision of the similarity products; sums are always fp32")

    epochs: int = param(
        10, "passes over the training pairs; the best on the validation part are kept", ge=1, paper=32, source=CLIP
    )
    batch_size: int = param(
        512, "pairs in a batch: one positive and batch_size - 1 negatives each", ge=2, paper=32_768, source=CLIP
    )
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=3e-3, warmup=0.05),
        "optimiser and learning rate",
        paper={"learning_rate": 5e-4, "weight_decay": 0.2, "betas": (0.9, 0.98), "epsilon": 1e-6, "warmup": 0.06},
        source=CLIP,
    )
    sampler: Literal["auto", "shuffled", "grouped", "bucketed"] = param(
        "auto", "rows of a batch: grouped keeps equal values apart, bucketed joins similar lengths; auto: grouped"
        " where values repeat, else shuffled",
    )  # fmt: skip

    augment: bool = param(False, "also train on augmented cells where there are two columns")
    views: ViewsConfig = param(ViewsConfig, "views of cells")

    top_k: int = param(10, "answers that predict gives for each row", ge=1)
    corpus: Path | None = param(None, "table whose right-hand column predict searches; none: that of the training data")
    search: Literal["exact", "faiss"] = param("exact", "exact search, or faiss (approximate, for very many candidates)")
