"""Config: graphs, networks, the terms of the loss, training and what predict answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

PAPER = "arXiv 2508.18322"
OURS = "not stated; chosen on the training and validation parts"

ModalityName = Literal["text", "audio", "visual"]


class GraphSection(BaseConfig):
    """The graphs of an utterance."""

    text: Literal["dependency", "chain"] = param(
        "dependency", "edges between words: the data's syntax where they have it (else neighbours), or neighbours",
        source=PAPER,
    )  # fmt: skip
    guided: Literal["text", "full", "chain"] = param(
        "text", "edges of the audio and the visual graph: guided by the text, all pairs, or neighbours in time",
        source=PAPER,
    )  # fmt: skip
    reading: Literal["auto", "aligned", "unaligned"] = param(
        "auto", "whether a segment's edges go by the word at its place, or by all words; auto: aligned where the data "
        "have one segment per word",
    )  # fmt: skip
    anchor: bool = param(True, "the semantic anchor: one node that is tied to all others", source=PAPER)
    sentence: bool = param(
        True, "a vector of the whole sentence, where the data have one, goes into the anchor", source=OURS
    )
    partners: int = param(
        3, "segments of other modalities that a node is joined to in the fusion graph", ge=0, source=OURS
    )
    kappa: float = param(
        0.5, "threshold of edges at the start: mean + kappa * standard deviation; it is learned", source=OURS
    )
    drop: float = param(0.2, "share of edges dropped in the second view", ge=0, le=1, source=OURS)
    add: float = param(0.1, "edges added in the second view, as a share of those there are", ge=0, le=1, source=OURS)
    max_words: int = param(48, "words of an utterance, the first ones", ge=2, paper=128, source=PAPER)
    max_segments: int = param(
        24,
        "segments of an audio or visual sequence; longer ones are averaged in stretches",
        ge=2,
        paper=128,
        source=PAPER,
    )


class NetworkSection(BaseConfig):
    """Sizes of the networks."""

    dim: int = param(64, "length of a node's vector", ge=4, paper=128, source=PAPER)
    heads: int = param(4, "attention heads", ge=1, source=OURS)
    layers: int = param(2, "layers of graph attention", ge=1, source=OURS)
    dropout: float = param(0.2, "dropout in the graphs and heads", ge=0, lt=1, source=OURS)
    input_dropout: float = param(0.2, "dropout of word and sentence vectors", ge=0, lt=1, source=OURS)
    sequence: Literal["conv", "gru"] = param("conv", "encoder of audio and visual sequences", paper="gru", source=OURS)
    projection: int = param(64, "length of the vectors that are contrasted", ge=2, source=OURS)


class SSUConfig(SystemConfig):
    """Options of `ssu`."""

    graph: GraphSection = param(GraphSection, "the graphs")
    network: NetworkSection = param(NetworkSection, "the networks")

    regression: Literal["l1", "smooth", "mse"] = param("mse", "distance of predicted and true sentiment", source=OURS)
    sup_weight: float = param(0.3, "weight of the classifier's cross-entropy", ge=0, source=OURS)
    self_weight: float = param(0.1, "weight of the contrast of the two views", ge=0, source=OURS)
    align_weight: float = param(0.1, "weight of the distance between fused and single views", ge=0, source=OURS)
    temperature: float = param(0.2, "softmax temperature of the contrast", gt=0, le=10, source=OURS)
    negatives: Literal["all", "other"] = param(
        "all", "what an utterance is contrasted with: all others of the batch, or those of another class", source=OURS
    )
    align: Literal["plain", "unit", "stop"] = param(
        "plain", "distance of the vectors, of the vectors at length 1, or with the fused one held fixed", source=PAPER
    )
    modality_dropout: float = param(
        0.1, "how often audio, or visual, of a training utterance is left out", ge=0, lt=1, source=OURS
    )

    text_dropout: float = param(
        0.05, "how often the text is left out, so that sound or face alone can be asked", ge=0, lt=1, source=OURS
    )

    epochs: int | None = param(
        None,
        "passes over the training part; none: as many as make 140 batches, from 4 to 60",
        ge=1,
        paper=60,
        source=OURS,
    )
    batch_size: int = param(64, "utterances of a batch", ge=2, paper=128, source=PAPER)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=2e-3, weight_decay=0.05, warmup=0.1),
        "how weights are updated", paper={"learning_rate": 1e-3, "weight_decay": 0.01}, source=OURS,
    )  # fmt: skip
    average: float = param(
        0.5, "share of the steps, at the end, whose weights are averaged; 0: the last ones", ge=0, le=1, source=OURS
    )

    reach: int = param(
        4, "utterances before and after that surround one with a single audio or visual vector", ge=0, source=OURS
    )
    fractions: tuple[float, float, float] = param(
        (0.7, 0.1, 0.2), "shares of train, valid and test where the data bring no split; by video"
    )

    ask: Literal["score", "explain", "graphs", "stress"] = param(
        "score",
        "what predict answers: a score per utterance, edges and weights behind it, statistics of the graphs, or a "
        "semi-synthetic copy of the data with made-up audio and visual streams",
    )
    without: list[ModalityName] = param(lambda: [], "modalities that predict leaves out, as if they were missing")
    view: Literal["fuse", "ori", "anchor"] = param(
        "fuse", "vectors of embed: of the fusion graph, of the single graphs, or the anchor"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.network.dim % self.network.heads:
            raise ValueError("option 'network.dim' must be a multiple of 'network.heads'")
        if abs(sum(self.fractions) - 1) > 1e-6 or min(self.fractions) < 0 or self.fractions[0] == 0:
            raise ValueError("option 'fractions': three shares that add up to 1, the first above 0")
        return self

    @property
    def compares(self) -> bool:
        """Whether the second view is made and contrasted."""
        return self.contrast != "off" and self.self_weight > 0

    @property
    def aligns(self) -> bool:
        """Whether the fused view is drawn to the single views."""
        return self.contrast != "off" and self.align_weight > 0
