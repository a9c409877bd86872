"""The report's charts as plotly figures without colours of their own.

A colour is written as the name of a variable of the page's style sheet ("@c0" ... "@c11", "@accent", "@quiet"); the
page's script puts the light or the dark value in. Everything is JSON-able and small.
"""

from __future__ import annotations

import datetime
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kontrast.pipeline.markup import format_difference, format_number, hover_text, shorten
from kontrast.pipeline.run_records import Ablation

MAX_POINTS = 5000
MAX_LABELS = 12
_CURVE_POINTS = 600
_KEYS = ("stage", "event", "epoch", "step")
_MARKERS_PER_SHAPE = 6


@dataclass(frozen=True)
class MapData:
    """A 2-D map of embeddings.

    Attributes:
        coordinates: projection ("PCA", "UMAP") to float (n, 2); the first is shown first.
        labels: n values that colour the points, or None. Words make groups; numbers of many values make a scale.
        label_name: what the labels are.
        hover: n texts shown under the pointer.
        total: number of rows that the n points were drawn from.
        note: what the map is, as the beginning of its caption.
    """

    coordinates: Mapping[str, NDArray[np.floating[Any]]]
    labels: Sequence[Any] | None
    label_name: str
    hover: Sequence[str]
    total: int
    note: str = "Map of the embeddings"


@dataclass(frozen=True)
class Group:
    """Points `start` to `end` (exclusive) of a map that share a label."""

    name: str
    start: int
    end: int
    color: str
    symbol: str


def compact(value: Any) -> Any:
    """JSON-able and short: floats keep 5 significant digits, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): compact(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return compact(value.tolist())
    if isinstance(value, (list, tuple)):
        return [compact(item) for item in value]
    if isinstance(value, np.generic):
        return compact(value.item())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.5g}")
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def bar_chart(
    names: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float] | None], metric: str
) -> dict[str, Any]:
    """Horizontal bars of one metric with the values beside them; the first bar is the run itself."""
    spans = [interval or (value, value) for interval, value in zip(intervals, values, strict=True)]
    ends = [max(high, value, 0.0) for (_, high), value in zip(spans, values, strict=True)]
    places = list(range(len(names)))
    texts = [format_number(float(value)) for value in values]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": list(values),
        "y": places,
        "marker": {"color": ["@accent"] + ["@quiet"] * (len(names) - 1)},
        "hovertext": [f"{hover_text(name)}: {text}" for name, text in zip(names, texts, strict=True)],
        "hoverinfo": "text",
    }
    # Whiskers of their own, on invisible points: plotly draws a stub for a bar without an interval.
    known = [place for place in places if intervals[place] is not None]
    whiskers = {
        "type": "scatter",
        "mode": "markers",
        "marker": {"opacity": 0},
        "x": [values[place] for place in known],
        "y": known,
        "error_x": _whiskers([values[place] for place in known], [spans[place] for place in known], "@ink"),
        "hoverinfo": "skip",
    }
    numbers = {
        "type": "scatter",
        "mode": "text",
        "x": ends,
        "y": places,
        "text": [f"  {text}" for text in texts],
        "textposition": "middle right",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    low, high = min(0.0, *(low for low, _ in spans)), max(ends)
    return {
        "plain": True,
        "data": [bars, whiskers, numbers],
        "layout": {
            "height": 66 + 34 * len(names),
            "bargap": 0.3,
            "showlegend": False,
            "xaxis": {"title": {"text": hover_text(metric)}, "range": [low, high + 0.14 * (high - low)]},
            "yaxis": {
                "autorange": "reversed",
                "tickvals": places,
                "ticktext": [_tick(name) for name in names],
                "showgrid": False,
                "ticklabelstandoff": 6,
            },
            "margin": {"t": 4, "r": 24},
        },
    }


def forest_chart(ablation: Ablation) -> dict[str, Any]:
    """The full method minus each other arm, with its interval, beside zero."""
    arms = [(arm, arm.difference) for arm in ablation.arms if arm.difference is not None]
    places = list(range(len(arms)))
    values = [value for _, value in arms]
    spans = [(arm.difference_low, arm.difference_high) for arm, _ in arms]
    bounds = [bound for span in spans for bound in span if math.isfinite(bound)]
    low, high = min(0.0, *values, *bounds), max(0.0, *values, *bounds)
    pad = 0.08 * (high - low) or 1.0
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": places,
        "marker": {"color": "@accent", "size": 11},
        "error_x": _whiskers(values, spans, "@accent"),
        "hovertext": [
            f"{hover_text(arm.title)}: {format_difference(value)}"
            f" ({format_difference(low)} to {format_difference(high)})"
            for (arm, value), (low, high) in zip(arms, spans, strict=True)
        ],
        "hoverinfo": "text",
    }
    return {
        "plain": True,
        "data": [points],
        "layout": {
            "height": 84 + 52 * len(arms),
            "showlegend": False,
            "xaxis": {
                "title": {"text": f"full − this, {hover_text(ablation.metric)}"},
                "range": [low - pad, high + pad],
                "zeroline": True,
                "zerolinewidth": 2,
                "zerolinecolor": "@ink",
            },
            "yaxis": {
                "range": [len(arms) - 0.4, -0.6],
                "tickvals": places,
                "ticktext": [_tick(arm.title) for arm, _ in arms],
                "showgrid": False,
                "zeroline": False,
                "ticklabelstandoff": 6,
            },
            "margin": {"t": 4, "r": 24},
        },
    }


def _whiskers(values: Sequence[float], spans: Sequence[tuple[float, float]], color: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for (_, high), value in zip(spans, values, strict=True)],
        "arrayminus": [value - low for (low, _), value in zip(spans, values, strict=True)],
        "color": color,
        "thickness": 1.5,
        "width": 5,
    }


def _tick(name: str) -> str:
    """An axis label of at most two short lines."""
    lines = textwrap.wrap(shorten(name, 40), 20)
    return "<br>".join(escape(line) for line in lines[:2]) + ("…" if len(lines) > 2 else "")


def curve_charts(history: pd.DataFrame) -> list[tuple[str, str, dict[str, Any]]]:
    """Training curves as (stage, title, figure): losses, validation metrics, and each other quantity alone."""
    charts = []
    for stage in dict.fromkeys(history["stage"]):
        rows = history[history["stage"] == stage]
        present = [name for name in history.columns if name not in _KEYS and _varies(rows[name])]
        losses = [name for name in present if "loss" in name.lower()]
        # A single term is the total itself, unless it is weighted.
        losses = [
            name for name in losses if name == "loss" or not ("loss" in losses and rows[name].equals(rows["loss"]))
        ]
        checks = [name for name in present if "loss" not in name.lower() and name.lower().startswith("val")]
        others = [name for name in present if "loss" not in name.lower() and name not in checks]
        for title, names in (("Loss", losses), ("Validation", checks), *((name, [name]) for name in others)):
            if names:
                charts.append((str(stage), title, _curves(rows, names)))
    return charts


def _varies(column: pd.Series[Any]) -> bool:
    """Numbers worth a curve: more than one value, or a loss or check of a very short training."""
    if not pd.api.types.is_numeric_dtype(column):
        return False
    values = column.to_numpy(float, na_value=np.nan)
    distinct = len(np.unique(values[np.isfinite(values)]))
    return distinct > 1 or (distinct == 1 and str(column.name).lower().startswith(("loss", "val")))


def _curves(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """One line per quantity over whole epochs; where single steps are known too, they are a faint line behind it."""
    axis = "step" if rows["step"].notna().any() else "epoch"
    by_epoch = rows[rows["event"] == "epoch"] if "event" in rows else rows
    by_step = rows[rows["event"] != "epoch"] if "event" in rows else rows.iloc[:0]
    traces = []
    for place, name in enumerate(names):
        color, dash = f"@c{place % MAX_LABELS}", ("solid", "dash", "dot")[place // _MARKERS_PER_SHAPE % 3]
        faint, bold = _points(by_step, axis, name), _points(by_epoch, axis, name)
        if len(bold[0]) < 2 and len(faint[0]) > len(bold[0]):
            faint, bold = bold, faint
        label = escape(shorten(name, 40))
        if len(faint[0]) > 1:
            line = {"color": color, "width": 1, "dash": dash}
            behind = {"mode": "lines", "name": f"{label}, single steps", "opacity": 0.35, "showlegend": False}
            traces.append(
                {"type": "scatter", "x": faint[0], "y": faint[1], "line": line, "hoverinfo": "skip", **behind}
            )
        mode = "lines+markers" if len(bold[0]) <= 40 else "lines"
        line = {"color": color, "width": 2, "dash": dash}
        traces.append({"type": "scatter", "mode": mode, "name": label, "x": bold[0], "y": bold[1], "line": line})
    return {
        "data": traces,
        "layout": {
            "height": 300,
            "showlegend": len(names) > 1,
            "hovermode": "x unified",
            "xaxis": {"title": {"text": axis}},
        },
    }


def _points(rows: pd.DataFrame, axis: str, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (rows[column].to_numpy(float, na_value=np.nan) for column in (axis, name))
    kept = np.isfinite(x) & np.isfinite(y)
    return _thinned(x[kept], y[kept])


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `_CURVE_POINTS` points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(x) <= _CURVE_POINTS:
        return x, y
    stretches = np.array_split(np.arange(len(x)), _CURVE_POINTS // 2)
    kept = {0, len(x) - 1}
    for stretch in stretches:
        kept |= {int(stretch[np.argmin(y[stretch])]), int(stretch[np.argmax(y[stretch])])}
    order = np.array(sorted(kept))
    return x[order], y[order]


def map_chart(data: MapData) -> tuple[dict[str, Any], list[Group]]:
    """What the page's script draws the map from, and its groups for the legend.

    Points are sorted by group, so that a group is a slice: the file holds each coordinate and text once.
    """
    n = len(data.hover)
    scale = _numeric_labels(data.labels)
    order, groups = (np.arange(n), []) if scale is not None or data.labels is None else _groups(data.labels)
    shown = groups or [Group(data.label_name, 0, n, "@c0", "circle")]
    figure: dict[str, Any] = {
        "methods": {
            name: {"x": np.asarray(points)[order, 0], "y": np.asarray(points)[order, 1]}
            for name, points in data.coordinates.items()
        },
        "groups": [
            {"name": escape(shorten(g.name, 40)), "start": g.start, "end": g.end, "color": g.color, "symbol": g.symbol}
            for g in shown
        ],
        "hover": [data.hover[place] for place in order],
        "size": 9 if n <= 300 else 7 if n <= 1500 else 5,
        "label": escape(shorten(data.label_name, 24)),
    }
    if scale is not None:
        figure["values"] = scale
    return figure, groups


def _numeric_labels(labels: Sequence[Any] | None) -> NDArray[np.float64] | None:
    """The labels as a scale: numbers with more values than there are colours."""
    if labels is None or not all(isinstance(x, (int, float, np.integer, np.floating)) for x in labels):
        return None
    values = np.asarray(labels, dtype=np.float64)
    whole = values[np.isfinite(values)] % 1 == 0
    distinct = len(np.unique(values[np.isfinite(values)]))
    return values if distinct > MAX_LABELS and not (whole.all() and distinct <= 2 * MAX_LABELS) else None


def _groups(labels: Sequence[Any]) -> tuple[NDArray[np.intp], list[Group]]:
    """Order of the points and the groups: the most frequent labels by size, the rest as "other", unlabelled last."""
    names = np.array(["" if _missing(label) else format_number(label) for label in labels], dtype=object)
    counts = pd.Series(names[names != ""]).value_counts(sort=False)
    ranked = sorted(counts.index, key=lambda name: (-counts[name], name))
    top = ranked if len(ranked) <= MAX_LABELS else ranked[: MAX_LABELS - 1]
    place = {name: index for index, name in enumerate(top)}
    keys = np.array([len(top) + 1 if name == "" else place.get(name, len(top)) for name in names], dtype=int)
    order = np.argsort(keys, kind="stable")
    groups = []
    for key, title in enumerate([*top, f"other ({len(ranked) - len(top)} labels)", "unlabelled"]):
        start, end = (int(np.searchsorted(keys[order], key, side=side)) for side in ("left", "right"))
        if end > start:
            named = key < len(top)
            symbol = "circle" if key < _MARKERS_PER_SHAPE or not named else "diamond"
            groups.append(Group(str(title), start, end, f"@c{key}" if named else "@quiet", symbol))
    return order, groups


def _missing(label: Any) -> bool:
    return label is None or label is pd.NA or (isinstance(label, float) and math.isnan(label)) or label == ""
