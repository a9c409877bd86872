"""An encoder of plain numeric vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kontrast.config import BaseConfig, param
from kontrast.data.tables import ColumnKind
from kontrast.encoders.base import Batch, Encoder, seeded


class VectorEncoderConfig(BaseConfig):
    """Size of the network over numeric vectors."""

    dim: int = param(256, "length of the vectors that come out", ge=1, le=4096)
    layers: int = param(2, "linear maps", ge=1, le=32)
    hidden: int = param(512, "width between them", ge=1, le=65_536)
    dropout: float = param(0.1, "dropout of the hidden values", ge=0, lt=1)


class VectorEncoder(Encoder):
    """A multilayer perceptron over standardised entries: (n, in_dim) to (n, dim).

    Mean and scale (1 over the standard deviation) of the training vectors are buffers, so that they are saved with the
    weights; an entry that does not vary in training has a scale of 0, which leaves it out. Hidden layers are Linear,
    LayerNorm, GELU: no statistic of the batch enters.

    Args:
        in_dim: length of the incoming vectors.
        config: sizes.
        seed: the weights depend on it alone.
    """

    reads: ClassVar[ColumnKind] = "vector"
    mean: Tensor
    scale: Tensor

    def __init__(self, in_dim: int, config: VectorEncoderConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        if in_dim < 1:
            raise ValueError(f"in_dim must be at least 1, got {in_dim}")
        self.config = config or VectorEncoderConfig()
        self.in_dim, self.dim = in_dim, self.config.dim
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("scale", torch.ones(in_dim))
        blocks: list[nn.Module] = []
        width = in_dim
        with seeded(seed, "vector encoder"):
            for _ in range(self.config.layers - 1):
                blocks += [nn.Linear(width, self.config.hidden), nn.LayerNorm(self.config.hidden), nn.GELU()]
                blocks += [nn.Dropout(self.config.dropout)] if self.config.dropout else []
                width = self.config.hidden
            blocks.append(nn.Linear(width, self.dim))
        self.network = nn.Sequential(*blocks)

    def standardise(self, vectors: npt.NDArray[np.floating[Any]]) -> VectorEncoder:
        """Learns mean and scale from training vectors (n, in_dim); returns itself."""
        self._check(vectors)
        values = np.asarray(vectors, dtype=np.float64)
        deviation = values.std(0)
        # A constant column has a deviation of rounding size, not always exactly 0.
        varies = deviation > 1e-7 * (1 + np.abs(values).max(0))
        self.mean.copy_(torch.from_numpy(values.mean(0)))
        self.scale.copy_(torch.from_numpy(np.where(varies, 1 / np.where(varies, deviation, 1), 0)))
        return self

    def prepare(self, cells: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """The vectors as contiguous float32 (n, in_dim)."""
        self._check(cells)
        return np.ascontiguousarray(cells, dtype=np.float32)

    def collate(self, rows: npt.NDArray[np.float32]) -> Batch:
        """vectors (n, in_dim)."""
        return {"vectors": torch.from_numpy(np.ascontiguousarray(rows))}

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        result: Tensor = self.network((batch["vectors"] - self.mean) * self.scale)
        return result.float()

    def structure(self) -> dict[str, Any]:
        """Sizes, JSON-able."""
        return {"encoder": "vector", "in_dim": self.in_dim, "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> VectorEncoder:
        """The inverse of `structure`; weights and statistics are to be loaded."""
        return cls(structure["in_dim"], VectorEncoderConfig(**structure["config"]))

    def _check(self, vectors: npt.NDArray[Any]) -> None:
        if np.ndim(vectors) != 2 or np.shape(vectors)[1] != self.in_dim:
            raise ValueError(f"vectors must have shape (n, {self.in_dim}), got {np.shape(vectors)}")
