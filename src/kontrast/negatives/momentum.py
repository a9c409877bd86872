"""A slowly following twin of an encoder, which gives keys and targets (arXiv 1911.05722, equation 2; 2006.07733)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_momentum(online: nn.Module, twin: nn.Module, momentum: float) -> None:
    """Moves `twin` towards `online`: ``twin = momentum · twin + (1 - momentum) · online``.

    Parameters are averaged. Buffers are copied: a running mean or a counter is a statement about the data, and an
    average of two of them (above all of integers) would be neither.

    Args:
        online: the encoder that is trained.
        twin: a module of the same structure.
        momentum: in [0, 1]; 0.99 to 0.9999 in practice. For a schedule pass its value at the present progress.

    Raises:
        ValueError: if momentum is outside [0, 1] or the two differ in structure.

    Example:
        >>> online, twin = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = online.weight.data.fill_(1.0), twin.weight.data.fill_(0.0)
        >>> update_momentum(online, twin, 0.75)
        >>> twin.weight.item()
        0.25
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"'momentum' must be in [0, 1], got {momentum}")
    for (name, new), (_, old) in _matched(online.named_parameters(), twin.named_parameters()):
        if new.shape != old.shape:
            raise ValueError(f"'{name}' has shape {tuple(new.shape)} online and {tuple(old.shape)} in the twin")
        old.lerp_(new.detach().to(old), 1 - momentum)
    for (_, new), (_, old) in _matched(online.named_buffers(), twin.named_buffers()):
        old.copy_(new)


class MomentumEncoder(nn.Module):
    """A copy of an encoder that has no gradient and follows it by `update`.

    It is part of the checkpoint. It keeps no reference to the online encoder, so that no parameter appears twice.

    Args:
        online: the encoder to copy.

    Example:
        >>> online = nn.Linear(2, 2)
        >>> twin = MomentumEncoder(online)
        >>> torch.equal(twin(torch.ones(1, 2)), online(torch.ones(1, 2)))
        True
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the twin gives for the same arguments; no gradient."""
        return self.encoder(*args, **kwargs)

    def update(self, online: nn.Module, momentum: float) -> None:
        """Follows `online`; call it after every optimiser step. See `update_momentum`."""
        update_momentum(online, self.encoder, momentum)


def _matched(
    online: Iterator[tuple[str, Tensor]], twin: Iterator[tuple[str, Tensor]]
) -> list[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    new, old = list(online), list(twin)
    names, others = [name for name, _ in new], [name for name, _ in old]
    if names != others:
        odd = sorted(set(names) ^ set(others))
        raise ValueError(
            f"the encoder has {len(names)} tensors and its twin {len(others)}; only one of them has {odd[:3]}"
        )
    return list(zip(new, old, strict=True))
