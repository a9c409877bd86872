"""Rank-N-Contrast: representations ordered like a continuous label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kontrast.losses._combine import combines
from kontrast.losses._rows import Distance, as_matrix, by_row_blocks, need_rows, pairwise_distance, prepared
from kontrast.ops import Group, all_gather_rows, gather_rows, joined_mean

LabelDistance = Literal["l1", "l2"]
LabelDistances = Callable[[Tensor, Tensor], Sequence[Tensor]]


@combines("gathered_candidates")
def rank_n_contrast(
    features: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 2.0,
    *,
    distance: Distance = "euclidean",
    label_distance: LabelDistance = "l1",
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Rank-N-Contrast for continuous labels (arXiv 2210.01189, equations 1 and 2).

    Every other sample j serves as the positive of anchor i once; its negatives are the samples whose label is at
    least as far from the anchor's as j's label is. Samples are thus ranked by label without choosing a threshold::

        loss = 1 / (n (n-1)) · Σ_i Σ_{j≠i} -log( exp(s_ij / T) / Σ_{k≠i, d(i,k) ≥ d(i,j)} exp(s_ik / T) )

    with s = -distance (cosine similarity for "cosine") and d the distance of labels. All k whose label is exactly as
    far as j's belong to the denominator, j among them. Per anchor, labels are sorted once and the denominators are
    the running sums of that order, so time is O(n² (d + log n)) and memory O(block · n + n · d).

    For classes use a supervised softmax objective instead; for pairs without labels InfoNCE.

    Args:
        features: (n, d), n ≥ 2. Two views of a sample are two rows with the same label.
        labels: (n,) or (n, k), finite numbers. Distances are compared as computed in float64: labels such as 0.1 and
            0.3, which binary numbers do not hold exactly, may miss a tie that they have on paper.
        temperature: T > 0; a tensor may be learned. The paper uses 2 with Euclidean distances; take about 0.1 for
            "cosine".
        distance: "euclidean" as in the paper, "squared" or "cosine".
        label_distance: "l1" (the paper's) or "l2" over the k columns of `labels`.
        block: anchors per tile; changes memory, not the value.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: for wrong shapes or dtypes, fewer than 2 rows, labels that are not finite, or a temperature ≤ 0.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> round(rank_n_contrast(x, torch.tensor([0.0, 1.0, 3.0]), temperature=1.0).item(), 4)
        0.1256
    """
    x = as_matrix(features, "features")
    y = _as_labels(labels, x)
    if label_distance not in ("l1", "l2"):
        raise ValueError(f"unknown label distance '{label_distance}'; known: l1, l2")
    scale = torch.as_tensor(temperature, dtype=x.dtype, device=x.device)
    if scale.numel() != 1 or not bool(scale > 0):
        raise ValueError(f"'temperature' must be one number above 0, got {temperature}")
    x = prepared(x, distance)
    everyone, before = gather_rows(x, group)
    every_label = all_gather_rows(y, group)
    n = everyone.shape[0]
    need_rows(everyone, 2, "features")
    norm = 1.0 if label_distance == "l1" else 2.0

    def rows_of(first: int, last: int, mine: Tensor, all_rows: Tensor, t: Tensor) -> Tensor:
        # Cosine distances differ from minus the similarity by the constant 1, which the softmax cancels.
        logits = -pairwise_distance(mine[first:last], all_rows, distance) / t
        label_distances = torch.cdist(y[first:last], every_label, p=norm, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(before + first, before + last, device=x.device)[:, None]
        result: Tensor = _RankedRows.apply(logits, label_distances, own)  # type: ignore[no-untyped-call]
        return result

    rows = by_row_blocks(rows_of, x.shape[0], n, block, x, everyone, scale.reshape(()))
    return joined_mean(rows.sum(), rows.numel(), group) / (n - 1)


@combines("gathered_candidates")
def ranked_sets_contrast(
    features: Tensor,
    labels: Tensor,
    label_distances: LabelDistances,
    temperature: float | Tensor = 1.0,
    *,
    classes: Tensor | None = None,
    distance: Distance = "euclidean",
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Rank-N-Contrast whose negatives are farther in every one of several label distances (arXiv 2508.14358).

    The candidates of the pair (i, j) are the samples k ≠ i of the anchor's class that are at least as far from i as j
    is, in each distance D_1 ... D_m::

        S_ij = { k ≠ i : D_l(i,k) ≥ D_l(i,j) for all l }
        loss = mean over classes of 1 / (n (n-1)) · Σ_i Σ_{j≠i} -log( exp(s_ij / T) / Σ_{k∈S_ij} exp(s_ik / T) )

    With one distance and one class this is `rank_n_contrast`. With two (how far in rotation, how far in translation) it
    is the strict set of the hierarchy; a sum of terms with one and with two distances is the whole of it. Classes with
    fewer than three rows are left out: with two rows there is one candidate, and the loss is 0 whatever the features.

    One distance takes O(n² (d + log n)) time per class; several take O(n³) time and memory O(block · n²).

    Args:
        features: (n, d), n ≥ 2.
        labels: (n, k) finite numbers that `label_distances` understands; compared in float64.
        label_distances: from labels (b, k) of anchors and (m, k) of all samples to matrices (b, m), one for each
            distance, at least one; at least 0 and equal for equal pairs.
        temperature: T > 0; a tensor may be learned.
        classes: (n,) class of each row, whole numbers, or None: all are of one class.
        distance: "euclidean", "squared" or "cosine", of the features.
        block: anchors per tile; changes memory, not the value.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar; 0 with zero gradients if no class has three rows.

    Raises:
        ValueError: for wrong shapes or dtypes, labels or distances that are not finite, or a temperature ≤ 0.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> apart = lambda a, b: [torch.cdist(a, b)]
        >>> round(ranked_sets_contrast(x, torch.tensor([[0.0], [1.0], [3.0]]), apart).item(), 4)
        0.1256
    """
    x = as_matrix(features, "features")
    y = _as_labels(labels, x)
    scale = torch.as_tensor(temperature, dtype=x.dtype, device=x.device)
    if scale.numel() != 1 or not bool(scale > 0):
        raise ValueError(f"'temperature' must be one number above 0, got {temperature}")
    if classes is None:
        classes = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if classes.shape != x.shape[:1] or classes.is_floating_point():
        raise ValueError(f"'classes' must be whole numbers of shape ({len(x)},), got {tuple(classes.shape)}")
    x = prepared(x, distance)
    everyone, before = gather_rows(x, group)
    every_label, every_class = all_gather_rows(y, group), all_gather_rows(classes, group)
    need_rows(everyone, 2, "features")
    # The empty sum keeps every rank's part of the gathering in the graph, also one without a row in any class.
    terms, nothing = [], everyone[:0].sum() + x[:0].sum() + scale.reshape(-1)[:0].sum()
    for one in torch.unique(every_class):
        members = torch.nonzero(every_class == one)[:, 0]
        if len(members) < 3:
            continue
        mine = torch.nonzero(classes == one)[:, 0]
        # Places of this rank's own rows among the members.
        own = torch.searchsorted(members, mine + before)
        total = nothing
        if len(mine):
            rows = _rows_of_class(
                x[mine], everyone[members], own, y[mine], every_label[members], label_distances, scale, distance, block
            )
            total = rows.sum() + nothing
        terms.append(joined_mean(total, len(mine), group) / (len(members) - 1))
    return torch.stack(terms).mean() if terms else nothing


def _rows_of_class(
    x: Tensor,
    everyone: Tensor,
    own: Tensor,
    y: Tensor,
    every_label: Tensor,
    label_distances: LabelDistances,
    scale: Tensor,
    distance: Distance,
    block: int | None,
) -> Tensor:
    """(b,) Σ_j (log denominator - logit) of the anchors of one class."""
    n = len(everyone)
    columns = n

    def rows_of(first: int, last: int, mine: Tensor, all_rows: Tensor, t: Tensor) -> Tensor:
        logits = -pairwise_distance(mine[first:last], all_rows, distance) / t
        found = label_distances(y[first:last], every_label)
        for matrix in found:
            if matrix.shape != logits.shape or not bool(torch.isfinite(matrix).all()):
                raise ValueError(
                    f"'label_distances' must give finite matrices of shape {tuple(logits.shape)}, "
                    f"got {tuple(matrix.shape)} or numbers that are not finite"
                )
        places = own[first:last, None]
        if len(found) == 1:
            ranked: Tensor = _RankedRows.apply(logits, found[0], places)  # type: ignore[no-untyped-call]
            return ranked
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, places, False)
        candidates = others[:, None, :]
        for matrix in found:
            candidates = candidates & (matrix[:, None, :] >= matrix[:, :, None])
        # Row j of an anchor: log of the sum over the candidates of the pair (anchor, j).
        sums = logits[:, None, :].masked_fill(~candidates, -math.inf).logsumexp(2)
        return torch.where(others, sums - logits, 0.0).sum(1)

    if block is None and len(label_distances(y[:1], every_label[:1])) > 1:
        columns = n * n
    return by_row_blocks(rows_of, len(x), columns, block, x, everyone, scale.reshape(()))


def _as_labels(labels: Tensor, x: Tensor) -> Tensor:
    if labels.ndim not in (1, 2) or labels.shape[0] != x.shape[0]:
        raise ValueError(
            f"'labels' must be ({x.shape[0]},) or ({x.shape[0]}, k) for features of shape {tuple(x.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.is_complex():
        raise ValueError(f"'labels' must be real numbers, got {labels.dtype}")
    wide = labels.detach().to(x.device, torch.float64)
    if not bool(torch.isfinite(wide).all()):
        raise ValueError("'labels' must be finite, got nan or infinity")
    return wide if wide.ndim == 2 else wide[:, None]


class _RankedRows(torch.autograd.Function):
    """Per row Σ_j (log denominator of j - logit of j), with the gradient in closed form.

    Sorting labels from far to near makes every denominator a prefix sum that ends where j's group of ties ends. The
    gradient with respect to logit k collects the denominators that hold k, a suffix sum from where k's group begins.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label_distances: Tensor, own: Tensor) -> Tensor:
        # The anchor itself sorts to the end, with weight zero.
        far_to_near, order = label_distances.scatter(1, own, -math.inf).sort(dim=1, descending=True)
        ordered = logits.scatter(1, own, -math.inf).gather(1, order)
        columns = torch.arange(ordered.shape[1], device=logits.device).expand_as(ordered)
        fresh = far_to_near.diff(dim=1) != 0
        edge = fresh.new_ones(fresh.shape[0], 1)
        starts = torch.where(torch.cat([edge, fresh], 1), columns, 0).cummax(dim=1).values
        last = ordered.shape[1] - 1
        ends = torch.where(torch.cat([fresh, edge], 1), columns, last).flip(1).cummin(dim=1).values.flip(1)
        denominators = ordered.logcumsumexp(dim=1).gather(1, ends)[:, :-1]
        ctx.save_for_backward(ordered[:, :-1], denominators, starts[:, :-1], order)
        return (denominators - ordered[:, :-1]).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        ordered, denominators, starts, order = ctx.saved_tensors
        suffix = (-denominators).flip(1).logcumsumexp(dim=1).flip(1).gather(1, starts)
        gradient = ((ordered + suffix).exp() - 1) * upstream[:, None]
        padded = torch.nn.functional.pad(gradient, (0, 1))
        return torch.zeros_like(padded).scatter(1, order, padded), None, None


class RankNContrast(nn.Module):
    """`rank_n_contrast` with a fixed or learned temperature.

    Args:
        temperature: T, or where it starts when learned.
        learn_temperature: whether T is a parameter (kept as its logarithm, so that it stays above 0).
        distance: see `rank_n_contrast`.
        label_distance: see `rank_n_contrast`.
        block: see `rank_n_contrast`.
        group: see `rank_n_contrast`.

    Example:
        >>> loss = RankNContrast(temperature=1.0)
        >>> round(loss(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0.0, 1.0, 3.0])).item(), 4)
        0.1256
    """

    combine = "gathered_candidates"

    def __init__(
        self,
        temperature: float = 2.0,
        *,
        learn_temperature: bool = False,
        distance: Distance = "euclidean",
        label_distance: LabelDistance = "l1",
        block: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' must be above 0, got {temperature}")
        self.fixed = None if learn_temperature else float(temperature)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None
        self.distance: Distance = distance
        self.label_distance: LabelDistance = label_distance
        self.block = block
        self.group = group

    @property
    def temperature(self) -> Tensor | float:
        """The temperature in use."""
        return float(self.fixed or 0.0) if self.log_temperature is None else self.log_temperature.exp()

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of `features` (n, d) with `labels` (n,) or (n, k)."""
        return rank_n_contrast(
            features,
            labels,
            self.temperature,
            distance=self.distance,
            label_distance=self.label_distance,
            block=self.block,
            group=self.group,
        )
