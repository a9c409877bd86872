"""Probes: how much of a label can be read off frozen embeddings by a simple classifier."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.search import top_k
from kontrast.evaluation.tiles import Matrix, as_matrix

CS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
Labels = Sequence[Any] | npt.NDArray[Any]


@dataclass(frozen=True)
class ProbeResult:
    """What a probe reads off the test embeddings.

    Args:
        accuracy: share of test rows whose label is predicted.
        macro_f1: F1 averaged over the classes that occur in the test labels or predictions.
        majority_accuracy: accuracy of always predicting the most frequent training label.
        majority_macro_f1: its macro-F1.
        predicted: (n_test,) predicted labels; ``predicted == labels`` gives per-item values for intervals.
        setting: the chosen setting, such as ``{"C": 0.1}``.
    """

    accuracy: float
    macro_f1: float
    majority_accuracy: float
    majority_macro_f1: float
    predicted: npt.NDArray[Any]
    setting: dict[str, float]

    def metrics(self) -> dict[str, float]:
        """The four numbers under the names that the report uses."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "majority_accuracy": self.majority_accuracy,
            "majority_macro_f1": self.majority_macro_f1,
        }


def linear_probe(
    train: Matrix,
    train_labels: Labels,
    test: Matrix,
    test_labels: Labels,
    *,
    valid: Matrix | None = None,
    valid_labels: Labels | None = None,
    cs: Sequence[float] = CS,
    seed: int = 0,
    max_iter: int = 1000,
) -> ProbeResult:
    """Logistic regression on standardised frozen embeddings.

    Means, deviations and weights come from the training rows alone. The inverse regularisation C is the one with the
    best macro-F1 on the validation rows (the smallest of equals), never on the test rows.

    Args:
        train: (n, d) finite.
        train_labels: (n,).
        test: (t, d).
        test_labels: (t,).
        valid: (v, d); without it every fifth training row of each class, seeded, chooses C, and the final probe is
            fitted on all training rows.
        valid_labels: (v,).
        cs: values of C to try.
        seed: of the split without `valid`.
        max_iter: of the solver.

    Raises:
        DataError: if the training labels hold fewer than two classes.
        ValueError: if shapes disagree or values are not finite.
    """
    x, y = _checked(train, train_labels, "train")
    x_test, y_test = _checked(test, test_labels, "test", width=x.shape[1])
    _at_least_two(y)
    if (valid is None) != (valid_labels is None):
        raise ValueError("give both valid and valid_labels, or neither.")
    if valid is not None and valid_labels is not None:
        fit, choose = (x, y), _checked(valid, valid_labels, "valid", width=x.shape[1])
    else:
        held = _fifth(y, seed)
        fit, choose = (x[~held], y[~held]), (x[held], y[held])
    best_c, best_score = float(cs[0]), -1.0
    if len(cs) > 1 and len(choose[1]) and len(np.unique(fit[1])) > 1:
        for c in sorted(cs):
            score = _macro_f1(choose[1], _logistic(fit[0], fit[1], c, max_iter).predict(choose[0]))
            if score > best_score + 1e-12:
                best_c, best_score = float(c), score
    predicted = _logistic(x, y, best_c, max_iter).predict(x_test)
    return _result(y, y_test, predicted, {"C": best_c})


def knn_probe(
    train: Matrix,
    train_labels: Labels,
    test: Matrix,
    test_labels: Labels,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> ProbeResult:
    """k nearest training rows by cosine, votes weighted by exp(cosine / temperature) (Wu et al. 2018, 1805.01978).

    Args:
        train: (n, d) finite.
        train_labels: (n,).
        test: (t, d).
        test_labels: (t,).
        k: number of neighbours, at most n are used.
        temperature: of the votes; ``float("inf")`` gives every neighbour one vote. The smallest label wins a tie.

    Raises:
        DataError: if the training labels hold fewer than two classes.
        ValueError: if shapes disagree, values are not finite, or a parameter is not positive.
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k must be at least 1 and temperature above 0, got {k} and {temperature}.")
    x, y = _checked(train, train_labels, "train")
    x_test, y_test = _checked(test, test_labels, "test", width=x.shape[1])
    _at_least_two(y)
    classes, codes = np.unique(y, return_inverse=True)
    scores, neighbours = top_k(x_test, x, k)
    weights = np.exp((scores.astype(np.float64) - scores[:, :1]) / temperature)
    rows = np.repeat(np.arange(len(x_test)), scores.shape[1])
    votes = np.zeros((len(x_test), len(classes)))
    np.add.at(votes, (rows, codes.ravel()[neighbours.ravel()]), weights.ravel())
    return _result(y, y_test, classes[votes.argmax(1)], {"k": float(scores.shape[1]), "temperature": temperature})


def _logistic(x: npt.NDArray[Any], y: npt.NDArray[Any], c: float, max_iter: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        # A fit cut off at `max_iter` is judged by its F1 on the validation rows like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter)).fit(x, y)


def _checked(
    rows: Matrix, labels: Labels, name: str, *, width: int | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    matrix = as_matrix(rows, name).cpu().numpy()
    column = np.asarray(labels)
    if column.shape != (len(matrix),):
        raise ValueError(f"{name} has {len(matrix)} rows, but its labels have the shape {column.shape}.")
    if width is not None and matrix.shape[1] != width:
        raise ValueError(f"{name} has width {matrix.shape[1]}, but train has {width}.")
    return matrix, column


def _at_least_two(labels: npt.NDArray[Any]) -> None:
    classes = np.unique(labels)
    if len(classes) < 2:
        held = f"only the class {classes[0]!r}" if len(classes) else "no row"
        raise DataError(f"a probe needs at least two classes, but the training labels hold {held}")


def _fifth(labels: npt.NDArray[Any], seed: int) -> npt.NDArray[np.bool_]:
    """Every fifth row of each class in a seeded order; a class of fewer than five rows stays in training."""
    from kontrast.randomness import numpy_rng

    shuffled = numpy_rng(seed, "probe").permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for value in np.unique(labels):
        held[shuffled[labels[shuffled] == value][4::5]] = True
    return held


def _macro_f1(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def _result(
    train_labels: npt.NDArray[Any], labels: npt.NDArray[Any], predicted: npt.NDArray[Any], setting: dict[str, float]
) -> ProbeResult:
    if not len(labels):
        raise DataError("there is no test row to probe")
    classes, counts = np.unique(train_labels, return_counts=True)
    majority = np.full(len(labels), classes[counts.argmax()])
    return ProbeResult(
        accuracy=float((predicted == labels).mean()),
        macro_f1=_macro_f1(labels, predicted),
        majority_accuracy=float((majority == labels).mean()),
        majority_macro_f1=_macro_f1(labels, majority),
        predicted=predicted,
        setting=setting,
    )
