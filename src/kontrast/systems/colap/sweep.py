"""Sweep: languages x K x seeds x losses in one table, from one classifier of the source language per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kontrast.data.languages import LanguageTexts
from kontrast.data.splits import Splits
from kontrast.systems.colap.config import ColapConfig
from kontrast.systems.colap.measuring import by_language
from kontrast.systems.colap.system import Colap
from kontrast.systems.colap.views import class_codes
from kontrast.training import TrainerConfig, run_stage

LOSSES: dict[str, dict[str, Any]] = {
    "CE": {"contrast": "off"},
    "CE + source CE": {"contrast": "off", "source_ce": 1.0},
    "CE + XRCL": {"xrcl": 1.0, "xccl": 0.0},
    "CE + XCCL": {"xrcl": 0.0, "xccl": 1.0},
    "CE + XCCL, no translations": {"xrcl": 0.0, "xccl": 1.0, "translations": False},
    "CE + XRCL + XCCL": {"xrcl": 1.0, "xccl": 1.0},
}
"""Second stages by name, as options."""


def sweep(
    config: ColapConfig,
    parts: Splits[LanguageTexts],
    *,
    ks: Sequence[int] = (14, 35, 70),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    losses: Mapping[str, Mapping[str, Any]] = LOSSES,
) -> pd.DataFrame:
    """Accuracy and macro-F1 of every target language under every second stage.

    Args:
        config: everything that is not varied.
        parts: training, validation and test parts; measured on the test part.
        ks: labelled examples of a target language; K = 0, the classifier of the source language, is always there.
        seeds: of weights, batches and episodes.
        losses: second stages as options by name, see `LOSSES`.

    Returns:
        Columns seed, k, loss, language, accuracy, macro_f1. Rows with k = 0 have the loss "zero-shot" and include the
        source language.
    """
    test = parts.test
    assert test is not None
    rows: list[dict[str, Any]] = []
    quiet = TrainerConfig(progress="off", loggers=[])
    for seed in seeds:
        first = Colap(config.changed(seed=seed, k=0)).fit(parts.train, parts.valid)
        codes = class_codes(test, first.facts_["classes"])

        def add(system: Colap, k: int, loss: str, *, seed: int = seed, codes: Any = codes) -> None:
            predicted = system.answers(test)[1].argmax(1)
            for language, metrics in by_language(test, codes, predicted).items():
                if k == 0 or language in system.facts_["targets"]:
                    rows.append({"seed": seed, "k": k, "loss": loss, "language": language, **metrics})

        add(first, 0, "zero-shot")
        for k in ks:
            for name, options in losses.items():
                system = first.beside(config.changed(seed=seed, k=k, **options))
                for stage in system.adaptations(parts.train):
                    run_stage(stage, quiet)
                add(system, k, name)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by k and loss: the mean over target languages, then mean and standard deviation over seeds; and the
    paired difference to "CE" where it is there, with its standard error over languages x seeds."""
    adapted = set(table.loc[table["k"] > 0, "language"]) or set(table["language"])
    table = table[table["language"].isin(adapted)]
    means = table.groupby(["k", "loss", "seed"], as_index=False)["accuracy"].mean()
    wide = table.pivot_table(index=["k", "seed", "language"], columns="loss", values="accuracy")
    rows = []
    for key, own in means.groupby(["k", "loss"]):
        k, loss = int(own["k"].iloc[0]), str(key[1])
        row = {"k": k, "loss": loss, "accuracy": own["accuracy"].mean(), "deviation": own["accuracy"].std()}
        if "CE" in wide.columns and k > 0:
            apart = (wide[loss] - wide["CE"]).xs(k, level="k")
            row |= {"minus CE": apart.mean(), "standard error": apart.sem()}
        rows.append(row)
    return pd.DataFrame(rows)
