"""Config: the encoder, the views, the two losses."""

from __future__ import annotations

from typing import Literal

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

OURS = "reconstruction: the paper's text could not be had"
GAE = "arXiv 1611.07308"
ViewKind = Literal["eba", "eba-add", "eba-drop", "drop", "gca", "grade", "none"]
Question = Literal["links", "augment", "negatives"]


class EncoderSection(BaseConfig):
    """The graph autoencoder."""

    kind: Literal["gcn", "vgae"] = param("gcn", "plain, or variational (a mean and a deviation per node)", source=GAE)
    hidden: int | None = param(None, "length of hidden vectors; none: 256 with features, 128 without", ge=1)
    dim: int | None = param(None, "length of the embeddings; none: 128 with features, 64 without", ge=1)
    dropout: float | None = param(None, "dropout; none: 0.5 with features, 0 without", ge=0, lt=1)
    decoder: Literal["inner", "mlp"] = param("inner", "logit of a pair: inner product, or a network on the product")


class BalancingSection(BaseConfig):
    """Edge Balancing Augmentation."""

    low: int | None = param(None, "nodes are raised towards this degree; none: the mean degree", ge=0, source=OURS)
    high: int | None = param(
        None, "edges between higher degrees than this are thinned; none: as low", ge=0, source=OURS
    )
    most_added: int = param(3, "edges that one node may add", ge=0, le=100, source=OURS)
    drop: float = param(0.2, "mean probability of dropping an edge between high degrees", ge=0, le=0.9, source=OURS)
    cap: float = param(2.0, "a node receives at most so many times low added edges", gt=0, source=OURS)
    tail: int = param(
        9, "nodes with fewer edges than this get mixed neighbours in the view grade", ge=0, source="arXiv 2210.03011"
    )
    sampled: bool = param(False, "draw targets by similarity instead of taking the most similar ones")
    clusters: int = param(0, "choose targets within so many k-means clusters of the embeddings; 0: among all", ge=0)
    warmup: int = param(20, "random edge drop instead, for the first steps", unit="steps", ge=0, source=OURS)
    refresh: int = param(5, "look for targets anew after so many steps", unit="steps", ge=1, source=OURS)
    search: Literal["auto", "exact", "walks"] = param(
        "auto", "targets among all nodes, or among nodes two and three steps away; auto: walks above 30,000 nodes"
    )


class CoEBAConfig(SystemConfig):
    """Options of `coeba`. The paper's own values are not known, so both presets hold those of the reconstruction.

    They differ in the number of anchors and of epochs alone.
    """

    encoder: EncoderSection = param(EncoderSection, "the graph autoencoder")
    first_view: ViewKind = param(
        "eba",
        "how the first view changes the edges: eba, its two halves, random drop, gca (drop by degree), grade (mixed "
        "neighbours for low degrees), none (features are masked all the same)",
    )
    second_view: ViewKind = param("none", "how the second view changes the edges", source=OURS)
    balancing: BalancingSection = param(BalancingSection, "Edge Balancing Augmentation")
    edge_drop: float = param(0.2, "probability of dropping an edge in the views drop and gca", ge=0, le=0.9)
    feature_mask: float = param(0.2, "share of features that a view masks in all nodes", ge=0, lt=1)

    positives: Literal["neighbours", "self"] = param(
        "neighbours", "positives of a node: itself and its neighbours, or itself alone (plain InfoNCE)"
    )
    terms: Literal["both", "inter", "intra"] = param(
        "both", "contrast between the views, within each view, or both", source=OURS
    )
    weight: float = param(0.5, "weight of the contrastive terms beside the link loss", ge=0, source=OURS)
    temperature: float = param(0.5, "softmax temperature", gt=0, le=10, source=OURS)
    projection: int = param(128, "length of the projected vectors that are contrasted", ge=1, source=OURS)
    anchors: int = param(256, "anchor nodes of a step", ge=1, paper=512, source=OURS)
    candidates: int = param(
        8192, "nodes that anchors are contrasted with, if the graph has more: their positives and a sample", ge=2
    )
    most_positives: int = param(64, "neighbours of an anchor that count as positives in a step, if it has more", ge=1)
    link_batch: int = param(65_536, "training edges of a step, if the graph has more", ge=1)

    epochs: int = param(16, "epochs; the weights that are best on the validation part are kept", ge=1, paper=40)
    steps: int = param(10, "full-batch steps of an epoch", unit="steps", ge=1)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(name="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant"),
        "optimiser and learning rate", source=OURS,
    )  # fmt: skip
    scale_rate: bool = param(
        True,
        "take ten times the learning rate where nodes have no features, twice where there are above 10,000 of them",
    )

    fold: int | None = param(
        None, "which of the data's own splits; none: the one with the number of the seed, going round", ge=0
    )
    test_context: Literal["train", "train+valid"] = param(
        "train", "edges that the encoder sees when test edges are predicted"
    )
    hard_negatives: int = param(
        0, "make so many own negatives for each held-out edge (HeaRT's protocol) where the data bring none", ge=0
    )

    ask: Question = param(
        "links", "what predict answers: links, the balanced graph (augment), or hard negatives of held-out edges"
    )
    top_k: int = param(10, "new neighbours that predict gives for each node", ge=1)
    probabilities: bool = param(
        False, "predict adds probabilities, calibrated on validation edges among as many pairs that are no edges"
    )
