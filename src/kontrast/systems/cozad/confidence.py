"""Confidence: in each training image (soft weights), and in the model (covariance of its losses).

Both are pure functions. The weights differ from the released code of CoMet where that slips: scores are shifted to be
positive first, so that tau / s neither explodes nor turns negative; there is one weight for each image, from the score
of that image; and they are computed anew as the model learns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALL = 1e-6


def fence(scores: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Scores shifted so that the least is 0, and Tukey's fence Q3 + kappa · IQR above them.

    Args:
        scores: (n,) anomaly scores, higher is odder.
        kappa: at least 0.

    Returns:
        (n,) shifted scores, and the fence, a scalar.
    """
    shifted = (scores - scores.min()).double()
    low, high = torch.quantile(shifted, 0.25), torch.quantile(shifted, 0.75)
    return shifted, high + kappa * (high - low)


def soft_weights(scores: Tensor, kappa: float = 1.5) -> Tensor:
    """Weights of images: 1 up to the fence, tau / s beyond it: odd images count less and none is dropped.

    Args:
        scores: (n,) anomaly scores of the images of one domain.
        kappa: the larger, the fewer images are odd; infinity gives weights of 1.

    Returns:
        (n,) float32 in (0, 1], non-increasing in the score.
    """
    if len(scores) < 4 or math.isinf(kappa):
        return torch.ones(len(scores), device=scores.device)
    shifted, tau = fence(scores, kappa)
    weights = torch.where(shifted > tau, (tau + _SMALL) / (shifted + _SMALL), torch.ones_like(shifted))
    return weights.clamp(0.0, 1.0).float()


def decay_strength(losses: Tensor, *, decay: float, gain: float) -> Tensor:
    """Weight of the squared norm: lambda_0 · (1 + gain · d), d from the covariance of two losses over time.

    d = log(1 + clip(det Sigma, 1e-6, 100)) / log(101) is in [0, 1]; Sigma is the covariance of the z-scored mean losses
    of support and query in the last meta-iterations. Losses that swing apart strengthen the decay. Losses that are
    perfectly correlated have the determinant 0 and leave it as it is.

    Args:
        losses: (k, 2) mean support and query loss of k meta-iterations, z-scored.
        decay: lambda_0.
        gain: gamma.

    Returns:
        A scalar; lambda_0 where k is below 2.
    """
    if len(losses) < 2:
        return losses.new_tensor(decay)
    centred = losses.double() - losses.double().mean(0)
    sigma = centred.T @ centred / (len(losses) - 1) + 1e-8 * torch.eye(2, dtype=torch.float64, device=losses.device)
    determinant = sigma[0, 0] * sigma[1, 1] - sigma[0, 1] * sigma[1, 0]
    spread = torch.log1p(determinant.clamp(1e-6, 100.0)) / math.log(101.0)
    return (decay * (1 + gain * spread)).to(losses.dtype)
