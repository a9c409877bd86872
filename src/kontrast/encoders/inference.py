"""How trained encoders run over many rows: precision, and sharing of the rows among processes.

These are facts of a call, not of a method: a system embeds through `kontrast.encoders.encode_rows` and knows nothing of
them. Whoever calls the system sets them around the call::

    with inference(precision="bf16") as used:
        system.embed(data)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist

from kontrast.errors import ConfigError

Precision = Literal["fp32", "bf16"]
"""Of weights and activations: ``fp32`` as in training; ``bf16`` has 8 significant bits, sums stay in fp32."""


@dataclass
class Inference:
    """What is in force inside `inference`.

    Attributes:
        precision: asked for.
        split: whether the rows are shared out among the ranks of the process group.
        lowered: set once an encoder has run below fp32; some have no such path and stay exact.
    """

    precision: Precision = "fp32"
    split: bool = False
    lowered: bool = False

    @property
    def share(self) -> tuple[int, int]:
        """This process's number and the number of processes that share the rows; (0, 1) alone."""
        if not (self.split and dist.is_available() and dist.is_initialized()):
            return 0, 1
        return dist.get_rank(), dist.get_world_size()


_current: ContextVar[Inference] = ContextVar("inference")


def current() -> Inference:
    """What is in force here; exact and unshared outside `inference`."""
    return _current.get(None) or Inference()


@contextmanager
def inference(*, precision: Precision = "fp32", split: bool = False) -> Iterator[Inference]:
    """Sets how `encode_rows` runs inside the block, whoever calls it there.

    Args:
        precision: "fp32" or "bf16". Only transformer text encoders have a bf16 path.
        split: every rank of the process group runs the same block; each encodes its share of the batches and all get
            the whole result, bit for bit that of one process.

    Raises:
        ConfigError: for another precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"unknown precision '{precision}'; known: {', '.join(get_args(Precision))}.")
    setting = Inference(precision, split)
    before = _current.set(setting)
    try:
        yield setting
    finally:
        _current.reset(before)


def fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 numbers in hardware; elsewhere bf16 is emulated and slower than fp32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
