"""Terms that keep features informative without negatives: variance, covariance, cross-correlation.

They compare features (columns), so their tiles are blocks of columns and memory is O(block · d + n · d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kontrast.losses._combine import combines
from kontrast.losses._rows import as_matrix, as_pair, by_row_blocks, need_rows, unit_rows
from kontrast.ops import Group, all_gather_rows, joined_mean


@combines("gathered_candidates")
def variance_term(x: Tensor, target: float = 1.0, *, eps: float = 1e-4, group: Group = None) -> Tensor:
    """Hinge on the standard deviation of every feature (arXiv 2105.04906, equations 1 and 2).

    ``1/d Σ_j max(0, target - sqrt(Var(x_j) + eps))`` with the variance over n - 1. It keeps a representation from
    collapsing; it knows nothing of samples, so it needs an objective beside it.

    Args:
        x: (n, d), n ≥ 2, not normalised.
        target: standard deviation to reach.
        eps: keeps the gradient finite for constant features.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: for wrong shapes or dtypes or fewer than 2 rows.

    Example:
        >>> round(variance_term(torch.tensor([[1.0], [1.0]])).item(), 4)
        0.99
    """
    rows = all_gather_rows(as_matrix(x, "x"), group)
    need_rows(rows, 2, "x")
    deviation = (rows.var(dim=0) + eps).sqrt()
    return (target - deviation).clamp(min=0).mean()


@combines("gathered_candidates")
def covariance_term(x: Tensor, *, block: int | None = None, group: Group = None) -> Tensor:
    """Squared covariances between different features, ``1/d Σ_{i≠j} C_ij²`` (arXiv 2105.04906, equations 3 and 4).

    It removes redundancy between features; `barlow_twins` does the same for correlations across two views.

    Args:
        x: (n, d), n ≥ 2, not normalised.
        block: features per tile; changes memory, not the value.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: for wrong shapes or dtypes or fewer than 2 rows.

    Example:
        >>> covariance_term(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).item()
        4.0
    """
    rows = all_gather_rows(as_matrix(x, "x"), group)
    need_rows(rows, 2, "x")
    n, d = rows.shape
    columns = (rows - rows.mean(dim=0)).T

    def rows_of(first: int, last: int, features: Tensor) -> Tensor:
        covariance = features[first:last] @ features.T / (n - 1)
        own = torch.arange(first, last, device=features.device)[:, None]
        return covariance.scatter(1, own, 0).square().sum(dim=1)

    return by_row_blocks(rows_of, d, d, block, columns).sum() / d


@combines("gathered_candidates")
def vicreg(
    x: Tensor,
    y: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    target: float = 1.0,
    eps: float = 1e-4,
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Variance-invariance-covariance regularisation of two views (arXiv 2105.04906, equations 5 and 6).

    ``λ/n Σ_i ‖x_i - y_i‖² + μ [v(x) + v(y)] + ν [c(x) + c(y)]`` with v = `variance_term` and c = `covariance_term`.
    This is the paper's text. Its published code divides the first term by d as well and halves the second; give
    ``invariance_weight=25 / d, variance_weight=12.5`` for that.

    Choose it when batches are small or negatives are not to be trusted; it wants wide projections (d in the thousands).

    Args:
        x: (n, d), n ≥ 2, projections of one view, not normalised.
        y: (n, d), of the other view.
        invariance_weight: λ.
        variance_weight: μ.
        covariance_weight: ν.
        target: see `variance_term`.
        eps: see `variance_term`.
        block: see `covariance_term`.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: for wrong shapes or dtypes or fewer than 2 rows.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> vicreg(x, x).item()
        0.0
    """
    x, y = as_pair(x, y, "x", "y")
    invariance = joined_mean((x - y).square().sum(), len(x), group)
    x, y = all_gather_rows(x, group), all_gather_rows(y, group)
    variance = variance_term(x, target, eps=eps) + variance_term(y, target, eps=eps)
    covariance = covariance_term(x, block=block) + covariance_term(y, block=block)
    return invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance


@combines("gathered_candidates")
def barlow_twins(
    x: Tensor,
    y: Tensor,
    redundancy_weight: float = 5e-3,
    *,
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Cross-correlation of two views pulled to the identity (arXiv 2103.03230, equations 1 and 2).

    ``Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij²`` with C_ij the correlation, over the batch, of feature i of x with feature j
    of y. A feature that is constant over the batch has correlation 0 with all others and gets no gradient.

    Choose `vicreg` when the two views come from different networks or modalities, whose features need not correspond.

    Args:
        x: (n, d), n ≥ 2, projections of one view, not normalised.
        y: (n, d), of the other view.
        redundancy_weight: λ.
        block: features per tile; changes memory, not the value.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar.

    Raises:
        ValueError: for wrong shapes or dtypes or fewer than 2 rows.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        >>> round(barlow_twins(x, x).item(), 4)
        0.01
    """
    x, y = as_pair(x, y, "x", "y")
    x, y = all_gather_rows(x, group), all_gather_rows(y, group)
    need_rows(x, 2, "x")
    one, other = unit_rows((x - x.mean(dim=0)).T), unit_rows((y - y.mean(dim=0)).T)
    d = x.shape[1]

    def rows_of(first: int, last: int, a: Tensor, b: Tensor) -> Tensor:
        correlation = a[first:last] @ b.T
        own = torch.arange(first, last, device=a.device)[:, None]
        redundancy = correlation.scatter(1, own, 0).square().sum(dim=1)
        return (1 - correlation.gather(1, own)[:, 0]).square() + redundancy_weight * redundancy

    return by_row_blocks(rows_of, d, d, block, one, other).sum()


class VICReg(nn.Module):
    """`vicreg` as an object; it owns no state.

    Args:
        invariance_weight: λ.
        variance_weight: μ.
        covariance_weight: ν.
        target: see `variance_term`.
        eps: see `variance_term`.
        block: see `covariance_term`.
        group: see `vicreg`.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> VICReg()(x, x).item()
        0.0
    """

    combine = "gathered_candidates"

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        *,
        target: float = 1.0,
        eps: float = 1e-4,
        block: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.target = target
        self.eps = eps
        self.block = block
        self.group = group

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of two views x, y (n, d)."""
        return vicreg(
            x,
            y,
            invariance_weight=self.invariance_weight,
            variance_weight=self.variance_weight,
            covariance_weight=self.covariance_weight,
            target=self.target,
            eps=self.eps,
            block=self.block,
            group=self.group,
        )


class BarlowTwins(nn.Module):
    """`barlow_twins` as an object; it owns no state.

    Args:
        redundancy_weight: λ.
        block: see `barlow_twins`.
        group: see `barlow_twins`.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        >>> round(BarlowTwins()(x, x).item(), 4)
        0.01
    """

    combine = "gathered_candidates"

    def __init__(self, redundancy_weight: float = 5e-3, *, block: int | None = None, group: Group = None) -> None:
        super().__init__()
        self.redundancy_weight = redundancy_weight
        self.block = block
        self.group = group

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of two views x, y (n, d)."""
        return barlow_twins(x, y, self.redundancy_weight, block=self.block, group=self.group)
