"""Supervised and multi-positive contrast: labels, sparse lists of positives, prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import Group, Labels, Pairs, Products, Rule, contrast
from kontrast.ops.rule import Denominator, NoPositive, Reduction

Placement = Literal["out", "in"]


@combines("gathered_candidates", ring=True)
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    placement: Placement = "out",
    denominator: Denominator = "all",
    ids: Tensor | None = None,
    weights: Tensor | None = None,
    no_positive: NoPositive = "skip",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Supervised contrastive loss: every row finds the other rows of its class.

    With P(i) the other rows of i's label and D the sum over all other rows of exp(s), s the cosine over T
    (arXiv 2004.11362 eq. 2, 3): "out" is −1/|P| Σₚ log(exp(sᵢₚ)/D), "in" is −log(1/|P| Σₚ exp(sᵢₚ)/D). The paper finds
    "out" the better one; "in" is content with one near positive. Denominator "all" is the paper's; see `nt_xent` for
    the others. For several augmented views concatenate them and repeat the labels.

    Args:
        z: (n, d) floating.
        labels: (n,) integers.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default).
        placement: "out" or "in", where the mean over positives stands relative to the logarithm.
        denominator: "all", "own_positive" (only with "out") or "negatives".
        ids: (n,) integers; rows with equal ids are not each other's negatives.
        weights: (n,) weights of the anchors in the mean (class balancing, say).
        no_positive: "skip" rows alone in their class, or "error".
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" over rows with positives, "anchors" over all rows, "pairs", "sum" or "none".
        group: ranks whose rows are gathered.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> z = torch.eye(2).repeat(2, 1)
        >>> round(supcon(z, torch.tensor([0, 1, 0, 1]), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    if placement not in ("out", "in"):
        raise ValueError(f"placement is 'out' or 'in', got {placement!r}")
    rule = Rule(
        Labels(labels), inside="mean" if placement == "in" else False, ids=None if ids is None else (ids, None),
        denominator=denominator, no_positive=no_positive, reduction=reduction,
    )  # fmt: skip
    return contrast(
        z,
        None,
        rule,
        temperature=temperature,
        normalize=normalize,
        anchor_weights=weights,
        products=products,
        group=group,
    )


@combines("gathered_candidates", ring=True)
def multi_positive(
    anchors: Tensor,
    candidates: Tensor,
    positives: Pairs | Sequence[Sequence[int]],
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    placement: Placement = "in",
    denominator: Denominator = "all",
    known: Pairs | None = None,
    no_positive: NoPositive = "skip",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Several listed positives per anchor, summed inside the logarithm as in MIL-NCE.

    "in": Lᵢ = −log Σₚ exp(sᵢₚ) / (Σₚ exp(sᵢₚ) + Σₙ exp(sᵢₙ)), s the cosine over T (arXiv 1912.06430 eq. 1): the anchor
    may choose which of its positives are true. "out" is the mean over positives of −log(exp(sᵢₚ)/D): all are to be
    near. Denominator: positives and negatives. Choose `info_nce` for one positive each, `supcon` for labels.

    Args:
        anchors: (n, d) floating.
        candidates: (m, d).
        positives: one list of candidate indices per anchor, or `Pairs` (which may carry weights).
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default).
        placement: "in" or "out".
        denominator: "all", "own_positive" (only with "out") or "negatives".
        known: pairs that are neither positive nor negative.
        no_positive: "skip" anchors with an empty list, or "error".
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" over anchors with positives, "anchors" over all, "pairs", "sum" or "none".
        group: ranks whose candidates are gathered; indices then count the rank's own candidates.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes, types or indices do not fit.

    Example:
        >>> loss = multi_positive(torch.eye(3), torch.eye(3), [[0, 1], [1], [2]], temperature=1.0)
        >>> round(loss.item(), 4)
        0.447
    """
    if placement not in ("out", "in"):
        raise ValueError(f"placement is 'out' or 'in', got {placement!r}")
    if not isinstance(positives, Pairs):
        if len(positives) != len(anchors):
            raise ValueError(f"{len(positives)} lists of positives for {len(anchors)} anchors; each anchor needs one")
        positives = Pairs.from_lists(positives)
    rule = Rule(
        positives, inside=placement == "in", known=known, denominator=denominator,
        no_positive=no_positive, reduction=reduction,
    )  # fmt: skip
    return contrast(
        anchors, candidates, rule, temperature=temperature, normalize=normalize, products=products, group=group
    )


@combines("mean_of_locals")
def prototype_loss(
    z: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    *,
    prototype_labels: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    placement: Placement = "in",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Each row finds the prototypes of its class among all prototypes.

    Lᵢ = −log Σₚ exp(sᵢₚ) / Σⱼ exp(sᵢⱼ) over prototypes j, p those of the row's class, s the cosine over T
    (arXiv 2005.04966 eq. 11 without its instance term). With one prototype per class this is a softmax classifier on
    the sphere. Denominator: all prototypes.

    Args:
        z: (n, d) floating.
        labels: (n,) integers.
        prototypes: (c, d).
        prototype_labels: (c,) integers, several prototypes may share one; by default prototype j is class j's.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows and prototypes by their length (the default).
        placement: "in" is content with one near prototype of the class, "out" wants all of them near.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" over rows whose class has a prototype, "anchors" over all, "sum" or "none".
        group: ranks over which the mean is taken; prototypes are the same on all.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(prototype_loss(torch.eye(3), torch.arange(3), torch.eye(3), temperature=1.0).item(), 4)
        0.5514
    """
    if placement not in ("out", "in"):
        raise ValueError(f"placement is 'out' or 'in', got {placement!r}")
    if prototype_labels is None:
        prototype_labels = torch.arange(len(prototypes), device=prototypes.device)
    rule = Rule(Labels(labels, prototype_labels), inside=placement == "in", reduction=reduction)
    return contrast(
        z, prototypes, rule, temperature=temperature, normalize=normalize, products=products, group=group, gather=False
    )


class SupCon(Tempered):
    """`supcon` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, placement, denominator, no_positive, products, reduction, group: as in `supcon`.
    """

    def __init__(
        self, temperature: float = 0.1, *, learnable: bool = False, normalize: bool = True,
        placement: Placement = "out", denominator: Denominator = "all", no_positive: NoPositive = "skip",
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, placement=placement, denominator=denominator,
            no_positive=no_positive, products=products, reduction=reduction, group=group,
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor, ids: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """The loss of rows z (n, d) with labels (n,)."""
        return supcon(z, labels, ids=ids, weights=weights, **self.options())


class MultiPositive(Tempered):
    """`multi_positive` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, placement, denominator, no_positive, products, reduction, group: as in `multi_positive`.
    """

    def __init__(
        self, temperature: float = 0.07, *, learnable: bool = False, normalize: bool = True,
        placement: Placement = "in", denominator: Denominator = "all", no_positive: NoPositive = "skip",
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, placement=placement, denominator=denominator,
            no_positive=no_positive, products=products, reduction=reduction, group=group,
        )  # fmt: skip

    def forward(
        self,
        anchors: Tensor,
        candidates: Tensor,
        positives: Pairs | Sequence[Sequence[int]],
        known: Pairs | None = None,
    ) -> Tensor:
        """The loss of anchors (n, d) against candidates (m, d) with listed positives."""
        return multi_positive(anchors, candidates, positives, known=known, **self.options())


class PrototypeLoss(Tempered):
    """`prototype_loss` with learned prototypes.

    Args:
        classes: number of classes, c.
        dim: width d of a row.
        per_class: prototypes of each class.
        temperature: T at the start.
        learnable: whether T is learned.
        generator: draws the first prototypes; they are unit rows.
        normalize, placement, products, reduction, group: as in `prototype_loss`.
    """

    labels: Tensor

    def __init__(
        self, classes: int, dim: int, *, per_class: int = 1, temperature: float = 0.1, learnable: bool = False,
        generator: torch.Generator | None = None, normalize: bool = True, placement: Placement = "in",
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, placement=placement, products=products,
            reduction=reduction, group=group,
        )  # fmt: skip
        self.prototypes = nn.Parameter(F.normalize(torch.randn(classes * per_class, dim, generator=generator), dim=1))
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(per_class))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """The loss of rows z (n, d) with labels (n,)."""
        return prototype_loss(z, labels, self.prototypes, prototype_labels=self.labels, **self.options())
