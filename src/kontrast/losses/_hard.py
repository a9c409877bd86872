"""Negatives corrected for their hardness and for the positives hidden among them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import Group, Paired, Products, Rule, contrast
from kontrast.ops.rule import Partition, Reduction


@combines("gathered_candidates", ring=True)
def hard_negative_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    hardness: float = 1.0,
    debias: float = 0.0,
    partition: Partition = "joint",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Contrast in which harder negatives weigh more, and hidden positives are taken out on average.

    With N negatives and s the cosine over T, Lᵢ = −log exp(s⁺) / (exp(s⁺) + G), where
    G = max((Σⱼ wⱼ exp(sⱼ) − N τ⁺ exp(s⁺)) / (1 − τ⁺), N exp(−1/T)), and wⱼ ∝ exp(β sⱼ) with mean 1
    (arXiv 2010.04592 section 4.2; β = 0 is the debiased loss of 2007.00224 eq. 8, and τ⁺ = 0 too is NT-Xent but for
    the lower bound). Denominator: the positive and the corrected negatives. Choose it where classes are few and
    negatives hence often false, or easy.

    Args:
        a: (n, d) floating.
        b: (n, d), the second view.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default; the lower bound N exp(−1/T) presumes it).
        hardness: β ≥ 0.
        debias: τ⁺ in [0, 1), the probability that a random row has the anchor's class.
        partition: "joint" takes negatives from both views (the papers'), "separate" from the other view, both ways.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" or "sum".
        group: ranks whose rows are gathered.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or types do not fit, β < 0 or τ⁺ is outside [0, 1).

    Example:
        >>> round(hard_negative_loss(torch.eye(2), torch.eye(2), temperature=1.0, debias=0.1).item(), 4)
        0.4671
    """
    directions: Literal["forward", "both"] = "forward" if partition == "joint" else "both"
    rule = Rule(
        Paired(), directions=directions, partition=partition, hardness=hardness, debias=debias, reduction=reduction
    )
    return contrast(a, b, rule, temperature=temperature, normalize=normalize, products=products, group=group)


@combines("gathered_candidates", ring=True)
def debiased_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    debias: float = 0.1,
    partition: Partition = "joint",
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """Debiased contrastive loss (arXiv 2007.00224 eq. 8): `hard_negative_loss` with hardness 0.

    Args:
        a: (n, d) floating.
        b: (n, d), the second view.
        debias: τ⁺ in [0, 1), the probability that a random row has the anchor's class.
        temperature, normalize, partition, products, reduction, group: as in `hard_negative_loss`.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or types do not fit or τ⁺ is outside [0, 1).

    Example:
        >>> round(debiased_loss(torch.eye(2), torch.eye(2), temperature=1.0, debias=0.1).item(), 4)
        0.4671
    """
    return hard_negative_loss(
        a, b, temperature=temperature, normalize=normalize, hardness=0.0, debias=debias, partition=partition,
        products=products, reduction=reduction, group=group,
    )  # fmt: skip


class HardNegativeLoss(Tempered):
    """`hard_negative_loss` with a temperature of its own; hardness 0 makes it the debiased loss.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, hardness, debias, partition, products, reduction, group: as in `hard_negative_loss`.
    """

    def __init__(
        self, temperature: float = 0.5, *, learnable: bool = False, normalize: bool = True, hardness: float = 1.0,
        debias: float = 0.0, partition: Partition = "joint", products: Products = "fp32",
        reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, hardness=hardness, debias=debias,
            partition=partition, products=products, reduction=reduction, group=group,
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of two views a (n, d) and b (n, d)."""
        return hard_negative_loss(a, b, **self.options())
