"""How likely observed counts are under a decoder's output; sums over entries in O(entries), lgamma only where x > 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def poisson_nll(counts: Tensor, mean: Tensor) -> Tensor:
    """Mean of −log Poisson(x | μ) over all entries.

    Args:
        counts: (n, d) whole numbers ≥ 0.
        mean: (n, d) > 0.
    """
    rows, columns, x, total = _positive(counts)
    logs = x * torch.log(mean[rows, columns]) - torch.lgamma(x + 1)
    return (mean.sum() - logs.sum()) / total


def nb_nll(counts: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    """Mean of −log NB(x | μ, θ) over all entries: lnΓ(θ) + lnΓ(x+1) − lnΓ(x+θ) + (θ+x) ln(1+μ/θ) + x (ln θ − ln μ).

    Args:
        counts: (n, d) whole numbers ≥ 0.
        mean: (n, d) μ > 0.
        dispersion: (d,) θ > 0; the variance is μ + μ²/θ.
    """
    rows, columns, x, total = _positive(counts)
    dense = (dispersion + counts) * torch.log1p(mean / dispersion)
    return (dense.sum() - _where_positive(x, mean[rows, columns], dispersion[columns]).sum()) / total


def zinb_nll(counts: Tensor, mean: Tensor, dispersion: Tensor, dropout: Tensor) -> Tensor:
    """Mean of −log ZINB over all entries: NB, but with probability π the count is 0.

    Args:
        counts, mean, dispersion: as in `nb_nll`.
        dropout: (n, d) logits of π.
    """
    rows, columns, x, total = _positive(counts)
    theta = dispersion[columns]
    zero = -dispersion * torch.log1p(mean / dispersion)
    at_zero = torch.logaddexp(F.logsigmoid(dropout), F.logsigmoid(-dropout) + zero)
    mu = mean[rows, columns]
    above = (
        _where_positive(x, mu, theta) - (theta + x) * torch.log1p(mu / theta) + F.logsigmoid(-dropout[rows, columns])
    )
    return -(at_zero.sum() - at_zero[rows, columns].sum() + above.sum()) / total


def bernoulli_nll(values: Tensor, logits: Tensor) -> Tensor:
    """Mean of −log Bernoulli of open (above 0) or closed peaks over all entries."""
    return F.binary_cross_entropy_with_logits(logits, (values > 0).to(logits))


def gaussian_nll(values: Tensor, mean: Tensor) -> Tensor:
    """Mean of ½ (x − μ)² over all entries: −log N(x | μ, 1) less its constant ½ ln 2π."""
    return 0.5 * (values - mean).square().mean()


def _positive(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    rows, columns = counts.nonzero(as_tuple=True)
    return rows, columns, counts[rows, columns], counts.numel()


def _where_positive(x: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    """What of log NB vanishes at x = 0."""
    factorials = torch.lgamma(x + dispersion) - torch.lgamma(dispersion) - torch.lgamma(x + 1)
    return factorials + x * (torch.log(mean) - torch.log(dispersion))
