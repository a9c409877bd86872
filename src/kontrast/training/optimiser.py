"""Building an optimiser from its options."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from kontrast.errors import ConfigError
from kontrast.training.config import OptimiserConfig
from kontrast.training.model import TrainableModel

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def build_optimiser(model: TrainableModel, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The optimiser of every parameter that asks for gradients.

    Weight decay leaves out biases, the parameters of norms, and scalars and vectors in general (a learned temperature,
    class tokens). Each group carries its learning rate of full height under ``base``; `set_learning_rate` scales it.

    Raises:
        ConfigError: if no parameter asks for gradients.
    """
    exempt = set(_without_decay(model))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = id(parameter) not in exempt
            groups.setdefault((float(model.learning_rate_scale(name)), decays), []).append(parameter)
    if not groups:
        raise ConfigError("the model has no parameter that asks for gradients; nothing would be learnt.")
    described = [
        {
            "params": parameters,
            "lr": config.learning_rate * scale,
            "base": config.learning_rate * scale,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (scale, decays), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]
    if config.name == "sgd":
        return torch.optim.SGD(described, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(described, lr=config.learning_rate, betas=config.betas, eps=config.epsilon)


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Sets each group to `factor` times its base; returns the learning rate of the first group."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor
    return float(optimiser.param_groups[0]["lr"])


def _without_decay(model: nn.Module) -> Iterator[int]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, _NORMS) or name == "bias" or parameter.ndim <= 1:
                yield id(parameter)
