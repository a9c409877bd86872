"""What a run folder's JSON files hold, as frozen records that check what they read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np

from kontrast.errors import DataError
from kontrast.files import read_json, write_json

FORMAT_VERSION = 1
Status = Literal["running", "trained", "finished", "failed"]


@dataclass(frozen=True)
class RunRecord:
    """What ran: the content of run.json.

    Attributes:
        system: registered name of the system.
        status: running, trained (a model is saved), finished (measured and reported) or failed.
        seed: seed of weights, order and augmentation.
        preset: "cpu" or "paper".
        command: the command line that reproduces the run, as separate words; empty if it was started from Python.
        data: path, sha256 and number of rows of the data.
        versions: of python and of the packages that decide the numbers.
        platform: operating system and processor.
        device: what it ran on, such as "cpu" or the name of the accelerator.
        started, finished: UTC, ISO 8601, to the second.
        durations: seconds by part of the run ("train", "evaluate" ...).
        failure: the error's sentence if the run failed.
        extra: further facts of the command that made the run.
    """

    system: str
    seed: int
    preset: str = "cpu"
    status: Status = "running"
    command: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    device: str = "cpu"
    started: str | None = None
    finished: str | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads run.json.

        Raises:
            DataError: if it is missing, damaged or of a newer format.
        """
        raw = _read(file, "use another run folder")
        raw.check(system=str, seed=int, preset=str, command=list, data=dict, versions=dict, durations=dict, extra=dict)
        if raw.values.get("status") not in get_args(Status):
            raw.damaged(f"status is {raw.values.get('status')!r}, allowed are {', '.join(get_args(Status))}")
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in raw.values.items() if key in known}
        return cls(**{**values, "command": tuple(map(str, values["command"]))})

    def write(self, file: Path) -> Path:
        """Writes run.json."""
        return _write(file, asdict(self))


@dataclass(frozen=True)
class Metrics:
    """What came out: the content of metrics.json.

    Attributes:
        primary: name of the primary metric.
        higher_is_better: its direction.
        test, valid: metric name to value on each split; empty if it was not measured.
        baselines: name of a simple method to its metrics on the test split.
        intervals: "test", "valid" or a baseline's name to metric name to (low, high) of the 95 % interval.
        counts: number of held-out items by split.
        unit: what an item is, in the plural ("queries").
        items: split or arm to the name under which `RunFolder.items` gives its per-item values.
    """

    primary: str
    higher_is_better: bool = True
    test: Mapping[str, float] = field(default_factory=dict)
    valid: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: str = "items"
    items: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads metrics.json; a value that was not finite comes back as NaN.

        Raises:
            DataError: if it is missing, damaged or of a newer format.
        """
        raw = _read(file, "evaluate the run again")
        raw.check(primary_metric=str, higher_is_better=bool, unit=str, test=dict, valid=dict, baselines=dict)
        raw.check(intervals=dict, counts=dict, items=dict)
        values = raw.values
        try:
            return cls(
                primary=values["primary_metric"],
                higher_is_better=values["higher_is_better"],
                test=_numbers(values["test"]),
                valid=_numbers(values["valid"]),
                baselines={name: _numbers(metrics) for name, metrics in values["baselines"].items()},
                intervals={
                    name: {metric: (number(low), number(high)) for metric, (low, high) in metrics.items()}
                    for name, metrics in values["intervals"].items()
                },
                counts={name: int(count) for name, count in values["counts"].items()},
                unit=values["unit"],
                items={name: str(item) for name, item in values["items"].items()},
            )
        except (TypeError, ValueError, AttributeError) as error:
            raw.damaged(f"a value is not what it should be: {error}")

    def write(self, file: Path) -> Path:
        """Writes metrics.json; equal metrics give equal bytes."""
        values = asdict(self)
        values["primary_metric"] = values.pop("primary")
        return _write(file, values)


@dataclass(frozen=True)
class AblationArm:
    """One arm of an ablation.

    Attributes:
        name: "on", "off" or "shuffled", the value of the option `contrast`.
        title: what a reader calls it, such as "without the contrastive loss".
        value: the primary metric, mean over seeds; `low` and `high` bound its 95 % interval (NaN where unknown).
        difference: the full method's metric minus this arm's, paired; None for the full method itself.
        difference_low, difference_high: its 95 % interval.
        seeds: the primary metric of each seed, in the order of `Ablation.seeds`.
    """

    name: str
    title: str
    value: float
    low: float = math.nan
    high: float = math.nan
    difference: float | None = None
    difference_low: float = math.nan
    difference_high: float = math.nan
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """The content of ablation.json: the arms on the same splits and seeds, and what they say in a plain sentence."""

    metric: str
    higher_is_better: bool
    arms: tuple[AblationArm, ...]
    seeds: tuple[int, ...]
    sentence: str

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads ablation.json.

        Raises:
            DataError: if it is missing, damaged or of a newer format.
        """
        raw = _read(file, "run 'kontrast ablate' again")
        raw.check(metric=str, higher_is_better=bool, arms=list, seeds=list, sentence=str)
        values = raw.values
        try:
            arms = tuple(_arm(arm) for arm in values["arms"])
            seeds = tuple(int(seed) for seed in values["seeds"])
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raw.damaged(f"an arm is not what it should be: {error}")
        return cls(values["metric"], values["higher_is_better"], arms, seeds, values["sentence"])

    def write(self, file: Path) -> Path:
        """Writes ablation.json."""
        return _write(file, asdict(self))


@dataclass(frozen=True)
class _Raw:
    """A JSON file's object, and how to complain about it."""

    values: dict[str, Any]
    file: Path
    mend: str

    def check(self, **kinds: type) -> None:
        for name, kind in kinds.items():
            value = self.values.get(name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                self.damaged(f"'{name}' is {value!r}, expected {kind.__name__}")

    def damaged(self, what: str) -> NoReturn:
        raise DataError(f"is damaged: {what}", file=self.file, mend=self.mend)


def _read(file: Path, mend: str) -> _Raw:
    values = read_json(file)
    raw = _Raw(values if isinstance(values, dict) else {}, file, mend)
    raw.check(format=int)
    if values["format"] > FORMAT_VERSION:
        problem = f"has format {values['format']}, this kontrast reads up to {FORMAT_VERSION}"
        raise DataError(problem, file=file, mend="upgrade kontrast")
    return raw


def _write(file: Path, values: Mapping[str, Any]) -> Path:
    return write_json(file, plain({"format": FORMAT_VERSION, **values}))


def plain(value: Any) -> Any:
    """JSON-able values: NumPy scalars become Python's, tuples lists, paths text; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def number(value: Any) -> float:
    """A float; None, which stands for "not finite" in JSON, gives NaN."""
    return math.nan if value is None else float(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: number(value) for name, value in values.items()}


def _arm(raw: Mapping[str, Any]) -> AblationArm:
    numbers = {key: number(raw[key]) for key in ("value", "low", "high", "difference_low", "difference_high")}
    difference = None if raw["difference"] is None else float(raw["difference"])
    seeds = tuple(number(value) for value in raw["seeds"])
    return AblationArm(name=str(raw["name"]), title=str(raw["title"]), difference=difference, seeds=seeds, **numbers)
