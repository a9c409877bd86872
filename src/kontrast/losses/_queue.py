"""Contrast against a queue of past keys (MoCo)."""

from __future__ import annotations

import torch
from torch import Tensor

from kontrast.losses._combine import combines
from kontrast.losses._temperature import Tempered
from kontrast.ops import Group, Paired, Products, Rule, contrast
from kontrast.ops.rule import Reduction


@combines("mean_of_locals")
def queue_loss(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    products: Products = "fp32",
    reduction: Reduction = "mean",
    group: Group = None,
) -> Tensor:
    """MoCo's InfoNCE: query i finds its own key against the keys of a queue.

    Lᵢ = −log exp(s(qᵢ, kᵢ)) / (exp(s(qᵢ, kᵢ)) + Σⱼ exp(s(qᵢ, queueⱼ))), s the cosine over T (arXiv 1911.05722 eq. 1).
    Other queries' keys are no negatives. Denominator: the positive and the queue. Gradients reach whatever requires
    them; detach keys that a momentum encoder made. Choose `info_nce` where the batch itself is large.

    Args:
        queries: (n, d) floating.
        keys: (n, d).
        queue: (m, d), the filled part of the queue; it may be empty, and then every loss is 0.
        temperature: T > 0, a float or a scalar tensor that receives a gradient.
        normalize: divide rows by their length (the default).
        ids: (n,) integers, with `queue_ids`; a queue entry with the query's id is no negative of it.
        queue_ids: (m,) integers.
        products: "bf16" for faster matrix products at a relative error of about 1e-2.
        reduction: "mean", "sum" or "none".
        group: ranks over which the mean is taken; each rank uses the queue that it is given.

    Returns:
        A scalar, or (n,) with reduction "none".

    Raises:
        ValueError: if shapes or types do not fit.

    Example:
        >>> round(queue_loss(torch.eye(3), torch.eye(3), -torch.eye(3), temperature=1.0).item(), 4)
        0.6265
    """
    if len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(keys)} keys; each query needs its own key")
    if (ids is None) != (queue_ids is None):
        raise ValueError("ids and queue_ids go together")
    both = None if ids is None or queue_ids is None else (ids, torch.cat([ids, queue_ids]))
    rule = Rule(Paired(others=False), ids=both, reduction=reduction)
    return contrast(
        queries, torch.cat([keys, queue.to(keys.dtype)]), rule, temperature=temperature, normalize=normalize,
        products=products, group=group, gather=False,
    )  # fmt: skip


class QueueLoss(Tempered):
    """`queue_loss` with a temperature of its own; the queue itself lives in `kontrast.negatives`.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        normalize, products, reduction, group: as in `queue_loss`.
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
        self, queries: Tensor, keys: Tensor, queue: Tensor, ids: Tensor | None = None, queue_ids: Tensor | None = None
    ) -> Tensor:
        """The loss of queries (n, d) with their keys (n, d) against a queue (m, d)."""
        return queue_loss(queries, keys, queue, ids=ids, queue_ids=queue_ids, **self.options())
