"""Intervals: calibration by simulation, closed forms, and plain verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kontrast.evaluation import Interval, auroc, bootstrap_interval, coverage, paired_difference, pseudo_values
from kontrast.evaluation.intervals import two_way

# Differences of one value per seed; then with test items: seeds and noise, noise alone, items above all, all alike.
WORLDS = {
    "seeds": {},
    "seeds and noise": {"items": 60, "noise_sd": 5.0},
    "noise": {"items": 60, "seed_sd": 0.0, "noise_sd": 1.0},
    "items": {"items": 60, "seed_sd": 0.3, "item_sd": 8.0},
    "all": {"items": 60, "item_sd": 4.0, "noise_sd": 4.0},
}


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_no_effect_in_95_percent(seeds: int, world: str) -> None:
    # 5,000 repetitions have a standard error of 0.3 points.
    held = coverage(seeds=seeds, repetitions=5000, **WORLDS[world])
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("shape", ["skewed", "heavy", "discrete"])
@pytest.mark.parametrize("world", ["seeds", "seeds and noise", "all"])
def test_the_interval_is_calibrated_off_the_normal_too(seeds: int, shape: str, world: str) -> None:
    held = coverage(seeds=seeds, shape=shape, repetitions=5000, **WORLDS[world])
    assert 0.925 <= held <= 0.975


def test_why_seeds_are_not_resampled() -> None:
    assert coverage(seeds=3, method="percentile") < 0.8
    assert coverage(seeds=5, method="percentile") < 0.88


def test_why_items_must_vary_too() -> None:
    assert coverage(seeds=5, method="seeds", **WORLDS["items"]) < 0.7


def test_verdicts_reach_the_public_function() -> None:
    """The calibration holds for `paired_difference` itself, verdict included."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        item = rng.normal(size=40)
        arms = [item + 0.2 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 40)) for _ in range(2)]
        wrong += paired_difference(*arms).verdict != "can't be told"
    assert 0.03 <= wrong / 1000 <= 0.07


def test_one_value_per_seed_is_the_paired_t_interval() -> None:
    a, b = np.array([0.52, 0.55, 0.58, 0.51]), np.array([0.50, 0.51, 0.55, 0.50])
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    assert found.verdict == "helped"
    assert (found.n_seeds, found.n_items) == (4, 0)


def test_two_way_equals_mean_squares_written_out() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(size=(4, 7)) + 3 * rng.normal(size=(1, 7)) + rng.normal(size=(4, 1))
    s, n = d.shape
    ms_seed = sum(n * (row.mean() - d.mean()) ** 2 for row in d) / (s - 1)
    ms_item = sum(s * (column.mean() - d.mean()) ** 2 for column in d.T) / (n - 1)
    ms_noise = sum((d[i, j] - d[i].mean() - d[:, j].mean() + d.mean()) ** 2 for i in range(s) for j in range(n)) / (
        (s - 1) * (n - 1)
    )
    extra = ms_item - ms_noise
    variance, df = two_way(d[None])
    assert variance[0] == pytest.approx((ms_seed + extra) / (s * n))
    assert df[0] == pytest.approx((ms_seed + extra) ** 2 / (ms_seed**2 / (s - 1) + extra**2 / (n - 1)))


def test_a_real_effect_is_seen() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=300)
    without = items + rng.normal(0, 0.3, (5, 300))
    found = paired_difference(without + 0.2 + rng.normal(0, 0.02, (5, 1)), without)
    assert found.verdict == "helped"
    assert found.low < 0.2 < found.high
    assert paired_difference(without, without + 0.2).verdict == "can't be told"  # no variation at all: see below
    worse = paired_difference(without - 0.2 + rng.normal(0, 0.02, (5, 1)), without)
    assert worse.verdict == "hurt"
    assert worse.sentence("recall@10").startswith("The contrastive part hurt recall@10 (difference -0.")
    assert paired_difference(without - 0.2 + rng.normal(0, 0.02, (5, 1)), without, direction="min").verdict == "helped"


def test_no_difference_anywhere() -> None:
    for shape in [(3,), (3, 10)]:
        found = paired_difference(np.full(shape, 0.7), np.full(shape, 0.7))
        assert (found.low, found.high, found.p, found.verdict) == (0.0, 0.0, 1.0, "can't be told")
        assert "there is no difference" in found.sentence("recall@10")


@pytest.mark.parametrize("values", [[0.8, 0.7, 0.6], [0.3, 0.7, 0.1]])
def test_the_same_difference_at_every_seed_gives_no_interval(values: list[float]) -> None:
    # 0.8 - 0.7 and 0.7 - 0.6 differ in the last bit; that is no variation between seeds.
    found = paired_difference(values, np.array(values) - 0.1)
    assert np.isnan(found.low)
    assert found.verdict == "can't be told"
    assert "every seed gave the same difference" in found.sentence("recall@10")
    assert "nan" not in found.sentence("recall@10")


def test_seeds_that_agree_by_chance_still_vary_by_the_noise() -> None:
    # Each seed gains one item, a different one: equal means, yet three hits of luck.
    without = np.zeros((3, 30))
    gained = without.copy()
    gained[[0, 1, 2], [3, 8, 20]] = 1
    found = paired_difference(gained, without)
    assert found.low < 0 < found.high


def test_one_seed_tells_of_items_only() -> None:
    rng = np.random.default_rng(0)
    found = paired_difference(rng.normal(5, 1, (1, 50)), np.zeros((1, 50)))
    assert found.low > 4
    assert found.verdict == "can't be told"
    assert "one seed" in found.reason
    assert np.isnan(paired_difference([1.0], [0.5]).low)


def test_queries_without_a_value_are_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 10)), rng.normal(size=(3, 10))
    kept = paired_difference(a[:, :9], b[:, :9])
    a[:, 9] = b[:, 9] = np.nan
    assert paired_difference(a, b) == kept
    a[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN only if"):
        paired_difference(a, b)


def test_groups_of_alike_items_count_once() -> None:
    rng = np.random.default_rng(0)
    a, b = 3 * rng.normal(size=20) + rng.normal(size=(4, 20)), rng.normal(size=(4, 20))
    single = paired_difference(a, b)
    copied = paired_difference(np.repeat(a, 6, 1), np.repeat(b, 6, 1), groups=np.repeat(np.arange(20), 6))
    assert (copied.low, copied.high, copied.n_items) == pytest.approx((single.low, single.high, 20))
    assert paired_difference(np.repeat(a, 6, 1), np.repeat(b, 6, 1)).low > copied.low


def test_groups_of_unlike_size_keep_the_mean_over_items() -> None:
    rng = np.random.default_rng(0)
    a, b, groups = rng.normal(size=(4, 50)), rng.normal(size=(4, 50)), rng.integers(0, 9, 50)
    assert paired_difference(a, b, groups=groups).difference == pytest.approx((a - b).mean())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        paired_difference(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="direction"):
        paired_difference([1.0], [1.0], direction="up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups need"):
        paired_difference([1.0], [1.0], groups=[1])
    with pytest.raises(ValueError, match="level"):
        paired_difference([1.0], [1.0], level=95)


def test_pseudo_values_of_a_mean_are_the_items() -> None:
    values = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(pseudo_values(lambda items: float(values[items].mean()), 30), values, atol=1e-12)


def test_pseudo_values_of_auroc_give_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    means, errors = [], []
    for _ in range(40):
        scores = rng.normal(size=400) + labels
        values = pseudo_values(lambda items, scores=scores: auroc(scores[items], labels[items]), 400, blocks=50)
        means.append(values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(len(values)))
    assert np.mean(means) == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=0.3)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_equals_scipy(method: str) -> None:
    values = np.random.default_rng(0).exponential(size=60)
    found = bootstrap_interval(values, method=method, resamples=8000)
    expected = stats.bootstrap((values,), np.mean, method=method, n_resamples=8000, random_state=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    by_statistic = bootstrap_interval(
        values, method=method, statistic=lambda items: float(values[items].mean()), resamples=2000
    )
    assert (by_statistic.low, by_statistic.high) == pytest.approx((expected.low, expected.high), abs=0.06)


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for number in range(400):
        interval = bootstrap_interval(rng.normal(size=80), resamples=300, seed=number)
        held += interval.low <= 0 <= interval.high
    assert 0.91 <= held / 400 <= 0.98


def test_bootstrap_of_groups_is_wider() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 10)
    values = rng.normal(size=15)[groups] + 0.1 * rng.normal(size=150)
    alone, grouped = bootstrap_interval(values), bootstrap_interval(values, groups=groups)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert grouped.value == pytest.approx(values.mean())


def test_bootstrap_repeats_and_ignores_missing_values() -> None:
    values = np.array([0.1, np.nan, 0.4, 0.9, 0.3])
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values[~np.isnan(values)], seed=3)
    assert bootstrap_interval([0.5], method="bca") == Interval(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no item"):
        bootstrap_interval([np.nan])
