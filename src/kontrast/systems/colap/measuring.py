"""Measuring: accuracy and macro-F1 by language, and the gap to the source language."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kontrast.contract import Measurement
from kontrast.data.languages import LanguageTexts

Ints = npt.NDArray[np.int64]


def macro_f1(truth: Ints, predicted: Ints) -> float:
    """F1 averaged over the classes that occur among the truth or the predictions, in [0, 1]."""
    classes = np.union1d(truth, predicted)
    scores = []
    for number in classes:
        right = int(((truth == number) & (predicted == number)).sum())
        total = int((truth == number).sum() + (predicted == number).sum())
        scores.append(2 * right / total)
    return float(np.mean(scores)) if scores else 0.0


def by_language(data: LanguageTexts, codes: Ints, predicted: Ints) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of the rows with a known class, by language."""
    found = {}
    for language in data.languages:
        rows = (data.language == language) & (codes >= 0)
        if rows.any():
            found[language] = {
                "accuracy": float((codes[rows] == predicted[rows]).mean()),
                "macro_f1": macro_f1(codes[rows], predicted[rows]),
            }
    return found


def asked_rows(data: LanguageTexts, codes: Ints, source: str) -> npt.NDArray[np.bool_]:
    """(n,) the rows that the primary metric is about: all languages but the source, or the source where it is alone."""
    known = codes >= 0
    others = known & (data.language != source)
    return others if others.any() else known


def overall(data: LanguageTexts, codes: Ints, predicted: Ints, source: str) -> dict[str, float]:
    """accuracy over the rows of the target languages, and macro_f1 as the mean over these languages."""
    rows = asked_rows(data, codes, source)
    found = by_language(data.take(rows), codes[rows], predicted[rows])
    return {
        "accuracy": float((codes[rows] == predicted[rows]).mean()),
        "macro_f1": float(np.mean([metrics["macro_f1"] for metrics in found.values()])),
    }


def measurement(data: LanguageTexts, codes: Ints, predicted: Ints, zero_shot: Ints, source: str) -> Measurement:
    """The metrics of the adapted classifiers beside those of the source's classifier on the same rows.

    Args:
        data: n rows.
        codes: (n,) true classes, -1 where unknown.
        predicted: (n,) classes by the branch of each row's language.
        zero_shot: (n,) classes by the source's branch.
        source: the source language.
    """
    rows = asked_rows(data, codes, source)
    metrics = overall(data, codes, predicted, source)
    languages = by_language(data, codes, predicted)
    targets = [language for language in languages if language != source]
    if targets:
        before = overall(data, codes, zero_shot, source)
        metrics |= {f"zero-shot {name}": value for name, value in before.items()}
        if source in languages:
            own = languages[source]["accuracy"]
            earlier = by_language(data, codes, zero_shot)
            metrics["source accuracy"] = own
            metrics["source macro_f1"] = languages[source]["macro_f1"]
            metrics["gap"] = own - _mean(languages, targets)
            metrics["zero-shot gap"] = own - _mean(earlier, targets)
    for language in targets:
        metrics |= {f"{name} {language}": value for name, value in languages[language].items()}
    items = (codes[rows] == predicted[rows]).astype(np.float64)
    names = data.take(rows).keys()
    return Measurement(metrics, items, names)


def _mean(found: Mapping[str, Mapping[str, float]], languages: list[str]) -> float:
    return float(np.mean([found[language]["accuracy"] for language in languages]))
