"""Hinges with a margin: ranking, triplet, quadruplet and the in-batch hinge of VSE++."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from kontrast.losses._combine import combines
from kontrast.losses._rows import (
    Distance,
    as_pair,
    by_row_blocks,
    check_distance,
    paired_distance,
    pairwise_distance,
    prepared,
    unit_rows,
    widened,
)
from kontrast.ops import Group, all_gather_rows, gather_rows, joined_mean, joined_sum

Reduction = Literal["mean", "active", "sum", "none"]
Negatives = Literal["hardest", "sum"]


@combines("mean_of_locals")
def ranking_hinge(
    positive: Tensor,
    negative: Tensor,
    margin: float | Tensor = 0.2,
    *,
    mask: Tensor | None = None,
    soft: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Hinge on scores: every negative must score at least `margin` below its positive.

    ``loss_ik = max(0, margin_ik - positive_i + negative_ik)``, or log(1 + exp(.)) of the same argument if `soft`
    (the soft margin of arXiv 1703.07737).

    For many negatives per anchor a softmax objective uses all of them at once and needs no margin.

    Args:
        positive: (n,) scores of the positives; higher is nearer.
        negative: (n,) or (n, k) scores of the negatives.
        margin: a number, one per anchor (n,), or one per negative in the shape of `negative`; gradients reach it.
        mask: in the shape of `negative`; False where there is no negative (as where a miner returns -1).
        soft: softplus instead of the hinge, so that satisfied pairs keep a small gradient.
        reduction: "mean" over the pairs that `mask` keeps, "active" over those with a hinge above 0, "sum", or "none"
            for all in the shape of `negative` (0 where masked). Without any pair, a mean is 0 and has zero gradients.
        group: ranks over whose pairs the mean is taken; ranks may hold different numbers of pairs.

    Returns:
        A scalar, or (n,) / (n, k) for "none".

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> round(ranking_hinge(torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.6]), margin=0.2).item(), 4)
        0.15
    """
    _check_reduction(reduction)
    if positive.ndim != 1 or negative.ndim not in (1, 2) or negative.shape[0] != positive.shape[0]:
        raise ValueError(
            f"'positive' must be (n,) and 'negative' (n,) or (n, k), got {tuple(positive.shape)} and "
            f"{tuple(negative.shape)}"
        )
    if not (positive.is_floating_point() and negative.is_floating_point()):
        raise ValueError(f"scores must be of a floating point dtype, got {positive.dtype} and {negative.dtype}")
    scores, positives = widened(negative), widened(positive)
    argument = _margins(margin, scores) - (positives if scores.ndim == 1 else positives[:, None]) + scores
    return _reduce(_hinge(argument, soft), mask, reduction, group)


@combines("mean_of_locals")
def triplet_from_distances(
    positive: Tensor,
    negative: Tensor,
    margin: float | Tensor = 0.2,
    *,
    mask: Tensor | None = None,
    soft: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Triplet hinge ``max(0, margin + d(a, p) - d(a, n))`` (arXiv 1503.03832, equation 2) on given distances.

    Args:
        positive: (n,) distances from anchor to positive; lower is nearer.
        negative: (n,) or (n, k) distances from anchor to negatives.
        margin: see `ranking_hinge`, as are `mask`, `soft`, `reduction` and `group`.
        mask: see `ranking_hinge`.
        soft: see `ranking_hinge`.
        reduction: see `ranking_hinge`.
        group: see `ranking_hinge`.

    Returns:
        A scalar, or (n,) / (n, k) for reduction "none".

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> round(triplet_from_distances(torch.tensor([0.1]), torch.tensor([0.2]), margin=0.2).item(), 4)
        0.1
    """
    return ranking_hinge(-positive, -negative, margin, mask=mask, soft=soft, reduction=reduction, group=group)


@combines("mean_of_locals")
def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | Tensor = 0.2,
    *,
    distance: Distance = "cosine",
    mask: Tensor | None = None,
    soft: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Triplet hinge ``max(0, margin + d(a, p) - d(a, n))`` (arXiv 1503.03832, equation 2) on explicit triplets.

    Negatives usually come from a miner of `kontrast.negatives`. When the batch itself is to serve as negatives, take
    `in_batch_hinge`, or a softmax objective.

    Args:
        anchor: (n, d).
        positive: (n, d).
        negative: (n, d), or (n, k, d) for k negatives per anchor.
        margin: a number, (n,), or (n, k) beside k negatives; in units of `distance`.
        distance: "cosine" (1 - cosine, in [0, 2]), "euclidean", or "squared" Euclidean as in the paper.
        mask: (n,) or (n, k); False where there is no negative.
        soft: see `ranking_hinge`.
        reduction: see `ranking_hinge`.
        group: see `ranking_hinge`.

    Returns:
        A scalar, or (n,) / (n, k) for reduction "none".

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> a, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> round(triplet(a, p, n, margin=0.2).item(), 4)
        0.2
    """
    check_distance(distance)
    a, p = as_pair(anchor, positive, "anchor", "positive")
    n = _negatives(negative, a, "negative")
    to_negative = paired_distance(a if n.ndim == 2 else a[:, None], n, distance)
    return triplet_from_distances(
        paired_distance(a, p, distance), to_negative, margin, mask=mask, soft=soft, reduction=reduction, group=group
    )


@combines("mean_of_locals")
def quadruplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    second_negative: Tensor,
    margin: float | Tensor = 0.2,
    second_margin: float | Tensor = 0.1,
    *,
    distance: Distance = "squared",
    soft: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
    group: Group = None,
) -> Tensor:
    """Quadruplet hinge (arXiv 1704.01719, equation 3).

    ``max(0, m1 + d(a, p) - d(a, n)) + max(0, m2 + d(a, p) - d(n, n2))``

    The second hinge keeps the positive pair closer than any pair of different classes, also one without the anchor,
    which spreads classes further apart than `triplet` does.

    Args:
        anchor: (n, d).
        positive: (n, d), of the anchor's class.
        negative: (n, d), of another class.
        second_negative: (n, d), of a third class, neither the anchor's nor the negative's.
        margin: m1, a number or (n,).
        second_margin: m2, a number or (n,); smaller than m1 in the paper.
        distance: "cosine", "euclidean" or "squared".
        soft: see `ranking_hinge`.
        reduction: "mean" over anchors, "sum" or "none".
        group: see `ranking_hinge`.

    Returns:
        A scalar, or (n,) for reduction "none".

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> row = torch.tensor([[1.0, 0.0]])
        >>> round(quadruplet(row, row, row, row, 0.2, 0.1).item(), 4)
        0.3
    """
    check_distance(distance)
    _check_reduction(reduction, ("mean", "sum", "none"))
    a, p = as_pair(anchor, positive, "anchor", "positive")
    _, n = as_pair(anchor, negative, "anchor", "negative")
    _, other = as_pair(anchor, second_negative, "anchor", "second_negative")
    near = paired_distance(a, p, distance)
    first = _hinge(_margins(margin, near) + near - paired_distance(a, n, distance), soft)
    second = _hinge(_margins(second_margin, near) + near - paired_distance(n, other, distance), soft)
    return _reduce(first + second, None, reduction, group)


@combines("gathered_candidates")
def in_batch_hinge(
    x: Tensor,
    y: Tensor,
    margin: float | Tensor = 0.2,
    *,
    negatives: Negatives = "hardest",
    distance: Distance = "cosine",
    ids: Tensor | None = None,
    reference: Tensor | None = None,
    symmetric: bool = True,
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Hinge of paired rows against the rest of the batch: max of hinges (VSE++) or sum of hinges.

    With d the distance and j over all rows that are not positives of i (arXiv 1707.05612, equations 5 and 6)::

        loss = 1/n · Σ_i  agg_j [m_ij + d(x_i, y_i) - d(x_i, y_j)]_+  +  agg_j [m_ij + d(x_i, y_i) - d(x_j, y_i)]_+

    where agg is the max over j ("hardest") or the sum. Rows without any negative contribute 0. The hardest negative
    is sensitive to false negatives: give `ids`, start from a warmed-up encoder or begin with "sum". A softmax
    objective such as InfoNCE needs no margin and is usually easier to train.

    Args:
        x: (n, d) one side of the pairs.
        y: (n, d) the other side.
        margin: m, a number or one per pair (n,); gradients reach it.
        negatives: "hardest" or "sum".
        distance: "cosine" (the paper's), "euclidean" or "squared".
        ids: (n,) integers; rows with equal ids are never negatives of each other.
        reference: (n, r) features in which resemblance is known, such as embeddings of the captions by another
            model. The margin becomes dynamic, ``m_ij = m_i (1 - cos(r_i, r_j)) / 2``: small between rows that are
            alike there. Gradients do not reach it.
        symmetric: both directions, or from x to y only.
        block: anchors per tile; changes memory, not the value.
        group: ranks over which candidates are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> x = torch.eye(2)
        >>> in_batch_hinge(x, x, margin=1.5).item()
        1.0
    """
    x, y = as_pair(x, y, "x", "y")
    if negatives not in ("hardest", "sum"):
        raise ValueError(f"unknown negatives '{negatives}'; known: hardest, sum")
    x, y = prepared(x, distance), prepared(y, distance)
    everyone_y, before = gather_rows(y, group)
    everyone_x = all_gather_rows(x, group) if symmetric else x
    keys = _check_ids(ids, x)
    every_key = None if keys is None else all_gather_rows(keys, group)
    like = None if reference is None else unit_rows(as_pair(x, reference, "x", "reference", columns=False)[1].detach())
    every_like = None if like is None else all_gather_rows(like, group)
    margins = _margins(margin, x[:, 0]).expand(x.shape[0])

    def to_positive(one: Tensor, other: Tensor) -> Tensor:
        # Unit rows are not normalised a second time, so that both terms of the hinge round alike.
        return 1 - (one * other).sum(dim=1) if distance == "cosine" else paired_distance(one, other, distance)

    def rows_of(first: int, last: int, mine: Tensor, other: Tensor, candidates: Tensor, m: Tensor) -> Tensor:
        near = to_positive(mine[first:last], other[first:last])
        wanted = m[first:last, None]
        if like is not None and every_like is not None:
            wanted = wanted * (1 - like[first:last] @ every_like.T) / 2
        hinges = (wanted + near[:, None] - pairwise_distance(mine[first:last], candidates, distance)).clamp(min=0)
        if keys is not None and every_key is not None:
            excluded = keys[first:last, None] == every_key[None]
        else:
            places = torch.arange(candidates.shape[0], device=mine.device)
            excluded = places[first + before : last + before, None] == places[None]
        hinges = hinges.masked_fill(excluded, 0)
        return hinges.amax(dim=1) if negatives == "hardest" else hinges.sum(dim=1)

    width = everyone_y.shape[0]
    rows = by_row_blocks(rows_of, x.shape[0], width, block, x, y, everyone_y, margins)
    if symmetric:
        rows = rows + by_row_blocks(rows_of, x.shape[0], width, block, y, x, everyone_x, margins)
    return joined_mean(rows.sum(), rows.numel(), group)


class Triplet(nn.Module):
    """`triplet` as an object; it owns no state.

    Args:
        margin: in units of `distance`.
        distance: "cosine", "euclidean" or "squared".
        soft: softplus instead of the hinge.
        reduction: see `ranking_hinge`.
        group: see `ranking_hinge`.

    Example:
        >>> row = torch.tensor([[1.0, 0.0]])
        >>> round(Triplet(margin=0.2)(row, row, row).item(), 4)
        0.2
    """

    combine = "mean_of_locals"

    def __init__(
        self,
        margin: float = 0.2,
        *,
        distance: Distance = "cosine",
        soft: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
    ) -> None:
        super().__init__()
        check_distance(distance)
        _check_reduction(reduction)
        self.margin = margin
        self.distance: Distance = distance
        self.soft = soft
        self.reduction: Reduction = reduction
        self.group = group

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of triplets; shapes as in `triplet`."""
        return triplet(
            anchor,
            positive,
            negative,
            self.margin,
            distance=self.distance,
            mask=mask,
            soft=self.soft,
            reduction=self.reduction,
            group=self.group,
        )


class InBatchHinge(nn.Module):
    """`in_batch_hinge` as an object; it owns no state.

    Args:
        margin: in units of `distance`.
        negatives: "hardest" (VSE++) or "sum".
        distance: "cosine", "euclidean" or "squared".
        symmetric: both directions, or from x to y only.
        block: see `in_batch_hinge`.
        group: see `in_batch_hinge`.

    Example:
        >>> InBatchHinge(margin=1.5)(torch.eye(2), torch.eye(2)).item()
        1.0
    """

    combine = "gathered_candidates"

    def __init__(
        self,
        margin: float = 0.2,
        *,
        negatives: Negatives = "hardest",
        distance: Distance = "cosine",
        symmetric: bool = True,
        block: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        check_distance(distance)
        self.margin = margin
        self.negatives: Negatives = negatives
        self.distance: Distance = distance
        self.symmetric = symmetric
        self.block = block
        self.group = group

    def forward(self, x: Tensor, y: Tensor, ids: Tensor | None = None, reference: Tensor | None = None) -> Tensor:
        """The loss of pairs x, y (n, d) with optional ids (n,) and reference features (n, r)."""
        return in_batch_hinge(
            x,
            y,
            self.margin,
            negatives=self.negatives,
            distance=self.distance,
            ids=ids,
            reference=reference,
            symmetric=self.symmetric,
            block=self.block,
            group=self.group,
        )


def _hinge(argument: Tensor, soft: bool) -> Tensor:
    return functional.softplus(argument) if soft else argument.clamp(min=0)


def _margins(margin: float | Tensor, values: Tensor) -> Tensor:
    """The margin in the dtype of `values` and of a shape that broadcasts against it."""
    m = torch.as_tensor(margin, dtype=values.dtype, device=values.device)
    if m.ndim == 1 and m.shape[0] == values.shape[0]:
        return m if values.ndim == 1 else m[:, None]
    if m.ndim != 0 and m.shape != values.shape:
        allowed = sorted({(), tuple(values.shape[:1]), tuple(values.shape)}, key=len)
        raise ValueError(f"'margin' must have one of the shapes {allowed}, got {tuple(m.shape)}")
    return m


def _negatives(negative: Tensor, anchor: Tensor, name: str) -> Tensor:
    fits = negative.ndim in (2, 3) and (negative.shape[0], negative.shape[-1]) == tuple(anchor.shape)
    if not fits:
        raise ValueError(
            f"'{name}' must be (n, d) or (n, k, d) with (n, d) = {tuple(anchor.shape)} of the anchor, "
            f"got {tuple(negative.shape)}"
        )
    if not negative.is_floating_point() or widened(negative).dtype != anchor.dtype:
        raise ValueError(f"'{name}' is {negative.dtype} and 'anchor' is {anchor.dtype}; they must be of one precision")
    return widened(negative)


def _check_ids(ids: Tensor | None, x: Tensor) -> Tensor | None:
    if ids is None:
        return None
    if ids.shape != x.shape[:1] or ids.is_floating_point():
        raise ValueError(f"'ids' must be integers of shape ({x.shape[0]},), got {ids.dtype} of {tuple(ids.shape)}")
    return ids.to(x.device)


def _check_reduction(reduction: str, known: tuple[str, ...] = ("mean", "active", "sum", "none")) -> None:
    if reduction not in known:
        raise ValueError(f"unknown reduction '{reduction}'; known: {', '.join(known)}")


def _reduce(values: Tensor, mask: Tensor | None, reduction: Reduction, group: Group) -> Tensor:
    if mask is not None:
        if mask.shape != values.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"'mask' must be bool of shape {tuple(values.shape)}, got {mask.dtype} of {tuple(mask.shape)}"
            )
        values = values.masked_fill(~mask, 0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return joined_sum(values.sum(), group)
    if reduction == "active":
        return joined_mean(values.sum(), (values.detach() > 0).sum(), group)
    return joined_mean(values.sum(), values.numel() if mask is None else mask.sum(), group)
