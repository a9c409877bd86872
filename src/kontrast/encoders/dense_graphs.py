"""Attention over many small graphs at once, padded to one dense block.

A batch of graphs is a tensor of nodes (b, n, d) with (b, n, n) tensors that say who hears whom. Nothing loops over
graphs or edges. Padded nodes hear nobody and are heard by nobody, so padding changes no number of a real node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 1e-6


@dataclass(frozen=True)
class DenseGraphs:
    """Edges of b graphs of at most n nodes. Entry [g, i, j] is about what node i hears of node j.

    Attributes:
        weight: (b, n, n) positive weights of edges; entries without an edge are not looked at.
        gate: (b, n, n) 1 for an edge, 0 for none; may carry the gradient of a learned threshold (`straight_through`).
        kind: (b, n, n) int64 kind of an edge.
        mask: (b, n) which nodes are real.
    """

    weight: Tensor
    gate: Tensor
    kind: Tensor
    mask: Tensor

    def perturbed(
        self,
        drop: float,
        add: float,
        *,
        free: Tensor,
        allowed: Tensor,
        kind: int,
        generator: torch.Generator | None = None,
    ) -> DenseGraphs:
        """A copy with random edges dropped and added, the same in both directions; a view for contrast.

        Args:
            drop: probability of an edge to go.
            add: how many edges come, as a share of those that might go, on average; their weight is the mean weight.
            free: (b, n, n) boolean, symmetric, edges that may go; the others stay.
            allowed: (b, n, n) boolean, symmetric, pairs that may be joined where no edge is.
            kind: of the edges that come.
            generator: of the draws; torch's own if None.
        """
        noise = torch.rand(2, *self.gate.shape, generator=generator, device=self.gate.device)
        upper = noise.triu(1)
        goes, comes = (upper + upper.transpose(-1, -2)).unbind(0)
        edge = self.gate > 0.5
        loose = edge & free
        empty = allowed & ~edge & ~edge.transpose(1, 2)
        count = loose.sum((1, 2), keepdim=True)
        chance = add * count / empty.sum((1, 2), keepdim=True).clamp(min=1)
        added = empty & (comes < chance)
        mean = (self.weight * loose).sum((1, 2), keepdim=True) / count.clamp(min=1)
        gate = torch.where(loose & (goes < drop), torch.zeros_like(self.gate), self.gate)
        return replace(
            self,
            weight=torch.where(added, mean.clamp(min=SMALL), self.weight),
            gate=torch.where(added, torch.ones_like(gate), gate),
            kind=torch.where(added, torch.full_like(self.kind, kind), self.kind),
        )


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension among the entries of `mask`; a row without any is all 0 (and has no gradient).

    Args:
        logits: (..., n).
        mask: boolean, broadcastable to the same shape.
    """
    filled = logits.masked_fill(~mask, -torch.inf)
    top = filled.amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, torch.zeros_like(top)).detach()
    powers = (filled - top).exp()
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)


class _GatedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, gate: Tensor) -> Tensor:
        shut = gate < 0.5
        filled = logits.masked_fill(shut, torch.finfo(logits.dtype).min)
        shares = filled.softmax(-1)
        if ctx.needs_input_grad[1]:
            # The logarithm of the sum, without a second pass of exponentials.
            total = filled.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()
            ctx.save_for_backward(shares, logits, total)
        else:
            ctx.save_for_backward(shares)
        ctx.shape = gate.shape
        return shares

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        shares, *rest = ctx.saved_tensors
        total = (gradients[0] * shares).sum(-1, keepdim=True)
        centred = gradients[0] - total
        by_gate = None
        if rest:
            # The share that an edge has, or would have if it were opened by a hair.
            share = (rest[0] - rest[1]).clamp(max=0).exp()
            by_gate = (share * centred).sum_to_size(ctx.shape)
        return shares * centred, by_gate


def gated_softmax(logits: Tensor, gate: Tensor) -> Tensor:
    """Softmax over the last dimension with each term multiplied by a gate of 0 or 1.

    Forward it is the softmax among the entries whose gate is 1; a row without any is the same for all entries. Backward
    a closed gate has the gradient that opening it would have (its share counting as 1 at most), which is how a learned
    threshold hears of the edges that it removed.

    Args:
        logits: (..., n) finite.
        gate: broadcastable to the same shape.
    """
    shares: Tensor = _GatedSoftmax.apply(logits, gate)  # type: ignore[no-untyped-call]
    return shares


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of `hard` with the gradient of `soft`."""
    return hard.to(soft.dtype) + (soft - soft.detach())


class DenseGATLayer(nn.Module):
    """A layer of graph attention (arXiv 1710.10903) with edge weights, edge kinds, residual and layer norm.

    The logit of i hearing j is LeakyReLU(aᵢ + bⱼ) + log(weight) + a learned bias of the edge's kind, per head.

    Args:
        dim: length of a node's vector; a multiple of `heads`.
        heads: attention heads.
        kinds: number of edge kinds.
        dropout: share of what a node hears that is dropped in training.
    """

    def __init__(self, dim: int, heads: int, kinds: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got {dim} and {heads}")
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(dim, dim, bias=False)
        self.hears = nn.Parameter(torch.empty(heads, dim // heads))
        self.heard = nn.Parameter(torch.empty(heads, dim // heads))
        nn.init.xavier_uniform_(self.hears)
        nn.init.xavier_uniform_(self.heard)
        self.kind = nn.Parameter(torch.zeros(heads, kinds))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, nodes: Tensor, mask: Tensor, gate: Tensor, loudness: Tensor, kinds: Tensor) -> Tensor:
        """Nodes (b, n, dim) to nodes (b, n, dim); padded ones are 0.

        Args:
            nodes: (b, n, dim).
            mask: (b, n).
            gate: (b, 1, n, n).
            loudness: (b, 1, n · n) logarithms of weights.
            kinds: (b, kinds, n · n) 0 or 1.
        """
        b, n, _ = nodes.shape
        values = self.project(nodes).unflatten(2, (self.heads, -1)).transpose(1, 2)
        own = (values * self.hears[:, None]).sum(-1)
        other = (values * self.heard[:, None]).sum(-1)
        # A product instead of a look-up: its backward pass is a product, too, and not a scatter over all pairs.
        bias = torch.baddbmm(loudness, self.kind.expand(b, -1, -1), kinds).view(b, self.heads, n, n)
        logits = F.leaky_relu(own[..., None] + other[:, :, None], 0.2) + bias
        heard = (gated_softmax(logits, gate) @ values).transpose(1, 2).flatten(2) + self.bias
        result: Tensor = self.norm(nodes + F.dropout(F.elu(heard), self.dropout, self.training))
        return result * mask[..., None]


class DenseGAT(nn.Module):
    """Layers of `DenseGATLayer`, one after another.

    Args:
        dim, heads, kinds, dropout: of each layer.
        layers: how many.
    """

    def __init__(self, dim: int, heads: int, kinds: int, *, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.kinds = kinds
        self.layers = nn.ModuleList(DenseGATLayer(dim, heads, kinds, dropout) for _ in range(layers))

    def forward(self, nodes: Tensor, graphs: DenseGraphs) -> Tensor:
        """Nodes (b, n, dim) to nodes (b, n, dim)."""
        loudness = (graphs.weight.clamp(min=0) + SMALL).log().flatten(1)[:, None]
        names = torch.arange(self.kinds, device=nodes.device)[:, None, None]
        kinds = (graphs.kind[:, None] == names).to(nodes.dtype).flatten(2)
        for layer in self.layers:
            nodes = layer(nodes, graphs.mask, graphs.gate[:, None], loudness, kinds)
        return nodes
