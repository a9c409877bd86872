"""Calibration: from scores to probabilities (Platt), and how far probabilities are off (expected calibration error)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError

Floats = npt.NDArray[np.float64]
_ROUNDS = 100


@dataclass(frozen=True)
class PlattScaling:
    """Probabilities σ(slope · score + intercept).

    They hold where positives are as frequent as in the data of the fit; `shifted` moves them to another share.

    Attributes:
        slope: at least 0 for scores of which higher ones mean the positive class.
        intercept: logit of the probability at score 0.
    """

    slope: float
    intercept: float

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        """(n,) probabilities in [0, 1] of finite scores (n,)."""
        logits = self.slope * np.asarray(scores, np.float64) + self.intercept
        # The form without a large exponent on either side.
        small = np.exp(-np.abs(logits))
        return np.asarray(np.where(logits >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.float64)

    def shifted(self, fitted_share: float, share: float) -> PlattScaling:
        """The same scores where positives make up `share` of the data instead of `fitted_share`, both in (0, 1)."""
        for value in (fitted_share, share):
            if not 0 < value < 1:
                raise ValueError(f"shares of positives must be in (0, 1), got {value}.")
        moved = math.log(share / (1 - share)) - math.log(fitted_share / (1 - fitted_share))
        return PlattScaling(self.slope, self.intercept + moved)

    def to_dict(self) -> dict[str, float]:
        """JSON-able."""
        return {"slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, values: Any) -> PlattScaling:
        """What `to_dict` gave.

        Raises:
            ValueError: if it is not two finite numbers.
        """
        try:
            found = cls(float(values["slope"]), float(values["intercept"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected slope and intercept, got {values!r}") from error
        if not (math.isfinite(found.slope) and math.isfinite(found.intercept)):
            raise ValueError(f"slope and intercept must be finite, got {values!r}")
        return found


def fit_platt(scores: npt.ArrayLike, labels: npt.ArrayLike) -> PlattScaling:
    """Logistic regression of the labels on the score, by maximum likelihood with Platt's smoothed targets.

    Targets are (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) instead of 1 and 0 (Platt 1999, "Probabilistic outputs for support
    vector machines"), so that scores that separate the classes still give a finite slope. Newton's method with step
    halving, as in Lin, Lin, Weng 2007; scores are standardised inside, so their scale does not matter.

    Args:
        scores: (n,) finite, of data that were not trained on.
        labels: (n,) 0 or 1.

    Raises:
        DataError: if only one class is there.
        ValueError: if shapes disagree, a score is not finite or a label is neither 0 nor 1.
    """
    values, positive = _checked(scores, labels, "scores")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise DataError("calibration needs both classes, and there is one only", mend="give more validation data")
    targets = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    centre, spread = float(values.mean()), float(values.std())
    if spread == 0:
        spread = 1.0
    standard = (values - centre) / spread
    slope, intercept = 0.0, math.log((n_positive + 1) / (n_negative + 1))
    loss = _loss(slope * standard + intercept, targets)
    for _ in range(_ROUNDS):
        probability = PlattScaling(slope, intercept).probabilities(standard)
        error, weight = probability - targets, np.maximum(probability * (1 - probability), 1e-12)
        gradient = np.array([error @ standard, error.sum()])
        if float(np.abs(gradient).max()) < 1e-9 * len(values):
            break
        cross = weight @ standard
        curvature = np.array([[weight @ standard**2 + 1e-9, cross], [cross, weight.sum() + 1e-9]])
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-10:
            trial = (slope - size * step[0], intercept - size * step[1])
            found = _loss(trial[0] * standard + trial[1], targets)
            if found <= loss:
                break
            size /= 2
        else:
            break
        slope, intercept, loss = float(trial[0]), float(trial[1]), found
    return PlattScaling(slope / spread, intercept - slope * centre / spread)


def _loss(logits: Floats, targets: Floats) -> float:
    """Cross-entropy Σ log(1 + e^x) − t x."""
    return float((np.logaddexp(0, logits) - targets * logits).sum())


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed frequency in bins of equal width: what a reliability diagram shows.

    Attributes:
        predicted: (b,) mean probability of each bin that holds anything.
        observed: (b,) share of positives.
        counts: (b,) rows.
    """

    predicted: Floats
    observed: Floats
    counts: npt.NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Σ (count / n) · |observed − predicted|."""
        return float(self.counts @ np.abs(self.observed - self.predicted) / self.counts.sum())

    @property
    def largest_error(self) -> float:
        """The largest gap of a bin."""
        return float(np.abs(self.observed - self.predicted).max())


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Bins of equal width over [0, 1]; a probability of 1 belongs to the last one.

    Args:
        probabilities: (n,) in [0, 1].
        labels: (n,) 0 or 1: whether the row is positive or, for the probability of a chosen class, whether that class
            is right.
        bins: number of bins.

    Raises:
        ValueError: if shapes disagree, there are no rows or values are out of range.
    """
    values, positive = _checked(probabilities, labels, "probabilities")
    if bins < 1:
        raise ValueError(f"there must be at least one bin, got {bins}.")
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError("probabilities must be in [0, 1], and at least one.")
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    predicted, observed = (np.bincount(place, weights, bins)[filled] / counts[filled] for weights in (values, positive))
    return Reliability(predicted, observed, counts[filled].astype(np.int64))


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Σ over bins of (count / n) · |observed − predicted| (arXiv 1706.04599, eq. 3). Arguments as for `reliability`."""
    return reliability(probabilities, labels, bins).expected_error


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean squared distance of the probability from 0 or 1. Arguments as for `reliability`."""
    values, positive = _checked(probabilities, labels, "probabilities")
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError("probabilities must be in [0, 1], and at least one.")
    return float(((values - positive) ** 2).mean())


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike, name: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, raw = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != raw.shape:
        raise ValueError(f"{name} and labels must be vectors of equal length, got {values.shape} and {raw.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite.")
    if not np.isin(raw, (0, 1)).all():
        raise ValueError("labels must be 0 or 1.")
    return values, raw.astype(bool)
