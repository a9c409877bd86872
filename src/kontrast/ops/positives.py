"""The positives' share of a loss: their mean logit, their log-sum-exp, their terms against the negatives.

Positives are computed apart from the negatives, in the inputs' own precision: then the loss of a well-trained pair,
log(1 + exp(L⁻ − s⁺)), is as exact when it is 1e-6 as when it is 6, and bf16 products touch negatives alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast.ops.masks import Mask
from kontrast.ops.streamed import logsumexp_streamed, softplus_streamed


class PositiveTerms(Protocol):
    """Per-anchor statistics of the positives; 0 for anchors without any."""

    @property
    def count(self) -> Tensor:
        """(n,) positives of each anchor."""

    @property
    def weight(self) -> Tensor:
        """(n,) sums of their weights."""

    def mean_logit(self) -> Tensor:
        """(n,) weighted means of s."""

    def logsumexp(self) -> Tensor:
        """(n,) log Σ w exp(s)."""

    def own_denominator(self, log_negatives: Tensor) -> Tensor:
        """(n,) weighted means of log(1 + exp(L⁻ − s)): each pair against its own positive and the negatives."""


@dataclass(frozen=True)
class ListedPositives:
    """Positives from a list of p pairs (rows, columns), with optional weights (p,).

    `each_once` says that the rows are 0..n−1: one positive each, whose statistics are the logit itself.
    """

    q: Tensor
    k: Tensor
    rows: Tensor
    columns: Tensor
    weights: Tensor | None = None
    each_once: bool = False

    @cached_property
    def _logits(self) -> Tensor:
        return _dots(_take(self.q, self.rows), _take(self.k, self.columns))

    def _sum(self, x: Tensor) -> Tensor:
        return _sums(x, self.rows, len(self.q))

    def _mean(self, x: Tensor) -> Tensor:
        if self.each_once:
            return x
        weighted = x if self.weights is None else x * self.weights
        return self._sum(weighted) / self.weight.masked_fill(self.weight == 0, 1.0)

    @cached_property
    def count(self) -> Tensor:
        if self.each_once:
            return self.q.new_ones(len(self.q))
        present = self.q.new_ones(len(self.rows)) if self.weights is None else (self.weights > 0).to(self.q.dtype)
        return self._sum(present)

    @cached_property
    def weight(self) -> Tensor:
        return self.count if self.weights is None else self._sum(self.weights.to(self.q.dtype))

    def mean_logit(self) -> Tensor:
        return self._mean(self._logits)

    def logsumexp(self) -> Tensor:
        if self.each_once:
            return self._logits
        s = self._logits if self.weights is None else self._logits + self.weights.log()
        top = s.detach().new_full((len(self.q),), -math.inf).scatter_reduce(0, self.rows, s.detach(), "amax")
        top = torch.where(top == -math.inf, 0.0, top)
        total = self._sum(torch.exp(s - top[self.rows]))
        return torch.where(total > 0, total, 1.0).log() + top

    def own_denominator(self, log_negatives: Tensor) -> Tensor:
        log_negatives = log_negatives if self.each_once else log_negatives[self.rows]
        return self._mean(F.softplus(log_negatives - self._logits))


@dataclass(frozen=True)
class LabelledPositives:
    """Positives by equal integer labels, (n,) and (m,); `own` is the anchors' own diagonal, if they are candidates."""

    q: Tensor
    k: Tensor | None
    row_labels: Tensor
    column_labels: Tensor
    own: int | None

    @property
    def _mask(self) -> Mask:
        diagonals = () if self.own is None else (self.own,)
        return Mask(diagonals=diagonals, within=(self.row_labels, self.column_labels))

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        _, codes = torch.unique(torch.cat([self.row_labels, self.column_labels]), return_inverse=True)
        sizes = torch.bincount(codes[len(self.row_labels) :], minlength=int(codes.max()) + 1 if len(codes) else 0)
        return codes[: len(self.row_labels)], codes[len(self.row_labels) :], sizes

    @cached_property
    def count(self) -> Tensor:
        rows, _, sizes = self._classes
        return sizes[rows].to(self.q.dtype) - (0 if self.own is None else 1)

    @property
    def weight(self) -> Tensor:
        return self.count

    def mean_logit(self) -> Tensor:
        # A sum over a class is a product with the class's sum: O(n d), no logits needed.
        rows, columns, sizes = self._classes
        k = self.q if self.k is None else self.k
        sums = _sums(k, columns, len(sizes))
        total = _dots(self.q, sums[rows])
        if self.own is not None:
            total = total - _dots(self.q, k[self.own : self.own + len(self.q)])
        return torch.where(self.count > 0, total / self.count.clamp(min=1), 0.0)

    def logsumexp(self) -> Tensor:
        rows, _ = logsumexp_streamed(self.q, self.k, mask=self._mask)
        assert rows is not None
        return torch.where(self.count > 0, rows[0], 0.0)

    def own_denominator(self, log_negatives: Tensor) -> Tensor:
        k = self.q if self.k is None else self.k
        total = softplus_streamed(-self.q, k, log_negatives, mask=self._mask)
        return total / self.count.clamp(min=1)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    """Row by row products, (n,), without an (n, d) temporary."""
    return torch.einsum("nd,nd->n", x, y)


def _sums(x: Tensor, index: Tensor, length: int) -> Tensor:
    """Sums of the entries of x (along dimension 0) with the same index, in a fixed order on every device."""
    zeros = x.new_zeros(length, *x.shape[1:])
    if x.is_cuda:  # index_add adds in the order in which threads come, this one sorts first
        return zeros.index_put((index,), x, accumulate=True)
    return zeros.index_add(0, index, x)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x; a view where the index is a plain range."""
    count = len(index)
    if count and int(index[-1]) - int(index[0]) == count - 1 and bool((index[1:] - index[:-1] == 1).all()):
        return x[int(index[0]) : int(index[0]) + count]
    return x[index]
