"""Mining negatives from a batch or a corpus: hardest, semi-hard, within a band of percentiles, positive-aware.

All miners score tile by tile without gradient, take what may not be a negative as a mask (see
`kontrast.negatives.exclusion`) and return -1 where an anchor has no negative left, for which losses take
``mask=mined.mask``. To mine over the batches of all ranks, gather the candidates first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kontrast.negatives.exclusion import (
    Similarity,
    check_scores,
    check_sides,
    check_similarity,
    score_tiles,
)
from kontrast.ops.masks import Mask


class Mined(NamedTuple):
    """Negatives of n anchors, the hardest first unless sampled.

    Attributes:
        indices: (n, k) rows of the candidates, -1 where there is none.
        scores: (n, k) their similarities, -inf where there is none.
    """

    indices: Tensor
    scores: Tensor

    @property
    def mask(self) -> Tensor:
        """Bool (n, k): where there is a negative."""
        return self.indices >= 0

    def rows(self, candidates: Tensor) -> Tensor:
        """The rows (n, k, d) of `candidates` (m, d), differentiable; zero rows where there is no negative."""
        picked = candidates[self.indices.clamp(min=0).to(candidates.device)]
        return picked * self.mask.to(picked)[..., None]


@torch.no_grad()
def mine_hardest(
    anchors: Tensor,
    candidates: Tensor,
    exclude: Mask,
    k: int = 1,
    *,
    skip: int = 0,
    below: Tensor | None = None,
    above: Tensor | None = None,
    similarity: Similarity = "cosine",
) -> Mined:
    """The k candidates most similar to each anchor, of those that may be negatives.

    With a corpus as `candidates` this is the mining of retrieval training (arXiv 2007.00808). Its hardest hits are
    often unlabelled positives; `skip` drops the first of them, `below` those too near the positive's score.

    Memory is O(tile + n · k); the whole n × m is never held.

    Args:
        anchors: (n, d).
        candidates: (m, d); the batch, a queue or a corpus. May be of half precision; products are in float32.
        exclude: what may not be a negative, from `exclusions`.
        k: how many per anchor.
        skip: how many of the hardest to leave out.
        below: (n,) scores; only candidates scoring strictly lower are taken. See `positive_aware_limit`.
        above: (n,) scores; only candidates scoring strictly higher are taken.
        similarity: "cosine", "dot" or "euclidean" (minus the distance).

    Returns:
        `Mined`, hardest first. Equal scores come in no promised order.

    Raises:
        ValueError: if shapes do not fit, k < 1 or skip < 0.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> mine_hardest(x, x, exclusions(3)).indices.tolist()
        [[1], [0], [1]]
    """
    _check(anchors, candidates, k, similarity)
    if skip < 0:
        raise ValueError(f"'skip' must not be below 0, got {skip}")
    for bound, name in ((below, "below"), (above, "above")):
        if bound is not None:
            check_scores(bound, anchors, name)
    n, wanted = len(anchors), k + skip
    kind = torch.promote_types(anchors.dtype, torch.float32)
    best = torch.full((n, wanted), -torch.inf, dtype=kind, device=anchors.device)
    indices = torch.full((n, wanted), -1, dtype=torch.long, device=anchors.device)
    for first, last, start, scores, excluded in score_tiles(anchors, candidates, exclude, similarity):
        if below is not None:
            excluded = excluded | (scores >= below[first:last, None].to(scores))
        if above is not None:
            excluded = excluded | (scores <= above[first:last, None].to(scores))
        # A score that is not a number cannot be ranked, and topk would put it first.
        scores = scores.masked_fill(excluded | scores.isnan(), -torch.inf)
        found, places = scores.topk(min(wanted, scores.shape[1]), dim=1)
        together = torch.cat([best[first:last], found.to(kind)], dim=1)
        numbers = torch.cat([indices[first:last], places + start], dim=1)
        best[first:last], order = together.topk(wanted, dim=1)
        indices[first:last] = numbers.gather(1, order)
    indices.masked_fill_(best == -torch.inf, -1)
    return Mined(indices[:, skip:], best[:, skip:])


def mine_semi_hard(
    anchors: Tensor,
    candidates: Tensor,
    positive_scores: Tensor,
    exclude: Mask,
    k: int = 1,
    *,
    margin: float = 0.2,
    similarity: Similarity = "cosine",
) -> Mined:
    """The hardest negatives that are still less similar than the positive, but by less than `margin`.

    With distances, d(a, p) < d(a, n) < d(a, p) + margin (arXiv 1503.03832, section 3.2). They keep a triplet loss from
    collapsing early in training; a loss over all negatives of a batch does not need them.

    Args:
        anchors: (n, d).
        candidates: (m, d).
        positive_scores: (n,) similarity of each anchor with its positive, from `paired_scores`.
        exclude: what may not be a negative, from `exclusions`.
        k: how many per anchor.
        margin: width of the band, above 0, in units of the similarity.
        similarity: "cosine", "dot" or "euclidean" (minus the distance).

    Returns:
        `Mined`, hardest first.

    Raises:
        ValueError: if shapes do not fit, k < 1 or margin ≤ 0.

    Example:
        >>> x, p = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9])
        >>> y = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> mine_semi_hard(x, y, p, exclusions(1, 3, own=None)).indices.tolist()
        [[1]]
    """
    if not margin > 0:
        raise ValueError(f"'margin' must be above 0, got {margin}")
    check_scores(positive_scores, anchors, "positive_scores")
    return mine_hardest(
        anchors,
        candidates,
        exclude,
        k,
        below=positive_scores,
        above=positive_scores - margin,
        similarity=similarity,
    )


@torch.no_grad()
def mine_band(
    anchors: Tensor,
    candidates: Tensor,
    exclude: Mask,
    low: float,
    high: float,
    k: int = 1,
    *,
    generator: torch.Generator | None = None,
    similarity: Similarity = "cosine",
) -> Mined:
    """Negatives whose rank lies in a band of percentiles of each anchor's own negatives.

    An anchor with c possible negatives, sorted from the hardest, offers those of ranks floor(low · c) to
    ceil(high · c) - 1. A band such as (0.01, 0.1) passes over the likely false negatives and still is hard.

    Memory is O(tile + n · k) with tiles of whole rows.

    Args:
        anchors: (n, d).
        candidates: (m, d).
        exclude: what may not be a negative, from `exclusions`.
        low: where the band begins, 0 the hardest.
        high: where it ends, 1 the easiest; low < high.
        k: how many per anchor.
        generator: draws k of the band at random, without replacement; without one, the hardest k of the band.
        similarity: "cosine", "dot" or "euclidean" (minus the distance).

    Returns:
        `Mined`.

    Raises:
        ValueError: if shapes do not fit, k < 1 or the band is not within [0, 1].

    Example:
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> y = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
        >>> mine_band(x, y, exclusions(1, 4, own=None), 0.5, 1.0).indices.tolist()
        [[2]]
    """
    _check(anchors, candidates, k, similarity)
    if not 0 <= low < high <= 1:
        raise ValueError(f"the band needs 0 <= low < high <= 1, got low={low} and high={high}")
    n = len(anchors)
    kind = torch.promote_types(anchors.dtype, torch.float32)
    indices = torch.full((n, k), -1, dtype=torch.long, device=anchors.device)
    best = torch.full((n, k), -torch.inf, dtype=kind, device=anchors.device)
    for first, last, _, scores, excluded in score_tiles(anchors, candidates, exclude, similarity, whole_rows=True):
        out = excluded | scores.isnan()
        ranked, order = scores.masked_fill(out, -torch.inf).sort(dim=1, descending=True)
        count = (~out).sum(dim=1, keepdim=True).double()
        ranks = torch.arange(scores.shape[1], device=scores.device)
        within = (ranks >= (low * count).floor()) & (ranks < (high * count).ceil())
        # What is outside the band sorts behind; inside, by rank or by a random number.
        priority = ranks.expand_as(ranked).double()
        if generator is not None:
            priority = torch.rand(ranked.shape, generator=generator, device=generator.device).to(scores.device).double()
        priority = priority.masked_fill(~within, torch.inf)
        width = min(k, scores.shape[1])
        chosen, places = priority.topk(width, dim=1, largest=False)
        there = chosen < torch.inf
        indices[first:last, :width] = torch.where(there, order.gather(1, places), -1)
        best[first:last, :width] = torch.where(there, ranked.gather(1, places), -torch.inf).to(kind)
    return Mined(indices, best)


def positive_aware_limit(positive_scores: Tensor, *, margin: float | None = None, ratio: float | None = None) -> Tensor:
    """The score under which a candidate is believed to be negative (positive-aware mining, arXiv 2407.15831).

    Give it to `mine_hardest` as `below`. Exactly one of the two rules:

    Args:
        positive_scores: (n,), from `paired_scores`.
        margin: the limit is the positive's score minus `margin`.
        ratio: the limit is `ratio` times the positive's score, in (0, 1]; the paper finds 0.95 best. For scores below
            0 it is divided instead, so that the limit is always at or under the positive.

    Returns:
        (n,) limits.

    Raises:
        ValueError: unless exactly one rule is given, in its range.

    Example:
        >>> positive_aware_limit(torch.tensor([0.8]), ratio=0.5)
        tensor([0.4000])
    """
    if (margin is None) == (ratio is None):
        raise ValueError(f"give either 'margin' or 'ratio', got margin={margin} and ratio={ratio}")
    if margin is not None:
        return positive_scores - margin
    if ratio is None or not 0 < ratio <= 1:
        raise ValueError(f"'ratio' must be in (0, 1], got {ratio}")
    return torch.where(positive_scores > 0, positive_scores * ratio, positive_scores / ratio)


def sample_mined(mined: Mined, k: int, generator: torch.Generator) -> Mined:
    """k of each anchor's mined negatives at random, without replacement.

    Mining a pool of, say, 100 and drawing a few of them anew every epoch is softer than always taking the hardest.

    Args:
        mined: the pool, (n, pool).
        k: how many per anchor.
        generator: source of randomness, see `kontrast.randomness.torch_rng`.

    Returns:
        `Mined` of (n, k), -1 where the pool holds fewer.

    Raises:
        ValueError: if k < 1.
    """
    if k < 1:
        raise ValueError(f"'k' must be at least 1, got {k}")
    indices, scores = mined
    draws = torch.rand(indices.shape, generator=generator, device=generator.device).to(indices.device)
    order = draws.masked_fill(indices < 0, torch.inf).argsort(dim=1)[:, :k]
    short = (0, max(0, k - indices.shape[1]))
    picked = torch.nn.functional.pad(indices.gather(1, order), short, value=-1)
    return Mined(picked, torch.nn.functional.pad(scores.gather(1, order), short, value=-torch.inf))


def _check(anchors: Tensor, candidates: Tensor, k: int, similarity: Similarity) -> None:
    check_sides(anchors, candidates)
    check_similarity(similarity)
    if k < 1:
        raise ValueError(f"'k' must be at least 1, got {k}")
