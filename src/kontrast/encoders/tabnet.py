"""TabNet: a network over tables that chooses, row by row and step by step, which columns it looks at.

Arik and Pfister, "TabNet: Attentive Interpretable Tabular Learning" (arXiv 1908.07442, sections 3.1 to 3.3). In each
step a sparse mask over the columns is made from what the step before has seen; the masked row passes through gated
layers, of which some are shared by all steps; a part of the result is the step's contribution to the row's vector, the
other part makes the next mask. The masks say which columns mattered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.config import BaseConfig, param
from kontrast.data.tables import ColumnKind
from kontrast.encoders.base import Batch, Encoder, seeded

TABNET = "arXiv 1908.07442"
_HALF = math.sqrt(0.5)


class TabNetConfig(BaseConfig):
    """Sizes of a TabNet."""

    decision: int = param(32, "length of a step's contribution (n_d), and of the vector", ge=1, source=TABNET)
    attention: int = param(32, "length of what makes the next mask (n_a)", ge=1, source=TABNET)
    steps: int = param(3, "decision steps", ge=1, le=10, source=TABNET)
    relaxation: float = param(
        1.5, "how often a column may be used (gamma): 1 lets each step take columns of its own", ge=1, source=TABNET
    )
    shared: int = param(2, "gated layers that all steps share", ge=0, source=TABNET)
    own: int = param(2, "gated layers of each step", ge=0, source=TABNET)
    ghost: int = param(128, "rows of a ghost batch, each normalised by itself in training", ge=2, unit="rows")
    momentum: float = param(0.02, "share of a new batch in the running statistics", gt=0, le=1)
    normalise: bool = param(True, "normalise the input by batches; off where it is scaled already")
    mask: Literal["sparsemax", "entmax"] = param("sparsemax", "how scores become a sparse mask")
    output: Literal["sum", "first"] = param("sum", "the row's vector: the sum over steps, or the first step alone")


@dataclass(frozen=True)
class Decisions:
    """What a TabNet makes of n rows.

    Attributes:
        steps: (s, n, decision), the contribution of each step, none below 0.
        masks: (s, n, groups), none below 0, rows add up to 1; without groups each column is one.
    """

    steps: Tensor
    masks: Tensor

    def importance(self) -> Tensor:
        """(n, groups) how much each group was used: masks weighted by the steps' contributions; rows add up to 1."""
        used = torch.einsum("sn,snd->nd", self.steps.sum(2), self.masks)
        return used / used.sum(1, keepdim=True).clamp_min(1e-12)

    def entropy(self) -> Tensor:
        """(n,) mean entropy of the masks over the steps: small where few columns are used."""
        return -(self.masks * (self.masks + 1e-15).log()).sum(2).mean(0)


class TabNetEncoder(Encoder):
    """TabNet over numeric vectors, without its decoder.

    In training the batch is normalised in ghost batches (arXiv 1705.08741); in evaluation running statistics are used,
    so that a row's vector depends on that row alone.

    Args:
        in_dim: number of columns.
        config: sizes.
        groups: (in_dim,) numbers of groups of columns, from 0; a mask then chooses groups, and all columns of a group
            share its weight. None: every column is a group of its own, as in the paper. Columns that say little one by
            one, such as rare counts, are better chosen together.
        seed: the weights depend on it alone.
    """

    reads: ClassVar[ColumnKind] = "vector"
    groups: Tensor | None

    def __init__(
        self,
        in_dim: int,
        config: TabNetConfig | None = None,
        *,
        groups: npt.NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if in_dim < 1:
            raise ValueError(f"in_dim must be at least 1, got {in_dim}")
        if groups is not None and (groups.shape != (in_dim,) or groups.min() < 0):
            raise ValueError(f"groups must hold {in_dim} numbers from 0, got the shape {groups.shape}")
        self.config = config or TabNetConfig()
        chosen = in_dim if groups is None else int(groups.max()) + 1
        self.register_buffer("groups", None if groups is None else torch.from_numpy(groups))
        self.in_dim, self.dim = in_dim, self.config.decision
        width = self.config.decision + self.config.attention
        with seeded(seed, "tabnet"):
            self.normalise = BatchNorm(in_dim, momentum=0.01) if self.config.normalise else nn.Identity()
            shared = nn.ModuleList(
                _glu_map(in_dim if number == 0 else width, width) for number in range(self.config.shared)
            )
            # The first transformer only makes the first mask; the others belong to the steps.
            self.transformers = nn.ModuleList(
                _FeatureTransformer(in_dim, width, shared, self.config) for _ in range(self.config.steps + 1)
            )
            self.attentions = nn.ModuleList(
                _Attention(self.config.attention, chosen, self.config) for _ in range(self.config.steps)
            )

    def decide(self, vectors: Tensor) -> Decisions:
        """The steps and masks of rows (n, in_dim)."""
        config = self.config
        rows = self.normalise(vectors)
        prior: Tensor | float = 1.0
        seen = self.transformers[0](rows)[:, config.decision :]
        steps, masks = [], []
        for attention, transformer in zip(self.attentions, list(self.transformers)[1:]):
            mask = attention(seen, prior)
            prior = prior * (config.relaxation - mask)
            hidden = transformer((mask if self.groups is None else mask[:, self.groups]) * rows)
            steps.append(F.relu(hidden[:, : config.decision]))
            seen = hidden[:, config.decision :]
            masks.append(mask)
        return Decisions(torch.stack(steps), torch.stack(masks))

    def vectors(self, decisions: Decisions) -> Tensor:
        """(n, dim) the rows' vectors, by the option ``output``."""
        return decisions.steps[0] if self.config.output == "first" else decisions.steps.sum(0)

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        return self.vectors(self.decide(batch["vectors"])).float()

    def prepare(self, cells: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """The vectors as contiguous float32 (n, in_dim)."""
        if np.ndim(cells) != 2 or np.shape(cells)[1] != self.in_dim:
            raise ValueError(f"vectors must have shape (n, {self.in_dim}), got {np.shape(cells)}")
        return np.ascontiguousarray(cells, dtype=np.float32)

    def collate(self, rows: npt.NDArray[np.float32]) -> Batch:
        """vectors (n, in_dim)."""
        return {"vectors": torch.from_numpy(np.ascontiguousarray(rows))}

    def structure(self) -> dict[str, Any]:
        """Sizes, JSON-able."""
        return {"encoder": "tabnet", "in_dim": self.in_dim, "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> TabNetEncoder:
        """The inverse of `structure`; weights and statistics are to be loaded."""
        return cls(structure["in_dim"], TabNetConfig(**structure["config"]))


class BatchNorm(nn.Module):
    """Batch normalisation whose running statistics are right from the first step.

    The usual ones start at mean 0 and variance 1 and forget them slowly: with a momentum of 0.01 an eighth of that
    start is left after 200 steps, and a network that was trained so sees other inputs in evaluation than in training.
    Here the first 1 / momentum batches are averaged with equal weights.

    Args:
        width: number of columns.
        momentum: share of a new batch in the running statistics, from then on.
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) to the same; in training n must be at least 2."""
        if not self.training:
            return F.batch_norm(rows, self.mean, self.variance, self.weight, self.bias)
        # With a momentum of 1 the kernel hands back the batch's own statistics, at no further cost.
        mean, variance = torch.zeros_like(self.mean), torch.ones_like(self.variance)
        normal = F.batch_norm(rows, mean, variance, self.weight, self.bias, training=True, momentum=1.0)
        with torch.no_grad():
            self.seen += 1
            share = (1 / self.seen).clamp_min(self.momentum)
            self.mean.lerp_(mean, share)
            self.variance.lerp_(variance, share)
        return normal


class GhostBatchNorm(nn.Module):
    """Batch normalisation in training over ghost batches of at least `size` rows; running statistics in evaluation.

    Args:
        width: number of columns.
        size: rows of a ghost batch, at least 2. A batch is cut into as many as it fills, so that none has one row.
        momentum: share of a new ghost batch in the running statistics.
    """

    def __init__(self, width: int, size: int, momentum: float) -> None:
        super().__init__()
        self.size = size
        self.norm = BatchNorm(width, momentum)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) to the same."""
        if not self.training or len(rows) < 2 * self.size:
            normal: Tensor = self.norm(rows)
            return normal
        return torch.cat([self.norm(part) for part in rows.tensor_split(len(rows) // self.size)])


def sparsemax(scores: Tensor) -> Tensor:
    """Projection of each row onto the simplex: as softmax, but most entries are exactly 0.

    max(z − τ, 0) with τ such that the row adds up to 1 (Martins and Astudillo, arXiv 1602.02068, algorithm 1).

    Args:
        scores: (n, d) floating.

    Returns:
        (n, d), non-negative, rows add up to 1.
    """
    shifted = scores - scores.detach().amax(1, keepdim=True)
    with torch.no_grad():
        # Michelot's iteration: entries below the threshold of a set are never part of the solution. It ends after a few
        # passes at the set that a sort would give, and needs none.
        support = torch.ones_like(shifted, dtype=torch.bool)
        while True:
            kept = torch.where(support, shifted, 0)
            smaller = shifted > (kept.sum(1, keepdim=True) - 1) / support.sum(1, keepdim=True)
            smaller &= support
            if torch.equal(smaller, support):
                break
            support = smaller
    tau = (torch.where(support, shifted, 0).sum(1, keepdim=True) - 1) / support.sum(1, keepdim=True)
    return torch.where(support, shifted - tau, 0)


def entmax15(scores: Tensor) -> Tensor:
    """1.5-entmax of each row: between softmax and `sparsemax` (Peters et al., arXiv 1905.05702, appendix).

    Args:
        scores: (n, d) floating.

    Returns:
        (n, d), non-negative, rows add up to 1.
    """
    shifted = (scores - scores.detach().amax(1, keepdim=True)) / 2
    with torch.no_grad():
        falling, _ = shifted.sort(1, descending=True)
        place = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=scores.dtype)
        mean, square = falling.cumsum(1) / place, falling.square().cumsum(1) / place
        thresholds = mean - ((1 - place * (square - mean.square())) / place).clamp_min(0).sqrt()
        count = (thresholds <= falling).sum(1, keepdim=True)
        support = shifted > thresholds.gather(1, count - 1)
    size = support.sum(1, keepdim=True)
    kept = shifted * support
    mean, square = kept.sum(1, keepdim=True) / size, (kept * shifted).sum(1, keepdim=True) / size
    tau = mean - ((1 - size * (square - mean.square())) / size).clamp_min(1e-12).sqrt()
    return (shifted - tau).clamp_min(0).square() * support


class _Attention(nn.Module):
    def __init__(self, attention: int, in_dim: int, config: TabNetConfig) -> None:
        super().__init__()
        self.map = nn.Linear(attention, in_dim, bias=False)
        nn.init.xavier_normal_(self.map.weight, gain=math.sqrt((attention + in_dim) / math.sqrt(4 * attention)))
        self.norm = GhostBatchNorm(in_dim, config.ghost, config.momentum)
        self.sparse = sparsemax if config.mask == "sparsemax" else entmax15

    def forward(self, seen: Tensor, prior: Tensor | float) -> Tensor:
        return self.sparse(prior * self.norm(self.map(seen)))


class _FeatureTransformer(nn.Module):
    """Shared gated layers, then own ones; the norms are its own throughout."""

    def __init__(self, in_dim: int, width: int, shared: nn.ModuleList, config: TabNetConfig) -> None:
        super().__init__()
        first = 0 if len(shared) else 1
        own = [_glu_map(in_dim if first and number == 0 else width, width) for number in range(config.own)]
        if not len(shared) and not own:
            own = [_glu_map(in_dim, width)]
        self.maps = nn.ModuleList([*shared, *own])
        self.norms = nn.ModuleList(GhostBatchNorm(2 * width, config.ghost, config.momentum) for _ in self.maps)

    def forward(self, rows: Tensor) -> Tensor:
        for number, (linear, norm) in enumerate(zip(self.maps, self.norms)):
            gated = F.glu(norm(linear(rows)), dim=1)
            rows = gated if number == 0 else (rows + gated) * _HALF
        return rows


def _glu_map(in_dim: int, width: int) -> nn.Linear:
    linear = nn.Linear(in_dim, 2 * width, bias=False)
    nn.init.xavier_normal_(linear.weight, gain=math.sqrt((in_dim + 2 * width) / math.sqrt(in_dim)))
    return linear
