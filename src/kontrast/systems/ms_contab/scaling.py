"""Scaling: from counts to numbers that a network can learn from."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kontrast.data.mutations import chromosome_lengths
from kontrast.systems.ms_contab.config import ProfileSection

HELLINGER = 20.0
"""What square roots of shares are multiplied by: over a few hundred columns they are near 0.05."""

_LEAST = 1e-8


class ProfileScaling(nn.Module):
    """Counts of one view (n, names·classes) to inputs of the same shape, row by row.

    ========== ====================================================================================================
    hellinger  20·(√(count / total) − mean): Euclidean distance between rows is Hellinger's between their shares, and
               the number of mutations has no part in it
    log_z      log(1 + count) of genes, log(count / length + 1e-8) of chromosomes, standardised by training rows
    raw        counts of genes, count / length of chromosomes, as in the official code
    ========== ====================================================================================================

    With `ranks`, names are first ordered by each row's own counts, and the first ones kept.

    Args:
        view: "gene" or "chromosome".
        names: number of genes or chromosomes.
        section: scale, classes, ranks.
        build: of the lengths of chromosomes.
    """

    mean: Tensor
    factor: Tensor
    lengths: Tensor

    def __init__(self, view: str, names: int, section: ProfileSection, build: Literal["hg19", "hg38"]) -> None:
        super().__init__()
        self.view, self.names, self.section = view, names, section
        self.ranked = view == "gene" and section.gene_view == "ranked"
        self.width = section.classes * (min(section.ranks, names) if self.ranked else names)
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("factor", torch.ones(self.width))
        lengths = chromosome_lengths(build) if view == "chromosome" else np.ones(names)
        self.register_buffer("lengths", torch.from_numpy(np.repeat(lengths, section.classes).astype(np.float32)))

    def learn(self, counts: npt.NDArray[np.float32]) -> ProfileScaling:
        """Takes means (and deviations) from training rows (n, names·classes); returns itself."""
        if self.section.scale == "raw":
            return self
        rows = self._plain(torch.from_numpy(counts)).double()
        self.mean.copy_(rows.mean(0))
        if self.section.scale == "hellinger":
            self.factor.fill_(HELLINGER)
        else:
            deviation = rows.std(0, correction=0)
            # A column without variation in training says nothing, whatever comes later.
            self.factor.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0))
        return self

    def forward(self, counts: Tensor) -> Tensor:
        """(n, names·classes) counts to (n, width)."""
        return (self._plain(counts) - self.mean) * self.factor

    def _plain(self, counts: Tensor) -> Tensor:
        if self.ranked:
            counts = self._by_rank(counts)
        if self.section.scale == "hellinger":
            return (counts / counts.sum(1, keepdim=True).clamp_min(1)).sqrt()
        if self.section.scale == "log_z":
            return counts.log1p() if self.view == "gene" else (counts / self.lengths + _LEAST).log()
        return counts if self.view == "gene" else counts / self.lengths

    def _by_rank(self, counts: Tensor) -> Tensor:
        """The most mutated genes of each row, most mutated first; ties go by the order of the vocabulary."""
        table = counts.reshape(len(counts), self.names, self.section.classes)
        order = table.sum(2).argsort(dim=1, descending=True, stable=True)[:, : self.section.ranks]
        chosen = table.gather(1, order[:, :, None].expand(-1, -1, self.section.classes))
        return chosen.reshape(len(counts), self.width)
