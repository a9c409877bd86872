"""Config: what is held out, the frozen features, the net, confident meta-learning, contrast, scores."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

PAPER = "[paper] abstract"
CODE = "code of CoMet, arXiv 2508.02293"
OURS = "reconstruction: the paper's text could not be had"


class FeatureSection(BaseConfig):
    """The frozen backbone."""

    backbone: Literal["auto", "lite0", "filters"] = param(
        "auto",
        "EfficientNet-Lite0 (ImageNet weights), or filters learned from the sources; auto: the first that is there",
    )
    side: int = param(256, "side that images are scaled to", unit="pixels", ge=32, le=1024, paper=288)
    nearest: float = param(0.1, "share of the image's own patches that a patch is compared with", gt=0, le=1)
    cache: Literal["disk", "memory", "off"] = param("disk", "where features of an image are kept, by its content")

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        if self.side % 16:
            raise ValueError(f"option 'side': must be a multiple of 16, got {self.side}")
        return self


class NetSection(BaseConfig):
    """What is learned on the frozen features."""

    hidden: int = param(128, "length of a patch's learned vector", ge=2, le=4096, source=OURS)
    projection: int = param(64, "length of the vectors that are contrasted", ge=2, le=4096, source=OURS)


class ConfidenceSection(BaseConfig):
    """Soft confident learning and the covariance regulariser."""

    soft: bool = param(True, "weigh training images by the confidence in them", source=PAPER)
    kappa: float = param(1.5, "fence above the third quartile, in interquartile ranges", ge=0, source=CODE)
    refresh: int = param(20, "meta-iterations between new weights", unit="steps", ge=1)
    covariance: bool = param(True, "let unstable losses strengthen the weight decay", source=PAPER)
    decay: float = param(0.005, "weight of the squared norm of the weights", ge=0, source=CODE)
    gain: float = param(0.5, "how much the covariance adds to it at most", ge=0, source=CODE)
    window: int = param(5, "meta-iterations in the covariance", unit="steps", ge=2, source=CODE)


class MetaSection(BaseConfig):
    """The meta-learning loop; a task is one source domain."""

    kind: Literal["fomaml", "maml", "reptile", "none"] = param(
        "fomaml", "first-order MAML, MAML, Reptile, or plain multi-task training", source=OURS
    )
    tasks: int = param(4, "tasks of a meta-iteration", ge=1, source=CODE)
    support: int = param(8, "images that a task adapts to", ge=1, source=OURS)
    query: int = param(8, "images that the adapted net is measured on", ge=1, source=OURS)
    patches: int = param(16, "patches of an image in a step", ge=2, paper=64)
    steps: int = param(3, "inner steps", ge=0, paper=5, source=CODE)
    rate: float = param(0.01, "inner learning rate (SGD)", ge=0, source=OURS)


class CoZADConfig(SystemConfig):
    """Options of `cozad`."""

    protocol: Literal["zero-shot", "in-domain"] = param(
        "zero-shot", "train on the other domains' normal images, or on the tested domains' own (not zero-shot)"
    )
    held_out: str = param("auto", "domains to test, divided by commas; auto: the last one by name", min_length=1)
    per_domain: int | None = param(160, "most training images of a domain", ge=2, paper=None)
    contamination: float = param(
        0.0, "share of training images replaced by anomalous ones of the sources: an experiment", ge=0, le=0.5
    )  # fmt: skip
    choose: Literal["labelled", "pseudo", "fixed"] = param(
        "labelled",
        "what the scores are put together on: labelled test images of the sources where there are any, drawn anomalies "
        "of held-back source images, or fixed weights",
    )
    adapt: Literal["none", "transductive"] = param(
        "none", "transductive: centre scores on the unlabelled test batch, which is not zero-shot in the strict sense"
    )

    features: FeatureSection = param(FeatureSection, "the frozen backbone")
    net: NetSection = param(NetSection, "what is learned on the features")
    confidence: ConfidenceSection = param(ConfidenceSection, "soft confident learning and the covariance regulariser")
    meta: MetaSection = param(MetaSection, "the meta-learning loop")
    copies: int = param(2, "drawn versions of a training image with pseudo-anomalies", ge=1, le=16)
    weight: float = param(0.2, "weight of the contrastive term", ge=0, source=OURS)
    temperature: float = param(0.1, "softmax temperature of the contrastive term", gt=0, le=10, source=OURS)
    contrasted: int = param(256, "most normal patches of a task in the contrastive term", ge=4)

    epochs: int = param(8, "epochs", ge=1, paper=40)
    iterations: int = param(10, "meta-iterations of an epoch", unit="steps", ge=1)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(name="adam", learning_rate=1e-3, weight_decay=0.0, schedule="cosine", final=0.4),
        "outer optimiser", source=CODE,
    )  # fmt: skip

    map_side: int = param(128, "side of maps when they are compared with masks", unit="pixels", ge=8, paper=288)
    smoothing: float = param(2.0, "deviation of the Gaussian filter over maps of 128 pixels; grows with their side",
                             unit="pixels", ge=0)  # fmt: skip
    ask: Literal["scores", "weights", "threshold"] = param(
        "scores", "what predict answers: scores, the least trusted training images, or a threshold"
    )
    fpr: float = param(0.05, "share of normal source images above the threshold", gt=0, lt=1)
    top_k: int = param(20, "training images that ask=weights lists", ge=1)
