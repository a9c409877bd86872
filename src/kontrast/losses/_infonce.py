"""InfoNCE: each anchor finds its own candidate among all (one-way, and symmetric as in CLIP)."""

from __future__ import annotations

from torch import Tensor

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import Group, Paired, Products, Rule, contrast
from kontrast.ops.rule import Reduction


@combines("gathered_candidates", ring=True)
def info_nce(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    ids: Tensor | None = None,
    candidate_ids: Tensor | None = None,
    hard_negatives: Tensor | None = None,
    log_weights: Tensor | None = None,
    weights: Tensor | None = None,
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """InfoNCE, one way: anchor i against all candidates, of which candidate i is its positive.

    Lᵢ = −log exp(sᵢᵢ) / Σⱼ exp(sᵢⱼ), s the dot product over T (arXiv 1807.03748 eq. 4; with hard negatives it is the
    "multiple negatives ranking" loss of text retrieval). The denominator holds the positive and all negatives. Choose
    `clip_loss` where both sides should find each other, `supcon` where labels say who belongs together.

    Args:
        anchors: (n, d) floating.
        candidates: (m, d), m ≥ n; rows beyond n are further negatives.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length, so that s is the cosine over T (the default).
        ids: (n,) integers; a candidate with the anchor's id is no negative of it (duplicates).
        candidate_ids: (m,), needed with `ids` where m ≠ n; by default the anchors' ids.
        hard_negatives: (n, k, d), negatives of each anchor alone.
        log_weights: (m,) added to the candidates' logits as negatives (−log of their sampling probability).
        weights: (n,) weights of the anchors in the mean.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean", "sum" or "none".
        group: ranks whose candidates are gathered; `kontrast.ops.gather` states the convention.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(info_nce(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    rule = Rule(Paired(), ids=None if ids is None else (ids, candidate_ids), reduction=reduction)
    return contrast(
        anchors, candidates, rule, temperature=temperature, normalize=normalize, hard_negatives=hard_negatives,
        log_weights=log_weights, anchor_weights=weights, products=products, group=group,
    )  # fmt: skip


@combines("gathered_candidates", ring=True)
def clip_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    ids: Tensor | None = None,
    weights: Tensor | None = None,
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """CLIP's loss: row i of each side finds row i of the other; the mean of the two directions.

    L = ½ (InfoNCE(a → b) + InfoNCE(b → a)), each direction with its own softmax over the other side
    (arXiv 2103.00020, figure 3). Denominator: the positive and all negatives. Choose `info_nce` where only one side
    asks, `grace` for two views of one thing, `sigmoid_loss` where batches are small or pairs are noisy.

    Args:
        a: (n, d) floating.
        b: (n, d).
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length, so that s is the cosine over T (the default).
        ids: (n,) integers; rows with equal ids are not each other's negatives (pairs that share an image, say).
        weights: (n,) weights of the pairs in the mean.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" or "sum" (half the sum over both directions' rows).
        group: ranks whose rows are gathered; `kontrast.ops.gather` states the convention.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(clip_loss(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    rule = Rule(Paired(), ids=None if ids is None else (ids, None), directions="both", reduction=reduction)
    return contrast(
        a, b, rule, temperature=temperature, normalize=normalize, anchor_weights=weights, products=products, group=group
    )


class InfoNCE(Tempered):
    """`info_nce` with a temperature of its own.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, products, reduction, group: as in `info_nce`.
    """

    def __init__(
        self, temperature: float = 0.07, *, learnable: bool = False, normalize: bool = True,
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, products=products, reduction=reduction,
            group=group,
        )  # fmt: skip

    def forward(
        self, anchors: Tensor, candidates: Tensor, ids: Tensor | None = None, hard_negatives: Tensor | None = None
    ) -> Tensor:
        """The loss of anchors (n, d) against candidates (m, d)."""
        return info_nce(anchors, candidates, ids=ids, hard_negatives=hard_negatives, **self.options())


class ClipLoss(Tempered):
    """`clip_loss` with a temperature of its own, learned by default as in the paper.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, products, reduction, group: as in `clip_loss`.
    """

    def __init__(
        self, temperature: float = 0.07, *, learnable: bool = True, normalize: bool = True,
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, products=products, reduction=reduction,
            group=group,
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor, ids: Tensor | None = None) -> Tensor:
        """The loss of paired rows a (n, d) and b (n, d)."""
        return clip_loss(a, b, ids=ids, **self.options())
