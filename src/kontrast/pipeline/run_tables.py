"""Runs beside each other: `compare_runs` for a few, `results_markdown` for all that lie under some folders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from kontrast.errors import DataError
from kontrast.evaluation.comparison import compare_items, compare_values
from kontrast.pipeline.markup import MISSING, format_difference, format_number
from kontrast.pipeline.run_folder import Ablation, Metrics, RunFolder, RunRecord
from kontrast.pipeline.run_records import plain

# What tells the runs of one row apart: the seed, and the arm of the ablation.
_WITHIN_A_ROW = ("system.seed", "system.contrast")


def find_runs(folders: Sequence[str | Path]) -> list[RunFolder]:
    """The run folders at or below some folders, in order of their paths, each once.

    Hidden folders below them are left out: a kill may leave one with a run that was being written or replaced.

    Raises:
        DataError: if a folder does not exist or a run is damaged.
    """
    found: dict[Path, RunFolder] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError("no such folder", file=folder, mend="give the folder that holds the runs")
        for file in sorted(folder.rglob("run.json")):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                continue
            found.setdefault(file.parent.resolve(), RunFolder.open(file.parent))
    return [found[path] for path in sorted(found)]


# ---- a few runs, side by side ------------------------------------------------------------------------------------


def compare_runs(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Runs side by side, as JSON-able values.

    Args:
        runs: at least one; the first is the one that the others are compared with.

    Returns:
        ``runs`` (path, system, seed, status, data), ``metrics`` (metric, one value per run, the primary metric first),
        ``options`` (those that differ: option, one value per run), ``differences`` (one sentence per further run: on
        shared test items with a paired interval where both stored them), ``notes`` (what makes a comparison doubtful).

    Raises:
        DataError: if a run was not measured or is damaged.
    """
    records = [run.record for run in runs]
    metrics = [run.metrics() for run in runs]
    options = [dict(flat_options(run)) for run in runs]
    first = metrics[0].primary
    names = sorted({name for item in metrics for name in item.test}, key=lambda name: (name != first, name))
    keys = sorted({key for item in options for key in item})
    differing = [key for key in keys if len({_key(item.get(key)) for item in options}) > 1]
    return {
        "runs": [
            {"run": str(run.path), "system": r.system, "seed": r.seed, "status": r.status, "data": r.data.get("path")}
            for run, r in zip(runs, records, strict=True)
        ],
        "metrics": [{"metric": name, "values": plain([item.test.get(name) for item in metrics])} for name in names],
        "options": [{"option": key, "values": [item.get(key) for item in options]} for key in differing],
        "differences": [
            _difference(runs[0], run, metrics[0], other) for run, other in zip(runs[1:], metrics[1:], strict=True)
        ],
        "notes": _notes(records, metrics),
    }


def flat_options(run: RunFolder) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every option in config.yaml; none if there is no such file."""
    if (run.path / "config.yaml").is_file():
        yield from _flat(run.config())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(one: RunFolder, two: RunFolder, first: Metrics, second: Metrics) -> dict[str, Any]:
    metric = first.primary
    names = {"first": str(one.path), "second": str(two.path)}
    if metric not in first.test or metric not in second.test:
        return names | {"sentence": f"{two.path} has no {metric}." if metric in first.test else f"{one.path} has none."}
    if "test" in first.items and "test" in second.items and first.primary == second.primary:
        left, right = one.items(first.items["test"]), two.items(second.items["test"])
        made = compare_items(
            left["value"],
            right["value"],
            metric,
            first_ids=list(left["id"]),
            second_ids=list(right["id"]),
            direction="max" if first.higher_is_better else "min",
        )
    else:
        made = compare_values(first.test[metric], second.test[metric], metric)
    numbers = {"difference": made.difference.value, "low": made.difference.low, "high": made.difference.high}
    values: dict[str, Any] = plain(numbers)
    return names | values | {"sentence": made.sentence(str(one.path), str(two.path))}


def _notes(records: Sequence[RunRecord], metrics: Sequence[Metrics]) -> list[str]:
    notes = []
    if len({record.data.get("sha256") for record in records}) > 1:
        notes.append("The runs used different data.")
    if len({item.primary for item in metrics}) > 1:
        notes.append(f"The primary metrics differ: {', '.join(sorted({item.primary for item in metrics}))}.")
    if len({record.versions.get("kontrast") for record in records}) > 1:
        notes.append("The runs were made by different versions of kontrast.")
    return notes


# ---- all runs, as RESULTS.md -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    path: Path
    record: RunRecord
    metrics: Metrics
    options: Mapping[str, Any]
    ablation: Ablation | None

    @property
    def arm(self) -> str:
        return str(self.options.get("system.contrast", "on"))

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Runs that differ in seed and arm alone share a row: system, data, its hash, all other options."""
        data = self.record.data
        rest = {key: value for key, value in self.options.items() if key not in _WITHIN_A_ROW}
        name = Path(str(data.get("path", ""))).name
        return self.record.system, name, str(data.get("sha256", "")), json.dumps(rest, sort_keys=True, default=str)

    @property
    def value(self) -> float:
        return self.metrics.test.get(self.metrics.primary, math.nan)


def results_markdown(runs: Sequence[RunFolder], *, command: str = "kontrast results runs") -> str:
    """RESULTS.md from run folders alone: the same runs give the same text.

    A row is a system on a data set with one set of options; its runs differ in the seed. The arms of an ablation are
    columns.

    Args:
        runs: finished runs; others are counted and left out.
        command: what writes the text again, for its head.

    Raises:
        DataError: if a run is damaged.
    """
    measured = [_measured(run) for run in runs if run.record.status == "finished"]
    rows: dict[tuple[str, str, str, str], list[_Measured]] = {}
    for item in sorted(measured, key=lambda item: (item.row, item.record.seed, str(item.path))):
        rows.setdefault(item.row, []).append(item)
    shown = [(key, items) for key, items in rows.items() if any(item.arm == "on" for item in items)]
    head = ("system", "data", "options", "metric", "seeds", "result", "baselines", "without the contrastive part",
            "null control", "test items")  # fmt: skip
    lines = [
        "# Results",
        "",
        f"Written by `{command}` from run folders; do not edit.",
        "",
        "“±” is half the 95 % t-interval of the mean over seeds. A single seed has the 95 % interval over test items "
        "in brackets, where it is known. Baselines are means over the seeds. “full −” is the full method minus "
        "that arm, paired, with its 95 % interval.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(_row(key, items, _differing(key, [other for other, _ in shown])) for key, items in shown),
        "",
    ]
    left_out = len(runs) - sum(len(items) for _, items in shown)
    if left_out:
        lines += [f"Left out, being unfinished or without a full arm: {left_out}.", ""]
    return "\n".join(lines)


def _measured(run: RunFolder) -> _Measured:
    return _Measured(run.path, run.record, run.metrics(), dict(flat_options(run)), run.ablation())


def _differing(key: tuple[str, str, str, str], others: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """The options by which a row differs from the others of its system and data."""
    own = json.loads(key[3])
    beside = [json.loads(other[3]) for other in others if other[:3] == key[:3]]
    names = sorted({name for options in beside for name in options})
    chosen = [name for name in names if len({_key(options.get(name)) for options in beside}) > 1]
    return [f"{name.removeprefix('system.')}={own.get(name)}" for name in chosen]


def _row(key: tuple[str, str, str, str], items: Sequence[_Measured], options: Sequence[str]) -> str:
    arms = {arm: _by_seed(item for item in items if item.arm == arm) for arm in ("on", "off", "shuffled")}
    full = arms["on"]
    metrics = full[0].metrics
    ablation = next((item.ablation for item in full if item.ablation is not None), None)
    baselines: dict[str, list[float]] = {}
    for item in full:
        for name, values in item.metrics.baselines.items():
            baselines.setdefault(name, []).append(values.get(metrics.primary, math.nan))
    count = metrics.counts.get("test")
    cells = [
        key[0],
        f"{key[1]} ({key[2][:8]})" if key[2] else key[1] or MISSING,
        ", ".join(options) or MISSING,
        f"{metrics.primary} {'↑' if metrics.higher_is_better else '↓'}",
        ", ".join(str(item.record.seed) for item in full),
        _mean(full),
        ", ".join(f"{name} {format_number(float(np.mean(found)))}" for name, found in sorted(baselines.items()))
        or MISSING,
        _arm(arms["off"], ablation, "off"),
        _arm(arms["shuffled"], ablation, "shuffled"),
        f"{count:,} {metrics.unit}" if count else MISSING,
    ]
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _by_seed(items: Iterator[_Measured]) -> list[_Measured]:
    """One run per seed, the first by path: a repetition of a seed is no further evidence."""
    seen: dict[int, _Measured] = {}
    for item in items:
        seen.setdefault(item.record.seed, item)
    return [seen[seed] for seed in sorted(seen)]


def _mean(items: Sequence[_Measured]) -> str:
    values = np.array([item.value for item in items])
    text = format_number(float(values.mean()))
    if len(values) > 1 and np.isfinite(values).all():
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        return f"{text} ± {format_number(half)}"
    interval = items[0].metrics.intervals.get("test", {}).get(items[0].metrics.primary)
    return f"{text} [{format_number(interval[0])}, {format_number(interval[1])}]" if interval else text


def _arm(items: Sequence[_Measured], ablation: Ablation | None, name: str) -> str:
    stored = next((arm for arm in ablation.arms if arm.name == name), None) if ablation else None
    if not items and stored is None:
        return MISSING
    text = _mean(items) if items else format_number(stored.value if stored else None)
    if stored is None or stored.difference is None:
        return text
    low, high = (format_difference(bound) for bound in (stored.difference_low, stored.difference_high))
    return f"{text}; full − {format_difference(stored.difference)} [{low}, {high}]"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
