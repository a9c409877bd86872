"""Bringing an objective's inputs into the form and precision in which they are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kontrast.ops.gather import Group, largest_over_ranks
from kontrast.ops.settings import Products

# Beyond this largest possible |s|, float32 products would leave errors of 1e-5 and more in exp(s).
FLOAT64_ABOVE = 256.0

# Rounding rows to bf16 leaves about |s| 2⁻⁹ d^(−½) of error in a logit; "bf16" means bf16 up to this much of it.
BF16_LOGIT_ERROR = 7e-3


def working_inputs(
    rows: Sequence[Tensor | None],
    temperature: float | Tensor,
    *,
    normalize: bool,
    products: Products,
    sharpness: float = 1.0,
    group: Group = None,
) -> tuple[list[Tensor | None], Tensor, Products]:
    """Rows, temperature and products as they will be computed.

    Args:
        rows: anchors first, then candidates and further negatives (or None), each (..., d) float32 or float64. With
            nothing else the anchors are their own candidates.
        temperature: positive, a float or a tensor of one element.
        normalize: whether to divide rows by their length.
        products: what the caller asks for.
        sharpness: by how much logits will be multiplied before they are exponentiated.
        group: ranks that compute together and hence in the same precision.

    Returns:
        The rows and the temperature, in float64 where ‖a‖‖c‖/T can exceed `FLOAT64_ABOVE`, and the products:
        "bf16" becomes "fp32" where bf16 rows would leave more than `BF16_LOGIT_ERROR` in a logit.

    Raises:
        ValueError: if the temperature is not one positive number or the products are unknown.
    """
    if products not in ("fp32", "bf16"):
        raise ValueError(f"products is 'fp32' or 'bf16', got {products!r}")
    anchors = rows[0]
    assert anchors is not None
    t = temperature if isinstance(temperature, Tensor) else torch.tensor(temperature, dtype=torch.float64)
    # NaN passes: the loss becomes NaN, and the trainer says at which step.
    if t.numel() != 1 or bool(t <= 0):
        raise ValueError(f"temperature must be one positive number, got {temperature!r}")
    t = t.reshape(()).to(anchors.device)
    longest = (1.0, 1.0) if normalize else _longest([x for x in rows if x is not None])
    if not normalize:
        longest = largest_over_ranks(longest[0], group), largest_over_ranks(longest[1], group)
    largest = sharpness * longest[0] * longest[1] / float(t.detach())
    if largest * 2**-9 / math.sqrt(max(anchors.shape[-1], 1)) > BF16_LOGIT_ERROR:
        products = "fp32"
    kind = torch.float64 if largest > FLOAT64_ABOVE else anchors.dtype
    rows = [None if x is None else x.to(kind) for x in rows]
    if normalize:
        rows = [None if x is None else _Unit.apply(x) for x in rows]  # type: ignore[no-untyped-call]
    return rows, t.to(kind), products


class _Unit(torch.autograd.Function):
    """Rows of length 1; a zero row stays zero and gets the gradient 0, not one over nothing.

    Written out because at a hundred thousand rows the temporaries of the composed operations are what fills memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.where(length > 0, 1 / length, 0.0)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = torch.einsum("...d,...d->...", grad, unit)[..., None]
        return torch.addcmul(grad, unit, along, value=-1).mul_(inverse)


def _longest(rows: list[Tensor]) -> tuple[float, float]:
    """The largest ‖anchor‖ and the largest ‖candidate‖."""
    with torch.no_grad():
        lengths = [float(x.norm(dim=-1).max()) if x.numel() else 0.0 for x in rows]
        return lengths[0], max(lengths[1:] or lengths)
