"""A softmax temperature that is either fixed or learned, and objectives that own one."""

from __future__ import annotations

import math
from typing import Any

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


class Tempered(nn.Module):
    """Base of the objectives as objects: a temperature of their own, and the options of the function behind them.

    Args:
        temperature: T at the start.
        learnable: whether T is learned.
        options: what the function is called with each time.
    """

    def __init__(self, temperature: float, *, learnable: bool, **options: Any) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable=learnable)
        self.fixed: dict[str, Any] = options

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the function: the options, and the temperature of now."""
        return {"temperature": self.temperature(), **self.fixed}

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return ", ".join(f"{name}={value!r}" for name, value in self.fixed.items())
