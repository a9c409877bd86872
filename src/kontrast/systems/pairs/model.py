"""Model: two towers and the objective between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.encoders import Encoder, ProjectionHead
from kontrast.losses import ClipLoss, InfoNCE, SigmoidLoss
from kontrast.randomness import derive_seed
from kontrast.systems.pairs.config import PairsConfig
from kontrast.training import Progress, TrainableModel


class Tower(nn.Module):
    """An encoder and, where there is one, its projection head: (n, dim) unit vectors.

    Args:
        encoder: of any kind.
        head: or None.
    """

    def __init__(self, encoder: Encoder, head: ProjectionHead | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.head.dim if self.head is not None else self.encoder.dim

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Unit vectors (n, dim)."""
        vectors = self.encoder(batch)
        return F.normalize(self.head(vectors) if self.head is not None else vectors, dim=-1)


class PairsModel(TrainableModel):
    """Two towers under one objective.

    Args:
        left, right: encoders; the same object twice shares its weights.
        config: heads, objective, temperature.
    """

    def __init__(self, left: Encoder, right: Encoder, config: PairsConfig) -> None:
        super().__init__()
        dims = (left.dim, right.dim)
        layers = config.head_layers or (1 if dims[0] != dims[1] else 0)
        shared = left is right
        self.left: Tower = Tower(left, _head(left.dim, min(dims), layers, config.seed, "left"))
        self.right: Tower = (
            self.left if shared else Tower(right, _head(right.dim, min(dims), layers, config.seed, "right"))
        )
        self.objective = _objective(config)

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Unit vectors of both sides."""
        return {"left": self.left(batch["left"]), "right": self.right(batch["right"])}

    def losses(self, encoded: Mapping[str, Tensor], batch: dict[str, Any], progress: Progress) -> dict[str, Tensor]:
        """The contrastive term; rows of one group are not each other's negatives."""
        return {"contrastive": self.objective(encoded["left"], encoded["right"], ids=batch["groups"])}


def _head(width: int, dim: int, layers: int, seed: int, side: str) -> ProjectionHead | None:
    return ProjectionHead(width, dim, layers=layers, seed=derive_seed(seed, side)) if layers else None


def _objective(config: PairsConfig) -> ClipLoss | InfoNCE | SigmoidLoss:
    if config.objective == "siglip":
        return SigmoidLoss(temperature=config.temperature, learnable=config.learn_temperature, products=config.products)
    kind = ClipLoss if config.objective == "clip" else InfoNCE
    return kind(temperature=config.temperature, learnable=config.learn_temperature, products=config.products)
