"""Objectives: the two cross-lingual contrasts. Anchors are the target language's texts, candidates the source's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast.losses import info_nce
from kontrast.ops import Group, Labels, Paired, Rule, contrast, group_in_force, joined_mean, sum_over_ranks
from kontrast.ops.gather import largest_over_ranks
from kontrast.systems.colap.config import Numerator


def xrcl(
    target: Tensor,
    source: Tensor,
    *,
    temperature: float = 0.05,
    numerator: Numerator = "own",
    group: Group = None,
) -> Tensor:
    """Cross-lingual representation contrast: each target text finds its translation among the batch's source texts.

    With S_ij = exp(cos(t_i, s_j) / T), "own" is −mean_i log(S_ii / Σ_j S_ij), which the method describes; "batch_sum"
    is what its released code computes, where the numerator is one number for the whole batch: with P = Σ_k S_kk,
    −mean_i log(P / (P + Σ_{j≠i} S_ij)). One direction only.

    Args:
        target: (n, d) vectors of the target language.
        source: (n, d) of their translations, row by row.
        temperature: T > 0.
        numerator: see above.
        group: ranks whose source texts are candidates, too.

    Returns:
        A scalar; 0 for a batch of one pair.

    Raises:
        ValueError: if shapes do not fit.
    """
    if target.shape != source.shape:
        raise ValueError(f"each target vector needs its translation, got {tuple(target.shape)}, {tuple(source.shape)}")
    if numerator == "own":
        return info_nce(target, source, temperature=temperature, group=group)
    ranks = group_in_force(group)
    rule = Rule(Paired(), denominator="negatives", reduction="none")
    # Of each anchor −s_ii + log Σ_{j≠i} exp(s_ij); NaN where there is no negative.
    apart = contrast(target, source, rule, temperature=temperature, normalize=True, group=ranks)
    own = (F.normalize(target, dim=1) * F.normalize(source, dim=1)).sum(1) / temperature
    largest = largest_over_ranks(float(own.detach().max()), ranks)
    total = sum_over_ranks((own - largest).exp().sum(), ranks).log() + largest
    known = ~apart.isnan()
    losses = F.softplus(torch.where(known, apart, 0.0) + own - total)
    return joined_mean((losses * known).sum(), float(len(target)), ranks)


def xccl(
    target: Tensor,
    source: Tensor,
    target_labels: Tensor,
    source_labels: Tensor,
    *,
    temperature: float = 0.05,
    group: Group = None,
) -> Tensor:
    """Cross-lingual class contrast: each target text finds the source texts of its class, summed inside the logarithm.

    −mean_i log(Σ_{j: y_j = y_i} S_ij / Σ_j S_ij) with S as in `xrcl`; no translations are needed, and no target text is
    a candidate. A target text whose class has no source text in the batch is left out.

    Args:
        target: (n, d).
        source: (m, d).
        target_labels: (n,) integers.
        source_labels: (m,) integers.
        temperature: T > 0.
        group: ranks whose source texts are candidates, too.

    Returns:
        A scalar; 0 where all texts of the batch are of one class.

    Raises:
        ValueError: if shapes do not fit.
    """
    rule = Rule(Labels(target_labels, source_labels), inside=True)
    return contrast(target, source, rule, temperature=temperature, normalize=True, group=group)
