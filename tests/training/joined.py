"""Trains one step on several processes and on one, for `test_joined_step`.

    python joined.py FOLDER WORLD RANK MICRO_BATCH GATHER

Writes each step's loss terms and gradients, under DistributedDataParallel's own averaging or that of micro-batches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from kontrast.losses import ClipLoss, NTXent, QueueLoss, SupCon, sigmoid_loss
from kontrast.negatives import FeatureQueue, MomentumEncoder
from kontrast.training import (
    IndexedBatches,
    OptimiserConfig,
    OrderedSampler,
    Progress,
    Stage,
    TrainableModel,
    TrainerConfig,
    run_stage,
)

ROWS, BATCH = 21, 13  # a batch of 13 and one of 8: neither two nor three processes share them evenly


class Many(TrainableModel):
    """Pairs, views, labels and a queue; every temperature is learned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.LayerNorm(12), nn.Linear(12, 5))
        self.right = nn.Linear(6, 5)
        self.head = nn.Linear(5, 5)
        self.momentum = MomentumEncoder(self.right)
        self.queue = FeatureQueue(16, 5)
        self.clip, self.views = ClipLoss(0.3), NTXent(0.4, learnable=True)
        self.classes, self.past = SupCon(0.5, learnable=True), QueueLoss(0.6, learnable=True)
        self.told: dict[str, Tensor] = {}

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        left, right = self.left(batch["x"]), self.right(batch["y"])
        return {"left": left, "right": right, "key": self.momentum(batch["y"])}

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        left, right = self.head(encoded["left"]), encoded["right"]
        terms = {
            "clip": self.clip(left, right, ids=batch["id"]),
            "views": self.views(left, right),
            "classes": self.classes(left, batch["label"]),
            "sigmoid": sigmoid_loss(left, right),
            "past": self.past(left, encoded["key"], self.queue.features()),
        }
        self.queue.enqueue(encoded["key"])
        self.told |= {f"{progress.step}/{name}": term.detach().clone() for name, term in terms.items()}
        return terms

    def after_step(self, progress: Progress, batch: Any) -> None:
        self.momentum.update(self.right, 0.5)
        named = ((name, one) for name, one in self.named_parameters() if one.grad is not None)
        self.told |= {f"{progress.step}/{name}.grad": one.grad.clone() for name, one in named}
        self.told[f"{progress.step}/queue"] = self.queue.features()


def train(**options: Any) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, ROWS, 6, generator=draws)
    table = {"x": x, "y": y, "label": torch.arange(ROWS) % 4, "id": torch.arange(ROWS) // 2}
    stream = IndexedBatches(
        OrderedSampler(ROWS, BATCH), lambda at, rng: {name: rows[at] for name, rows in table.items()}, seed=0
    )
    model = Many()
    rule = OptimiserConfig(name="sgd", learning_rate=0.1, weight_decay=0.0, schedule="constant")
    run_stage(
        Stage("joined", model, stream, 2, rule, seed=0),
        TrainerConfig(accelerator="cpu", progress="off", loggers=[], **options),
    )
    return model.told


def main(rank: int, folder: str, world: int, micro_batch: int | None, gather: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    told = train(devices=world, strategy="ddp", micro_batch=micro_batch, gather=gather)
    save_file(told, Path(folder) / f"{rank}.safetensors")


if __name__ == "__main__":
    folder, world, rank, micro_batch, gather = sys.argv[1:]
    main(int(rank), folder, int(world), int(micro_batch) or None, gather)
