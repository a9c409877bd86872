"""Maps: PCA against a singular value decomposition, UMAP repeatable and silent."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import torch

from kontrast.errors import MissingExtraError
from kontrast.evaluation import project, projection


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (5, 1), (1, 3), (2, 2)])
def test_pca_equals_svd(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape) * np.geomspace(10, 1, shape[1])
    found = project(rows, method="pca")
    left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = np.zeros((len(rows), 2))
    expected[:, : len(values[:2])] = (left * values)[:, :2]
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(expected), rtol=1e-4, atol=1e-4)
    assert found.explained is not None
    if (total := np.square(values).sum()) > 1e-9:
        shares = np.append(np.square(values)[:2] / total, [0.0, 0.0])[:2]
        np.testing.assert_allclose(found.explained, shares, atol=1e-6)
    assert found.title.startswith("PCA (")


def test_pca_of_a_large_matrix_finds_its_axes() -> None:
    # Two orthogonal columns of mean 0 are their own components; the matrix is too large for a full decomposition.
    rows = np.zeros((1100, 1200))
    rows[:, 700] = np.tile([3.0, -3.0], 550)
    rows[:, 30] = np.tile([1.0, 1.0, -1.0, -1.0], 275)
    found = project(rows, method="pca")
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(rows[:, [700, 30]]), atol=1e-6)
    assert found.explained == pytest.approx((0.9, 0.1))


def test_rows_are_chosen_by_the_seed_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 4))
    one, two, other = (project(rows, method="pca", max_rows=100, seed=seed) for seed in (1, 1, 2))
    assert (one.rows == two.rows).all()
    assert (one.coordinates == two.coordinates).all()
    assert (one.rows != other.rows).any()
    assert len(np.unique(one.rows)) == 100


def test_equal_rows_have_a_map() -> None:
    found = project(np.ones((20, 3)), method="pca")
    assert not found.coordinates.any()
    assert found.explained == (0.0, 0.0)


def test_without_umap_auto_is_pca(monkeypatch) -> None:
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    assert project(np.random.default_rng(0).normal(size=(50, 4))).method == "PCA"


def test_a_missing_umap_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"kontrast\[umap\]"):
        project(np.eye(30), method="umap")


def test_few_rows_need_no_umap() -> None:
    assert project(np.eye(6)).method == "PCA"


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="method"):
        project(np.eye(3), method="tsne")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no embedding"):
        project(np.empty((0, 3)))


@pytest.mark.slow
def test_umap_repeats_silently_and_separates_blobs() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    rows = np.eye(8)[labels] * 20 + rng.normal(size=(120, 8))
    rows[0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = torch.get_num_threads()
        one = project(rows, method="umap", seed=1)
    assert torch.get_num_threads() == threads, "numba left torch another number of threads"
    two = project(rows, method="umap", seed=1)
    assert one.method == "UMAP"
    assert one.explained is None
    assert (one.coordinates == two.coordinates).all()
    assert len(one.coordinates) == len(one.rows)
    assert np.isfinite(one.coordinates).all()
    shown = labels[one.rows]
    centres = [one.coordinates[shown == value].mean(0) for value in (0, 1)]
    nearest = np.stack([np.linalg.norm(one.coordinates - centre, axis=1) for centre in centres]).argmin(0)
    assert (nearest == shown).mean() > 0.97
