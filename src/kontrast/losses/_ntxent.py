"""Two views or labels within one set: NT-Xent, GRACE and the decoupled loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import Group, Labels, Paired, Products, Rule, contrast
from kontrast.ops.rule import Denominator, NoPositive, Partition, Reduction


@combines("gathered_candidates", ring=True)
def nt_xent(
    z: Tensor,
    other: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    denominator: Denominator = "own_positive",
    no_positive: NoPositive = "skip",
    products: Products = "fp32",
    reduction: Reduction = "pairs",
    group: Group = None,
) -> Tensor:
    """NT-Xent (SimCLR): every row finds its positives among all other rows of both views.

    For each positive pair (i, p): −log exp(sᵢₚ) / D, s the cosine over T (arXiv 2002.05709 eq. 1). D says which of
    three losses of this name it is: "own_positive" has the pair's own positive and the negatives, "all" has every
    other row (with labels: the further positives too, as in SupCon), "negatives" leaves the positive out. With two
    views each row has one positive and the first two are the same. Choose `supcon` to average over anchors first.

    Args:
        z: (n, d) floating.
        other: (n, d), the second view; row i of both are a pair. Give this or `labels`.
        labels: (n,) integers; rows with equal labels are positives.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default), so that s is the cosine over T.
        denominator: see above.
        no_positive: "skip" rows without positives, or "error".
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "pairs" (mean over positive pairs, the default), "mean" over rows with positives, "anchors" over all
            rows, "sum" or "none".
        group: ranks whose rows are gathered.

    Returns:
        A scalar, or the rows' losses with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(nt_xent(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    if (other is None) == (labels is None):
        raise ValueError("nt_xent takes either a second view or labels")
    if labels is not None:
        rule = Rule(Labels(labels), denominator=denominator, no_positive=no_positive, reduction=reduction)
    else:
        rule = Rule(Paired(), partition="joint", denominator=denominator, no_positive=no_positive, reduction=reduction)
    return contrast(z, other, rule, temperature=temperature, normalize=normalize, products=products, group=group)


@combines("gathered_candidates", ring=True)
def grace(
    u: Tensor,
    v: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    ids: Tensor | None = None,
    weights: Tensor | None = None,
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """GRACE's node contrast: node i of one view finds itself in the other, against the nodes of both views.

    ℓ(uᵢ, vᵢ) = −log exp(s(uᵢ, vᵢ)) / (Σₖ exp(s(uᵢ, vₖ)) + Σₖ≠ᵢ exp(s(uᵢ, uₖ))), the mean over both views' nodes
    (arXiv 2006.04131 eq. 1, 2): one softmax over both sides ("joint"). Denominator: the positive and all negatives.
    Choose `clip_loss` if rows of one side should not repel each other.

    Args:
        u: (n, d) floating, projected nodes (or graphs) of the first view.
        v: (n, d), of the second.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default).
        ids: (n,) integers; rows with equal ids are not each other's negatives.
        weights: (n,) weights of the nodes in the mean.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" over 2n rows, "sum", or "none" for (2n,).
        group: ranks whose rows are gathered.

    Returns:
        A scalar, or (2n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(grace(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    rule = Rule(Paired(), ids=None if ids is None else (ids, None), partition="joint", reduction=reduction)
    return contrast(
        u, v, rule, temperature=temperature, normalize=normalize, anchor_weights=weights, products=products, group=group
    )


@combines("gathered_candidates", ring=True)
def dcl(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    partition: Partition = "joint",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    Lᵢ = −s(aᵢ, bᵢ) + log Σ over negatives of exp(s), s the cosine over T (arXiv 2110.06848 eq. 6). Without the positive
    below the line the gradient does not fade when the positive is already near, which helps small batches. The loss
    may be negative. Denominator: negatives only. A single row has no negative and is skipped.

    Args:
        a: (n, d) floating.
        b: (n, d), the second view.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default).
        partition: "joint" takes negatives from both views (the paper's), "separate" from the other view only, in both
            directions.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" or "sum".
        group: ranks whose rows are gathered.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(dcl(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)  # −1 + log 2
        -0.3069
    """
    directions: Literal["forward", "both"] = "forward" if partition == "joint" else "both"
    rule = Rule(Paired(), directions=directions, partition=partition, denominator="negatives", reduction=reduction)
    return contrast(a, b, rule, temperature=temperature, normalize=normalize, products=products, group=group)


class NTXent(Tempered):
    """`nt_xent` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, denominator, no_positive, products, reduction, group: as in `nt_xent`.
    """

    def __init__(
        self, temperature: float = 0.5, *, learnable: bool = False, normalize: bool = True,
        denominator: Denominator = "own_positive", no_positive: NoPositive = "skip",
        products: Products = "fp32", reduction: Reduction = "pairs", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, denominator=denominator, no_positive=no_positive,
            products=products, reduction=reduction, group=group,
        )  # fmt: skip

    def forward(self, z: Tensor, other: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The loss of z (n, d) with a second view (n, d) or with labels (n,)."""
        return nt_xent(z, other, labels=labels, **self.options())


class Grace(Tempered):
    """`grace` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, products, reduction, group: as in `grace`.
    """

    def __init__(
        self, temperature: float = 0.5, *, learnable: bool = False, normalize: bool = True,
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, products=products, reduction=reduction,
            group=group,
        )  # fmt: skip

    def forward(self, u: Tensor, v: Tensor, ids: Tensor | None = None) -> Tensor:
        """The loss of two views u (n, d) and v (n, d)."""
        return grace(u, v, ids=ids, **self.options())


class DCL(Tempered):
    """`dcl` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, partition, products, reduction, group: as in `dcl`.
    """

    def __init__(
        self, temperature: float = 0.1, *, learnable: bool = False, normalize: bool = True,
        partition: Partition = "joint", products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, partition=partition, products=products,
            reduction=reduction, group=group,
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of two views a (n, d) and b (n, d)."""
        return dcl(a, b, **self.options())
