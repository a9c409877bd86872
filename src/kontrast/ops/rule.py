"""The rule of a softmax-type objective: who is positive, who is left out, and what is divided by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Directions: TypeAlias = Literal["forward", "backward", "both"]
Partition: TypeAlias = Literal["separate", "joint"]
Denominator: TypeAlias = Literal["all", "own_positive", "negatives"]
NoPositive: TypeAlias = Literal["skip", "error"]
Reduction: TypeAlias = Literal["mean", "anchors", "pairs", "sum", "none"]


@dataclass(frozen=True)
class Paired:
    """Anchor i has the one positive candidate i; candidates beyond the anchors are negatives of all.

    Args:
        others: whether the other anchors' positives are negatives, too (in-batch negatives). False leaves only the
            candidates beyond the anchors, as with a queue.
    """

    others: bool = True


@dataclass(frozen=True)
class Labels:
    """Candidates with the anchor's label are positive; within one set an anchor is never its own positive.

    Args:
        anchors: (n,) integers.
        candidates: (m,) integers, or None where the candidates are the anchors.
    """

    anchors: Tensor
    candidates: Tensor | None = None


@dataclass(frozen=True)
class Pairs:
    """A sparse list: candidate ``columns[k]`` is a positive of anchor ``rows[k]``.

    Args:
        rows: (p,) integers in 0..n−1, in any order.
        columns: (p,) integers in 0..m−1; a pair may occur once.
        weights: (p,) non-negative numbers, or None for 1.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor | None = None

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> Pairs:
        """From one list of positive candidates per anchor; an empty list is an anchor without positives."""
        rows = [row for row, columns in enumerate(lists) for _ in columns]
        columns = [column for columns in lists for column in columns]
        return cls(torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long))


Positives: TypeAlias = Paired | Labels | Pairs


@dataclass(frozen=True)
class Rule:
    """How anchors, candidates and a temperature become a loss.

    With s the similarity over the temperature, P(i) the positives and N(i) the negatives of anchor i, the loss of a
    pair is −sₚ + log D, where D sums exp(s) over:

    - denominator "all": P(i) and N(i), that is all candidates that are not left out;
    - "own_positive": the pair's own positive and N(i);
    - "negatives": N(i) alone.

    Args:
        positives: who is positive. All other candidates that are not left out are negatives.
        inside: False averages the pairs' losses over P(i); True sums the positives' exponentials inside the logarithm,
            −log Σₚ exp(sₚ) + log D; "mean" is True with their mean instead of their sum.
        ids: (n,) and (m,) integers (the second None where the candidates are the anchors): a candidate with the
            anchor's id is no negative of it. Duplicates of one item are told by this.
        known: further pairs that are neither positive nor negative, such as known positives of another kind.
        directions: "forward" anchors → candidates, "backward" the other way, "both" the mean of the two.
        partition: "separate", or "joint" for two paired views: one softmax over the rows of both, each row an anchor
            and never its own candidate.
        denominator: see above.
        hardness: β ≥ 0; negatives weigh exp(β s), normalised to mean 1 (arXiv 2010.04592).
        debias: τ⁺ in [0, 1), the prior probability that a negative is a false one (arXiv 2007.00224).
        no_positive: "skip" leaves anchors without positives out and counts them, "error" raises.
        reduction: "mean" over anchors with a loss, "anchors" over all anchors (skipped ones as 0), "pairs" over
            positive pairs, "sum" over anchors, "none" for (n,) losses, NaN for skipped anchors.
    """

    positives: Positives
    inside: bool | Literal["mean"] = False
    ids: tuple[Tensor, Tensor | None] | None = None
    known: Pairs | None = None
    directions: Directions = "forward"
    partition: Partition = "separate"
    denominator: Denominator = "all"
    hardness: float = 0.0
    debias: float = 0.0
    no_positive: NoPositive = "skip"
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("directions", self.directions, ("forward", "backward", "both")),
            ("partition", self.partition, ("separate", "joint")),
            ("denominator", self.denominator, ("all", "own_positive", "negatives")),
            ("no_positive", self.no_positive, ("skip", "error")),
            ("reduction", self.reduction, ("mean", "anchors", "pairs", "sum", "none")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, got {value!r}")
        if self.hardness < 0:
            raise ValueError(f"hardness is at least 0, got {self.hardness}")
        if not 0 <= self.debias < 1:
            raise ValueError(f"debias is at least 0 and below 1, got {self.debias}")
        if self.inside and self.denominator == "own_positive":
            raise ValueError("denominator 'own_positive' needs one pair at a time: with inside=True choose 'all'")
        if self.partition == "joint" and not isinstance(self.positives, Paired):
            raise ValueError("partition 'joint' is for two paired views; for labels concatenate the views yourself")
        if self.reduction == "none" and self.directions == "both":
            raise ValueError("reduction 'none' needs one direction: anchors and candidates have a loss each")
