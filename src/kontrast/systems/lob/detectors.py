"""Step 3: detectors on the vectors of windows. Every score is higher where manipulation is more likely.

The one-class detectors learn from vectors of windows that nobody manipulated; "logistic" and "knn" also learn from the
manipulated ones. All are kept as plain arrays: fitted by scikit-learn, scored here, and equal to its scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from kontrast.errors import CheckpointError, DataError
from kontrast.randomness import derive_seed, numpy_rng

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

COMPONENTS = 100
TREES = 200
NEIGHBOURS = 20
REMEMBERED = 3000
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Detector(ABC):
    """A fitted detector; its fields are arrays, which is all that is saved."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        """From vectors (n, dim) of windows without manipulation and (m, dim) of windows with it."""

    @abstractmethod
    def scores(self, vectors: Vectors) -> Floats:
        """(n,) scores of vectors (n, dim)."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is saved."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class OneClassSvm(Detector):
    """A linear one-class SVM on a Nyström map of an RBF kernel, with γ = 10 / (n · variance)."""

    name: ClassVar[str] = "ocsvm"
    landmarks: Floats
    whitening: Floats
    weights: Floats
    gamma: Floats

    @classmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import SGDOneClassSVM

        rows = normal.astype(np.float64)
        # Contrast presses normal vectors together; a floor keeps the kernel from becoming a lookup of copies.
        gamma = 10.0 / (len(rows) * max(float(rows.var()), 1e-6))
        random = derive_seed(seed, "ocsvm") % (1 << 31)
        kernel = Nystroem(gamma=gamma, n_components=min(COMPONENTS, len(rows)), random_state=random)
        mapped = kernel.fit_transform(rows)
        svm = SGDOneClassSVM(nu=0.5, tol=1e-4, random_state=random).fit(mapped)
        return cls(kernel.components_, kernel.normalization_, np.ravel(svm.coef_), np.array([gamma]))

    def scores(self, vectors: Vectors) -> Floats:
        from sklearn.metrics.pairwise import rbf_kernel

        parts = [
            rbf_kernel(block.astype(np.float64), self.landmarks, gamma=float(self.gamma[0])) @ self.whitening.T
            for block in _blocks(vectors)
        ]
        return -(np.concatenate(parts) @ self.weights)


@dataclass(frozen=True, eq=False)
class Forest(Detector):
    """An isolation forest; trees are rows of arrays, padded with leaves."""

    name: ClassVar[str] = "iforest"
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    cut: Floats
    depth: Floats
    scale: Floats

    @classmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        from sklearn.ensemble import IsolationForest

        random = derive_seed(seed, "iforest") % (1 << 31)
        forest = IsolationForest(n_estimators=TREES, random_state=random).fit(normal)
        trees = [tree.tree_ for tree in forest.estimators_]
        shape = (len(trees), max(tree.node_count for tree in trees))
        left, right, column = (np.zeros(shape, np.int32) for _ in range(3))
        cut, depth = np.zeros(shape), np.zeros(shape)
        for row, tree in enumerate(trees):
            n = tree.node_count
            leaf = tree.children_left < 0
            left[row, :n] = np.where(leaf, np.arange(n), tree.children_left)
            right[row, :n] = np.where(leaf, np.arange(n), tree.children_right)
            column[row, :n] = np.where(leaf, 0, tree.feature)
            cut[row, :n] = np.where(leaf, np.inf, tree.threshold)
            level = np.zeros(n)
            for node in range(n):
                if not leaf[node]:
                    level[[tree.children_left[node], tree.children_right[node]]] = level[node] + 1
            depth[row, :n] = level + _mean_path(tree.n_node_samples)
        scale = _mean_path(np.array([forest.max_samples_]))
        return cls(left, right, column, cut, depth, scale)

    def scores(self, vectors: Vectors) -> Floats:
        steps = int(np.ceil(np.log2(max(2, self.left.shape[1]))))
        parts = []
        for block in _blocks(vectors):
            total = np.zeros(len(block))
            place = np.arange(len(block))
            for left, right, column, cut, depth in zip(self.left, self.right, self.column, self.cut, self.depth):
                node = np.zeros(len(block), np.int32)
                for _ in range(steps):
                    node = np.where(block[place, column[node]] <= cut[node], left[node], right[node])
                total += depth[node]
            parts.append(total)
        mean = np.concatenate(parts) / len(self.left)
        found: Floats = 2.0 ** (-mean / max(float(self.scale[0]), 1e-12))
        return found


def _mean_path(samples: npt.NDArray[Any]) -> Floats:
    """Mean depth of an unsuccessful search in a binary tree of so many samples (Liu, Ting, Zhou 2008, eq. 1)."""
    n = np.asarray(samples, np.float64)
    many = np.maximum(n, 3)
    path = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, path))


@dataclass(frozen=True, eq=False)
class Sphere(Detector):
    """Squared distance from the centre of the normal vectors, as in Deep SVDD."""

    name: ClassVar[str] = "svdd"
    centre: Floats

    @classmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        return cls(normal.mean(0, dtype=np.float64))

    def scores(self, vectors: Vectors) -> Floats:
        return cast(Floats, np.square(vectors - self.centre).sum(1))


@dataclass(frozen=True, eq=False)
class Logistic(Detector):
    """Logistic regression between vectors of windows with and without manipulation, the classes weighted equally."""

    name: ClassVar[str] = "logistic"
    weights: Floats
    bias: Floats

    @classmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        from sklearn.linear_model import LogisticRegression

        if not len(marked):
            mend = "choose the detector ocsvm, or train on data with some manipulation"
            raise DataError("the detector logistic needs manipulated windows, and there are none", mend=mend)
        truth = np.repeat([0, 1], [len(normal), len(marked)])
        model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(np.concatenate([normal, marked]), truth)
        return cls(model.coef_[0].astype(np.float64), model.intercept_.astype(np.float64))

    def scores(self, vectors: Vectors) -> Floats:
        return cast(Floats, vectors.astype(np.float64) @ self.weights + self.bias[0])


@dataclass(frozen=True, eq=False)
class Neighbours(Detector):
    """Mean cosine with the nearest manipulated windows less that with the nearest normal ones."""

    name: ClassVar[str] = "knn"
    marked: Vectors
    normal: Vectors

    @classmethod
    def fit(cls, normal: Vectors, marked: Vectors, seed: int) -> Self:
        if not len(marked):
            mend = "choose the detector ocsvm, or train on data with some manipulation"
            raise DataError("the detector knn needs manipulated windows, and there are none", mend=mend)
        rng = numpy_rng(seed, "knn")
        return cls(*(rows[np.sort(rng.permutation(len(rows))[:REMEMBERED])] for rows in (marked, normal)))

    def scores(self, vectors: Vectors) -> Floats:
        parts = [_nearness(block, self.marked) - _nearness(block, self.normal) for block in _blocks(vectors)]
        return np.concatenate(parts).astype(np.float64)


def _nearness(block: Vectors, others: Vectors) -> Vectors:
    count = min(NEIGHBOURS, len(others))
    return cast(Vectors, np.partition(block @ others.T, len(others) - count, axis=1)[:, -count:].mean(1))


@dataclass(frozen=True, eq=False)
class Head(Logistic):
    """The classifying head that the network learned by itself; it is made of the head's weights, not fitted."""

    name: ClassVar[str] = "head"


DETECTORS: dict[str, type[Detector]] = {
    kind.name: kind for kind in (OneClassSvm, Forest, Sphere, Logistic, Neighbours, Head)
}


def detector_from_arrays(name: str, arrays: dict[str, npt.NDArray[Any]]) -> Detector:
    """The inverse of `Detector.arrays`.

    Raises:
        CheckpointError: if the detector is unknown or its arrays are not all there.
    """
    kind = DETECTORS.get(name)
    if kind is None or {field.name for field in fields(kind)} != arrays.keys():
        raise CheckpointError(f"holds no detector '{name}' ({', '.join(sorted(arrays)) or 'nothing'})")
    return kind(**arrays)


def _blocks(vectors: Vectors) -> list[Vectors]:
    return [vectors[start : start + _BLOCK] for start in range(0, max(1, len(vectors)), _BLOCK)]
