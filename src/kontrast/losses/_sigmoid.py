"""The sigmoid loss: every pair of rows is a yes-or-no question of its own (SigLIP)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import (
    Group,
    Mask,
    Products,
    current_settings,
    gather_rows,
    group_in_force,
    joined_mean,
    joined_sum,
    rank_count,
    softplus_streamed,
)
from kontrast.ops.inputs import working_inputs
from kontrast.ops.ring import others_softplus
from kontrast.ops.rule import Reduction


@combines("gathered_candidates", ring=True)
def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    normalize: bool = True,
    ids: Tensor | None = None,
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """SigLIP's loss: is row i of one side the partner of row j of the other? n² binary questions.

    L = 1/n Σᵢⱼ log(1 + exp(−yᵢⱼ (sᵢⱼ + bias))), y = 1 for i = j and −1 elsewhere, s the cosine over T (arXiv 2303.15343
    eq. 1). There is no softmax and hence no denominator: rows do not compete, and the loss suits small batches.
    Choose `clip_loss` where ranking among the candidates is what counts.

    Args:
        a: (n, d) floating.
        b: (n, d).
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        bias: a float or a scalar tensor that receives a gradient; −10 starts where nearly all answers are no.
        normalize: divide rows by their length (the default).
        ids: (n,) integers; rows with equal ids are asked nothing about each other, apart from their own pair.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean" over rows of a, "sum", or "none" for (n,).
        group: ranks whose rows of b are gathered.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(sigmoid_loss(torch.eye(2), torch.eye(2), temperature=1.0, bias=0.0).item(), 4)
        1.0064
    """
    if a.dim() != 2 or a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"a and b must be floating matrices of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if ids is not None and (ids.shape != (len(a),) or ids.is_floating_point()):
        raise ValueError(f"ids must be ({len(a)},) integers, got {ids.dtype} of shape {tuple(ids.shape)}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', got {reduction!r}")
    with torch.autocast(a.device.type, enabled=False):
        kind = torch.promote_types(a.dtype, torch.float32)
        rows, t, products = working_inputs(
            (a.to(kind), b.to(kind)), temperature, normalize=normalize, products=products, group=group
        )
        x, y = rows
        assert x is not None
        assert y is not None
        q = x / t
        shift = torch.as_tensor(bias, device=a.device).to(x.dtype)
        ring = group_in_force(group) if current_settings().gather == "ring" and rank_count(group) > 1 else None
        ranks = None if ring is not None else group
        k, start = gather_rows(y, ranks)
        keys = () if ids is None else ((ids, gather_rows(ids, ranks)[0]),)
        mask = Mask(diagonals=(start,) if len(a) else (), keys=keys)
        no = softplus_streamed(q, k, shift.expand(len(a)), mask=mask, products=products)
        if ring is not None:
            no = no + others_softplus(q, k, shift.expand(len(a)), keys, ring, products=products)
        losses = F.softplus(-((q * y).sum(1) + shift)) + no
        if reduction == "none":
            return losses.to(kind)
        total = losses.sum()
        out = joined_sum(total, group) if reduction == "sum" else joined_mean(total, float(len(a)), group)
        return out.to(kind)


class SigmoidLoss(Tempered):
    """`sigmoid_loss` with a temperature and a bias of its own, both learned by default as in the paper.

    Args:
        temperature: T at the start.
        bias: the bias at the start.
        learnable: whether T and the bias are learned.
        normalize, products, reduction, group: as in `sigmoid_loss`.
    """

    bias: Tensor

    def __init__(
        self, temperature: float = 0.1, bias: float = -10.0, *, learnable: bool = True, normalize: bool = True,
        products: Products = "fp32", reduction: Reduction = "mean", group: Group = None,
    ) -> None:  # fmt: skip
        super().__init__(
            temperature, learnable=learnable, normalize=normalize, products=products, reduction=reduction,
            group=group,
        )  # fmt: skip
        if learnable:
            self.bias = nn.Parameter(torch.tensor(float(bias)))
        else:
            self.register_buffer("bias", torch.tensor(float(bias)))

    def forward(self, a: Tensor, b: Tensor, ids: Tensor | None = None) -> Tensor:
        """The loss of paired rows a (n, d) and b (n, d)."""
        return sigmoid_loss(a, b, bias=self.bias, ids=ids, **self.options())
