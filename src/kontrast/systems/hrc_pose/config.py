"""Config: what is trained on, the encoders, the heads, the ranking, the augmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

PAPER = "arXiv 2508.14358"
CODE = "its released code"
HS = "HS-Pose, CVPR 2023"
GPV = "GPV-Pose, CVPR 2022"
OURS = "not stated; chosen on held-out training objects"


class EncoderSection(BaseConfig):
    """One encoder; there are two of them, one for rotation and one for translation and size."""

    kind: Literal["graph", "pointnet"] = param("graph", "3-D graph convolution, or each point by itself (PointNet)")
    widths: list[int] = param(
        lambda: [32, 32, 64, 64, 128], "widths of the layers", min_length=1,
        paper=[128, 128, 256, 256, 512], source=HS,
    )  # fmt: skip
    neighbours: int = param(10, "neighbours of a point", ge=1, le=255, paper=20, source=CODE)
    supports: int = param(1, "learned directions of a kernel", ge=1, paper=7, source=CODE)
    scope: Literal["features", "space"] = param(
        "space", "neighbours in feature space, or in space: cheaper", paper="features", source=HS
    )


class HeadSection(BaseConfig):
    """The heads that read the pose off the features."""

    on: Literal["whole", "points"] = param(
        "whole", "what a head reads: features of the whole cloud, or of every point: far costlier", paper="points",
        source=CODE,
    )  # fmt: skip
    width: int = param(128, "width of the head's first layers; the last ones have half and a quarter", ge=8,
        paper=1024, source=CODE)  # fmt: skip
    dropout: float = param(0.2, "dropout before the last layer", ge=0, lt=1, source=CODE)


class RankingSection(BaseConfig):
    """The contrast: distances of features ranked as distances of poses are."""

    sets: Literal["both", "strict", "task"] = param(
        "both", "negatives: farther in rotation and in translation (strict), in the own label (task), or both terms",
        source=PAPER,
    )  # fmt: skip
    task_weight: float = param(0.8, "weight of the task term beside the strict one", ge=0, source=CODE)
    temperature: float = param(1.0, "softmax temperature; features are not scaled to length 1", gt=0, source=CODE)
    weight: float = param(1.0, "weight of the ranking in each space beside the pose losses", ge=0, source=CODE)
    across: bool = param(False, "rank objects of all categories together instead of each category by itself")


class AugmentSection(BaseConfig):
    """Changes to training views; labels follow."""

    stretch: float = param(0.3, "share of views stretched along the object's axes", ge=0, le=1, source=CODE)
    taper: float = param(0.3, "share of bowls and mugs tapered along y", ge=0, le=1, source=CODE)
    factor: float = param(0.2, "how far factors of both go from 1", ge=0, lt=1, source=CODE)
    turn: float = param(0.3, "share of views turned", ge=0, le=1, source=CODE)
    degrees: float = param(15.0, "largest turn about each axis", unit="degrees", ge=0, le=180, source=CODE)
    inflate: float = param(0.2, "share of views whose points are moved outwards at random", ge=0, le=1, source=CODE)
    mirror: float = param(0.0, "share of views mirrored left to right", ge=0, le=1, source="ours")


class PoolSection(BaseConfig):
    """Views that are rendered once, from meshes of training objects and from random shapes, and kept on disk."""

    views: int = param(150, "views rendered of each mesh of the training part", ge=0, source=OURS)
    instances: int = param(60, "random shapes of each category", ge=0, source=OURS)
    instance_views: int = param(15, "views rendered of each random shape", ge=0, source=OURS)
    cache: Literal["disk", "off"] = param("disk", "where rendered views are kept: $KONTRAST_CACHE/views, or nowhere")


class HrcPoseConfig(SystemConfig):
    """Options of `hrc_pose`."""

    points: int = param(128, "points that the encoders see of a view", ge=32, le=1024, paper=1024, source=CODE)
    draws: int = param(
        8, "how many choices of points the answer is averaged over, as far as a view's 1024 points go", ge=1, paper=1,
        source="ours",
    )  # fmt: skip
    encoder: EncoderSection = param(EncoderSection, "the encoders")
    shared: bool = param(False, "one encoder for rotation and translation instead of two")
    heads: HeadSection = param(HeadSection, "the heads")
    ranking: RankingSection = param(RankingSection, "the contrast")
    augment: AugmentSection = param(AugmentSection, "augmentation")
    pool: PoolSection = param(PoolSection, "rendered views")
    symmetric: list[str] = param(
        lambda: ["bottle", "bowl", "can"], "categories that are symmetric about their y axis", source=CODE
    )
    held_out: list[str] = param(
        list, "objects of the training part whose views form the validation part, to choose options on"
    )

    stage: Literal["joint", "pretrain"] = param(
        "joint", "rank and regress together, or rank first and then regress with both", source=CODE
    )
    epochs: int = param(4, "passes over all views", ge=1, paper=150, source=CODE)
    batch_size: int = param(48, "views of a batch, the same number of each category", ge=6, source=OURS)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(learning_rate=2e-3, weight_decay=1e-3, warmup=0.05), "of all stages", source=OURS
    )

    category: str | None = param(None, "category of the objects in files that do not say: PLY clouds, depth images")
    intrinsics: list[float] | None = param(
        None, "fx, fy, cx, cy of the camera of depth images; none: those of REAL275", unit="pixels"
    )
    depth_unit: float = param(0.001, "metres of one step of a depth image", unit="m", gt=0)
    mask: Path | None = param(None, "mask of a depth image; none: the file beside it whose name ends in _mask")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder.kind == "graph" and len(self.encoder.widths) != 5:
            raise ValueError(f"option 'encoder.widths': a graph encoder has five layers, got {self.encoder.widths}")
        if min(self.encoder.widths) < 1:
            raise ValueError(f"option 'encoder.widths': must be at least 1, got {self.encoder.widths}")
        if self.intrinsics is not None and (len(self.intrinsics) != 4 or min(self.intrinsics[:2]) <= 0):
            raise ValueError(f"option 'intrinsics': must be fx, fy, cx, cy, got {self.intrinsics}")
        return self

    @property
    def ranks(self) -> bool:
        """Whether the ranking is part of the loss."""
        return self.contrast != "off" and self.ranking.weight > 0
