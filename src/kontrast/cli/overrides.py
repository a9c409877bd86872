"""From words to configurations: ``--name value``, ``--section.name=value``, ``--flag``, ``--no-flag``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kontrast.cli.system_help import spelled
from kontrast.config import BaseConfig, Option, merge, param, read_yaml
from kontrast.errors import ConfigError

if TYPE_CHECKING:
    from kontrast.config import Preset
    from kontrast.contract import System, SystemConfig
    from kontrast.training import TrainerConfig


class Flag(str):
    """The value of an option that was given without one: "true", or "false" of ``--no-name``."""


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Dotted options with their values.

    Values stay text, so that the configuration's own types decide what "1e-3" or "007" means; only lists, mappings and
    ``null`` are read as YAML.

    Raises:
        ConfigError: if a word is not an option.
    """
    overrides: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or word == "--":
            raise ConfigError(f"'{word}' is not understood here; options are written --name value.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = words[position] if position < len(words) else None
            if following is not None and not following.startswith("--"):
                value = following
                position += 1
            elif name.startswith("no-"):
                name, value = name[3:], Flag("false")
            else:
                value = Flag("true")
        overrides[name.replace("-", "_")] = _value(value)
    return overrides


def _value(text: str) -> Any:
    if text in ("null", "none", "None"):
        return None
    if text.startswith(("[", "{")):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def configure(
    system: type[System[Any, Any]],
    *,
    preset: Preset,
    config_file: Path | None,
    seed: int | None,
    overrides: Mapping[str, Any],
) -> tuple[SystemConfig, TrainerConfig]:
    """System and trainer options: preset, then ``--config`` file, then ``--seed`` and single options.

    An option that only the trainer has needs no ``trainer.`` before it. A file holds the system's options at its top
    level or under ``system:``, and the trainer's under ``trainer:``, as the config.yaml of a run folder does.

    Raises:
        ConfigError: naming the file, if it is at fault, the option, what came and what is allowed.
    """
    from kontrast.training import TrainerConfig

    class Whole(BaseConfig):
        """Lets messages name an option of the trainer by its whole path."""

        trainer: TrainerConfig = param(TrainerConfig, "options of the trainer")

    def build(values: Mapping[str, Any]) -> tuple[SystemConfig, TrainerConfig]:
        own = {name: value for name, value in values.items() if name != "trainer"}
        whole = Whole(trainer=values.get("trainer", {}))
        return system.Config.preset(preset, **own), whole.trainer

    known = [*system.Config.options(), *TrainerConfig.options("trainer.")]
    paths = {option.path for option in known}
    stated: dict[str, Any] = {}
    if config_file is not None:
        loaded = merge({}, read_yaml(config_file))
        nested = _section(loaded, "system", config_file)
        stated = merge({**loaded, "trainer": _section(loaded, "trainer", config_file)}, nested)
    chosen = stated if seed is None else {**stated, "seed": seed}
    for name, value in overrides.items():
        if f"trainer.{name}" in paths and name not in paths:
            name = f"trainer.{name}"  # what the system does not know may be the trainer's: --micro-batch, --devices
        _check_known(system.card.name, known, name)
        check_valued(known, name, value)
        chosen = merge(chosen, {name: value})
    try:
        return build(chosen)
    except ConfigError:
        if config_file is not None:
            try:
                build(stated)
            except ConfigError as error:
                raise ConfigError(f"{config_file}: {error}") from None
        raise


def _section(loaded: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = loaded.pop(name, None) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: '{name}' must be a section of 'option: value' lines, got {section!r}.")
    return section


def _check_known(system: str, known: Sequence[Option], name: str) -> None:
    paths = [option.path for option in known]
    if name not in paths and not any(path.startswith(f"{name}.") for path in paths):
        near = [path for path in paths if path.rpartition(".")[2] == name] or get_close_matches(name, paths, n=3)
        hint = f"did you mean {' or '.join(map(spelled, near))}? " if near else ""
        raise ConfigError(f"there is no option {spelled(name)}; {hint}'kontrast info {system}' lists all options.")


def check_valued(known: Sequence[Option], name: str, value: Any) -> None:
    """Refuses an option that needs a value and came without one.

    Raises:
        ConfigError: naming the option.
    """
    if isinstance(value, Flag) and not any(option.path == name and "bool" in option.type for option in known):
        raise ConfigError(f"option {spelled(name)} needs a value.")
