"""Metrics of sentiment from -3 to 3 as the field computes them.

Two-class accuracy has two conventions whose numbers differ by a few points, so both are given:

- "nonneg": not negative (>= 0) against negative, over all items;
- "posneg": positive (> 0) against not, over the items whose truth is not exactly 0.

Seven classes are whole numbers; a half goes to the even one beside it, as NumPy rounds (0.5 to 0,
1.5 to 2, -2.5 to -2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LIMIT = 3.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def seven_classes(scores: npt.ArrayLike) -> Ints:
    """Whole numbers from -3 to 3 of scores (n,): clipped, then rounded, halves to even."""
    return np.rint(np.clip(np.asarray(scores, np.float64), -LIMIT, LIMIT)).astype(np.int64)


def correlation(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Pearson's correlation; 0 where either side is constant."""
    left, right = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt(np.square(left).sum() * np.square(right).sum()))
    return float((left * right).sum() / scale) if scale > 1e-12 else 0.0


def weighted_f1(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """F1 of each class, averaged with the classes' shares in the truth as weights.

    Args:
        predicted, truth: (n,) classes of any kind.
    """
    found, real = np.asarray(predicted), np.asarray(truth)
    total = 0.0
    for name, count in zip(*np.unique(real, return_counts=True)):
        hits = float(((found == name) & (real == name)).sum())
        total += float(count) * 2 * hits / float((found == name).sum() + count)
    return total / len(real)


def sentiment_metrics(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, float]:
    """Metrics of predicted scores (n,) against true ones (n,).

    Returns:
        "mae"; "corr" (Pearson; 0 where the prediction is constant); "acc7"; "acc2 nonneg" and "f1 nonneg" over all
        items; "acc2 posneg" and "f1 posneg" over those whose truth is not 0, left out where there are none. F1 is the
        class-weighted one.

    Raises:
        ValueError: if shapes differ, nothing is given, or a value is not finite.

    Example:
        >>> sentiment_metrics([0.4, -1.0], [0.0, -1.0])["acc2 nonneg"]
        1.0
    """
    scores, real = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if scores.shape != real.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores and truth must have one shape (n,), n > 0; got {scores.shape} and {real.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(real).all()):
        raise ValueError("scores and truth must be finite")
    metrics = {
        "mae": float(np.abs(scores - real).mean()),
        "corr": correlation(scores, real),
        "acc2 nonneg": float(((scores >= 0) == (real >= 0)).mean()),
        "f1 nonneg": weighted_f1(scores >= 0, real >= 0),
        "acc7": float((seven_classes(scores) == seven_classes(real)).mean()),
    }
    polar = real != 0
    if polar.any():
        metrics["acc2 posneg"] = float(((scores > 0) == (real > 0))[polar].mean())
        metrics["f1 posneg"] = weighted_f1(scores[polar] > 0, real[polar] > 0)
    return metrics
