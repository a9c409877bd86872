"""Projection heads: the small network between an encoder's vectors and the space in which they are contrasted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kontrast.encoders.base import seeded


class ProjectionHead(nn.Module):
    """A multilayer perceptron, (n, in_dim) to (n, dim): linear maps with GELU between them.

    SimCLR contrasts in the space behind such a head and uses the vectors before it afterwards (arXiv 2002.05709,
    section 4.2). With ``layers=1`` it is one linear map, which brings two encoders of different size into one space.

    Args:
        in_dim: length of the incoming vectors.
        dim: length of the outgoing vectors.
        layers: linear maps, at least 1.
        hidden: length between the maps; `in_dim` if None.
        dropout: applied to the hidden vectors, in [0, 1).
        seed: the weights depend on it alone.
    """

    def __init__(
        self, in_dim: int, dim: int, *, layers: int = 2, hidden: int | None = None, dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        if min(in_dim, dim, layers) < 1:
            raise ValueError(f"in_dim, dim and layers must be at least 1, got {in_dim}, {dim} and {layers}")
        widths = [in_dim, *[hidden or in_dim] * (layers - 1), dim]
        self.in_dim, self.dim = in_dim, dim
        self._options = {"layers": layers, "hidden": hidden, "dropout": dropout}
        blocks: list[nn.Module] = []
        with seeded(seed, "projection head"):
            for number, (before, after) in enumerate(pairwise(widths), start=1):
                blocks.append(nn.Linear(before, after))
                if number < layers:
                    blocks.append(nn.GELU())
                    if dropout:
                        blocks.append(nn.Dropout(dropout))
        self.network = nn.Sequential(*blocks)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, in_dim) to (n, dim)."""
        result: Tensor = self.network(vectors)
        return result

    def structure(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able."""
        return {"in_dim": self.in_dim, "dim": self.dim, **self._options}
