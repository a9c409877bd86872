"""A softmax temperature that is either fixed or learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """Holds log(1/T), the form in which a temperature is learned: any real number is allowed and steps are relative.

    Args:
        value: T at the start, positive.
        learnable: whether it is a parameter (otherwise a buffer; it is in the checkpoint either way).
        smallest: T never goes below this (arXiv 2103.00020 clips 1/T at 100).
    """

    log_scale: Tensor

    def __init__(self, value: float = 0.07, *, learnable: bool = False, smallest: float = 0.01) -> None:
        super().__init__()
        if not value > 0:
            raise ValueError(f"temperature must be positive, got {value!r}")
        log_scale = torch.tensor(-math.log(value), dtype=torch.float32)
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.smallest = min(smallest, value) if not learnable else smallest

    def forward(self) -> Tensor:
        """T, a scalar tensor with gradient if it is learned."""
        learned = torch.exp(-self.log_scale)
        # The bound holds for the value alone: with its gradient cut off, a temperature below it would stay there.
        return learned + (learned.clamp(min=self.smallest) - learned).detach()
