"""Two-dimensional maps of embeddings for the report.

A map is an illustration: distances between far groups, and the sizes of groups, mean little in UMAP. Numbers come from
the metrics, never from a map.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from kontrast.evaluation.tiles import Matrix, as_matrix
from kontrast.extras import require
from kontrast.randomness import derive_seed, numpy_rng

Method = Literal["auto", "pca", "umap"]


@dataclass(frozen=True)
class Projection:
    """A map of some rows.

    Args:
        coordinates: (p, 2) float32.
        rows: (p,) int64, which rows are shown, rising.
        method: "PCA" or "UMAP".
        explained: share of the variance along each axis for PCA, (2,); None for UMAP.
    """

    coordinates: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    method: str
    explained: tuple[float, float] | None

    @property
    def title(self) -> str:
        """Method, and what PCA's axes explain."""
        if self.explained is None:
            return self.method
        return f"{self.method} ({self.explained[0]:.0%} and {self.explained[1]:.0%} of the variance)"


def project(
    embeddings: Matrix,
    *,
    method: Method = "auto",
    max_rows: int = 5000,
    neighbours: int = 15,
    cosine: bool = True,
    seed: int = 0,
) -> Projection:
    """A 2-D map of at most `max_rows` rows, drawn without replacement as a function of `seed`.

    Args:
        embeddings: (n, d) finite, n ≥ 1.
        method: "pca", "umap" (extra ``umap``), or "auto": UMAP where it is installed and there are enough rows.
        max_rows: how many rows to show at most.
        neighbours: UMAP's neighbourhood.
        cosine: UMAP's distance is the cosine's (else Euclidean).
        seed: of the choice of rows and of UMAP.

    Raises:
        ValueError: if there is no row, values are not finite or `method` is unknown.
        MissingExtraError: if "umap" is asked for but not installed.
    """
    if method not in ("auto", "pca", "umap"):
        raise ValueError(f"method must be 'auto', 'pca' or 'umap', got {method!r}.")
    matrix = as_matrix(embeddings, "embeddings").cpu().numpy()
    if not len(matrix):
        raise ValueError("there is no embedding to show.")
    rows = np.arange(len(matrix), dtype=np.int64)
    if len(rows) > max_rows:
        rows = np.sort(numpy_rng(seed, "projection").choice(rows, max_rows, replace=False))
    shown = matrix[rows].astype(np.float64)
    # With fewer rows UMAP's spectral start has no solution; a map of so few points needs no UMAP.
    enough = len(rows) > max(neighbours, 4)
    if method == "umap" or (method == "auto" and enough and find_spec("umap") is not None):
        umap = require("umap", extra="umap", purpose="for a UMAP map")
        if not enough:
            raise ValueError(f"UMAP needs more than {max(neighbours, 4)} rows, got {len(rows)}; use method 'pca'.")
        placed = _umap(umap, shown, neighbours, cosine, seed)
        # UMAP gives no place to a row that is as far as can be from all others, such as a zero row.
        kept = np.isfinite(placed).all(1)
        return Projection(placed[kept], rows[kept], "UMAP", None)
    coordinates, explained = _pca(shown)
    return Projection(coordinates, rows, "PCA", explained)


def _pca(rows: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    centred = rows - rows.mean(0)
    # The smaller of the two Gram matrices holds the same components.
    wide = centred.shape[1] > centred.shape[0]
    values, vectors = _two_largest(centred @ centred.T if wide else centred.T @ centred)
    found = vectors * np.sqrt(values) if wide else centred @ vectors
    coordinates = np.zeros((len(rows), 2))
    coordinates[:, : found.shape[1]] = found
    # Eigenvectors have no sign of their own; the largest coordinate points up, so that maps repeat.
    top = coordinates[np.abs(coordinates).argmax(0), [0, 1]]
    coordinates *= np.where(top < 0, -1.0, 1.0)
    total = float(np.square(centred).sum())
    shares = [float(value) / total if total > 0 else 0.0 for value in values] + [0.0, 0.0]
    return coordinates.astype(np.float32), (shares[0], shares[1])


def _two_largest(gram: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Largest eigenvalues, falling, and their vectors as columns (fewer than two for a 1 × 1 matrix)."""
    if len(gram) <= 1024:
        values, vectors = np.linalg.eigh(gram)
    else:
        from scipy.sparse.linalg import eigsh

        # Lanczos needs a start of its own choosing to repeat its result.
        start = numpy_rng("eigenvectors", len(gram)).standard_normal(len(gram))
        values, vectors = eigsh(gram, k=2, v0=start)
    order = np.argsort(-values)[:2]
    return np.maximum(values[order], 0), vectors[:, order]


def _umap(
    umap: object, rows: npt.NDArray[np.float64], neighbours: int, cosine: bool, seed: int
) -> npt.NDArray[np.float32]:
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = umap.UMAP(  # type: ignore[attr-defined]
                n_components=2,
                n_neighbors=neighbours,
                metric="cosine" if cosine else "euclidean",
                random_state=derive_seed(seed, "umap") % 2**32,
                n_jobs=1,
            ).fit_transform(rows.astype(np.float32))
    finally:
        # numba sets the thread count of the OpenMP runtime that torch shares; other counts round differently.
        torch.set_num_threads(threads)
    return np.asarray(made, np.float32)
