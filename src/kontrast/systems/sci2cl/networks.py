"""The parts of the model: the front that standardises, encoder, decoder, attention over views, matching head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.data.omics import Kind
from kontrast.systems.sci2cl.config import NetworkSection
from kontrast.systems.sci2cl.likelihoods import bernoulli_nll, gaussian_nll, nb_nll, poisson_nll, zinb_nll

CLIP = 10.0
COUNTED = ("rna", "protein")


class Front(nn.Module):
    """Standardises features by the training cells and, if asked for, takes their principal components.

    Everything here is learned from the training cells before the first step and is a buffer.

    Args:
        features: number of features d.
        components: number of components c, or 0 to pass the features on.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor
    origin: Tensor
    length: Tensor

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.components = components
        self.dim = components or features
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("axes", torch.zeros(features, components))
        self.register_buffer("origin", torch.zeros(components))
        self.register_buffer("length", torch.ones(()))

    def standardised(self, values: Tensor) -> Tensor:
        """(n, d) z-scores, clipped to ±10."""
        return ((values - self.mean) * self.scale).clamp(-CLIP, CLIP)

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Tensor:
        """(n, dim) from z-scores (n, d).

        Args:
            scores: from `standardised`.
            keep: (n, d) or (d,) what a mask leaves; masked features stand at their mean. What is left is scaled up by
                the share that is masked, so that a masked copy has the expected length of the whole.
        """
        if keep is not None:
            scores = scores * keep
            if self.components:
                scores = scores / keep.to(scores).mean(-1, keepdim=True).clamp_min(1e-3)
        return (scores @ self.axes - self.origin) / self.length if self.components else scores


class ModalityEncoder(nn.Module):
    """(n, dim of the front) to (n, dim): over components a linear map that starts as the identity, plus a network that
    starts at zero, so that training begins at the principal components; over features the network alone.

    Args:
        in_dim: length of what comes in.
        section: widths.
        over_components: which of the two.
    """

    def __init__(self, in_dim: int, section: NetworkSection, *, over_components: bool) -> None:
        super().__init__()
        self.network = _network([in_dim, *section.hidden, section.dim])
        self.line: nn.Linear | None = None
        if over_components:
            self.line = nn.Linear(in_dim, section.dim)
            last = self.network[-1]
            assert isinstance(last, nn.Linear)
            for part in (self.line, last):
                nn.init.zeros_(part.weight)
                nn.init.zeros_(part.bias)
            with torch.no_grad():
                self.line.weight.copy_(torch.eye(section.dim, in_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, dim)."""
        made: Tensor = self.network(inputs)
        return made if self.line is None else made + self.line(inputs)


class Decoder(nn.Module):
    """From an embedding to the distribution of a cell's counts; the heads read the last hidden layer.

    Args:
        features: number of features d.
        kind: of the modality.
        section: widths and the distribution of counts.
    """

    usual: Tensor

    def __init__(self, features: int, kind: Kind, section: NetworkSection) -> None:
        super().__init__()
        self.kind, self.likelihood, self.ridge = kind, section.likelihood, section.ridge
        widths = [section.dim, *reversed(section.hidden)]
        self.network = nn.Sequential(*_network(widths), nn.LayerNorm(widths[-1]), nn.GELU())
        self.head = nn.Linear(widths[-1], features)
        self.log_dispersion = nn.Parameter(torch.zeros(features)) if self._counted else None
        self.dropout = nn.Linear(widths[-1], features) if self._counted and self.likelihood == "zinb" else None
        # What a feature usually is: the network learns how a cell differs from that.
        self.register_buffer("usual", torch.zeros(features))

    @property
    def _counted(self) -> bool:
        return self.kind in COUNTED

    def mean(self, embedding: Tensor, totals: Tensor) -> Tensor:
        """(n, d) expected counts of cells with these sums (n,); doubling a cell's sum doubles them."""
        shares = torch.softmax(self.head(self.network(embedding)) + self.usual, dim=1)
        return shares * totals[:, None] + 1e-8

    def forward(self, embedding: Tensor, counts: Tensor, scores: Tensor) -> Tensor:
        """The mean negative log-likelihood of an entry.

        Args:
            embedding: (n, dim).
            counts: (n, d) raw values.
            scores: (n, d) z-scores, the target of compositions and real values.
        """
        if not self._counted:
            output = self.head(self.network(embedding))
            if self.kind == "atac":
                return bernoulli_nll(counts, output + self.usual)
            return gaussian_nll(scores, output)
        mean = self.mean(embedding, counts.sum(1))
        if self.likelihood == "poisson":
            return poisson_nll(counts, mean)
        assert self.log_dispersion is not None
        dispersion = self.log_dispersion.clamp(-9.0, 9.0).exp()
        if self.dropout is None:
            return nb_nll(counts, mean, dispersion)
        logits: Tensor = self.dropout(self.network(embedding))
        loss: Tensor = zinb_nll(counts, mean, dispersion, logits) + self.ridge * logits.sigmoid().square().mean()
        return loss


class ViewPool(nn.Module):
    """Attention over the masked copies of a cell, the largest value over copies, and a network: (n, V, e) to (n, e)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, copies: Tensor) -> Tensor:
        """(n, e); the order of the copies does not matter."""
        attended, _ = self.attention(copies, copies, copies, need_weights=False)
        pooled: Tensor = self.network(attended.amax(1))
        return pooled


class Matching(nn.Module):
    """Whether two embeddings are of one cell: a fused vector, and two logits from it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.judge = nn.Linear(dim, 2)

    def forward(self, first: Tensor, second: Tensor, others: Tensor) -> Tensor:
        """Cross-entropy of true pairs against pairs with the rows `others` (n, k) of the second; −1 is left out."""
        rows, places = (others >= 0).nonzero(as_tuple=True)
        wrong = self.judge(self.fuse(torch.cat([first[rows], second[others[rows, places]]], dim=1)))
        right = self.judge(self.fuse(torch.cat([first, second], dim=1)))
        logits = torch.cat([right, wrong])
        classes = torch.cat([torch.ones_like(right[:, 0]), torch.zeros_like(wrong[:, 0])]).long()
        return F.cross_entropy(logits, classes)


def attended(own: Tensor, bank: Tensor) -> Tensor:
    """u = z + softmax(z Bᵀ / √e) B: what a fixed bank (b, e) of the other modality adds to rows (n, e)."""
    return own + torch.softmax(own @ bank.T / own.shape[1] ** 0.5, dim=1) @ bank


def _network(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        layers.append(nn.Linear(before, after))
        if number < len(widths) - 1:
            layers += [nn.LayerNorm(after), nn.GELU()]
    return nn.Sequential(*layers)
