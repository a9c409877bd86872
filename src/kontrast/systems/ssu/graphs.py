"""Graphs: words by syntax, segments guided by the text, the anchor, and their union; everything padded and in batches.

Nodes of an utterance stand on one axis: words, audio segments, visual segments, anchors. A modality's graph has its own
copy of the anchor, so that the three graphs are one block-diagonal graph and share a network in one pass; the fusion
graph has one anchor.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.encoders.dense_graphs import SMALL, masked_softmax, straight_through
from kontrast.systems.ssu.config import GraphSection

SELF, HEAD, DEPENDENT, CHAIN, GUIDED, ANCHOR, CROSS = range(7)
"""Kinds of edges: to oneself, to a word's head, to its dependents, to neighbours, guided by text, the anchor's, between
modalities."""
KINDS = 7
DISTANCES = 8


def dependency_kinds(heads: Tensor, mask: Tensor) -> Tensor:
    """(b, l, l) kinds of edges between words, -1 where there is none; what word i hears of word j.

    Head and dependent hear each other. Consecutive roots are neighbours, so that a text with several sentences hangs
    together; words without a known head count as roots, so that a text without syntax is a chain.

    Args:
        heads: (b, l) position of the head, the word's own for roots, -1 where it is not known or in the padding.
        mask: (b, l) which words are real.
    """
    b, length = heads.shape
    place = torch.arange(length, device=heads.device).expand(b, length)
    known = (heads >= 0) & (heads < length)
    known = known & mask.gather(1, heads.clamp(0, length - 1))
    head = torch.where(known, heads, place)
    root = (head == place) & mask
    kinds = heads.new_full((b, length, length), -1)
    row = torch.arange(b, device=heads.device)[:, None].expand(b, length)
    # The last root before each word.
    last = torch.where(root, place, place.new_tensor(-1)).cummax(1).values
    before = F.pad(last, (1, 0), value=-1)[:, :-1]
    joined = root & (before >= 0)
    kinds[row[joined], place[joined], before[joined]] = CHAIN
    kinds[row[joined], before[joined], place[joined]] = CHAIN
    hung = mask & ~root
    kinds[row[hung], place[hung], head[hung]] = HEAD
    kinds[row[hung], head[hung], place[hung]] = DEPENDENT
    kinds[row[mask], place[mask], place[mask]] = SELF
    return kinds


def temporal_kinds(mask: Tensor) -> Tensor:
    """(b, l, l) kinds of edges that a sequence always keeps, to itself and its neighbours; -1 elsewhere."""
    length = mask.shape[1]
    place = torch.arange(length, device=mask.device)
    apart = (place[:, None] - place).abs()
    kinds = torch.where(apart == 0, SELF, torch.where(apart == 1, CHAIN, -1))
    both = mask[:, :, None] & mask[:, None]
    return torch.where(both, kinds, -1)


class GuidedGraph(nn.Module):
    """The graph of a sequence of segments, guided by the words (equations 1 to 5).

    Enhancement: each segment asks which words concern it, H' = X + Attention(X, words); for aligned data the word at
    its place asks, as the paper writes it. Affinity to words with a learned preference for those near in time; a row
    softmax P; segments are joined as far as they go by the same words, P Pᵀ (aligned data: (P + Pᵀ) / 2). Edges below
    mean + κ · deviation of the utterance's entries go, κ is learned through a straight-through gate. Edges to oneself
    and to neighbours stay.

    Args:
        dim, heads: sizes.
        section: kind of the graph, κ at the start.
        aligned: whether there is one segment per word.
    """

    def __init__(self, dim: int, heads: int, section: GraphSection, *, aligned: bool) -> None:
        super().__init__()
        self.heads, self.guided, self.aligned = heads, section.guided, aligned
        self.ask, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim, bias=False)
        self.affinity_query, self.affinity_key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.slope = nn.Parameter(torch.tensor(-3.0))
        self.near = nn.Parameter(torch.zeros(2 * DISTANCES + 1))
        self.kappa = nn.Parameter(torch.tensor(section.kappa))

    def enhanced(self, segments: Tensor, mask: Tensor, words: Tensor, words_mask: Tensor) -> Tensor:
        """H' (b, l, dim): the segments with what the words add; unchanged where there are no words."""
        asking, asked, heard = (words, segments, mask) if self.aligned else (segments, words, words_mask)
        query, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.ask(asking), self.key(asked), self.value(asked))
        )
        logits = query @ keys.transpose(2, 3) * query.shape[-1] ** -0.5
        attended = (masked_softmax(logits, heard[:, None, None]) @ values).transpose(1, 2).flatten(2)
        added = self.out(attended)
        if self.aligned:
            added = added * words_mask[..., None]
        return cast(Tensor, (segments + added) * mask[..., None])

    def affinity(self, enhanced: Tensor, mask: Tensor, position: Tensor, words: Tensor, words_mask: Tensor) -> Tensor:
        """P (b, l, words): rows of a softmax over the words."""
        scores = self.affinity_query(enhanced) @ self.affinity_key(words).transpose(1, 2) * enhanced.shape[-1] ** -0.5
        count = words_mask.sum(1)[:, None].clamp(min=1)
        place = (torch.arange(words.shape[1], device=words.device) + 0.5) / count
        longest = torch.maximum(mask.sum(1), words_mask.sum(1))[:, None, None]
        gap = (position[:, :, None] - place[:, None]) * longest
        bias = -F.softplus(self.slope) * gap.abs()
        bias = bias + self.near[gap.round().clamp(-DISTANCES, DISTANCES).long() + DISTANCES]
        return masked_softmax(scores + bias, words_mask[:, None]) * mask[..., None]

    def forward(
        self, segments: Tensor, mask: Tensor, position: Tensor, words: Tensor, words_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Enhanced segments (b, l, dim), and weights, gates and kinds of edges (b, l, l)."""
        kept = temporal_kinds(mask)
        both = mask[:, :, None] & mask[:, None]
        enhanced = self.enhanced(segments, mask, words, words_mask)
        if self.guided != "text":
            weight = both.to(segments.dtype)
            gate = weight if self.guided == "full" else (kept >= 0).to(segments.dtype)
            return enhanced, weight, gate, torch.where(kept >= 0, kept, GUIDED)
        rows = self.affinity(enhanced, mask, position, words, words_mask)
        if self.aligned:
            weight = (rows + rows.transpose(1, 2)) / 2
        else:
            shared = rows @ rows.transpose(1, 2)
            shared = shared / shared.sum(2, keepdim=True).clamp(min=SMALL)
            weight = (shared + shared.transpose(1, 2)) / 2
        gate = self.gate(weight, both)
        stays = kept >= 0
        gate = torch.where(stays, torch.ones_like(gate), gate * both)
        # Edges that stay whatever the words say of them count no less than those at the threshold.
        weight = torch.where(stays, torch.maximum(weight, threshold(weight, both, self.kappa).clamp(min=SMALL)), weight)
        return enhanced, weight, gate, torch.where(stays, kept, GUIDED)

    def gate(self, weight: Tensor, both: Tensor) -> Tensor:
        """(b, l, l) 1 for edges at or above the threshold, with the gradient of a sigmoid around it."""
        cut = threshold(weight, both, self.kappa)
        spread = _moments(weight, both)[1]
        soft = torch.sigmoid((weight - cut) / (0.1 * spread + SMALL))
        return straight_through(weight >= cut, soft)


def _moments(values: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (b, 1, 1) of the valid entries."""
    count = both.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (values * both).sum((1, 2), keepdim=True) / count
    variance = ((values - mean).square() * both).sum((1, 2), keepdim=True) / count
    # The square root has no gradient at 0, where all entries are equal.
    return mean, (variance + 1e-12).sqrt()


def threshold(weight: Tensor, both: Tensor, kappa: Tensor) -> Tensor:
    """τ = mean + κ · deviation (b, 1, 1) of each utterance's valid entries (equation 4)."""
    mean, spread = _moments(weight, both)
    return mean + kappa * spread


def partners(nodes: Tensor, modality: Tensor, mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Pairs of nodes of different modalities with high affinity.

    A pair counts if its cosine is above mean + deviation of its block (two modalities of one utterance); a node hears
    at most `most` partners, the nearest ones.

    Args:
        nodes: (b, n, dim) enhanced nodes.
        modality: (n,) number of each node's modality.
        mask: (b, n).
        most: partners of a node.

    Returns:
        Weights (b, n, n), the cosines, and a boolean (b, n, n) of the pairs, row i hearing column j.
    """
    unit = F.normalize(nodes, dim=2)
    cosine = unit @ unit.transpose(1, 2)
    both = mask[:, :, None] & mask[:, None]
    chosen = torch.zeros_like(both)
    names = torch.unique(modality).tolist()
    for first in names:
        for second in names:
            if first < second:
                one, other = modality == first, modality == second
                block = (one[:, None] & other) | (other[:, None] & one)
                block = both & block
                mean, spread = _moments(cosine, block)
                chosen = chosen | (block & (cosine > mean + spread) & (cosine > 0))
    if most < chosen.shape[2]:
        ranked = torch.where(chosen, cosine, -torch.inf).topk(max(most, 1), dim=2)
        top = torch.zeros_like(chosen).scatter(2, ranked.indices, True)
        chosen = chosen & top if most else torch.zeros_like(chosen)
    return cosine.clamp(min=SMALL), chosen
