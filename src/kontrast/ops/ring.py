"""Statistics over the candidates of other ranks, which travel from rank to rank: memory stays O(local).

Each rank's candidates go once round the ranks. Every rank adds up what the block that visits it contributes to its own
anchors, while the next block is already on its way. The backward pass sends the blocks round again; with each travels
its gradient, to which every rank adds its share and which in the end comes home to the block's owner. At no time does a
rank hold more than two blocks besides its own.

A rank's own candidates are no business of this file: they, with their diagonals and listed pairs, are computed as on a
single process, and what is computed here is added to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from kontrast.ops.gather import row_counts
from kontrast.ops.masks import Mask
from kontrast.ops.positives import LabelledPositives
from kontrast.ops.settings import EngineSettings, Products, current_settings, engine_settings
from kontrast.ops.streamed import logsumexp_streamed, softplus_streamed

# Messages between two ranks are matched by number: 0, 1, ... for a block's parts, this one for its gradient.
_GRADIENT = 1 << 10

Keys = Sequence[tuple[Tensor, Tensor]]


def others_logsumexp(
    q: Tensor,
    k: Tensor,
    keys: Keys,
    group: dist.ProcessGroup,
    *,
    within: tuple[Tensor, Tensor] | None = None,
    multipliers: tuple[float, ...] = (1.0,),
    products: Products = "fp32",
) -> Tensor:
    """log Σ exp(β S) over the candidates of all other ranks.

    Args:
        q: (n, d), this rank's anchors.
        k: (m, d), this rank's candidates, for the anchors of the others; m may differ between ranks.
        keys: pairs of integers (n,) and (m,); entries with equal keys are left out, on whatever rank they meet.
        group: the ranks.
        within: integers (n,) and (m,); if given, only entries with equal keys take part.
        multipliers: the values of β, r of them.
        products: as in `logsumexp_streamed`.

    Returns:
        (r, n); −inf where no entry is left.
    """

    def block(q: Tensor, k: Tensor, shift: Tensor | None, columns: Sequence[Tensor]) -> Tensor:
        mask = _mask(keys, within, columns)
        rows, _ = logsumexp_streamed(q, k, mask=mask, multipliers=multipliers, products=products)
        assert rows is not None
        return rows

    return _over_others(block, "log", q, k, None, _columns(keys, within), group)


def others_softplus(
    q: Tensor,
    k: Tensor,
    offset: Tensor,
    keys: Keys,
    group: dist.ProcessGroup,
    *,
    within: tuple[Tensor, Tensor] | None = None,
    products: Products = "fp32",
) -> Tensor:
    """Σ softplus(S + b) over the candidates of all other ranks, (n,); arguments as in `others_logsumexp`, b is (n,)."""

    def block(q: Tensor, k: Tensor, shift: Tensor | None, columns: Sequence[Tensor]) -> Tensor:
        return softplus_streamed(q, k, shift, mask=_mask(keys, within, columns), products=products)

    return _over_others(block, "sum", q, k, offset, _columns(keys, within), group)


@dataclass(frozen=True)
class RingPositives(LabelledPositives):
    """Positives by equal labels on any rank; q, k and labels are this rank's own."""

    group: dist.ProcessGroup | None = None

    @property
    def _candidates(self) -> Tensor:
        return self.q if self.k is None else self.k

    @property
    def _ranks(self) -> dist.ProcessGroup:
        assert self.group is not None
        return self.group

    @cached_property
    def _here(self) -> LabelledPositives:
        return LabelledPositives(self.q, self.k, self.row_labels, self.column_labels, self.own)

    @cached_property
    def _elsewhere(self) -> Tensor:
        """(2, n): the sum of the logits of positives on other ranks, and their number."""

        def block(q: Tensor, k: Tensor, shift: Tensor | None, columns: Sequence[Tensor]) -> Tensor:
            visiting = LabelledPositives(q, k, self.row_labels, columns[0], None)
            return torch.stack([visiting.mean_logit() * visiting.count, visiting.count])

        return _over_others(block, "sum", self.q, self._candidates, None, [self.column_labels], self._ranks)

    @cached_property
    def count(self) -> Tensor:
        return self._here.count + self._elsewhere[1].detach()

    def mean_logit(self) -> Tensor:
        total = self._here.mean_logit() * self._here.count + self._elsewhere[0]
        return torch.where(self.count > 0, total / self.count.clamp(min=1), 0.0)

    def logsumexp(self) -> Tensor:
        here = torch.where(self._here.count > 0, self._here.logsumexp(), -math.inf)
        labels = (self.row_labels, self.column_labels)
        elsewhere = others_logsumexp(self.q, self._candidates, (), self._ranks, within=labels)[0]
        return torch.where(self.count > 0, logaddexp(here, elsewhere), 0.0)

    def own_denominator(self, log_negatives: Tensor) -> Tensor:
        here = self._here.own_denominator(log_negatives) * self._here.count.clamp(min=1)
        labels = (self.row_labels, self.column_labels)
        elsewhere = others_softplus(-self.q, self._candidates, log_negatives, (), self._ranks, within=labels)
        return (here + elsewhere) / self.count.clamp(min=1)


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """As torch's, with gradient 0 where both are −inf."""
    empty = (x == -math.inf) & (y == -math.inf)
    return torch.where(empty, -math.inf, torch.logaddexp(torch.where(empty, 0.0, x), torch.where(empty, 0.0, y)))


def _columns(keys: Keys, within: tuple[Tensor, Tensor] | None) -> list[Tensor]:
    return [column for _, column in keys] + ([] if within is None else [within[1]])


def _mask(keys: Keys, within: tuple[Tensor, Tensor] | None, columns: Sequence[Tensor]) -> Mask:
    """The mask of this rank's rows and a visiting block's columns."""
    met = tuple((row, column) for (row, _), column in zip(keys, columns))
    return Mask(keys=met, within=None if within is None else (within[0], columns[-1]))


# A block's statistic from q (n, d), the block's k (m, d), the offset (n,) or None, and the block's integer columns.
_Block = Callable[[Tensor, Tensor, "Tensor | None", Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class _Job:
    """A statistic, how those of several blocks become one, and what travels with a block besides its rows."""

    block: _Block
    combine: Literal["log", "sum"]
    columns: Sequence[Tensor]
    group: dist.ProcessGroup
    settings: EngineSettings

    def visits(self, k: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """Sends this rank's block on its way and yields those of the other ranks: (owner, [k, *columns])."""
        ring = _Ring(self.group, row_counts(len(k), self.group, k.device))
        here = [k.detach().contiguous(), *(column.contiguous() for column in self.columns)]
        coming = ring.pass_on(here, ring.owner(1), tag=0)
        for step in range(1, ring.size):
            here = coming()
            if step + 1 < ring.size:
                coming = ring.pass_on(here, ring.owner(step + 1), tag=0)
            yield step, here

    def apply(self, q: Tensor, k: Tensor, shift: Tensor | None, columns: Sequence[Tensor]) -> Tensor:
        """The statistic of one block, under the settings and the precision of the forward pass."""
        with engine_settings(**vars(self.settings)), torch.autocast(q.device.type, enabled=False):
            return self.block(q, k, shift, columns)


class _Ring:
    """Messages to the next rank and from the previous one."""

    def __init__(self, group: dist.ProcessGroup, sizes: list[int]) -> None:
        self._group, self._sizes, self.size = group, sizes, len(sizes)
        self.rank = dist.get_rank(group)
        self._next = dist.get_global_rank(group, (self.rank + 1) % self.size)
        self._previous = dist.get_global_rank(group, (self.rank - 1) % self.size)

    def owner(self, step: int) -> int:
        """Whose block visits this rank at a step, counted from 1; at the last but one step + 1 it is its own again."""
        return (self.rank - step) % self.size

    def pass_on(self, here: Sequence[Tensor], owner: int, tag: int) -> Callable[[], list[Tensor]]:
        """Starts sending `here` and receiving the like of `owner`; the result waits for both and gives the latter."""
        there = [x.new_empty((self._sizes[owner], *x.shape[1:])) for x in here]
        messages = [
            dist.P2POp(send, x, peer, self._group, tag + number)
            for send, tensors, peer in ((dist.isend, here, self._next), (dist.irecv, there, self._previous))
            for number, x in enumerate(tensors)
            if x.numel()
        ]
        works = dist.batch_isend_irecv(messages) if messages else []

        def wait() -> list[Tensor]:
            for work in works:
                work.wait()
            here  # noqa: B018 - what is being sent must live until now
            return there

        return wait


def _over_others(
    block: _Block,
    combine: Literal["log", "sum"],
    q: Tensor,
    k: Tensor,
    shift: Tensor | None,
    columns: Sequence[Tensor],
    group: dist.ProcessGroup,
) -> Tensor:
    job = _Job(block, combine, columns, group, current_settings())
    out: Tensor = _OverOthers.apply(q, k, shift, job)  # type: ignore[no-untyped-call]
    return out


class _OverOthers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, shift: Tensor | None, job: _Job) -> Tensor:
        total: Tensor | None = None
        for _, (visitor, *columns) in job.visits(k):
            part = job.apply(q.detach(), visitor, None if shift is None else shift.detach(), columns)
            if total is None:
                total = part
            else:
                total = total + part if job.combine == "sum" else torch.logaddexp(total, part)
        assert total is not None, "a ring needs two ranks"
        ctx.save_for_backward(q, k, shift, total)
        ctx.job = job
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, shift, total = ctx.saved_tensors
        job: _Job = ctx.job
        ring = _Ring(job.group, row_counts(len(k), job.group, k.device))
        mine = [None if x is None else x.detach().requires_grad_(x.is_floating_point()) for x in (q, shift)]
        sums = [None if x is None else torch.zeros_like(x) for x in (q, shift)]
        carried: Callable[[], list[Tensor]] | None = None
        for step, (visitor, *columns) in job.visits(k):
            visitor.requires_grad_()
            with torch.enable_grad():
                assert mine[0] is not None
                part = job.apply(mine[0], visitor, mine[1], columns)
            weight = grad
            if job.combine == "log":
                # dL/d(part) of a log-sum-exp over blocks; a row without any entry has no gradient.
                share = torch.exp(part.detach() - total)
                weight = grad * torch.where(total == -math.inf, 0.0, share)
            wanted = [visitor, *(x for x in mine if x is not None)]
            # With no entry in common a block's statistic may hang on nothing.
            found = torch.autograd.grad(part, wanted, weight, allow_unused=True) if part.requires_grad else [None] * 3
            for index, one in enumerate(found[1:]):
                if one is not None and (into := sums[index]) is not None:
                    into.add_(one)
            home = torch.zeros_like(visitor) if found[0] is None else found[0].contiguous()
            if carried is not None:
                home = home + carried()[0]
            carried = ring.pass_on([home], ring.owner(step + 1), tag=_GRADIENT)
        assert carried is not None
        return sums[0], carried()[0], sums[1], None
