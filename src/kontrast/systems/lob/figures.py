"""What a person looks at: a detected case in the book, curves, the score over the day, results by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.orderbooks import DELETE, EXECUTE, KINDS, REDUCE, SUBMIT, OrderStream, empty_levels
from kontrast.evaluation.detection import detection_metrics
from kontrast.systems.lob.answers import clock, episodes
from kontrast.systems.lob.measuring import event_profiles, groups
from kontrast.systems.lob.views import LobData

if TYPE_CHECKING:
    from kontrast.systems.lob.system import Lob

Floats = npt.NDArray[np.float64]

_POINTS = 400
_AROUND = 40
_MOST_ROWS = 160
_EPISODES = 12


def lob_figures(system: Lob, data: LobData) -> list[Figure]:
    """Figures of messages; those that need labels only where there are some."""
    scores, threshold = system.scores(data), system.threshold_
    figures: list[Figure] = []
    case = _best_case(data, scores)
    if case is not None:
        figures.append(case_figure(data, scores, threshold, *case))
    if data.truth is not None and 0 < data.truth.label.sum() < len(data):
        label = data.truth.label
        figures += [_curves(scores, label), by_level(data, scores, threshold), _histogram(scores, label, threshold)]
    figures.append(_over_the_day(data, scores, threshold))
    figures.append(_episodes(system, data, scores, threshold))
    return figures


def _best_case(data: LobData, scores: Floats) -> tuple[int, int, int, str] | None:
    """Stream, first and last (exclusive) row and name of a detected event: that of median mean score among the layering
    events if there are any, so that the picture is typical; without labels the episode of the highest score."""
    if data.truth is not None and data.truth.label.any():
        codes = data.event_codes()
        profiles = event_profiles(data)
        layered = [code for code, profile in profiles.items() if KINDS[profile.kind] == "layering"] or list(profiles)
        if not layered:
            return None
        means = [float(scores[codes == code].mean()) for code in layered]
        code = layered[int(np.argsort(means)[len(means) // 2])]
        rows = profiles[code].rows
        return (
            int(rows[0, 0]),
            int(rows[0, 1]),
            int(rows[-1, 1]) + 1,
            f"{KINDS[profiles[code].kind]}, {data.event_name(code)}",
        )
    if not len(data):
        return None
    _, stream, position = data.rows[int(np.argmax(scores))].tolist()
    return stream, position, position + 1, "highest score"


def case_figure(
    data: LobData, scores: Floats, threshold: float, number: int, first: int, last: int, name: str
) -> Figure:
    """The book around an event: price by message, colour is size, marks are the messages of one side's fake orders."""
    stream = data.streams[number]
    begin = max(0, first - _AROUND)
    end = min(len(stream), last + _AROUND, begin + _MOST_ROWS)
    part = stream.take(slice(begin, end))
    prices, depth = _book_image(part)
    x = list(range(begin + 1, end + 1))
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": x,
            "y": [round(price / 10_000, 4) for price in prices.tolist()],
            "z": np.round(np.log10(1 + depth), 2).tolist(),
            "colorbar": {"title": {"text": "shares (log10)"}},
            "hoverongaps": False,
            "name": "book",
        }
    ]
    truth = part.truth
    own = truth.label == 1 if truth is not None else np.zeros(len(part), bool)
    for kinds, symbol, word in (
        ((SUBMIT,), "triangle-up", "submitted"),
        ((REDUCE, DELETE), "x", "cancelled"),
        ((EXECUTE,), "star", "executed"),
    ):
        marked = own & np.isin(part.type, kinds)
        if marked.any():
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": word,
                    "x": [x[row] for row in np.flatnonzero(marked)],
                    "y": [round(price / 10_000, 4) for price in part.price[marked].tolist()],
                    "marker": {"symbol": symbol, "size": 8},
                    "text": [f"{clock(t)}, {size} shares" for t, size in zip(part.time_ns[marked], part.size[marked])],
                }
            )
    mine = (data.rows[:, 1] == number) & (data.rows[:, 2] >= begin) & (data.rows[:, 2] < end)
    order = np.argsort(data.rows[mine, 2])
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "score",
            "yaxis": "y2",
            "x": (data.rows[mine, 2][order] + 1).tolist(),
            "y": np.round(scores[mine][order], 5).tolist(),
        }
    )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "threshold",
            "yaxis": "y2",
            "x": [x[0], x[-1]],
            "y": [threshold] * 2,
            "line": {"dash": "dot"},
        }
    )
    spans = f"{clock(int(part.time_ns[0]))} to {clock(int(part.time_ns[-1]))}"
    return Figure(
        "A detected case",
        f"Book of {stream.name}, {spans} ({name}): sizes by message and price with the manipulator's messages marked; "
        "below, the score of each message and the threshold of alerts.",
        plotly={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "message of the day"}, "anchor": "y2"},
                "yaxis": {"title": {"text": "price in dollars"}, "domain": [0.32, 1.0]},
                "yaxis2": {"title": {"text": "score"}, "domain": [0.0, 0.24]},
                "legend": {"orientation": "h", "y": 1.12},
                "height": 520,
            },
        },
    )


def _book_image(part: OrderStream) -> tuple[npt.NDArray[np.int64], Floats]:
    """Prices (p,) of all levels shown, and sizes (p, n), NaN where a price shows nothing."""
    no_ask, no_bid = empty_levels(part)
    seen = np.unique(np.concatenate([part.ask_price[~no_ask], part.bid_price[~no_bid]]))
    image = np.full((len(seen), len(part)), np.nan)
    for prices, sizes, empty in ((part.ask_price, part.ask_size, no_ask), (part.bid_price, part.bid_size, no_bid)):
        row, level = np.nonzero(~empty)
        image[np.searchsorted(seen, prices[row, level]), row] = sizes[row, level]
    return seen, image


def _curves(scores: Floats, label: npt.NDArray[np.int8]) -> Figure:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(label[order])
    flagged = np.arange(1, len(label) + 1)
    recall, precision = hits / hits[-1], hits / flagged
    false = (flagged - hits) / (len(label) - hits[-1])
    pick = np.unique(np.round(np.geomspace(1, len(label), _POINTS)).astype(int)) - 1
    return Figure(
        "Precision, recall and false alarms",
        f"Every threshold, of {len(label):,} messages, {label.mean():.1%} of them manipulated: a random order has that "
        "precision throughout.",
        plotly={
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "precision",
                    "x": np.round(recall[pick], 4).tolist(),
                    "y": np.round(precision[pick], 4).tolist(),
                },
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "share of real messages flagged",
                    "x": np.round(recall[pick], 4).tolist(),
                    "y": np.round(false[pick], 4).tolist(),
                },
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "precision at random",
                    "x": [0, 1],
                    "y": [float(label.mean())] * 2,
                    "line": {"dash": "dot"},
                },
            ],
            "layout": {
                "xaxis": {"title": {"text": "recall (share of manipulated messages found)"}},
                "yaxis": {"title": {"text": "share"}, "range": [0, 1.02]},
            },
        },
    )


def by_level(data: LobData, scores: Floats, threshold: float) -> Figure:
    """AUROC, average precision and F1 by stock, kind and level of manipulation."""
    assert data.truth is not None
    label = data.truth.label
    rows = []
    everything = [("all", np.ones(len(label), bool)), *groups(data)]
    for name, group in everything:
        found = detection_metrics(scores[group], label[group])
        marked = group & (label == 1)
        rows.append(
            {
                "messages": name,
                "manipulated": int(marked.sum()),
                "share": f"{label[group].mean():.1%}",
                "auroc": round(found["auroc"], 3),
                "ap": round(found["ap"], 3),
                "best f1": round(found["f1_max"], 3),
                "found at threshold": f"{(scores[marked] >= threshold).mean():.0%}",
            }
        )
    return Figure(
        "By level of manipulation",
        "Manipulated messages of one group against all real ones (of a stock: its own). Average precision depends on "
        "the share of manipulated messages, so compare it within a column of equal shares only.",
        table=pd.DataFrame(rows),
    )


def _histogram(scores: Floats, label: npt.NDArray[np.int8], threshold: float) -> Figure:
    edges = np.histogram_bin_edges(scores, 60)
    centres = ((edges[1:] + edges[:-1]) / 2).round(5).tolist()
    return Figure(
        "Scores of real and manipulated messages",
        f"Share of each kind of message by score; alerts are scores of at least {threshold:.4g}.",
        plotly={
            "data": [
                {
                    "type": "bar",
                    "name": name,
                    "x": centres,
                    "y": (np.histogram(scores[label == value], edges)[0] / max(1, (label == value).sum())).tolist(),
                    "opacity": 0.6,
                }
                for name, value in (("real", 0), ("manipulated", 1))
            ],
            "layout": {
                "barmode": "overlay",
                "xaxis": {"title": {"text": "score"}},
                "yaxis": {"title": {"text": "share of messages"}},
            },
        },
    )


def _over_the_day(data: LobData, scores: Floats, threshold: float) -> Figure:
    """Highest score in each of some hundred stretches of time, and where manipulation was."""
    traces: list[dict[str, Any]] = []
    for number, stream in enumerate(data.streams):
        mine = data.rows[:, 1] == number
        if not mine.any():
            continue
        time = stream.time_ns[data.rows[mine, 2]] / 3.6e12
        edges = np.linspace(time.min(), time.max() + 1e-9, _POINTS + 1)
        place = np.clip(np.searchsorted(edges, time, "right") - 1, 0, _POINTS - 1)
        highest = np.full(_POINTS, -np.inf)
        np.maximum.at(highest, place, scores[mine])
        seen = np.isfinite(highest)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": stream.name,
                "x": np.round(edges[:-1][seen], 4).tolist(),
                "y": np.round(highest[seen], 5).tolist(),
            }
        )
        if data.truth is not None and data.truth.label[mine].any():
            event = data.truth.event[mine]
            marked = np.unique(event[event >= 0], return_index=True)[1]
            at = time[event >= 0][marked]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"events of {stream.ticker}",
                    "x": np.round(at, 4).tolist(),
                    "y": [threshold] * len(at),
                    "marker": {"symbol": "x", "size": 6},
                }
            )
    return Figure(
        "Score over the day",
        "Highest score in each stretch of time; crosses mark manipulation, at the height of the threshold of alerts.",
        plotly={
            "data": traces,
            "layout": {"xaxis": {"title": {"text": "hour of the day"}}, "yaxis": {"title": {"text": "highest score"}}},
        },
    )


def _episodes(system: Lob, data: LobData, scores: Floats, threshold: float) -> Figure:
    table = episodes(data, scores, threshold, merge_s=system.config.merge, top=_EPISODES)
    shown = table.drop(columns=["first", "last", "date"]).round({"mean_score": 4, "peak_score": 4, "manipulated": 2})
    return Figure(
        "Suspect episodes",
        "Alerts that follow one another within the merging time, ranked by their highest score; the side is the one "
        "whose orders were cancelled.",
        table=shown,
    )
