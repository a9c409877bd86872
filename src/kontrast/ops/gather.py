"""Ranks: a differentiable all-gather of rows, and means over the joined batch.

Convention. Under data-parallel training the gradients of parameters are averaged over the R ranks. Every objective
therefore returns, on each rank, a loss whose *value* is that of the joined batch and whose *gradient* is such that the
mean over ranks of the parameters' gradients is the gradient of the joined batch's loss. (The gradient with respect to a
rank's own input rows is then R times the joined one.) Ranks may hold different numbers of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Group: TypeAlias = "dist.ProcessGroup | Literal['world', 'alone'] | None"
"""A process group, "world" for the default one, "alone" for this process by itself, or None.

To objectives, `contrast` and queues None means the group in force (`joined_ranks`): all processes of a training while
the trainer computes its losses, else this process by itself. To the functions of this module, on which they are built,
None is this process by itself.
"""

Combine: TypeAlias = Literal["gathered_candidates", "reduced_statistics", "mean_of_locals"]
"""How an objective's ranks combine.

- "gathered_candidates": each rank contrasts its own anchors with the candidates of all ranks.
- "reduced_statistics": ranks add up statistics of their rows (sums, moments) and compute the loss from the totals.
- "mean_of_locals": anchors do not see other rows; local sums are divided by the joined count.
"""


_in_force: ContextVar[dist.ProcessGroup | None] = ContextVar("kontrast_group", default=None)


@contextmanager
def joined_ranks(group: Group) -> Iterator[None]:
    """Inside the ``with`` block objectives and queues without a group of their own join these ranks.

    The trainer does this around the losses of a step, which every rank computes, and around nothing else: validation,
    which one rank does alone, must not wait for the others. Example for a loop of one's own::

        with joined_ranks("world"):
            loss = clip_loss(images, texts)
    """
    token = _in_force.set(None if group is None or group == "alone" else _resolved(group))
    try:
        yield
    finally:
        _in_force.reset(token)


def group_in_force(group: Group = None) -> dist.ProcessGroup | None:
    """The process group that `group` means to an objective called now; None for this process by itself."""
    if group is None:
        return _in_force.get()
    return None if group == "alone" else _resolved(group)


def rank_count(group: Group) -> int:
    """The number of ranks, 1 for no group."""
    return 1 if group is None else dist.get_world_size(_resolved(group))


def all_gather_rows(x: Tensor, group: Group) -> Tensor:
    """The rows of all ranks, in the order of the ranks, differentiable; `gather_rows` without the index."""
    return gather_rows(x, group)[0]


def gather_rows(x: Tensor, group: Group) -> tuple[Tensor, int]:
    """The rows of all ranks, in the order of the ranks, differentiable.

    Args:
        x: (n_local, ...); n_local may differ between ranks, the other sizes must not.
        group: the ranks.

    Returns:
        (n, ...) and the index of this rank's first row in it. The gradient of a row is the sum of what all ranks'
        losses give it.
    """
    if group is None:
        return x, 0
    process_group = _resolved(group)
    sizes = row_counts(len(x), process_group, x.device)
    start = sum(sizes[: dist.get_rank(process_group)])
    if x.is_floating_point():
        gathered: Tensor = _GatherRows.apply(x, sizes, process_group)  # type: ignore[no-untyped-call]
        return gathered, start
    return _gather(x, sizes, process_group), start


def sum_over_ranks(x: Tensor, group: Group) -> Tensor:
    """The sum over ranks of a tensor of equal shape on all, differentiable (each rank's gradient is the sum of all)."""
    if group is None:
        return x
    total: Tensor = _SumOverRanks.apply(x, _resolved(group))  # type: ignore[no-untyped-call]
    return total


def joined_mean(total: Tensor, weight: Tensor | float, group: Group) -> Tensor:
    """A mean over the joined batch from each rank's sum and weight, by the convention of this module.

    Args:
        total: this rank's sum of losses, scalar, with gradient.
        weight: what this rank's sum is to be divided by (a count of rows, say); the ranks' weights are added.
        group: the ranks; None gives total / weight.

    Returns:
        A scalar: the joined batch's mean in value; 0 in value and gradient if the joined weight is 0.
    """
    weight = torch.as_tensor(weight, dtype=total.dtype, device=total.device).detach()
    if group is None:
        return total / weight if weight > 0 else total * 0
    sums = torch.stack([total.detach(), weight])
    dist.all_reduce(sums, group=_resolved(group))
    if not sums[1] > 0:
        return total * 0
    local = total * rank_count(group) / sums[1]
    return local + (sums[0] / sums[1] - local).detach()


def joined_sum(total: Tensor, group: Group) -> Tensor:
    """A sum over the joined batch from each rank's sum (scalar), by the convention of this module."""
    if group is None:
        return total
    joined = total.detach().clone()
    dist.all_reduce(joined, group=_resolved(group))
    local = total * rank_count(group)
    return local + (joined - local).detach()


def largest_over_ranks(value: float, group: Group) -> float:
    """The largest of the ranks' numbers, for decisions that all ranks must take alike."""
    if group is None:
        return value
    process_group = _resolved(group)
    device = "cuda" if dist.get_backend(process_group) == "nccl" else "cpu"
    out = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(out, op=dist.ReduceOp.MAX, group=process_group)
    return float(out)


def _resolved(group: Group) -> dist.ProcessGroup:
    if isinstance(group, str):
        if group != "world":
            raise ValueError(f"group is a process group, 'world', 'alone' or None, got {group!r}")
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("group='world' needs torch.distributed.init_process_group first")
        assert dist.group.WORLD is not None
        return dist.group.WORLD
    assert group is not None
    return group


def row_counts(size: int, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """How many rows each rank holds, in the order of the ranks; `size` is this rank's."""
    mine = torch.tensor([size], device=device)
    out = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(out, mine, group=group)
    return [int(one) for one in out]


def _gather(x: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    # Collectives want equal shapes: pad to the longest, then cut.
    longest = max(sizes)
    padded = x.new_zeros((longest, *x.shape[1:]))
    padded[: len(x)] = x
    out = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(out, padded, group=group)
    return torch.cat([part[:size] for part, size in zip(out, sizes)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        return _gather(x.contiguous(), sizes, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        start = sum(ctx.sizes[: dist.get_rank(ctx.group)])
        return grad[start : start + ctx.sizes[dist.get_rank(ctx.group)]], None, None


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        x = x.detach().contiguous().clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None
