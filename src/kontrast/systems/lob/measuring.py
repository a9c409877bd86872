"""What is measured of scores: per message, per event, per stock, by kind and by size of the manipulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks import KINDS, SUBMIT
from kontrast.errors import DataError
from kontrast.evaluation.detection import detection_metrics
from kontrast.systems.lob.views import LobData

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def f_max(scores: Floats, label: npt.NDArray[Any], beta: float) -> float:
    """The best F-beta over all thresholds, an upper bound."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(label, scores)
    weight = beta * beta
    return float(((1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-300)).max())


def best_threshold(scores: Floats, label: npt.NDArray[Any]) -> float:
    """The threshold with the best F1; alerts are scores of at least as much."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, cuts = precision_recall_curve(label, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return float(cuts[int(np.argmax(f1[:-1]))])


def chance_ap(label: npt.NDArray[Any]) -> float:
    """Expected average precision of a random order, which is a little above the share of positives.

    With m positives among n, a positive at rank k has expected precision (1 + (k - 1)(m - 1)/(n - 1)) / k.
    """
    n, m = len(label), int(np.sum(label))
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    rest = (m - 1) / (n - 1) if n > 1 else 0.0
    return (harmonic + rest * (n - harmonic)) / n


def precision_at_positives(scores: Floats, label: npt.NDArray[Any]) -> Floats:
    """(m,) precision at the threshold of each positive's score; their mean is the average precision."""
    positive = np.sort(scores[label == 1])
    everything = np.sort(scores)
    own = scores[label == 1]
    caught = len(positive) - np.searchsorted(positive, own, "left")
    flagged = len(everything) - np.searchsorted(everything, own, "left")
    return np.asarray(caught / flagged)


def check_truth(data: LobData) -> npt.NDArray[np.int8]:
    """(n,) labels.

    Raises:
        DataError: if they are not known.
    """
    if data.truth is None:
        path = data.streams[0].path if data.streams else None
        raise DataError("has no labels to measure against", file=path, mend="give a table with a column 'label'")
    return data.truth.label


def measurement(
    data: LobData, scores: Floats, causal: Floats, threshold: float
) -> tuple[dict[str, float], Floats, list[str]]:
    """Metrics of scores, and the average precision as a mean over events.

    Args:
        data: labelled messages.
        scores: (n,) of the messages.
        causal: (n,) of the windows that end at them.
        threshold: of alerts.

    Returns:
        Metrics; of each event its share of the average precision, scaled so that the mean over events is the average
        precision; names of the events.
    """
    label = check_truth(data)
    metrics = detection_metrics(scores, label)
    alert = scores >= threshold
    hits = int((alert & (label == 1)).sum())
    precision, recall = hits / max(1, int(alert.sum())), hits / int(label.sum())
    metrics |= {
        "f4_max": f_max(scores, label, 4.0),
        "f1": 2 * precision * recall / max(precision + recall, 1e-300),
        "precision": precision,
        "recall": recall,
        "prevalence": float(label.mean()),
        "ap causal": detection_metrics(causal, label)["ap"],
    }
    codes, index = np.unique(data.event_codes()[label == 1], return_inverse=True)
    names = [data.event_name(code) for code in codes.tolist()]
    metrics["event recall"] = float((np.bincount(index, alert[label == 1]) > 0).mean())
    for name, group in groups(data):
        found = detection_metrics(scores[group], label[group])
        metrics |= {f"{metric} {name}": found[metric] for metric in ("ap", "auroc", "f1_max")}
    share = np.bincount(index, precision_at_positives(scores, label))
    return metrics, np.asarray(share * len(names) / label.sum()), names


def groups(data: LobData) -> Iterator[tuple[str, Bools]]:
    """Messages of one stock, or all real ones with those of one kind or level of manipulation, where both are there."""
    truth = data.truth
    assert truth is not None
    tickers = np.asarray(data.tickers(), dtype=object)
    parts: list[tuple[str, Bools]] = []
    if len(set(tickers)) > 1:
        parts += [(str(name), tickers == name) for name in sorted(set(tickers))]
    kinds = np.unique(truth.kind[truth.label == 1]).tolist()
    if len(kinds) > 1:
        parts += [(KINDS[kind], (truth.label == 0) | (truth.kind == kind)) for kind in kinds]
    levels = manipulation_levels(data)
    for name, inside in levels.items():
        parts.append((name, (truth.label == 0) | inside))
    for name, group in parts:
        if 0 < truth.label[group].sum() < group.sum():
            yield name, group


def manipulation_levels(data: LobData) -> dict[str, Bools]:
    """Manipulated messages by the number of price levels that their event's fake orders stand on, and by their volume.

    Volume is that of the fake orders relative to the mean depth of a level of the stock, in thirds of the events.
    """
    truth = data.truth
    assert truth is not None
    profiles = event_profiles(data)
    if not profiles:
        return {}
    events = data.event_codes()
    result: dict[str, Bools] = {}
    for label, low, high in (
        ("1 price level", 1, 1),
        ("2 to 4 price levels", 2, 4),
        ("5 and more price levels", 5, 10**9),
    ):
        chosen = [code for code, profile in profiles.items() if low <= profile.prices <= high]
        if chosen:
            result[label] = np.isin(events, chosen)
    volumes = np.array([profile.volume for profile in profiles.values()])
    if len(volumes) >= 6:
        low_cut, high_cut = np.quantile(volumes, [1 / 3, 2 / 3])
        for label, chosen in (
            ("small volume", [code for code, p in profiles.items() if p.volume <= low_cut]),
            ("medium volume", [code for code, p in profiles.items() if low_cut < p.volume <= high_cut]),
            ("large volume", [code for code, p in profiles.items() if p.volume > high_cut]),
        ):
            if chosen:
                result[label] = np.isin(events, chosen)
    return result


@dataclass(frozen=True)
class EventProfile:
    """What an event looked like.

    Attributes:
        kind: index into `KINDS`.
        side: side of most submissions, 1 for buy.
        prices: distinct prices of the submissions on that side.
        volume: shares submitted on that side, relative to the mean size of a level.
        rows: (m, 2) stream and position of its messages.
    """

    kind: int
    side: int
    prices: int
    volume: float
    rows: npt.NDArray[np.int64]


def event_profiles(data: LobData) -> dict[int, EventProfile]:
    """Profiles of the events among the rows, by code; computed from all messages of the event in the stream."""
    truth = data.truth
    assert truth is not None
    profiles: dict[int, EventProfile] = {}
    for number, stream in enumerate(data.streams):
        mine = (data.rows[:, 1] == number) & (truth.label == 1)
        if stream.truth is None or not mine.any():
            continue
        depth = float(np.concatenate([stream.ask_size, stream.bid_size], axis=1).mean()) or 1.0
        for event in np.unique(truth.event[mine]).tolist():
            rows = np.flatnonzero((stream.truth.event == event) & (stream.truth.label == 1))
            if not len(rows):
                rows = data.rows[mine & (truth.event == event), 2]
            sent = rows[stream.type[rows] == SUBMIT]
            side = 1 if stream.direction[sent].sum() >= 0 else -1
            own = sent[stream.direction[sent] == side]
            kind = int(truth.kind[mine & (truth.event == event)][0])
            place = np.stack([np.full(len(rows), number), rows], axis=1)
            profiles[(number << 32) + event] = EventProfile(
                kind, side, len(np.unique(stream.price[own])), float(stream.size[own].sum()) / depth, place
            )
    return profiles
