"""A plan of ablations: which systems, on which data, with which options. `kontrast results --plan` carries one out.

A plan is a YAML file::

    seeds: 5
    rows:
      coeba-cora:                 # the folder of its runs
        system: coeba
        data: linkpred/cora.npz   # a known data set and a path inside it, or a path beside the plan
        options: {epochs: 120, trainer.accelerator: cpu}
        reduced: {epochs: 4}      # further options where only the way is to be tested, not the method
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kontrast.config import merge, read_yaml
from kontrast.contract import load_system
from kontrast.data import catalogue
from kontrast.errors import ConfigError, DataError, suggest
from kontrast.pipeline.ablate import ablate_system
from kontrast.pipeline.run_folder import Ablation
from kontrast.progress import say
from kontrast.training import TrainerConfig

REDUCED_SEEDS = 2


class PlannedRow(BaseModel):
    """An ablation to make.

    Attributes:
        system: registered name.
        data: ``NAME`` or ``NAME/path`` of a known data set, or a path relative to the plan.
        config: YAML file with options, relative to the plan.
        options: options of the system; those of the trainer under ``trainer``.
        reduced: options that are changed in the reduced form.
        seeds: number of seeds, if not that of the plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    data: str
    config: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    reduced: dict[str, Any] = Field(default_factory=dict)
    seeds: int | None = Field(default=None, ge=2)


class Plan(BaseModel):
    """Ablations by name.

    Attributes:
        seeds: number of seeds for each arm.
        rows: name of the row and of its folder, and what is to be run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: int = Field(default=5, ge=2)
    rows: dict[str, PlannedRow] = Field(min_length=1)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads a plan.

        Raises:
            ConfigError: naming the file, the place in it, what came and what is allowed.
        """
        try:
            return cls(**read_yaml(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {where}: {first['msg'].lower()}.") from None

    def only(self, names: Sequence[str]) -> Self:
        """The plan with some of its rows.

        Raises:
            ConfigError: if it has no such row.
        """
        for name in names:
            if name not in self.rows:
                raise ConfigError(f"the plan has no row '{name}'; {suggest(name, self.rows)}")
        return self.model_copy(update={"rows": {name: self.rows[name] for name in names}}) if names else self


def carry_out(
    plan: Plan,
    out: str | Path,
    *,
    beside: str | Path = ".",
    reduced: bool = False,
    seeds: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Ablation]:
    """Makes the ablations of a plan, each in a folder of its own below `out`.

    Runs that are finished there are not repeated. A row whose data are not on this machine and cannot be fetched is
    left out with a word.

    Args:
        plan: what to run.
        out: folder of the rows' folders.
        beside: folder that paths in the plan are relative to.
        reduced: two seeds and the rows' `reduced` options.
        seeds: number of seeds for all rows.
        command: words of the command that started it, for the records.

    Returns:
        The ablations by row.

    Raises:
        ConfigError: if an option is unknown or out of range; before anything is run.
        DataError: if no row's data are here, or data cannot be read.
    """
    settings = {name: _settings(name, row, Path(beside), reduced) for name, row in plan.rows.items()}
    made: dict[str, Ablation] = {}
    for name, row in plan.rows.items():
        try:
            data = _data(row.data, Path(beside))
        except DataError as error:
            say(f"{name} is left out: {error}")
            continue
        system, config, trainer = settings[name]
        say(f"{name}: {row.system} on {row.data}")
        made[name] = ablate_system(
            system,
            config,
            trainer,
            data=data,
            out=Path(out) / name,
            command=command,
            seeds=seeds or (REDUCED_SEEDS if reduced else row.seeds or plan.seeds),
        )
    if not made:
        raise DataError("no row of the plan has its data on this machine", mend="set KONTRAST_DATA to their folder")
    return made


def _settings(name: str, row: PlannedRow, beside: Path, reduced: bool) -> Any:
    system = load_system(row.system)
    values = read_yaml(beside / row.config) if row.config else {}
    for options in (row.options, row.reduced if reduced else {}):
        values = merge(values, options)
    trainer = values.pop("trainer", {})
    try:
        return system, system.Config.preset("cpu", **values), TrainerConfig(**trainer)
    except ConfigError as error:
        raise ConfigError(f"row '{name}' of the plan: {error}") from None


def _data(stated: str, beside: Path) -> Path:
    name, _, inside = stated.partition("/")
    if name not in {entry.name for entry in catalogue.entries()}:
        path = beside / stated
        if not path.exists():
            raise DataError("is neither a known data set nor a file", file=path, mend="'kontrast data list' has names")
        return path
    folder = catalogue.fetch(name)
    path = folder / inside if inside else folder
    if not path.exists():
        raise DataError("the data set has no such file", file=path, mend=f"it has {_listing(folder)}")
    return path


def _listing(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.iterdir())[:8])
