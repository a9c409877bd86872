"""A small training with everything that is hard to resume: dropout, a queue, a momentum copy, a learned temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kontrast.negatives import FeatureQueue, MomentumEncoder
from kontrast.training import (
    IndexedBatches,
    OptimiserConfig,
    Progress,
    ShuffledSampler,
    Stage,
    TrainableModel,
)

ROWS, WIDTH, BATCH = 40, 6, 8


class Toy(TrainableModel):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(
                nn.Linear(WIDTH, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 4)
            )
        self.momentum = MomentumEncoder(self.encoder)
        self.queue = FeatureQueue(24, 4)
        self.log_temperature = nn.Parameter(torch.tensor(-1.0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long), persistent=False)

    def encode(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"query": self.encoder(batch["view"]), "key": self.momentum(batch["other"])}

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> Mapping[str, Tensor]:
        query = nn.functional.normalize(encoded["query"], dim=1)
        key = nn.functional.normalize(encoded["key"], dim=1)
        logits = torch.cat([query @ key.T, query @ self.queue.features().T], dim=1) / self.log_temperature.exp()
        contrastive = nn.functional.cross_entropy(logits, torch.arange(len(query), device=query.device))
        self.queue.enqueue(key)
        self.seen += len(key)
        return {"contrastive": contrastive, "size": encoded["query"].square().mean()}

    @torch.no_grad()
    def after_step(self, progress: Progress, batch: Any) -> None:
        self.momentum.update(self.encoder, 0.9)


def data() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(ROWS, WIDTH)).astype(np.float32)


def batches(rows: int = ROWS, seed: int = 3) -> IndexedBatches:
    table = data()[:rows]

    def collate(indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        view = table[indices]
        return {
            "row": torch.from_numpy(indices),
            "view": torch.from_numpy(view + rng.normal(scale=0.1, size=view.shape).astype(np.float32)),
            # From a global generator, as augmentations of other libraries do.
            "other": torch.from_numpy(view) + 0.1 * torch.randn(view.shape),
        }

    return IndexedBatches(ShuffledSampler(rows, BATCH, seed=seed), collate, seed=seed, data="toy")


def optimiser(**changes: Any) -> OptimiserConfig:
    return OptimiserConfig(**{"learning_rate": 0.01, "warmup": 0.2, **changes})


def stage(**changes: Any) -> Stage:
    model = changes.pop("model", None) or Toy()
    return Stage(
        **{
            "name": "toy", "model": model, "batches": batches(), "epochs": 4, "optimiser": optimiser(), "seed": 5,
            "weights": {"size": 0.1}, **changes,
        }
    )  # fmt: skip


class Line(TrainableModel):
    """Fits y = 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, int]] = []

    def encode(self, batch: Any) -> Mapping[str, Tensor]:
        return {"y": self.slope * batch}

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> Mapping[str, Tensor]:
        self.seen.append((progress.epoch, progress.step, progress.total_steps))
        return {"square": (encoded["y"] - 2 * batch).square().mean(), "slope": self.slope.sum() * 0}


def line(**changes: Any) -> Stage:
    stream = IndexedBatches(
        ShuffledSampler(24, 8, seed=0), lambda rows, rng: torch.from_numpy(rows).float()[:, None] / 24, seed=0
    )
    rule = optimiser(name="sgd", momentum=0.5, learning_rate=0.5, weight_decay=0.0)
    given = {"model": Line(), "batches": stream, "optimiser": rule, "epochs": 20, "weights": {}, **changes}
    return stage(name="line", **given)
