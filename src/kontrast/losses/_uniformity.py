"""Alignment and uniformity on the sphere, as losses and as measures of a representation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kontrast.losses._combine import combines
from kontrast.losses._rows import as_matrix, as_pair, by_row_blocks, need_rows, pairwise_distance, unit_rows
from kontrast.ops import Group, all_gather_rows, gather_rows, joined_mean


@combines("mean_of_locals")
def alignment(x: Tensor, y: Tensor, alpha: float = 2.0, *, normalize: bool = True, group: Group = None) -> Tensor:
    """Mean distance between the two views of a sample (arXiv 2005.10242, section 4.1.1): mean_i ‖x_i - y_i‖^alpha.

    As a loss it needs a companion that keeps rows apart, such as `uniformity`; alone it is least when all rows are
    equal. As a measure: 0 is best, and 2 is what unrelated directions give with alpha = 2.

    Args:
        x: (n, d).
        y: (n, d), row i the positive of x's row i.
        alpha: exponent above 0.
        normalize: whether rows are scaled to length 1 first; both measures are defined on the unit sphere.
        group: ranks over which the mean is taken.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes or dtypes do not fit, there is no row, or alpha ≤ 0.

    Example:
        >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
        2.0
    """
    if not alpha > 0:
        raise ValueError(f"'alpha' must be above 0, got {alpha}")
    x, y = as_pair(x, y, "x", "y")
    if group is None:
        need_rows(x, 1, "x")
    if normalize:
        x, y = unit_rows(x), unit_rows(y)
    squared = (x - y).square().sum(dim=1)
    # Equal rows give 0 with zero gradient also for alpha below 2, where the power alone would give infinity or nan.
    apart = squared > 0
    powers = torch.where(apart, squared, 1.0).pow(alpha / 2) * apart.to(x.dtype)
    return joined_mean(powers.sum(), len(powers), group)


@combines("gathered_candidates")
def uniformity(
    x: Tensor,
    t: float = 2.0,
    *,
    normalize: bool = True,
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """How evenly rows cover the sphere (arXiv 2005.10242, section 4.1.2): log mean_{i<j} exp(-t ‖x_i - x_j‖²).

    0 when all rows are equal, lower when they spread; at least -4t. Use it with `alignment`, or as a measure of
    collapse. Softmax objectives hold both parts in one and need no weight between them. Memory is O(block · n + n · d),
    the gradient included, and sums are taken in the logarithm, so that no t is too large.

    Args:
        x: (n, d), n ≥ 2.
        t: sharpness above 0; the paper uses 2.
        normalize: whether rows are scaled to length 1 first.
        block: rows per tile; changes memory, not the value.
        group: ranks; rows of all ranks are compared.

    Returns:
        A scalar, in [-4t, 0] when normalised.

    Raises:
        ValueError: if shapes or dtypes do not fit, there are fewer than 2 rows, or t ≤ 0.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
        -8.0
    """
    if not t > 0:
        raise ValueError(f"'t' must be above 0, got {t}")
    x = as_matrix(x, "x")
    if normalize:
        x = unit_rows(x)
    everyone, before = gather_rows(x, group)
    need_rows(everyone, 2, "x")
    n = everyone.shape[0]

    def rows_of(first: int, last: int, mine: Tensor, all_rows: Tensor) -> Tensor:
        if normalize:
            # |x|² is 1, or 0 for a zero row.
            lengths = mine[first:last].square().sum(1, keepdim=True) + all_rows.square().sum(1)
            squared = lengths - 2 * mine[first:last] @ all_rows.T
        else:
            squared = pairwise_distance(mine[first:last], all_rows, "squared")
        own = torch.arange(before + first, before + last, device=mine.device)[:, None]
        return _log_sum_exp((-t * squared).scatter(1, own, -math.inf))

    rows = all_gather_rows(by_row_blocks(rows_of, x.shape[0], n, block, x, everyone), group)
    return _log_sum_exp(rows) - math.log(n * (n - 1))


def _log_sum_exp(x: Tensor) -> Tensor:
    """Over the last dimension, shifted first: the gradient exp(x - result) then does not suffer from a large result."""
    top = x.detach().amax(dim=-1, keepdim=True)
    return (x - top).logsumexp(dim=-1) + top.squeeze(-1)


class AlignmentUniformity(nn.Module):
    """Weighted sum of `alignment` and the mean `uniformity` of both views (arXiv 2005.10242, section 4.2).

    Args:
        align_weight: weight of alignment.
        uniform_weight: weight of uniformity.
        alpha: see `alignment`.
        t: see `uniformity`.
        block: see `uniformity`.
        group: see `uniformity`.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> AlignmentUniformity()(x, x).item()
        -8.0
    """

    combine = "gathered_candidates"

    def __init__(
        self,
        align_weight: float = 1.0,
        uniform_weight: float = 1.0,
        *,
        alpha: float = 2.0,
        t: float = 2.0,
        block: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        self.align_weight = align_weight
        self.uniform_weight = uniform_weight
        self.alpha = alpha
        self.t = t
        self.block = block
        self.group = group

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of two views x, y (n, d)."""
        spread = uniformity(x, self.t, block=self.block, group=self.group)
        spread = (spread + uniformity(y, self.t, block=self.block, group=self.group)) / 2
        return self.align_weight * alignment(x, y, self.alpha, group=self.group) + self.uniform_weight * spread
