"""What a reader would try first: the same messages with no representation learned, and a single message alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.evaluation.detection import detection_metrics
from kontrast.randomness import derive_seed, numpy_rng
from kontrast.systems.lob.detectors import Forest, OneClassSvm
from kontrast.systems.lob.features import ORDERS, Columns, Floats
from kontrast.systems.lob.measuring import chance_ap, check_truth, f_max
from kontrast.systems.lob.scoring import RowMaker, SegmentVectors
from kontrast.systems.lob.views import Ints, LobData, windows_of

NORMAL = 8000
_BLOCK = 8192
Score = Callable[[Floats], npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of the segments of a part, with labels.

    Attributes:
        parts: (n, features) of each segment.
        labels: (n,) of each segment.
    """

    parts: list[Floats]
    labels: list[npt.NDArray[np.int8]]

    @classmethod
    def of(cls, data: LobData, rows: RowMaker) -> Table:
        """All messages of the segments of `data`."""
        parts, labels = [], []
        for stream, start, end in data.segments.tolist():
            parts.append(rows.rows(data.streams[stream], start, end))
            truth = data.streams[stream].truth
            assert truth is not None
            labels.append(truth.label[start:end])
        return cls(parts, labels)

    def columns(self, chosen: list[int]) -> Table:
        """The same rows with some columns."""
        return Table([part[:, chosen] for part in self.parts], self.labels)


def simple_baselines(
    train: LobData, test: LobData, rows: RowMaker, *, window: int, seed: int
) -> dict[str, dict[str, float]]:
    """Metrics of detectors on windows of standardised features and on single messages, by name.

    Those marked (labels) learn from the same labelled messages as the method; the others from unlabelled windows.
    """
    label = check_truth(test)
    known, asked = Table.of(train, rows), Table.of(test, rows)
    found = {
        "flag everything": {"ap": chance_ap(label), "auroc": 0.5, "f4_max": f_max(np.zeros(len(label)), label, 4.0)}
    }
    for name, scores in _scores(known, asked, rows.columns, test, window, seed):
        metrics = detection_metrics(scores, label)
        found[name] = {**metrics, "f4_max": f_max(scores, label, 4.0)}
    return found


def _scores(
    known: Table, asked: Table, columns: Columns, test: LobData, window: int, seed: int
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    rng = numpy_rng(seed, "baselines")
    normal, marked = _windows(known, window, rng)
    for name, detector in (
        ("windows, one-class SVM", OneClassSvm.fit(normal, marked, seed)),
        ("windows, isolation forest", Forest.fit(normal, marked, seed)),
    ):
        yield name, _per_message(asked, test, window, detector.scores)
    truth = np.repeat([0, 1], [len(normal), len(marked)])
    if len(marked):
        both = np.concatenate([normal, marked])
        yield "windows, logistic regression (labels)", _per_message(asked, test, window, _logistic(both, truth))
        yield "windows, boosted trees (labels)", _per_message(asked, test, window, _boosted(both, truth, seed))
        single = _single_columns(columns)
        if single:
            alone, own = known.columns(single), asked.columns(single)
            normal, marked = _windows(alone, 1, rng)
            truth = np.repeat([0, 1], [len(normal), len(marked)])
            score = _boosted(np.concatenate([normal, marked]), truth, seed)
            yield "single message, boosted trees (labels)", _per_message(own, test, 1, score)


def _single_columns(columns: Columns) -> list[int]:
    """What one message says without its past: type, side, size, distance and gap."""
    names = [f"orders.{name}" for name in ORDERS if not name.startswith("imbalance")]
    return [columns.names.index(name) for name in names if name in columns.names]


def _windows(table: Table, window: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Flattened windows: some without manipulation, and all with it."""
    nobody = [np.full(len(part), -1, np.int64) for part in table.parts]
    windows = windows_of(table.parts, table.labels, nobody, window)
    normal, marked = np.flatnonzero(windows.label == 0), np.flatnonzero(windows.label == 1)
    normal = np.sort(rng.permutation(normal)[:NORMAL])
    return windows.get(normal).reshape(len(normal), -1), windows.get(marked).reshape(len(marked), -1)


def _logistic(rows: Floats, truth: npt.NDArray[Any]) -> Score:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=200, C=0.01, class_weight="balanced").fit(rows, truth)
    return lambda asked: np.asarray(model.decision_function(asked), np.float64)


def _boosted(rows: Floats, truth: npt.NDArray[Any], seed: int) -> Score:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=derive_seed(seed, "boosted") % (1 << 31)
    ).fit(rows, truth)
    return lambda asked: np.asarray(model.decision_function(asked), np.float64)


def _per_message(asked: Table, test: LobData, window: int, score: Score) -> npt.NDArray[np.float64]:
    """(n,) mean over the windows that contain each message of the part."""
    scores = np.zeros(len(test))
    for number, rows in enumerate(asked.parts):
        ends = np.arange(window - 1, len(rows))
        index = np.arange(1 - window, 1)
        found = np.concatenate(
            [
                score(rows[block[:, None] + index].reshape(len(block), -1))
                for block in np.array_split(ends, max(1, -(-len(ends) // _BLOCK)))
            ]
        )
        place: Ints = np.full(len(rows), -1, np.int64)
        place[ends] = np.arange(len(ends))
        _, start, _ = test.segments[number].tolist()
        segment = SegmentVectors(start, len(rows), place, np.zeros((0, 0), np.float32))
        mine = test.rows[:, 0] == number
        scores[mine] = segment.message_scores(found, test.rows[mine, 2], window)
    return scores
