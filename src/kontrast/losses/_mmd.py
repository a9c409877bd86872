"""Maximum mean discrepancy between two samples, with several Gaussian kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kontrast.losses._combine import combines
from kontrast.losses._rows import as_pair, by_row_blocks, need_rows, pairwise_distance
from kontrast.ops import Group, gather_rows, joined_mean

_MEDIAN_ROWS = 2048


def median_bandwidth(x: Tensor, y: Tensor) -> Tensor:
    """Median distance between different rows of both samples together; no gradient.

    Over more than 2048 rows it is taken over 2048 evenly spaced ones. If the median is 0, as for equal rows, it is 1.

    Args:
        x: (n, d).
        y: (m, d).

    Returns:
        A scalar tensor above 0.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> median_bandwidth(torch.tensor([[0.0]]), torch.tensor([[3.0]])).item()
        3.0
    """
    rows = torch.cat(as_pair(x, y, "x", "y", rows=False)).detach()
    if rows.shape[0] > _MEDIAN_ROWS:
        # In integers: floats of this size would round some places onto the same row.
        rows = rows[torch.arange(_MEDIAN_ROWS, device=rows.device) * rows.shape[0] // _MEDIAN_ROWS]
    if rows.shape[0] < 2:
        return rows.new_ones(())
    median = torch.pdist(rows).median()
    return torch.where(median > 0, median, 1.0)


@combines("gathered_candidates")
def mmd(
    x: Tensor,
    y: Tensor,
    bandwidths: Tensor | Sequence[float] | None = None,
    *,
    scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    biased: bool = True,
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Squared maximum mean discrepancy (arXiv 0805.2368; several kernels as in arXiv 1502.02791).

    With k(a, b) the mean over u of exp(-‖a - b‖² / (2 σ_u²))::

        biased    1/n² Σ_ij k(x_i, x_j) + 1/m² Σ_ij k(y_i, y_j) - 2/(nm) Σ_ij k(x_i, y_j)
        unbiased  the same with i ≠ j in the first two sums, over n(n-1) and m(m-1); may be negative

    It asks that two sets have one distribution, without pairing rows. With pairs use a contrastive objective.
    Memory is O(block · (n + m) + (n + m) · d).

    Args:
        x: (n, d).
        y: (m, d); n and m may differ.
        bandwidths: σ of every kernel, in units of distance, above 0; gradients reach a tensor. By default the median
            distance between rows (see `median_bandwidth`) times each of `scales`.
        scales: multiples of the median.
        biased: which estimate; the unbiased needs 2 rows on either side.
        block: rows per tile; changes memory, not the value.
        group: ranks over which both samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar; in [0, 2] if biased.

    Raises:
        ValueError: if shapes or dtypes do not fit, there are too few rows, or a bandwidth is not above 0.

    Example:
        >>> round(mmd(torch.tensor([[0.0]]), torch.tensor([[1.0]]), [1.0]).item(), 4)
        0.7869
    """
    x, y = as_pair(x, y, "x", "y", rows=False)
    every_x, before_x = gather_rows(x, group)
    every_y, before_y = gather_rows(y, group)
    for rows, name in ((every_x, "x"), (every_y, "y")):
        need_rows(rows, 1 if biased else 2, name)
    sigma = _bandwidths(bandwidths, scales, every_x, every_y)

    def mean_kernel(a: Tensor, b: Tensor, before: int | None) -> Tensor:
        def rows_of(first: int, last: int, mine: Tensor, candidates: Tensor, widths: Tensor) -> Tensor:
            squared = pairwise_distance(mine[first:last], candidates, "squared")
            # One kernel at a time: a stack of them would be the largest tensor here.
            kernel = sum((torch.exp(-squared / (2 * width.square())) for width in widths), torch.zeros_like(squared))
            if before is not None:
                own = torch.arange(before + first, before + last, device=mine.device)[:, None]
                kernel = kernel.scatter(1, own, 0)
            return kernel.sum(dim=1)

        rows = by_row_blocks(rows_of, a.shape[0], b.shape[0], block, a, b, sigma)
        candidates = b.shape[0] if before is None else b.shape[0] - 1
        return joined_mean(rows.sum(), rows.numel(), group) / (candidates * sigma.shape[0])

    within_x = mean_kernel(x, every_x, None if biased else before_x)
    within_y = mean_kernel(y, every_y, None if biased else before_y)
    return within_x + within_y - 2 * mean_kernel(x, every_y, None)


def _bandwidths(bandwidths: Tensor | Sequence[float] | None, scales: Sequence[float], x: Tensor, y: Tensor) -> Tensor:
    if bandwidths is None:
        sigma = median_bandwidth(x, y) * torch.as_tensor(scales, dtype=x.dtype, device=x.device)
    else:
        sigma = torch.as_tensor(bandwidths, dtype=x.dtype, device=x.device)
    sigma = sigma.reshape(-1)
    if sigma.numel() == 0 or not bool((sigma > 0).all()):
        raise ValueError(f"bandwidths and scales must be one or more numbers above 0, got {sigma.tolist()}")
    return sigma


class MMD(nn.Module):
    """`mmd` as an object; it owns no state.

    Args:
        bandwidths: see `mmd`; None for multiples of the median.
        scales: see `mmd`.
        biased: see `mmd`.
        block: see `mmd`.
        group: see `mmd`.

    Example:
        >>> round(MMD([1.0])(torch.tensor([[0.0]]), torch.tensor([[1.0]])).item(), 4)
        0.7869
    """

    combine = "gathered_candidates"

    def __init__(
        self,
        bandwidths: Sequence[float] | None = None,
        *,
        scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
        biased: bool = True,
        block: int | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        self.bandwidths = bandwidths
        self.scales = scales
        self.biased = biased
        self.block = block
        self.group = group

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The squared discrepancy of samples x (n, d) and y (m, d)."""
        return mmd(x, y, self.bandwidths, scales=self.scales, biased=self.biased, block=self.block, group=self.group)
