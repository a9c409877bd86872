"""Marker features: which genes, proteins or peaks tell a group of cells from all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

BLOCK = 500
"""Features that are ranked at a time."""


def rank_markers(
    values: Any, features: Sequence[str], groups: npt.NDArray[Any], top: int | None = None
) -> pd.DataFrame:
    """Wilcoxon's rank-sum test of each feature in each group against all other rows.

    Args:
        values: (n, features) normalised values, dense or a scipy sparse matrix.
        features: names.
        groups: (n,) group of each row.
        top: features with the highest score to keep for each group; None keeps all.

    Returns:
        Rows of group, feature, score (z with the correction for ties, above 0 where the group is higher), p, q
        (Benjamini and Hochberg 1995, over the features of a group), mean_in, mean_out and share_in (of cells in which
        the value is above 0), by falling score within a group.
    """
    from scipy.stats import norm

    names, codes = np.unique(groups, return_inverse=True)
    n, width = values.shape
    sizes = np.bincount(codes, minlength=len(names)).astype(np.float64)
    member = np.zeros((len(names), n))
    member[codes, np.arange(n)] = 1.0
    z, means, shares = (np.zeros((len(names), width)) for _ in range(3))
    totals = np.zeros(width)
    for start in range(0, width, BLOCK):
        block = values[:, start : start + BLOCK]
        dense = np.asarray(block.todense() if hasattr(block, "todense") else block, dtype=np.float64)
        place = slice(start, start + dense.shape[1])
        ranks, ties = _ranks(dense)
        expected = sizes * (n + 1) / 2
        variance = np.outer(sizes * (n - sizes) / 12, (n + 1) - ties / max(n * (n - 1), 1))
        safe = np.where(variance > 0, variance, 1.0)
        z[:, place] = np.where(variance > 0, (member @ ranks - expected[:, None]) / np.sqrt(safe), 0.0)
        means[:, place] = member @ dense / np.maximum(sizes, 1)[:, None]
        shares[:, place] = member @ (dense > 0) / np.maximum(sizes, 1)[:, None]
        totals[place] = dense.sum(0)
    found = []
    for number, name in enumerate(names):
        p = 2 * norm.sf(np.abs(z[number]))
        order = np.argsort(-z[number], kind="stable")[:top]
        rest = (totals - means[number] * sizes[number]) / max(n - sizes[number], 1)
        found.append(
            pd.DataFrame(
                {
                    "group": name,
                    "feature": np.asarray(features, dtype=object)[order],
                    "score": z[number, order],
                    "p": p[order],
                    "q": adjusted(p)[order],
                    "mean_in": means[number, order],
                    "mean_out": rest[order],
                    "share_in": shares[number, order],
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def _ranks(columns: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean ranks of each column (n, k), from 1, and the tie term Σ (t³ − t) of each column."""
    from scipy.stats import rankdata

    ranks = rankdata(columns, axis=0)
    ordered = np.sort(ranks, axis=0)
    ties = np.zeros(columns.shape[1])
    for column in range(columns.shape[1]):
        _, counts = np.unique(ordered[:, column], return_counts=True)
        ties[column] = float((counts.astype(np.float64) ** 3 - counts).sum())
    return ranks, ties


def adjusted(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P values of several tests, adjusted so that a cut at q holds the share of false discoveries below q."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    made = np.empty(len(p))
    made[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return made
