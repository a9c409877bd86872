"""Config: which encoder, which views of a document, which negatives, and what predict answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

PAPER = "arXiv 2508.20778"
CODE = "released code of the paper"
FRAMEWORK = "defaults of FlagEmbedding, which the released code extends"
OURS = "not stated; chosen on the validation part"
ViewName = Literal["tag", "untag", "mask"]
VIEWS: tuple[ViewName, ...] = ("tag", "untag", "mask")


class EncoderSection(BaseConfig):
    """The encoder of queries and documents; they share it."""

    name: str = param(
        "elements",
        "elements (gated sum over the elements of a whole document), or a text encoder that is fine-tuned: minilm, e5, "
        "bag and transformer (from scratch), or a folder in Hugging Face layout", paper="minilm", source=OURS,
    )  # fmt: skip
    context: str | None = param(
        "minilm", "elements: frozen text encoder (minilm, e5 or a folder) whose vectors of single elements are used; "
        "none: no such part", source=OURS,
    )  # fmt: skip
    context_units: int = param(48, "elements: so many elements of a document get such a vector", ge=1, source=OURS)
    context_tokens: int = param(64, "elements: tokens of an element that it reads", unit="tokens", ge=8, source=OURS)
    words: int = param(
        4096, "elements: entries into which the words themselves are hashed; 0: none", ge=0, le=1_000_000, source=OURS
    )
    table: int = param(0, "elements: length of trainable token vectors; 0: none", ge=0, le=4096, source=OURS)
    share: float = param(
        0.4, "elements: share of the frozen encoder's part in a vector; the others share the rest", gt=0, lt=1,
        source=OURS,
    )  # fmt: skip

    gate_rate: float = param(
        10.0, "elements: learning rate of gates, attention and fall, as a multiple of that of the rest", gt=0, le=1000,
        source=OURS,
    )  # fmt: skip

    max_tokens: int = param(
        256, "text encoders: longer documents are cut", unit="tokens", ge=16, paper=4096, source=CODE
    )
    budget: Literal["head", "skeleton"] = param(
        "skeleton", "text encoders: of a document that is too long its first tokens, or the first words of every "
        "element", paper="head", source=OURS,
    )  # fmt: skip
    train_layers: int | None = param(
        None, "text encoders: train the last layers only, and nothing below them; none: all", ge=1
    )
    vocab_size: int = param(16_000, "most vocabulary entries of an encoder from scratch", ge=100, le=500_000)
    dim: int = param(256, "length of the vectors of a text encoder from scratch", ge=8, le=4096)
    layers: int | None = param(None, "layers of a transformer from scratch (none: 4), or the first ones kept", ge=1)


class SealConfig(SystemConfig):
    """Options of `seal`; the ``paper`` preset fine-tunes a transformer with the released code's settings."""

    encoder: EncoderSection = param(EncoderSection, "the encoder")

    views: list[ViewName] = param(
        lambda: list(VIEWS),
        "views of a document that the query must match: tag (as it is), untag (without markup; with tag it is the "
        "structure-aware loss), mask (with some elements left out; the element-aware loss)", min_length=1, source=CODE,
    )  # fmt: skip
    tag_weight: float = param(1.0, "weight of the tagged view's loss", ge=0, source=CODE)
    untag_weight: float = param(1.0, "weight of the untagged view's loss", ge=0, source=CODE)
    mask_weight: float = param(1.0, "weight of the masked view's loss", ge=0, source=CODE)
    document_terms: list[Literal["untag", "mask"]] = param(
        lambda: [], "also let the tagged document find itself among these views of all documents"
    )
    mask_ratio: float = param(0.1, "probability that an element is left out", ge=0, lt=1, source=CODE)
    masking: Literal["tree", "regex"] = param(
        "tree", "what is left out: elements of the document's tree, or, for comparison, what the released code's "
        "regular expression matches", paper="regex", source=CODE,
    )  # fmt: skip

    temperature: float = param(0.02, "softmax temperature", gt=0, le=10, source=FRAMEWORK)
    group_size: int = param(
        2, "documents per query: one that answers it and mined ones that do not", ge=1, paper=8, source=FRAMEWORK
    )
    negatives: Literal["encoder", "bm25", "given"] = param(
        "encoder", "where the others come from: ranked high by the untrained encoder, by BM25, or those of the data",
        source=OURS,
    )  # fmt: skip
    negative_ranks: tuple[int, int] = param(
        (2, 30), "first and last rank from which mined negatives are drawn", paper=(2, 50), source=OURS
    )
    products: Literal["fp32", "bf16"] = param("fp32", "precision of the similarity products; sums are always fp32")

    epochs: int = param(2, "passes over the training queries; the best on the validation part are kept", ge=1)
    batch_size: int = param(64, "queries in a batch", ge=2, source=OURS)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=1e-3, warmup=0.1, schedule="linear"),
        "optimiser and learning rate",
        paper={"learning_rate": 1e-5, "weight_decay": 0.0},
        source=FRAMEWORK,
    )

    read_as: Literal["tag", "untag"] = param("tag", "how documents are read when they are searched", source=CODE)
    ask: Literal["search", "convert", "negatives"] = param(
        "search",
        "what predict answers: the documents for each query with the element that matches best, the documents as "
        "bare-tag HTML, or negatives for each query that has an answer",
    )
    top_k: int = param(10, "documents that predict gives for each query", ge=1)
    corpus: Path | None = param(
        None, "documents that predict searches, in any format of read; none: those that come with the queries, else "
        "those of the training data",
    )  # fmt: skip
    search: Literal["exact", "faiss"] = param("exact", "exact search, or faiss (approximate, for very many documents)")

    @field_validator("views", "document_terms", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """On the command line a list may be words set apart by commas."""
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.views)) < len(self.views):
            raise ValueError(f"option 'views' names a view twice: {', '.join(self.views)}")
        if not any(self.weight(view) > 0 for view in self.views):
            raise ValueError("options 'tag_weight', 'untag_weight' and 'mask_weight': the views in use all weigh 0")
        low, high = self.negative_ranks
        if not 1 <= low <= high:
            raise ValueError(f"option 'negative_ranks' needs 1 <= first <= last, got {low} and {high}")
        section = self.encoder
        if section.name == "elements" and section.context is None and not section.words and not section.table:
            raise ValueError("option 'encoder': elements need at least one of context, words and table")
        return self

    def weight(self, view: ViewName) -> float:
        """The weight of a view's loss."""
        return {"tag": self.tag_weight, "untag": self.untag_weight, "mask": self.mask_weight}[view]
