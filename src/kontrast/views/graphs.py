"""Views of graphs: edges dropped at random or by degree, Edge Balancing Augmentation, and mixed neighbours (GRADE).

An undirected graph is an int64 tensor (m, 2), each edge once with the smaller number first. Chance comes in as numbers,
`coins` (m,) uniform in [0, 1), so that a view is a pure function of its inputs on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

EXACT = 30_000
"""Up to so many nodes the most similar ones are searched among all; above among nodes two and three steps away."""
_BLOCK = 1 << 22


def node_degrees(edges: Tensor, n: int) -> Tensor:
    """(n,) int64 number of edges at each node."""
    return torch.bincount(edges.reshape(-1), minlength=n)


def drop_edges(edges: Tensor, shares: Tensor | float, coins: Tensor, *, n: int, floor: int = 0) -> Tensor:
    """The edges that stay when each is dropped with its own probability.

    Args:
        edges: (m, 2).
        shares: (m,) probabilities in [0, 1], or one for all.
        coins: (m,) uniform in [0, 1).
        n: number of nodes.
        floor: no end of a dropped edge falls below this degree; edges with the smallest coins go first.

    Returns:
        (k, 2) edges in their order.
    """
    goes = coins < shares
    if floor > 0 and bool(goes.any()):
        spare = (node_degrees(edges, n) - floor).clamp(min=0)
        rows = torch.nonzero(goes)[:, 0]
        rows = rows[torch.argsort(coins[rows], stable=True)]
        first, second = edges[rows].unbind(1)
        # Counting all that want to go at either end errs to the safe side: fewer go than might.
        before = _earlier_with_same(torch.stack([first, second], dim=1).reshape(-1)).reshape(-1, 2)
        allowed = (before[:, 0] < spare[first]) & (before[:, 1] < spare[second])
        goes = torch.zeros_like(goes)
        goes[rows[allowed]] = True
    return edges[~goes]


def _earlier_with_same(values: Tensor) -> Tensor:
    """(k,) how many earlier entries are equal to each."""
    order = torch.argsort(values, stable=True)
    grouped = values[order]
    place = torch.empty_like(values)
    place[order] = torch.arange(len(values), device=values.device) - torch.searchsorted(grouped, grouped)
    return place


def degree_drop_shares(edges: Tensor, n: int, mean: float, most: float = 0.7) -> Tensor:
    """(m,) probabilities of GCA: edges between nodes of low degree go first (arXiv 2010.14945, eq. 2, 3).

    Args:
        edges: (m, 2).
        n: number of nodes.
        mean: average probability before the bound.
        most: largest probability.
    """
    centrality = node_degrees(edges, n).clamp(min=1).float().log()[edges].mean(1)
    top = centrality.max()
    spread = top - centrality.mean()
    if float(spread) <= 0:
        return torch.full_like(centrality, min(mean, most))
    return ((top - centrality) / spread * mean).clamp(max=most)


@dataclass(frozen=True)
class EdgeBalance:
    """What Edge Balancing Augmentation does to a graph.

    Attributes:
        added: (a, 2) edges, none of them there before.
        drop_shares: (m,) probability with which each edge is dropped.
        received: (n,) added edges that chose each node.
        beyond_cap: how many added edges had to go beyond the cap to bring their node to its degree.
    """

    added: Tensor
    drop_shares: Tensor
    received: Tensor
    beyond_cap: int


@dataclass(frozen=True)
class EdgeBalancing:
    """Edge Balancing Augmentation: raises low degrees and thins edges between high ones (arXiv 2508.14808).

    The paper's purpose is known, a larger minimum degree inside latent clusters; the steps are a reconstruction.
    Each node below `low` gets edges to its most similar non-neighbours, at most `most_added`; edges whose two ends are
    above `high` are dropped with a probability that grows with dissimilarity, and no end falls below `low`.

    Attributes:
        low: degree up to which nodes are raised; None: the mean degree, rounded up; 0 adds nothing.
        high: degree above which edges may be dropped; None: `low`.
        most_added: edges that a node may add.
        drop: mean probability with which edges between high degrees are dropped.
        cap: a node receives at most this many times `low` added edges, as long as others are left to choose from.
        sampled: choose targets with probability ∝ exp(similarity / 0.2) instead of the most similar ones.
        clusters: choose only within clusters found by k-means on the embeddings; 0: among all nodes.
        search: "exact" among all nodes, "walks" among nodes two and three steps away, "auto" by size.
    """

    low: int | None = None
    high: int | None = None
    most_added: int = 3
    drop: float = 0.2
    cap: float = 2.0
    sampled: bool = False
    clusters: int = 0
    search: Literal["auto", "exact", "walks"] = "auto"

    def bounds(self, edges: Tensor, n: int) -> tuple[int, int]:
        """`low` and `high` for a graph."""
        low = self.low if self.low is not None else -(-2 * len(edges) // max(n, 1))
        return low, self.high if self.high is not None else low

    def __call__(self, edges: Tensor, vectors: Tensor, *, alone: bool, generator: torch.Generator) -> EdgeBalance:
        """Additions and drop probabilities for a graph.

        Args:
            edges: (m, 2).
            vectors: (n, d) embeddings; only their directions count.
            alone: whether nodes without any edge take part; False where nothing but edges informs the embeddings.
            generator: draws what is sampled; on the device of `vectors`.
        """
        n, unit = len(vectors), F.normalize(vectors.detach().float(), dim=1)
        low, high = self.bounds(edges, n)
        degree = node_degrees(edges, n)
        shares = self._drop_shares(edges, unit, degree, high)
        want = (low - degree).clamp(min=0, max=self.most_added)
        if not alone:
            # A node with a zero vector is no target either.
            want, unit = want * (degree > 0), unit * (degree > 0)[:, None]
        rows = torch.nonzero(want)[:, 0]
        if not len(rows):
            nothing = edges.new_zeros(0, 2)
            return EdgeBalance(nothing, shares, torch.zeros(n, dtype=torch.long, device=edges.device), 0)
        group = _k_means(unit, self.clusters, generator) if self.clusters else None
        pool = min(max(16, 4 * self.most_added), n - 1)
        exact = self.search == "exact" or (self.search == "auto" and n <= EXACT)
        search = _nearest if exact else _nearest_on_walks
        targets, scores = search(unit, edges, degree, rows, pool, group, self.sampled, generator)
        added, received, beyond = _assign(rows, targets, scores, want, n, round(self.cap * max(low, 1)))
        return EdgeBalance(added, shares, received, beyond)

    def _drop_shares(self, edges: Tensor, unit: Tensor, degree: Tensor, high: int) -> Tensor:
        dense = (degree[edges] > high).all(1)
        shares = torch.zeros(len(edges), device=unit.device)
        if self.drop and bool(dense.any()):
            ends = edges[dense]
            apart = torch.cat(
                [(1 - (unit[part[:, 0]] * unit[part[:, 1]]).sum(1)) for part in torch.split(ends, 1 << 18)]
            )
            shares[dense] = (apart / apart.mean().clamp(min=1e-12) * self.drop).clamp(0, 0.9)
        return shares


@dataclass(frozen=True)
class Partners:
    """Whose neighbours a node of low degree takes over, and how alike the ends of edges are.

    Attributes:
        of: (n,) int64 a partner for each node of low degree, −1 for others.
        shares: (n,) weight of the partner's neighbours beside one's own, in [0, ½].
        likeness: (m,) similarity of the ends of each edge, in [0, 1].
    """

    of: Tensor
    shares: Tensor
    likeness: Tensor


def draw_partners(edges: Tensor, vectors: Tensor, *, tail: int, alone: bool, generator: torch.Generator) -> Partners:
    """Partners of GRADE: for each node of low degree another one, drawn in proportion to similarity (arXiv 2210.03011).

    Above 30,000 nodes partners are drawn among nodes two and three steps away.

    Args:
        edges: (m, 2).
        vectors: (n, d) embeddings; only their directions count.
        tail: nodes with fewer edges get a partner.
        alone: whether nodes without any edge take part.
        generator: draws; on the device of `vectors`.
    """
    n, unit = len(vectors), F.normalize(vectors.detach().float(), dim=1)
    degree = node_degrees(edges, n)
    if not alone:
        unit = unit * (degree > 0)[:, None]
    rows = torch.nonzero((degree < tail) & (alone | (degree > 0)))[:, 0]
    of = torch.full((n,), -1, dtype=torch.long, device=edges.device)
    shares = torch.zeros(n, device=unit.device)
    if n > EXACT and len(rows):
        places, scores = _nearest_on_walks(unit, edges, degree, rows, 16, None, False, generator)
        drawn = _drawn(scores.clamp(0, 1), generator)
        chosen, close = places.gather(1, drawn)[:, 0], scores.gather(1, drawn)[:, 0]
        of[rows], shares[rows] = torch.where(close > 0, chosen, -1), close.clamp(0, 0.5)
    elif len(rows):
        for block in torch.split(rows, max(1, _BLOCK // n)):
            similar = (unit[block] @ unit.T).clamp_(0, 1)
            similar[torch.arange(len(block), device=unit.device), block] = 0
            drawn = _drawn(similar, generator)
            close = similar.gather(1, drawn)[:, 0]
            of[block], shares[block] = torch.where(close > 0, drawn[:, 0], -1), close.clamp(max=0.5)
    likeness = [(unit[part[:, 0]] * unit[part[:, 1]]).sum(1) for part in torch.split(edges, 1 << 18)]
    return Partners(of, shares, torch.cat(likeness).clamp(0, 1) if len(edges) else shares[:0])


def _drawn(weights: Tensor, generator: torch.Generator) -> Tensor:
    """(r, 1) a column of each row, with probability ∝ its weight."""
    return torch.multinomial(weights + 1e-12, 1, generator=generator)


def mix_neighbours(
    edges: Tensor, partners: Partners, *, n: int, tail: int, drop: float, generator: torch.Generator
) -> Tensor:
    """The view of GRADE: low degrees mix in their partner's neighbours, high ones keep those most like themselves.

    A node of low degree draws as many neighbours as a random node of high degree has, without replacement, among its
    own (weight 1 − share) and its partner's (weight share); where there are fewer it takes them all. A node of high
    degree keeps (1 − drop) of its neighbours, drawn in proportion to likeness. An edge stays if either end draws it.
    The published code also draws nodes that are nobody's neighbours where there are too few; here they are left out.

    Args:
        edges: (m, 2).
        partners: what `draw_partners` found for these edges.
        n: number of nodes.
        tail: nodes with fewer edges have low degree.
        drop: share of neighbours that a node of high degree loses.
        generator: draws; on the device of `edges`.

    Returns:
        (k, 2) edges, sorted, the smaller number first.
    """
    degree = node_degrees(edges, n)
    both = torch.cat([edges, edges.flip(1)])
    order = torch.argsort(both[:, 0], stable=True)
    both, likeness = both[order], partners.likeness.repeat(2)[order]
    starts = degree.cumsum(0) - degree
    low = degree < tail
    weights = torch.where(low[both[:, 0]], 1 - partners.shares[both[:, 0]], likeness.clamp(min=1e-6))

    takers = torch.nonzero(low & (partners.of >= 0))[:, 0]
    counts = degree[partners.of[takers]]
    rows = torch.repeat_interleave(takers, counts)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.arange(len(rows), device=edges.device) - first + starts[partners.of[rows]]
    taken = torch.stack([rows, both[place, 1]], dim=1)
    useful = (taken[:, 0] != taken[:, 1]) & (partners.shares[rows] > 0)

    keys = torch.cat([both[:, 0] * n + both[:, 1], (taken[:, 0] * n + taken[:, 1])[useful]])
    keys, index = torch.unique(keys, return_inverse=True)
    weight = torch.zeros(len(keys), device=edges.device)
    weight.index_add_(0, index, torch.cat([weights, partners.shares[rows][useful]]))

    heads = degree[~low]
    wanted = torch.clamp(((1 - drop) * degree).long(), min=1)
    drawn = torch.randint(max(len(heads), 1), (n,), generator=generator, device=edges.device)
    wanted = torch.where(low, heads[drawn] if len(heads) else degree, wanted)
    # Exponential waiting times: the first k of a row are a draw without replacement in proportion to the weights.
    uniform = torch.rand(len(keys), generator=generator, device=edges.device).clamp(min=1e-20)
    order = torch.argsort(-uniform.log() / weight)
    order = order[torch.argsort(keys[order] // n, stable=True)]
    sources = keys[order] // n
    kept = order[_earlier_with_same(sources) < wanted[sources]]
    ends = torch.stack([keys[kept] // n, keys[kept] % n], dim=1).sort(1).values
    found = torch.unique(ends[:, 0] * n + ends[:, 1])
    return torch.stack([found // n, found % n], dim=1)


def _noise(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Scores whose order is a sample without replacement with probability ∝ exp(score / 0.2)."""
    uniform = torch.rand(scores.shape, generator=generator, device=scores.device).clamp(min=1e-20)
    return scores / 0.2 - (-uniform.log()).log()


def _nearest(
    unit: Tensor, edges: Tensor, degree: Tensor, rows: Tensor, pool: int, group: Tensor | None, sampled: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(r, pool) most similar non-neighbours of some nodes and their scores, −inf where there are fewer."""
    n = len(unit)
    targets, scores = [], []
    known = unit.square().sum(1) > 0
    both = torch.cat([edges, edges.flip(1)])
    both = both[torch.argsort(both[:, 0], stable=True)]
    starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    for block in torch.split(rows, max(1, _BLOCK // n)):
        similar = (unit[block] @ unit.T).masked_fill_(~known[None], -torch.inf)
        if sampled:
            similar = _noise(similar, generator)
        if group is not None:
            similar.masked_fill_(group[block, None] != group[None], -torch.inf)
        counts = degree[block]
        inside = torch.repeat_interleave(torch.arange(len(block), device=unit.device), counts)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        place = torch.arange(len(inside), device=unit.device) - first + starts[block][inside]
        similar[inside, both[place, 1]] = -torch.inf
        similar[torch.arange(len(block), device=unit.device), block] = -torch.inf
        best = similar.topk(pool, dim=1)
        targets.append(best.indices)
        scores.append(best.values)
    return torch.cat(targets), torch.cat(scores)


def _nearest_on_walks(
    unit: Tensor, edges: Tensor, degree: Tensor, rows: Tensor, pool: int, group: Tensor | None, sampled: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `_nearest`, among the ends of random walks of two and three steps; O(r) memory and time."""
    n, width = len(unit), 4 * pool
    both = torch.cat([edges, edges.flip(1)])
    both = both[torch.argsort(both[:, 0] * n + both[:, 1])]
    keys = both[:, 0] * n + both[:, 1]
    starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    targets, scores = [], []
    for block in torch.split(rows, max(1, _BLOCK // (width * unit.shape[1]))):
        place = block[:, None].expand(-1, width)
        for step in range(3):
            uniform = torch.rand(place.shape, generator=generator, device=unit.device)
            edge = starts[place] + (uniform * degree[place]).long().clamp(max=degree[place] - 1)
            going = degree[place] > 0
            moved = torch.where(going, both[edge.clamp(min=0, max=len(both) - 1), 1], place)
            if step == 2:
                moved[:, : width // 2] = place[:, : width // 2]
            place = moved
        place = place.sort(1).values
        similar = torch.einsum("rd,rwd->rw", unit[block], unit[place])
        if sampled:
            similar = _noise(similar, generator)
        key = block[:, None] * n + place
        there = keys[torch.searchsorted(keys, key).clamp(max=len(keys) - 1)] == key
        repeated = torch.zeros_like(there)
        repeated[:, 1:] = place[:, 1:] == place[:, :-1]
        wrong = there | repeated | (place == block[:, None])
        if group is not None:
            wrong |= group[block, None] != group[place]
        best = similar.masked_fill(wrong, -torch.inf).topk(min(pool, width), dim=1)
        targets.append(place.gather(1, best.indices))
        scores.append(best.values)
    return torch.cat(targets), torch.cat(scores)


def _assign(
    rows: Tensor, targets: Tensor, scores: Tensor, want: Tensor, n: int, cap: int
) -> tuple[Tensor, Tensor, int]:
    """Edges from nodes that want some to their targets, best first; an edge counts for both its ends.

    In each round every node that still wants edges proposes its next target. A target that got `cap` edges is passed
    over at first; a second pass lets those that found nothing else go beyond the cap, since the degree is the point.
    """
    left = want.clone()
    received = torch.zeros(n, dtype=torch.long, device=rows.device)
    taken = torch.zeros(0, dtype=torch.long, device=rows.device)
    beyond = 0
    for capped in (True, False):
        for turn in range(targets.shape[1]):
            asks = (left[rows] > 0) & (scores[:, turn] > -torch.inf)
            source, target, score = rows[asks], targets[asks, turn], scores[asks, turn]
            key = torch.minimum(source, target) * n + torch.maximum(source, target)
            best = torch.argsort(score, descending=True, stable=True)
            source, target, key = source[best], target[best], key[best]
            fresh = _first_of_each(key) & ~torch.isin(key, taken)
            source, target, key = source[fresh], target[fresh], key[fresh]
            if capped:
                room = _earlier_with_same(target) < (cap - received)[target]
                source, target, key = source[room], target[room], key[room]
            else:
                beyond += len(key)
            if not len(key):
                continue
            taken = torch.cat([taken, key])
            received.index_add_(0, target, torch.ones_like(target))
            left -= torch.bincount(torch.cat([source, target]), minlength=n)
    taken = taken.sort().values
    return torch.stack([taken // n, taken % n], dim=1), received, beyond


def _first_of_each(keys: Tensor) -> Tensor:
    """(k,) whether an entry is the first with its key."""
    return _earlier_with_same(keys) == 0


def _k_means(unit: Tensor, clusters: int, generator: torch.Generator, rounds: int = 10) -> Tensor:
    """(n,) numbers of clusters of unit vectors."""
    count = min(clusters, len(unit))
    centres = unit[torch.randperm(len(unit), generator=generator, device=unit.device)[:count]]
    group = torch.zeros(len(unit), dtype=torch.long, device=unit.device)
    for _ in range(rounds):
        group = torch.cat([(part @ centres.T).argmax(1) for part in torch.split(unit, max(1, _BLOCK // count))])
        sums = torch.zeros_like(centres).index_add(0, group, unit)
        empty = torch.bincount(group, minlength=count) == 0
        centres = torch.where(empty[:, None], centres, F.normalize(sums, dim=1))
    return group
