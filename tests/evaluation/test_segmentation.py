"""Pixel metrics against definitions written out, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from kontrast.errors import DataError
from kontrast.evaluation.segmentation import count_pixels, segmentation_metrics


def slow_pro(maps, masks, limit):
    """Per-region overlap by its definition: a curve over all thresholds, cut at the limit, by trapezoids."""
    negatives = np.concatenate([scores[mask == 0] for scores, mask in zip(maps, masks)])
    regions = []
    for scores, mask in zip(maps, masks):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        regions += [scores[numbers == number] for number in range(1, count + 1)]
    cuts = np.unique(np.concatenate([negatives, *regions]))[::-1]
    rates = np.array([0.0, *((negatives >= cut).mean() for cut in cuts)])
    overlaps = np.array([0.0, *(np.mean([(region >= cut).mean() for region in regions]) for cut in cuts)])
    inside = rates <= limit
    x, y = list(rates[inside]), list(overlaps[inside])
    if x[-1] < limit:
        after = int(inside.sum())
        share = (limit - x[-1]) / (rates[after] - x[-1])
        x, y = [*x, limit], [*y, y[-1] + share * (overlaps[after] - y[-1])]
    return np.trapezoid(y, x) / limit


def some_images(seed, levels, images=3):
    rng = np.random.default_rng(seed)
    masks = [rng.random((7, 5)) < 0.25 for _ in range(images)]
    masks[0][0, 0], masks[0][6, 4] = True, False
    maps = [np.round(rng.random((7, 5)) * levels) / levels + 0.3 * mask for mask in masks]
    return maps, masks


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 7, 1000]), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_metrics_are_those_of_their_definitions_with_ties(seed, levels, limit):
    maps, masks = some_images(seed, levels)
    counts = count_pixels(maps, masks)
    scores, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    assert counts.auroc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert counts.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(truth, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert counts.f1_max() == pytest.approx(best, abs=1e-12)
    assert counts.pro(limit) == pytest.approx(slow_pro(maps, masks, limit), abs=1e-12)


def test_the_true_mask_is_perfect_and_a_constant_map_is_chance():
    _, masks = some_images(1, 10)
    assert segmentation_metrics([m.astype(float) for m in masks], masks) == {
        "pixel auroc": 1.0, "pixel ap": 1.0, "pixel f1_max": 1.0, "pro": pytest.approx(1.0),
    }  # fmt: skip
    constant = count_pixels([np.zeros(m.shape) for m in masks], masks)
    assert constant.auroc() == 0.5
    assert constant.pro(0.3) == pytest.approx(0.15)
    assert constant.average_precision() == pytest.approx(np.mean([m.mean() for m in masks]))


def test_a_monotone_change_of_scores_changes_nothing():
    maps, masks = some_images(2, 1000)
    assert segmentation_metrics([np.exp(5 * m) for m in maps], masks) == segmentation_metrics(maps, masks)


def test_small_regions_count_as_much_as_large_ones():
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, 0] = mask[5:15, 5:15] = True
    only_large = np.zeros((20, 20))
    only_large[5:15, 5:15] = 1
    counts = count_pixels([only_large], [mask])
    # The large region is found at once; the single pixel ties with all negatives and rises linearly.
    assert counts.pro(0.3) == pytest.approx(0.5 + 0.5 * 0.15)
    assert counts.auroc() > 0.99


def test_diagonal_neighbours_are_one_region():
    mask = np.eye(4, dtype=bool)
    half = np.zeros((4, 4))
    half[0, 0] = 1
    assert count_pixels([half], [mask]).coverage.tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("fill", [False, True])
def test_one_class_only_is_refused(fill):
    with pytest.raises(DataError, match="inside and outside"):
        count_pixels([np.zeros((3, 3))], [np.full((3, 3), fill)])


def test_bad_shapes_and_values_are_refused():
    mask = np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match="one shape"):
        count_pixels([np.zeros((3, 4))], [mask])
    with pytest.raises(ValueError, match="finite"):
        count_pixels([np.full((3, 3), np.nan)], [mask])
    with pytest.raises(ValueError, match="2 maps and 1 masks"):
        count_pixels([mask, mask], [mask])
    with pytest.raises(ValueError, match="limit"):
        count_pixels([mask.astype(float)], [mask]).pro(0)
