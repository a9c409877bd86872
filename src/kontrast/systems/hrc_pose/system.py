"""System: the estimator over views of objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.clouds import CloudSet, read_clouds
from kontrast.data.clouds.depth import REAL_INTRINSICS, Camera
from kontrast.data.splits import PARTS, Splits, leak_free_parts
from kontrast.errors import DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.randomness import numpy_rng
from kontrast.systems.hrc_pose.answers import pose_table, write_folder, write_poses
from kontrast.systems.hrc_pose.baselines import simple_baselines
from kontrast.systems.hrc_pose.config import HrcPoseConfig
from kontrast.systems.hrc_pose.estimating import Estimates, estimate
from kontrast.systems.hrc_pose.example import write_example_views
from kontrast.systems.hrc_pose.figures import pose_figures
from kontrast.systems.hrc_pose.measuring import (
    PRIMARY,
    all_metrics,
    chance_of_pairs,
    check_poses,
    dealt,
    hits,
    order_correlations,
)
from kontrast.systems.hrc_pose.model import POSE_WEIGHTS, HrcPoseModel
from kontrast.systems.hrc_pose.views import PoseViews, training_pool, within
from kontrast.training import IndexedBatches, Stage
from kontrast.training.samplers import BalancedSampler

LEAST_ROWS = 3
"""Views of a category in a batch below which nothing can be ranked."""


class HrcPose(System[HrcPoseConfig, CloudSet]):
    """Pose and size of objects of known categories from one side's points.

    A row is a view of one object: points in the camera's frame and the name of the category. The answer is the
    rotation, the centre and the edge lengths of the object's box.
    """

    card: ClassVar[Card] = Card(
        name="hrc_pose",
        title="6D pose and size of objects of known categories, from depth",
        summary=(
            "Two encoders of point clouds, one for rotation and one for translation and size. In each of the two "
            "spaces distances of features are ranked as distances of poses are, category by category (Rank-N-Contrast "
            "with a strict and a task set of negatives). Heads read two axes, the centre and the size off the features."
        ),
        task="6D pose estimation",
        modalities=("point cloud", "depth image"),
        formats=(
            "NPZ: points (n, p, 3) in metres, category, R, t, size; and if known instance, split, handle_visible, K. "
            "Meshes as NAME/V, NAME/F beside it are rendered for training",
            "PLY cloud of one object, with --category",
            "depth PNG (16 bits, millimetres) with a mask PNG beside it, with --category and --intrinsics",
            "folder of NOCS (CAMERA, Real) with labels as SPD's preprocessing writes them",
        ),
        primary_metric=PRIMARY,
        higher_is_better=True,
        ablation="the ranking of features by pose (pose losses alone)",
        null_control="which view's pose each view is ranked by, within a category",
        unit="views",
        arxiv="2508.14358",
        citation="Zhu et al., point cloud representations with pose continuity (HRC-Pose), arXiv 2508.14358, 2025",
        extras=("clouds",),
    )
    Config = HrcPoseConfig
    model_: HrcPoseModel
    smoke: ClassVar[dict[str, Any]] = {
        "points": 64,
        "draws": 1,
        "encoder": {"kind": "pointnet", "widths": [32, 64]},
        "heads": {"width": 64, "dropout": 0.0},
        "augment": {"turn": 0.0, "taper": 0.0, "inflate": 0.0},
        "pool": {"instances": 0},
        "batch_size": 48,
        "epochs": 8,
        "optimiser": {"learning_rate": 5e-3},
    }
    answer_options: ClassVar[tuple[str, ...]] = ("draws", "category", "intrinsics", "depth_unit", "mask")
    answer_files: ClassVar[dict[str, str]] = {
        ".json": "R, t, size and confidence of each view",
        "": "poses.json, each box as PLY, and depth images with the boxes drawn on them",
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> CloudSet:
        """Views of objects; poses are needed to train."""
        config = self.config
        fx, fy, cx, cy = config.intrinsics or REAL_INTRINSICS
        camera = Camera((fx, fy, cx, cy), config.depth_unit, config.mask)
        data = read_clouds(path, category=config.category, camera=camera)
        if purpose == "train":
            check_poses(data)
        return data

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_views(path)

    def split(self, data: CloudSet) -> Splits[CloudSet]:
        """The parts that the data name, else by object: all views of an object are in one part.

        The objects of `held_out` leave the training part for the validation part.
        """
        parts = self._parts(data)
        found: dict[str, CloudSet | None] = {}
        for name in PARTS:
            rows = np.flatnonzero(parts == name)
            found[name] = data.take(rows) if len(rows) else None
        if found["train"] is None:
            raise DataError("has no training part", file=data.path, mend="mark some views 'train' in 'split'")
        held = {name for part in ("valid", "test") for name in _instances(found[part])}
        shown = tuple(mesh for mesh in data.meshes if mesh.split in ("", "train") and mesh.name not in held)
        train = replace(found["train"], meshes=shown)
        # Meshes are for training alone.
        valid, test = (part if part is None else replace(part, meshes=()) for part in (found["valid"], found["test"]))
        return Splits(train, valid, test)

    def _parts(self, data: CloudSet) -> npt.NDArray[Any]:
        """(n,) names of parts."""
        config = self.config
        if data.split is not None and any(data.split):
            parts = np.asarray([name or "train" for name in data.split], dtype="<U5")
        elif data.instances is None:
            what = "does not say which views show the same object, so no split is free of leaks"
            raise DataError(what, file=data.path, mend="add 'instance' or 'split'")
        else:
            parts = leak_free_parts([data.instances], config.split_seed, (0.7, 0.1, 0.2)).astype("<U5")
        objects = np.asarray(data.instances if data.instances is not None else [""] * len(data))
        for name in config.held_out:
            rows = (objects == name) & (parts == "train")
            if not rows.any():
                near = get_close_matches(name, sorted(set(objects[parts == "train"].tolist())), n=1)
                mend = f"did you mean '{near[0]}'?" if near else "check --held-out"
                raise DataError(f"has no object '{name}' in its training part", file=data.path, mend=mend)
            parts[rows] = "valid"
        return parts

    def size(self, data: CloudSet) -> int:
        return len(data)

    def take(self, data: CloudSet, rows: Sequence[int] | npt.NDArray[Any]) -> CloudSet:
        return data.take(rows)

    def permuted(self, data: CloudSet, seed: int) -> CloudSet:
        """Poses dealt out anew within each category, relative to the points; no view keeps its own."""
        check_poses(data)
        codes = np.unique(np.asarray(data.categories), return_inverse=True)[1].astype(np.int64)
        order = within(codes, numpy_rng(seed, "permuted truth"))
        handle = None if data.handle is None else data.handle[order]
        return replace(data, poses=dealt(data, order), handle=handle)

    def chance(self, data: CloudSet) -> float:
        """The primary metric if the answers were dealt out among the views of each category: a constant answer has a
        chance of its own, so those of the fitted system are taken, or else the true poses."""
        fitted = hasattr(self, "model_")
        found = self.estimates(data).poses if fitted else check_poses(data)
        return chance_of_pairs(found, data, self.config.symmetric)

    def leaks(self, train: CloudSet, test: CloudSet) -> LeakReport:
        """Views and objects of the test that stand in the training part."""
        return check_leaks(_fields(train), _fields(test), groups=["object"])

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: CloudSet) -> dict[str, Any]:
        """The categories and their mean sizes in metres."""
        truth, names = check_poses(train), np.asarray(train.categories)
        categories = sorted(set(train.categories))
        sizes = [truth.size[names == name].mean(0, dtype=np.float64).tolist() for name in categories]
        return {"categories": categories, "mean_size": sizes}

    def build(self, facts: dict[str, Any]) -> HrcPoseModel:
        return HrcPoseModel(facts, self.config)

    def stages(self, train: CloudSet, valid: CloudSet | None) -> Iterator[Stage]:
        config, categories = self.config, self.facts_["categories"]
        rows_of_each = config.batch_size // len(categories)
        if rows_of_each < LEAST_ROWS:
            what = f"a batch of {config.batch_size} has {rows_of_each} views of each of {len(categories)} categories"
            raise DataError(what, file=train.path, mend=f"use --batch-size {LEAST_ROWS * len(categories)} or more")
        pool = training_pool(train, config.pool, config.symmetric)
        views = PoseViews(
            pool, categories, config.symmetric, config.points, config.augment, shuffled=config.contrast == "shuffled"
        )
        sampler = BalancedSampler(views.category, len(categories), rows_of_each, seed=config.seed)
        batches = IndexedBatches(sampler, views.batch, seed=config.seed, data=pool.digest())
        ranked = dict.fromkeys(("rank_rotation", "rank_translation"), config.ranking.weight) if config.ranks else {}
        if config.stage == "pretrain" and config.ranks:
            unposed = dict.fromkeys(POSE_WEIGHTS, 0.0)
            weights = {**unposed, **ranked}
            yield Stage("rank", self.model_, batches, config.epochs, config.optimiser, config.seed, weights)
        weights = {**POSE_WEIGHTS, **ranked}
        yield Stage("pose", self.model_, batches, config.epochs, config.optimiser, config.seed, weights)

    # ---- use -----------------------------------------------------------------------------------------------------

    def estimates(self, data: CloudSet) -> Estimates:
        """Poses and features of views; those of the last data asked about are remembered.

        Raises:
            NotFittedError: before `fit` or `load`.
            DataError: for a category that was not in training.
        """
        self.check_fitted()
        config, categories = self.config, self.facts_["categories"]
        unknown = sorted(set(data.categories) - set(categories))
        if unknown:
            what = f"has the category '{unknown[0]}', and the model knows {', '.join(categories)}"
            raise DataError(what, file=data.path, mend="give one of these, or train with views of it")
        asked = (self.model_, data.points, data.categories, config.draws)
        kept = getattr(self, "_kept", None)
        if kept is None or any(one is not other for one, other in zip(kept[0], asked)):
            found = estimate(self.model_, data, categories, config.symmetric, config.points, config.draws)
            kept = (asked, found)
            self._kept = kept
        answer: Estimates = kept[1]
        return answer

    def embed(self, data: CloudSet) -> Embeddings:
        """Features of the encoder for rotation, then those of the encoder for translation and size."""
        found = self.estimates(data)
        vectors = np.concatenate([found.rotation_features, found.translation_features], 1)
        columns: dict[str, Sequence[Any]] = {"category": list(data.categories)}
        if data.instances is not None:
            columns["instance"] = list(data.instances)
        if data.poses is not None:
            columns["tilt"] = np.degrees(np.arccos(np.clip(-data.poses.rotation[:, 1, 1], -1, 1))).round(2).tolist()
        return Embeddings(vectors, data.ids, "view", columns, label="category")

    def predict(self, data: CloudSet) -> pd.DataFrame:
        """The pose of each view, see `answers.pose_table`."""
        return pose_table(data, self.estimates(data))

    def write_answers(self, answers: pd.DataFrame, data: CloudSet, path: Path) -> None:
        """Poses as .json, or a folder with boxes as PLY and on the images."""
        if path.suffix == ".json":
            write_poses(answers, path)
        else:
            write_folder(answers, data, path)

    def measure(self, data: CloudSet) -> Measurement:
        """Metrics as `measuring.all_metrics` and `measuring.order_correlations` name them; items are views, weighted so
        that categories count alike."""
        found = self.estimates(data)
        symmetric = self.config.symmetric
        metrics = all_metrics(found.poses, data, symmetric, found.confidence)
        metrics |= order_correlations(found, data, symmetric)
        return Measurement(metrics, hits(found.poses, data, symmetric), data.ids)

    def baselines(self, train: CloudSet, test: CloudSet) -> dict[str, dict[str, float]]:
        """The mean pose of each category, a network on an occupancy grid, and chance."""
        made = simple_baselines(train, test, self.config.symmetric, self.config.seed)
        made["chance"] = {PRIMARY: self.chance(test)}
        return made

    def figures(self, data: CloudSet) -> list[Figure]:
        """Boxes in 3-D, shares within thresholds, a table by category, and the ranked space."""
        return pose_figures(data, self.estimates(data), self.config.symmetric)


def _instances(data: CloudSet | None) -> set[str]:
    return set() if data is None or data.instances is None else set(data.instances)


def _fields(data: CloudSet) -> dict[str, Any]:
    """What tells views and objects from one another."""
    objects = [name or None for name in data.instances] if data.instances is not None else [None] * len(data)
    return {"object": objects, "points": data.points.reshape(len(data), -1)}
