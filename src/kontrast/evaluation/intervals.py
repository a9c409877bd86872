"""Intervals: for one metric over test items, and for the paired difference of two arms over seeds and test items.

**What varies.** An ablation trains both arms with the same few seeds and tests them on the same items. Write d[s, i]
for the difference of the arms at seed s on item i. Two things were drawn at random and would come out differently next
time: the seeds (initialisation, batch order, augmentation) and the test items. So

    d[s, i] = effect + seed[s] + item[i] + noise[s, i]

and the interval must hold both kinds of variation, or it claims too much: one over seeds only forgets that another test
set would have favoured other items, and one over items only takes the luck of three trainings for an effect.

**Why not resample the seeds.** Resampling 3 differences can never reach further than the largest of them, whereas an
honest 95 % interval from 3 seeds is 4.3 standard errors wide on either side: the plain percentile bootstrap of 3 seeds
covers in about three of four cases, not in 19 of 20 (`coverage` measures it). The difference is therefore studentised
and compared with Student's t, whose degrees of freedom come from the few seeds and the many items (Satterthwaite's
rule, as Hillis 2007, doi:10.1002/sim.2532, uses it for readers and cases). The bootstrap stays where it is sound: over
items, in `bootstrap_interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kontrast.randomness import numpy_rng

Floats = npt.NDArray[np.float64]
Direction = Literal["max", "min"]
Verdict = Literal["helped", "hurt", "can't be told"]

_SAME = "every seed gave the same difference, which leaves its variation unknown"


@dataclass(frozen=True)
class Interval:
    """A value with its interval; `low` and `high` are NaN where no interval can be given."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class PairedDifference:
    """The difference "with minus without" of one metric over the same seeds and test items.

    Args:
        difference: its mean.
        low, high: the interval; NaN where none can be given.
        p: two-sided p-value of "no effect"; NaN where none can be given.
        verdict: "helped" or "hurt" where the interval leaves out 0, else "can't be told".
        reason: why it cannot be told, or "".
        n_seeds, n_items: what the interval rests on; `n_items` is 0 where only one value per seed was given.
        level: coverage of the interval.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict
    reason: str
    n_seeds: int
    n_items: int
    level: float = 0.95

    def sentence(self, metric: str, part: str = "The contrastive part") -> str:
        """One plain sentence for the report."""
        if np.isnan(self.low):
            numbers = f"difference {self.difference:+.4f}"
        else:
            numbers = (
                f"difference {self.difference:+.4f}, {self.level:.0%} interval {self.low:+.4f} to {self.high:+.4f}, "
                f"{_p_text(self.p)}"
            )
        seeds = f"{self.n_seeds} seed{'s' if self.n_seeds != 1 else ''}"
        over = f"{seeds} and {self.n_items} test items" if self.n_items else seeds
        if self.verdict == "can't be told":
            name = part[0].lower() + part[1:]
            return f"It can't be told whether {name} helps {metric}: {self.reason} ({numbers}; {over})."
        return f"{part} {self.verdict} {metric} ({numbers}; {over})."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def paired_difference(
    with_part: npt.ArrayLike,
    without_part: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    direction: Direction = "max",
    level: float = 0.95,
) -> PairedDifference:
    """The paired difference of two arms over seeds, or over seeds and test items; see the module's text.

    Args:
        with_part: (seeds,) metric values, or (seeds, items) per-item values whose mean is the metric. Prefer the
            second: without items the interval speaks about these test items only. A metric that is no mean of items,
            such as AUROC, can be given as its `pseudo_values`.
        without_part: the same shape; same seeds and items in the same order. An item that is NaN in every row of both
            arms (a query without a relevant candidate) is left out.
        groups: (items,) group of each item (patient, document, author) when items of a group are alike; whole groups
            are then what varies.
        direction: "max" if a higher value is better, "min" if a lower one is.
        level: coverage.

    Raises:
        ValueError: if shapes disagree, a value is not finite, or `level` is not in (0, 1).
    """
    if direction not in ("max", "min"):
        raise ValueError(f"direction must be 'max' or 'min', got {direction!r}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}.")
    differences = _differences(with_part, without_part)
    if differences.ndim == 1:
        if groups is not None:
            raise ValueError("groups need per-item values of the shape (seeds, items).")
        seeds, items = len(differences), 0
        table = differences[:, None]
    else:
        kept = np.asarray(~np.isnan(differences).all(0))
        table = differences[:, kept]
        if groups is not None:
            labels = np.asarray(groups)
            if labels.shape != kept.shape:
                raise ValueError(f"got groups of shape {labels.shape} for {len(kept)} items.")
            table = _by_group(table, labels[kept])
        seeds, items = table.shape
        if not items:
            raise ValueError("no item has a value.")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite; an item may be NaN only if it is NaN at every seed of both arms.")
    mean = float(table.mean())
    if not table.any():
        return PairedDifference(0.0, 0.0, 0.0, 1.0, "can't be told", "there is no difference", seeds, items, level)
    return _judged(mean, *_spread(table), seeds=seeds, items=items, direction=direction, level=level)


def _judged(
    mean: float, variance: float, df: float, *, seeds: int, items: int, direction: Direction, level: float
) -> PairedDifference:
    from scipy.stats import t

    if not np.isfinite(variance) or variance <= 0:
        reason = "one seed says nothing about others" if seeds == 1 else _SAME
        nan = float("nan")
        return PairedDifference(mean, nan, nan, nan, "can't be told", reason, seeds, items, level)
    error = float(np.sqrt(variance))
    half = float(t.ppf((1 + level) / 2, df)) * error
    p = float(2 * t.sf(abs(mean) / error, df))
    low, high = mean - half, mean + half
    verdict: Verdict = "can't be told"
    if low <= 0 <= high:
        reason = "the interval holds 0"
    elif seeds == 1:
        reason = "one seed says nothing about others; the interval covers other test items only"
    else:
        reason = ""
        verdict = "helped" if (mean > 0) == (direction == "max") else "hurt"
    return PairedDifference(mean, low, high, p, verdict, reason, seeds, items, level)


def _spread(table: Floats) -> tuple[float, float]:
    """Squared standard error and degrees of freedom of the mean of one table (seeds, items)."""
    variance, df = two_way(table[None])
    return float(variance[0]), float(df[0])


def two_way(tables: Floats) -> tuple[Floats, Floats]:
    """Squared standard error of each table's mean when seeds and items both vary, with degrees of freedom.

    With the mean squares of the two-way layout (Cornfield and Tukey 1956), S seeds and n items,

        Var(mean) = [MS_seed + max(MS_item - MS_noise, 0)] / (S n),

    because MS_seed already holds the noise. The degrees of freedom follow Satterthwaite's rule. With one item per seed
    this is the paired t-interval over seeds; with one seed it is the t-interval over items.

    Args:
        tables: (repetitions, seeds, items) differences.

    Returns:
        Variances and degrees of freedom, each (repetitions,); a variance is NaN where one value is all there is.
    """
    repetitions, seeds, items = tables.shape
    by_seed, by_item = tables.mean(2), tables.mean(1)
    mean = by_seed.mean(1)
    if seeds == 1 or items == 1:
        values = by_item if seeds == 1 else by_seed
        size = values.shape[1]
        if size == 1:
            return np.full(repetitions, np.nan), np.ones(repetitions)
        return _without_rounding(values.var(1, ddof=1), values) / size, np.full(repetitions, size - 1.0)
    ms_seed = items * by_seed.var(1, ddof=1)
    ms_item = seeds * by_item.var(1, ddof=1)
    residual = tables - by_seed[:, :, None] - by_item[:, None, :] + mean[:, None, None]
    ms_noise = np.square(residual).sum((1, 2)) / ((seeds - 1) * (items - 1))
    tables_flat = tables.reshape(repetitions, -1)
    ms_seed, ms_item, ms_noise = (_without_rounding(ms, tables_flat) for ms in (ms_seed, ms_item, ms_noise))
    # Coarse metrics can agree at all seeds by chance; the noise is then the least that seeds must vary by.
    ms_seed = np.where(ms_seed == 0, ms_noise, ms_seed)
    extra = np.maximum(ms_item - ms_noise, 0)
    total = ms_seed + extra
    shares = np.square(ms_seed) / (seeds - 1) + np.square(extra) / (items - 1)
    df = np.divide(np.square(total), shares, out=np.full(repetitions, seeds - 1.0), where=shares > 0)
    return total / (seeds * items), df


def _without_rounding(variance: Floats, values: Floats) -> Floats:
    """Variances that are nothing but rounding of equal values become 0."""
    dust = np.square(1e-12 * np.abs(values).max(1))
    return np.where(variance <= dust, 0.0, variance)


def _differences(with_part: npt.ArrayLike, without_part: npt.ArrayLike) -> Floats:
    first, second = np.asarray(with_part, np.float64), np.asarray(without_part, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"the arms must have the same shape, got {first.shape} and {second.shape}.")
    if first.ndim not in (1, 2) or not first.size:
        raise ValueError(f"values must have the shape (seeds,) or (seeds, items), got {first.shape}.")
    return np.asarray(first - second)


def _by_group(table: Floats, groups: npt.NDArray[Any]) -> Floats:
    """One value per seed and group, with the items' mean as their mean (linearised, as groups differ in size)."""
    _, index = np.unique(groups, return_inverse=True)
    index = index.ravel()
    n_groups = int(index.max()) + 1
    mean = table.mean(1, keepdims=True)
    sums = np.stack([np.bincount(index, weights=row, minlength=n_groups) for row in table - mean])
    return np.asarray(mean + sums * (n_groups / table.shape[1]))


def pseudo_values(metric: Callable[[npt.NDArray[np.int64]], float], n_items: int, *, blocks: int = 200) -> Floats:
    """Jackknife pseudo-values: per-item values for a metric that is no mean over items, such as AUROC or macro-F1.

    With θ the metric of all items and θ₋ᵦ the metric without block b of B, the value of block b is B·θ - (B-1)·θ₋ᵦ
    (Quenouille 1956). Use the same `n_items` and `blocks` for every arm and seed, so that the values pair.

    Args:
        metric: maps item positions (int64) to the metric of these items.
        n_items: number of items.
        blocks: how many groups of items to leave out in turn; item i belongs to block i modulo `blocks`.

    Returns:
        (min(blocks, n_items),) values.

    Raises:
        ValueError: if there are fewer than two items.
    """
    if n_items < 2:
        raise ValueError(f"pseudo-values need at least 2 items, got {n_items}.")
    items = np.arange(n_items)
    count = min(blocks, n_items)
    whole = metric(items)
    left = np.array([metric(items[items % count != block]) for block in range(count)])
    return np.asarray(count * whole - (count - 1) * left)


def bootstrap_interval(
    values: npt.ArrayLike,
    *,
    statistic: Callable[[npt.NDArray[np.int64]], float] | None = None,
    groups: npt.ArrayLike | None = None,
    method: Literal["percentile", "bca"] = "percentile",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A bootstrap interval of one run's metric over its test items.

    Items (or whole groups) are drawn with replacement; training is not repeated, so the interval speaks about other
    test items, not about other seeds. Fewer than about 20 items or groups make it too narrow.

    Args:
        values: (items,) per-item values; NaN items are left out. With `statistic` only their number matters.
        statistic: maps item positions (int64, repeats allowed) to the metric; the mean of `values` if left out.
        groups: (items,) group of each item; whole groups are then drawn.
        method: "percentile", or "bca" (bias-corrected and accelerated, Efron 1987) for skewed metrics near 0 or 1.
        level: coverage.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: if there is no item, or shapes disagree.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must have the shape (items,), got {array.shape}.")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}.")
    kept = np.flatnonzero(~np.isnan(array))
    if not len(kept):
        raise ValueError("there is no item with a value.")
    labels = kept if groups is None else np.asarray(groups)[kept]
    if groups is not None and np.shape(groups) != array.shape:
        raise ValueError(f"got groups of shape {np.shape(groups)} for {len(array)} items.")
    _, unit = np.unique(labels, return_inverse=True)
    unit = unit.ravel()
    n_units = int(unit.max()) + 1
    rng = numpy_rng(seed, "bootstrap")
    if statistic is None:
        sums = np.bincount(unit, weights=array[kept], minlength=n_units)
        sizes = np.bincount(unit, minlength=n_units).astype(np.float64)
        value = float(sums.sum() / sizes.sum())
        draws = np.empty(resamples)
        for number in range(resamples):
            picked = rng.integers(n_units, size=n_units)
            draws[number] = sums[picked].sum() / sizes[picked].sum()
        left = (sums.sum() - sums) / np.maximum(sizes.sum() - sizes, 1e-300)
    else:
        members = [kept[unit == number] for number in range(n_units)]
        value = float(statistic(kept))
        draws = np.array(
            [
                statistic(np.concatenate([members[i] for i in rng.integers(n_units, size=n_units)]))
                for _ in range(resamples)
            ]
        )
        left = np.empty(0)
        if method == "bca" and n_units > 1:
            left = np.array([statistic(kept[unit != number]) for number in range(n_units)])
    levels = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca" and n_units > 1:
        levels = _bca_levels(levels, draws, value, left)
    low, high = np.quantile(draws, levels)
    return Interval(value, float(low), float(high), level)


def _bca_levels(levels: Floats, draws: Floats, value: float, left: Floats) -> Floats:
    from scipy.stats import norm

    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    bias = norm.ppf(np.clip(below, 1e-6, 1 - 1e-6))
    gaps = left.mean() - left
    spread = np.square(gaps).sum()
    acceleration = (gaps**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + norm.ppf(levels)
    return np.asarray(norm.cdf(bias + shifted / (1 - acceleration * shifted)))


def coverage(
    *,
    seeds: int,
    items: int = 0,
    seed_sd: float = 1.0,
    item_sd: float = 0.0,
    noise_sd: float = 0.0,
    shape: Literal["normal", "skewed", "heavy", "discrete"] = "normal",
    method: Literal["paired", "seeds", "percentile"] = "paired",
    level: float = 0.95,
    repetitions: int = 2000,
    seed: int = 0,
) -> float:
    """How often the interval of `paired_difference` holds 0 on synthetic ablations without any effect.

    Args:
        seeds: number of seeds.
        items: number of test items, the same in both arms; 0 for one value per seed.
        seed_sd: standard deviation of the difference between seeds, on the scale of one value.
        item_sd: standard deviation between items of what the part does to them, around a mean of 0.
        noise_sd: standard deviation of what is left for each seed and item.
        shape: distribution of all three: "normal"; "skewed" (gamma, skewness 0.8); "heavy" (Student's t with 4
            degrees of freedom); "discrete" (hits and misses of both arms on items of varied difficulty; with
            ``items=0`` rounded to a quarter of a standard deviation; the three deviations then play no other part).
        method: "paired" is what the library reports; "seeds" is the t-interval over seeds alone and "percentile" the
            plain bootstrap of the seeds, for comparison.
        level: nominal coverage.
        repetitions: number of synthetic ablations.
        seed: of the simulation.

    Returns:
        The share of intervals that hold 0.
    """
    from scipy.stats import t

    rng = numpy_rng(seed, "coverage")
    size = max(items, 1)
    if shape == "discrete" and items:
        difficulty = rng.uniform(size=(repetitions, 1, items))
        arms = [(rng.random((repetitions, seeds, items)) < difficulty).astype(np.float64) for _ in range(2)]
        tables = arms[0] - arms[1]
    else:
        tables = np.zeros((repetitions, seeds, size))
        for deviation, layout in ((seed_sd, (seeds, 1)), (item_sd, (1, size)), (noise_sd, (seeds, size))):
            if deviation:
                tables = tables + deviation * _standardised(rng, shape, (repetitions, *layout))
        if shape == "discrete":
            tables = np.round(tables / (seed_sd / 4)) * (seed_sd / 4)
    means = tables.mean((1, 2))
    tail = (1 - level) / 2
    if method == "percentile":
        by_seed = tables.mean(2)
        picked = rng.integers(seeds, size=(1000, seeds))
        low, high = np.quantile(by_seed[:, picked].mean(2), [tail, 1 - tail], axis=1)
        return float(((low <= 0) & (high >= 0)).mean())
    variance, df = two_way(tables.mean(2, keepdims=True) if method == "seeds" else tables)
    half = t.ppf(1 - tail, df) * np.sqrt(variance)
    # No interval is given where all differences agree; that claims nothing, so it counts as holding 0.
    return float(((np.abs(means) <= half) | (variance == 0)).mean())


def _standardised(rng: np.random.Generator, shape: str, size: Sequence[int]) -> Floats:
    if shape == "skewed":
        return np.asarray((rng.gamma(6.25, size=size) - 6.25) / 2.5)
    if shape == "heavy":
        return np.asarray(rng.standard_t(4, size=size) / np.sqrt(2))
    return rng.standard_normal(size)


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
