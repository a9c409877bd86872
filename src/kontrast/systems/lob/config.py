"""Config: windows, features, the two encoders, the loss and the detector."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.systems.lob.backbones import BackboneName
from kontrast.systems.lob.blocks import BLOCK_KINDS
from kontrast.systems.lob.features import Group
from kontrast.training import OptimiserConfig

PAPER = "arXiv 2508.17086"
JFDS = "released code of the Transformer autoencoder that the paper builds on"
OURS = "not stated; chosen on the validation part"
DetectorName = Literal["ocsvm", "iforest", "svdd", "knn", "logistic", "head"]


class BookSection(BaseConfig):
    """Step 1, the encoder of the book."""

    coding: Literal["diff", "static"] = param(
        "diff", "rows of the book as changes since the row before, or as they are", paper="static", source=OURS
    )
    width: int = param(32, "width of a token", ge=4, paper=64, source=OURS)
    heads: int = param(4, "attention heads", ge=1, source=OURS)
    layers: int = param(1, "layers", ge=1, paper=2, source=OURS)
    latent: int = param(16, "numbers that a row of the book is pressed into", ge=1, paper=64, source=OURS)
    epochs: int = param(4, "epochs", ge=1, paper=20, source=OURS)
    steps: int = param(100, "batches of an epoch", ge=1)
    batch_size: int = param(32, "stretches of a batch, each of four windows' length", ge=1)


class FusionSection(BaseConfig):
    """Step 2, the contrastive fusion encoder."""

    backbone: BackboneName = param("conv", "conv, jfds (Transformer), lstm, cnn2 or simlob", paper="jfds", source=PAPER)
    dim: int = param(48, "length of the vector of a window", ge=2, paper=128, source=JFDS)
    width: int = param(64, "channels, or width of a token", ge=4, paper=128, source=JFDS)
    layers: int = param(2, "layers of Transformers and LSTMs", ge=1, paper=6, source=JFDS)


class InjectionSection(BaseConfig):
    """Manipulation that is overlaid on data without labels, for training and measuring; each stock gets so much."""

    mode: Literal["overlay", "block"] = param(
        "overlay", "lay events over the real messages, or put them between two and move the clock on"
    )
    kinds: list[Literal["layering", "spoofing", "quote stuffing", "pump and dump"]] = param(
        lambda: ["layering", "spoofing"],
        "kinds of events: layering, spoofing (overlay), quote stuffing, pump and dump (block)",
        min_length=1, source=OURS,
    )  # fmt: skip
    train_events: int = param(16, "events in the training part", unit="events", ge=1, source=OURS)
    valid_events: int = param(4, "events in the validation part", unit="events", ge=1, source=OURS)
    test_events: int = param(60, "events in the test part", unit="events", ge=1, source=OURS)
    margin: float = param(60.0, "least time between an event and the ends of its part", unit="seconds", ge=0)
    apart: float = param(40.0, "least time between two events", unit="seconds", ge=0)

    @model_validator(mode="after")
    def _check_kinds(self) -> Self:
        allowed = {"overlay": ("layering", "spoofing"), "block": BLOCK_KINDS}[self.mode]
        unknown = [kind for kind in self.kinds if kind not in allowed]
        if unknown:
            raise ValueError(f"option 'kinds': mode '{self.mode}' has {', '.join(allowed)}, not {unknown[0]}")
        return self


class LobConfig(SystemConfig):
    """Options of `lob`."""

    window: int = param(25, "consecutive messages that one vector stands for", unit="messages", ge=4, source=JFDS)
    levels: int | None = param(None, "price levels that are used; none: all that the data have", ge=1, paper=5)
    features: list[Group] = param(
        lambda: ["handmade", "orders"],
        "what the fusion encoder sees of a row, besides the latent: handmade, level1 (the same from messages at the "
        "best quotes alone), orders, book (changes of all levels), static (levels as they are)",
        min_length=1, paper=["handmade"], source=OURS,
    )  # fmt: skip
    cascade: bool = param(False, "add the latent of the book encoder to every row", paper=True, source=PAPER)
    book: BookSection = param(BookSection, "step 1, the encoder of the book")
    fusion: FusionSection = param(FusionSection, "step 2, the fusion encoder")

    weight: float = param(1.0, "weight of the contrast beside the reconstruction", ge=0, source=OURS)
    temperature: float = param(0.1, "softmax temperature", gt=0, le=10, source=OURS)
    classify_weight: float = param(0.0, "weight of a cross-entropy on top; 0: none", ge=0, source=OURS)
    share: float = param(0.25, "share of manipulated windows in a batch", ge=0, le=0.9, source=OURS)
    mirror: bool = param(True, "also learn from windows with buyers and sellers exchanged")
    train_events: int | None = param(None, "learn from so many events of each stock only, the first ones", ge=1)

    epochs: int = param(10, "epochs of step 2", ge=1, paper=20, source=OURS)
    steps: int = param(60, "batches of an epoch", ge=1)
    batch_size: int = param(256, "windows of a batch", ge=8, paper=512, source=JFDS)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=2e-3, weight_decay=1e-4, warmup=0.3), "of both steps", source=OURS
    )

    select: Literal["last", "best"] = param(
        "last", "keep the last weights of step 2, or those with the best ap on the validation part"
    )
    detector: DetectorName = param(
        "iforest", "step 3: ocsvm, iforest and svdd learn from normal windows, logistic and knn from labelled ones; "
        "head is the network's own, for classify_weight above 0", paper="ocsvm", source=PAPER,
    )  # fmt: skip
    normal_windows: int = param(12_000, "windows without manipulation that the detector learns from", ge=100)

    train_share: float = param(0.69, "first part of a stock's messages, to train on, where the data bring no split",
        gt=0, lt=1)  # fmt: skip
    valid_share: float = param(0.12, "the part after it, to validate on", gt=0, lt=1)
    injection: InjectionSection = param(InjectionSection, "manipulation overlaid on data without labels")

    ask: Literal["messages", "episodes", "inspect", "inject"] = param(
        "messages",
        "what predict answers: a score per message, a ranked list of suspect episodes, a summary of each stream, or "
        "the data with manipulation overlaid as training does it",
    )
    top: int = param(20, "episodes that predict lists", ge=1)
    causal: bool = param(
        False, "score a message by the window that ends at it alone, as one must while trading goes on"
    )
    merge: float = param(2.0, "alerts at most so far apart are one episode", unit="seconds", ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.detector == "head" and self.classify_weight == 0:
            raise ValueError("option 'detector': 'head' needs a classify_weight above 0")
        if self.train_share + self.valid_share >= 1:
            raise ValueError("options 'train_share' and 'valid_share' must leave some messages for the test part")
        if self.book.width % self.book.heads:
            raise ValueError("option 'book.width' must be a multiple of 'book.heads'")
        return self

    @property
    def contrasts(self) -> bool:
        """Whether the contrast is part of the loss."""
        return self.contrast != "off" and self.weight > 0
