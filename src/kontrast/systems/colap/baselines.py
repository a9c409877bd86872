"""Baselines: what one would try first, and the same examples without contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kontrast.data.languages import LanguageTexts
from kontrast.systems.colap.measuring import asked_rows, by_language, overall
from kontrast.systems.colap.views import class_codes
from kontrast.training import TrainerConfig, run_stage

if TYPE_CHECKING:
    from kontrast.systems.colap.system import Colap

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
TENFOLD = 10.0


def simple_baselines(
    system: Colap, train: LanguageTexts, test: LanguageTexts, codes: Ints
) -> dict[str, dict[str, float]]:
    """accuracy and macro_f1 by name of the method, with the accuracy of each target language.

    The two without contrast start from the trained source classifier, and are left out where layers are trained: there
    they cost as much as the method itself, and ``contrast=off`` is the first of them.
    """
    found = {"zero-shot": system.answers(test, zero_shot=True)[1].argmax(1)}
    if system.config.train == "adapter" and system.config.k > 0:
        found["target examples, no contrast"] = _adapted(system, train, test, source_ce=0.0)
        found["target and source examples, no contrast"] = _adapted(system, train, test, source_ce=1.0)
    found["logistic regression on frozen vectors"] = frozen_regression(system, train, test)
    source = system.facts_["source"]
    own = class_codes(train.take(train.labelled & (train.language == source)), system.facts_["classes"])
    found["most frequent class"] = np.full(len(test), np.bincount(own).argmax())
    return {name: _metrics(test, codes, predicted, source) for name, predicted in found.items()}


def _metrics(test: LanguageTexts, codes: Ints, predicted: Ints, source: str) -> dict[str, float]:
    rows = asked_rows(test, codes, source)
    languages = by_language(test.take(rows), codes[rows], predicted[rows])
    each = {f"accuracy {language}": metrics["accuracy"] for language, metrics in languages.items()}
    return {**overall(test, codes, predicted, source), **each}


def _adapted(system: Colap, train: LanguageTexts, test: LanguageTexts, source_ce: float) -> Ints:
    """Classes of the test texts after the second stage without contrast."""
    other = system.beside(system.config.changed(contrast="off", source_ce=source_ce))
    quiet = TrainerConfig(progress="off", loggers=[])
    for stage in other.adaptations(train):
        run_stage(stage, quiet)
    found: Ints = other.answers(test)[1].argmax(1)
    return found


def frozen_regression(system: Colap, train: LanguageTexts, test: LanguageTexts) -> Ints:
    """Logistic regression (C = 1) on the source language's sentence vectors: the mean over all tokens of the frozen
    encoder's last layer at length 1, minus the training mean, times ten."""
    from sklearn.linear_model import LogisticRegression

    own = train.take(train.labelled & (train.language == system.facts_["source"]))
    reader = system.reader(bare=True)
    known, asked = (_unit(reader.read(data).vectors) for data in (own, test))
    centre = known.mean(0)
    model: Any = LogisticRegression(C=1.0, max_iter=3000)
    model.fit((known - centre) * TENFOLD, class_codes(own, system.facts_["classes"]))
    predicted: Ints = np.asarray(model.predict((asked - centre) * TENFOLD), dtype=np.int64)
    return predicted


def _unit(vectors: Floats | None) -> Floats:
    assert vectors is not None
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
