"""What a person looks at: predicted against true scores, confusion, groups, the graph and β of one utterance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.utterances import Utterances
from kontrast.evaluation.sentiment import sentiment_metrics, seven_classes
from kontrast.systems.ssu.explaining import Explanation, Graph, graph_table
from kontrast.systems.ssu.measuring import groups

if TYPE_CHECKING:
    from kontrast.systems.ssu.system import SSU

Floats = npt.NDArray[np.float64]

_WORST = 8
_NODES = 40


def sentiment_figures(system: SSU, data: Utterances) -> list[Figure]:
    """Figures of utterances; those that need labels only where there are some."""
    scores = system.scores(data)
    figures: list[Figure] = []
    known = np.flatnonzero(np.isfinite(data.labels))
    if len(known) > 1:
        labelled, own = data.take(known), scores[known]
        truth = labelled.labels.astype(np.float64)
        figures += [_scatter(labelled, own, truth), _confusion(own, truth), _groups(labelled, own, truth)]
        figures.append(_largest_errors(labelled, own, truth))
    found = system.explanation(data)
    shown = typical(found)
    if shown is not None:
        row = found.graphs.index(shown)
        told = f"predicted {scores[row]:+.2f}" + (
            f", true {data.labels[row]:+.2f}" if np.isfinite(data.labels[row]) else ""
        )
        if len(shown.modality) > 1:
            figures.append(_edges(shown, told))
        if found.anchored:
            figures.append(_beta(shown, told))
    figures.append(_statistics(found))
    return figures


def _scatter(data: Utterances, scores: Floats, truth: Floats) -> Figure:
    metrics = sentiment_metrics(scores, truth)
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "utterances",
                "x": truth.round(3).tolist(),
                "y": scores.round(3).tolist(),
                "text": [" ".join(words)[:120] for words in data.tokens],
                "marker": {"size": 6, "opacity": 0.6},
            },
            {"type": "scatter", "mode": "lines", "name": "equal", "x": [-3, 3], "y": [-3, 3], "line": {"dash": "dot"}},
        ],
        "layout": {
            "xaxis": {"title": {"text": "true sentiment"}, "range": [-3.2, 3.2]},
            "yaxis": {"title": {"text": "predicted sentiment"}, "range": [-3.2, 3.2]},
        },
    }
    caption = (
        f"Mean absolute error {metrics['mae']:.3f}, correlation {metrics['corr']:.3f}; hover to read an utterance."
    )
    return Figure("Predicted and true sentiment", caption, plotly=figure)


def _confusion(scores: Floats, truth: Floats) -> Figure:
    classes = np.arange(-3, 4)
    counts = np.zeros((7, 7), int)
    np.add.at(counts, (seven_classes(truth) + 3, seven_classes(scores) + 3), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [f"{value:+d}" if value else "0" for value in classes.tolist()]
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": names,
                "y": names,
                "z": shares.round(3).tolist(),
                "text": counts.tolist(),
                "texttemplate": "%{text}",
                "colorscale": [[0, "#ffffff"], [1, "#3b6fb6"]],
                "zmin": 0,
                "colorbar": {"title": {"text": "share of the row"}},
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "predicted class"}, "type": "category"},
            "yaxis": {"title": {"text": "true class"}, "type": "category"},
        },
    }
    caption = "Numbers are utterances; scores are rounded to whole numbers, halves to the even one."
    return Figure("Seven classes", caption, plotly=figure)


def _groups(data: Utterances, scores: Floats, truth: Floats) -> Figure:
    rows = []
    for name, inside in [("all", np.ones(len(data), bool)), *groups(data)]:
        found = sentiment_metrics(scores[inside], truth[inside])
        rows.append({"group": name, "utterances": int(inside.sum()), **{key: round(found[key], 3) for key in found}})
    caption = "Groups overlap. 'nonneg' counts 0 as not negative, over all; 'posneg' leaves out those whose truth is 0."
    return Figure("Groups of utterances", caption, table=pd.DataFrame(rows))


def _largest_errors(data: Utterances, scores: Floats, truth: Floats) -> Figure:
    order = np.argsort(-np.abs(scores - truth), kind="stable")[:_WORST]
    table = pd.DataFrame(
        {
            "id": [data.ids[row] for row in order],
            "text": [" ".join(data.tokens[row])[:160] for row in order],
            "true": truth[order].round(2),
            "predicted": scores[order].round(2),
        }
    )
    return Figure("Largest errors", "Where the scores are furthest from the truth.", table=table)


def typical(found: Explanation) -> Graph | None:
    """The utterance with most modalities whose number of nodes is nearest to the median of such, at most 40 nodes."""
    if not found.graphs:
        return None
    counts = [len(set(graph.modality)) for graph in found.graphs]
    rich = [graph for graph, count in zip(found.graphs, counts) if count == max(counts) and graph.modality]
    small = [graph for graph in rich if len(graph.modality) <= _NODES] or rich
    if not small:
        return None
    middle = float(np.median([len(graph.modality) for graph in small]))
    return min(small, key=lambda graph: abs(len(graph.modality) - middle))


def _labels(graph: Graph) -> list[str]:
    """One distinct name per node."""
    return [
        f"{place + 1} {name}" if modality == "text" else f"{modality} {name}"
        for modality, place, name in zip(graph.modality, graph.place, graph.name)
    ]


def _edges(graph: Graph, told: str) -> Figure:
    names = _labels(graph)
    with np.errstate(divide="ignore"):
        shown = np.log10(np.where(graph.weight > 0, graph.weight, np.nan))
    grid = [[None if value != value else round(value, 3) for value in row] for row in shown.tolist()]
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": names,
                "y": names,
                "z": grid,
                "hoverongaps": False,
                "colorscale": "Viridis",
                "colorbar": {"title": {"text": "weight (log10)"}},
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "heard node"}, "type": "category"},
            "yaxis": {"title": {"text": "node"}, "type": "category", "autorange": "reversed"},
            "height": 620,
        },
    }
    caption = (
        f"The fusion graph of '{graph.id}' ({told}): blocks on the diagonal are words, audio and visual segments, the "
        "others pairs of high affinity. Empty cells are no edges."
    )
    return Figure("Edges of one utterance", caption, plotly=figure)


def _beta(graph: Graph, told: str) -> Figure:
    traces: list[dict[str, Any]] = []
    names = _labels(graph)
    for modality in dict.fromkeys(graph.modality):
        own = [node for node, name in enumerate(graph.modality) if name == modality]
        traces.append(
            {
                "type": "bar",
                "name": modality,
                "x": [names[node] for node in own],
                "y": [round(float(graph.beta[node]), 4) for node in own],
            }
        )
    figure = {
        "data": traces,
        "layout": {"yaxis": {"title": {"text": "β"}, "rangemode": "tozero"}, "xaxis": {"type": "category"}},
    }
    caption = f"How much the anchor of '{graph.id}' ({told}) hears of each node; β of a modality sums to 1."
    return Figure("The anchor's weights", caption, plotly=figure)


def _statistics(found: Explanation) -> Figure:
    table = graph_table(found)
    if len(table):
        table = table.drop(columns="id").groupby("modality", sort=False).mean().reset_index().round(3)
    caption = "Means over utterances. 'kept' is the share of pairs that are edges; κ is the learned threshold."
    return Figure("Graphs", caption, table=table)
