"""`encode` through torch.compile, for those to whom it pays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kontrast.errors import ConfigError
from kontrast.training.model import TrainableModel

Encode = Callable[[Any], Mapping[str, Tensor]]


def compiled_encode(model: TrainableModel, *, parts: bool) -> Encode:
    """The model's `encode`, compiled at its first batch and again for other shapes (lengths are traced as variable).

    Only `encode` is compiled: losses stream over tiles already, and change with their masks.

    Args:
        model: its `encode` is tensor code, as far as it is to gain from this.
        parts: whether batches are encoded in parts, which compiling does not go with.

    Raises:
        ConfigError: with `parts`, or where there is no compiler for the device; from the returned function if the
            model cannot be compiled.
    """
    if parts:
        raise ConfigError("option 'compile' does not go with 'micro_batch'; choose one of them.")
    if next(model.parameters()).device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ConfigError("option 'compile' needs a C++ compiler on the CPU; install g++ or train without it.")
    made = torch.compile(model.encode)

    def encode(batch: Any) -> Mapping[str, Tensor]:
        try:
            return made(batch)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{type(model).__name__} cannot be compiled ({reason}); train without option 'compile'."
            ) from None

    return encode
