"""Detection and link ranking: how well scores separate positives from negatives.

**Ties** count half: a positive that ties with negatives stands in the middle of them, so that a constant scorer gets
chance (AUROC ½, AP the share of positives) and never a perfect rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.intervals import Interval
from kontrast.randomness import numpy_rng

Floats = npt.NDArray[np.float64]


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting ½.

    Args:
        scores: (n,) finite, higher means more likely positive.
        labels: (n,) 0 or 1.

    Raises:
        DataError: if only one class is there.
        ValueError: if shapes disagree, a score is NaN or a label is neither 0 nor 1.
    """
    from scipy.stats import rankdata

    values, positive = _checked(scores, labels)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    ranks = rankdata(values)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Σ (recall step · precision) over thresholds; tied scores pass a threshold together. Arguments as for `auroc`."""
    from sklearn.metrics import average_precision_score

    values, positive = _checked(scores, labels)
    return float(average_precision_score(positive, values))


def detection_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """ "auroc", "ap" and "f1_max" (the best F1 over all thresholds, an upper bound). Arguments as for `auroc`."""
    from sklearn.metrics import precision_recall_curve

    values, positive = _checked(scores, labels)
    precision, recall, _ = precision_recall_curve(positive, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {"auroc": auroc(values, positive), "ap": average_precision(values, positive), "f1_max": float(f1.max())}


def detection_interval(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: Callable[[Floats, npt.NDArray[np.bool_]], float] = auroc,
    *,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a detection metric.

    Without groups, positives and negatives are resampled apart, which keeps their numbers; with groups (patient,
    video) whole groups are, and a resample without both classes is drawn again.

    Args:
        scores: (n,) as for `auroc`.
        labels: (n,).
        metric: maps scores and labels to a number.
        groups: (n,) group of each row.
        level: coverage.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        DataError: if only one class is there, or so few groups hold one that resamples miss it.
        ValueError: if shapes disagree.
    """
    values, positive = _checked(scores, labels)
    rng = numpy_rng(seed, "detection")
    if groups is None:
        units = [np.flatnonzero(positive), np.flatnonzero(~positive)]
        picks = (
            np.concatenate([unit[rng.integers(len(unit), size=len(unit))] for unit in units]) for _ in iter(int, 1)
        )
    else:
        _, index = np.unique(np.asarray(groups), return_inverse=True)
        if index.shape != positive.shape:
            raise ValueError(f"got groups of shape {index.shape} for {len(positive)} scores.")
        members = [np.flatnonzero(index == number) for number in range(int(index.max()) + 1)]
        picks = (
            np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in iter(int, 1)
        )
    draws: list[float] = []
    for attempt, pick in enumerate(picks):
        if positive[pick].any() and not positive[pick].all():
            draws.append(metric(values[pick], positive[pick]))
        if len(draws) == resamples:
            break
        if attempt > 10 * resamples:
            raise DataError("too few groups hold both classes for a bootstrap interval", mend="pass no groups")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(metric(values, positive), float(low), float(high), level)


def link_ranks(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> tuple[Floats, Floats]:
    """For each positive, how many negatives score higher and how many score the same.

    Args:
        positives: (n,) scores.
        negatives: (m,) scores shared by all positives, or (n, m) own negatives of each (HeaRT's setting).

    Returns:
        Two vectors (n,); the rank is ``higher + same / 2 + 1`` = ½(#negatives ≥ it + #negatives > it) + 1.

    Raises:
        ValueError: if shapes disagree or a score is NaN.
    """
    own, others = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    if own.ndim != 1 or others.ndim not in (1, 2) or (others.ndim == 2 and len(others) != len(own)):
        raise ValueError(f"expected scores (n,) and (m,) or (n, m), got {own.shape} and {others.shape}.")
    if not own.size or not others.size:
        raise ValueError(f"there must be positives and negatives, got {own.shape} and {others.shape}.")
    if np.isnan(own).any() or np.isnan(others).any():
        raise ValueError("scores must not be NaN.")
    if others.ndim == 2:
        higher = (others > own[:, None]).sum(1)
        at_least = (others >= own[:, None]).sum(1)
    else:
        ordered = np.sort(others)
        higher = len(ordered) - np.searchsorted(ordered, own, "right")
        at_least = len(ordered) - np.searchsorted(ordered, own, "left")
    return higher.astype(np.float64), (at_least - higher).astype(np.float64)


def link_values(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, ks: Sequence[int] = (10, 50, 100)
) -> dict[str, Floats]:
    """Hits@K and reciprocal rank per positive; arguments as for `link_ranks`.

    Hits@K without ties is 1 if the positive scores above the K-th highest negative (OGB's definition). Tied with s
    negatives it is the share of its s + 1 possible places that count.

    Returns:
        "hits@K" for each K, and "mrr"; each (n,).
    """
    if any(k < 1 for k in ks):
        raise ValueError(f"cut-offs must be at least 1, got {list(ks)}.")
    higher, same = link_ranks(positives, negatives)
    hits = {f"hits@{k}": np.clip((k - higher) / (same + 1), 0.0, 1.0) for k in sorted(ks)}
    return {**hits, "mrr": 1 / (higher + same / 2 + 1)}


def link_metrics(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, ks: Sequence[int] = (10, 50, 100)
) -> dict[str, float]:
    """Link prediction: "hits@K" and "mrr" (see `link_values`), and "auroc" and "ap" of all scores pooled."""
    ranked = {name: float(values.mean()) for name, values in link_values(positives, negatives, ks).items()}
    own, others = np.asarray(positives, np.float64), np.asarray(negatives, np.float64).ravel()
    scores, labels = np.concatenate([own, others]), np.repeat([1, 0], [len(own), len(others)])
    return {"auroc": auroc(scores, labels), "ap": average_precision(scores, labels), **ranked}


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, raw = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != raw.shape:
        raise ValueError(f"scores and labels must be vectors of equal length, got {values.shape} and {raw.shape}.")
    if np.isnan(values).any():
        raise ValueError("scores must not be NaN.")
    if not np.isin(raw, (0, 1)).all():
        raise ValueError("labels must be 0 or 1.")
    positive = raw.astype(bool)
    if positive.all() or not positive.any():
        held = "positive" if positive.any() else "negative" if len(positive) else "no"
        raise DataError(f"detection metrics need both classes, but there are {held} rows only")
    return values, positive
