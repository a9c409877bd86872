"""How the objectives of several ranks add up to the objective of the joined batch.

Every function here follows one convention: the **mean over ranks** of what each rank returns is the value on the joined
batch, and so the mean over ranks of the parameters' gradients, which data-parallel training takes, is its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

Combine = Literal["gathered_candidates", "reduced_statistics", "mean_of_locals"]
F = TypeVar("F", bound=Callable[..., Any])


def combines(how: Combine) -> Callable[[F], F]:
    """Declares as attribute ``combine`` how an objective combines ranks."""

    def mark(function: F) -> F:
        function.combine = how  # type: ignore[attr-defined]
        return function

    return mark


def world_size(group: ProcessGroup | None) -> int:
    """Number of ranks; 1 outside distributed training."""
    return dist.get_world_size(group) if group is not None else 1


def gathered(x: Tensor, group: ProcessGroup | None) -> tuple[Tensor, int]:
    """Rows of all ranks in order of rank, differentiable, and the place of this rank's first row among them."""
    if group is None:
        return x, 0
    from kontrast.ops.gather import all_gather_rows

    counts = all_gather_rows(torch.tensor([x.shape[0]], device=x.device), group)
    return all_gather_rows(x, group), int(counts[: dist.get_rank(group)].sum())


def summed(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum over ranks, differentiable."""
    return x if group is None else gathered(x[None], group)[0].sum(dim=0)


def mean_over_ranks(values: Tensor, group: ProcessGroup | None, count: Tensor | int | None = None) -> Tensor:
    """Share of this rank in the mean of the values of all ranks, which may hold different numbers of them.

    Args:
        values: of any shape.
        group: process group; None for this process alone.
        count: how many of `values` count; all by default. With 0 everywhere the mean is 0.

    Returns:
        A scalar whose mean over ranks is the sum of all values over the number of all that count.
    """
    how_many = torch.as_tensor(values.numel() if count is None else count, device=values.device)
    everyone = summed(how_many, group)
    return values.sum() * world_size(group) / everyone.clamp(min=1)
