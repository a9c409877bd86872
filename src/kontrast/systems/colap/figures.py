"""What a person looks at: accuracy by language, a map of source and target texts, which classes are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.languages import LanguageTexts
from kontrast.evaluation.projection import project
from kontrast.systems.colap.measuring import by_language

if TYPE_CHECKING:
    from kontrast.systems.colap.system import Colap

Ints = npt.NDArray[np.int64]
MOST = 400
SURE = 12
SIGNS = ("circle", "diamond")


def language_figures(system: Colap, data: LanguageTexts, codes: Ints) -> list[Figure]:
    """Figures of held-out texts with their classes (n,), -1 where unknown."""
    chances = system.answers(data)[1]
    predicted = chances.argmax(1)
    found = [_languages(system, data, codes, predicted)]
    target = _weakest(system, data, codes, predicted)
    if target is not None:
        found += [_map(system, data, codes, target), _confusions(system, data, codes, predicted, target)]
    return [*found, _mistakes(system, data, codes, chances)]


def _languages(system: Colap, data: LanguageTexts, codes: Ints, predicted: Ints) -> Figure:
    source = system.facts_["source"]
    after = by_language(data, codes, predicted)
    before = by_language(data, codes, system.answers(data, zero_shot=True)[1].argmax(1))
    names = sorted(after, key=lambda language: (language != source, -after[language]["accuracy"]))
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": [round(metrics[language]["accuracy"], 4) for language in names],
            "hovertemplate": "%{x}: %{y:.3f}<extra>" + name + "</extra>",
        }
        for name, metrics in (("zero-shot", before), ("adapted", after))
    ]
    return Figure(
        "Accuracy by language",
        f"{source} is the source language. Zero-shot is its classifier as it is; adapted has also learned from up to "
        f"{system.config.k} labelled texts of the language.",
        plotly={
            "data": bars,
            "layout": {"barmode": "group", "yaxis": {"title": {"text": "accuracy"}, "range": [0, 1]}},
        },
    )


def _weakest(system: Colap, data: LanguageTexts, codes: Ints, predicted: Ints) -> str | None:
    """The adapted language with the lowest accuracy."""
    found = by_language(data, codes, predicted)
    own = [language for language in system.facts_["targets"] if language in found]
    return min(own, key=lambda language: found[language]["accuracy"], default=None)


def _map(system: Colap, data: LanguageTexts, codes: Ints, target: str) -> Figure:
    """Both languages through the target's branch, as they are when they are contrasted."""
    source, names = system.facts_["source"], system.facts_["class_names"]
    rows = np.concatenate(
        [np.flatnonzero((data.language == language) & (codes >= 0))[:MOST] for language in (source, target)]
    )
    some = data.take(rows)
    points = project(system.vectors(some, target), method="pca").coordinates
    traces: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        for sign, language in zip(SIGNS, (source, target)):
            own = (codes[rows] == number) & (some.language == language)
            if own.any():
                traces.append(
                    {
                        "type": "scatter",
                        "mode": "markers",
                        "name": name,
                        "legendgroup": name,
                        "showlegend": language == target or not (codes[rows][some.language == target] == number).any(),
                        "x": np.round(points[own, 0], 4).tolist(),
                        "y": np.round(points[own, 1], 4).tolist(),
                        "text": [text[:120] for text in some.take(own).whole_texts()],
                        "hovertemplate": "%{text}<extra>" + f"{name}, {language}" + "</extra>",
                        "marker": {"symbol": sign, "size": 7, "opacity": 0.75, "color": _colour(number)},
                    }
                )
    return Figure(
        f"{source} and {target} in one space",
        f"The vectors that are contrasted, by the classifier of {target} (the weakest language): first two principal "
        f"components. Colours are classes; circles are {source}, diamonds {target}.",
        plotly={
            "data": traces,
            "layout": {
                "height": 440,
                "xaxis": {"title": {"text": "component 1"}},
                "yaxis": {"title": {"text": "component 2"}},
            },
        },
    )


def _colour(number: int) -> str:
    colours = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
    return colours[number % len(colours)]


def _confusions(system: Colap, data: LanguageTexts, codes: Ints, predicted: Ints, target: str) -> Figure:
    names = system.facts_["class_names"]
    rows = (data.language == target) & (codes >= 0)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (codes[rows], predicted[rows]), 1)
    return Figure(
        f"Classes of {target}",
        "Rows are true classes, columns what was answered; numbers are texts.",
        plotly={
            "data": [
                {
                    "type": "heatmap",
                    "x": names,
                    "y": names,
                    "z": counts.tolist(),
                    "text": counts.tolist(),
                    "texttemplate": "%{text}",
                    "colorscale": [[0, "#f4f7fb"], [1, "#2b6cb0"]],
                    "showscale": False,
                    "hovertemplate": "true %{y}, answered %{x}: %{z}<extra></extra>",
                }
            ],
            "layout": {"yaxis": {"autorange": "reversed", "automargin": True}, "xaxis": {"automargin": True}},
        },
    )


def _mistakes(system: Colap, data: LanguageTexts, codes: Ints, chances: npt.NDArray[np.float32]) -> Figure:
    names = np.asarray(system.facts_["class_names"], dtype=object)
    predicted = chances.argmax(1)
    wrong = np.flatnonzero((codes >= 0) & (predicted != codes))
    order = wrong[np.argsort(-chances[wrong, predicted[wrong]], kind="stable")][:SURE]
    some = data.take(order)
    table = pd.DataFrame(
        {
            "language": list(some.language),
            "text": [text[:160] for text in some.whole_texts()],
            "true": list(names[codes[order]]),
            "answered": list(names[predicted[order]]),
            "probability": chances[order, predicted[order]].round(3),
        }
    )
    return Figure("The surest mistakes", "Wrong answers with the highest probability.", table=table)
