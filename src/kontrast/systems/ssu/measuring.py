"""What is measured of scores: errors, correlation, two and seven classes; for all utterances and for groups of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kontrast.data.utterances import Utterances
from kontrast.errors import DataError
from kontrast.evaluation.sentiment import sentiment_metrics

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "nothing",
        "none",
        "nobody",
        "nor",
        "neither",
        "cannot",
        "cant",
        "dont",
        "doesnt",
        "didnt",
        "isnt",
        "wasnt",
        "arent",
        "werent",
        "wont",
        "wouldnt",
        "couldnt",
        "shouldnt",
        "hasnt",
        "havent",
        "hadnt",
        "aint",
        "without",
        "hardly",
        "barely",
        "can't",
        "don't",
        "doesn't",
        "didn't",
        "isn't",
        "wasn't",
        "aren't",
        "weren't",
        "won't",
        "wouldn't",
        "couldn't",
        "shouldn't",
        "hasn't",
        "haven't",
        "hadn't",
        "ain't",
        "n't",
    ]
)
LEAST = 10
"""Smallest group that is measured by itself."""


def known_labels(data: Utterances) -> Utterances:
    """The utterances with a label.

    Raises:
        DataError: if there are none.
    """
    known = np.isfinite(data.labels)
    if not known.any():
        raise DataError("has no labels", file=data.path, mend="add a column 'label' with sentiment from -3 to 3")
    return data if known.all() else data.take(np.flatnonzero(known))


def chance_mae(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Expected mean absolute error when the scores (n,) are dealt out at random among the labels (n,)."""
    left, right = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    return float(np.abs(left[:, None] - right).mean())


def groups(data: Utterances) -> Iterator[tuple[str, Bools]]:
    """Groups by length, negation words and missing modalities, where both a group and its rest are large enough."""
    lengths = np.array([len(words) for words in data.tokens])
    negated = np.array([any(word.lower() in NEGATIONS for word in words) for words in data.tokens])
    found = {
        "up to 5 words": lengths <= 5,
        "6 to 15 words": (lengths > 5) & (lengths <= 15),
        "over 15 words": lengths > 15,
        "with negation": negated,
        "without negation": ~negated,
    }
    for name, stream in data.streams.items():
        missing = stream.lengths == 0
        found |= {f"with {name}": ~missing, f"without {name}": missing}
    for name, inside in found.items():
        if LEAST <= inside.sum() <= len(data) - LEAST:
            yield name, inside


def measurement(data: Utterances, scores: Floats) -> tuple[dict[str, float], Floats, list[str]]:
    """Metrics of scores (n,), absolute errors (n,), and names of the utterances."""
    truth = data.labels.astype(np.float64)
    metrics = sentiment_metrics(scores, truth)
    for name, inside in groups(data):
        found = sentiment_metrics(scores[inside], truth[inside])
        metrics |= {f"{metric} {name}": found[metric] for metric in ("mae", "corr")}
    return metrics, np.abs(scores - truth), list(data.ids)
