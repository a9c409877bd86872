"""From words to configurations: ``--name value``, ``--section.name=value``, ``--flag``, ``--no-flag``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kontrast.config import BaseConfig, merge, param, read_yaml
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

    A file holds the system's options at its top level or under ``system:``, and the trainer's under ``trainer:``, as
    the config.yaml of a run folder does.

    Raises:
        ConfigError: naming the option, what came and what is allowed.
    """
    from kontrast.training import TrainerConfig

    chosen: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    if config_file is not None:
        loaded = read_yaml(config_file)
        trainer = _section(loaded, "trainer", config_file)
        nested = _section(loaded, "system", config_file)
        chosen = merge(loaded, nested)
    if seed is not None:
        chosen["seed"] = seed
    for name, value in overrides.items():
        head, _, rest = name.partition(".")
        if head == "trainer" and rest:
            trainer = merge(trainer, {rest: value})
        else:
            _check_known(system.Config, name)
            chosen = merge(chosen, {name: value})
    return system.Config.preset(preset, **chosen), TrainerConfig(**trainer)


def _section(loaded: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = loaded.pop(name, None) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: '{name}' must be a section of 'option: value' lines, got {section!r}.")
    return section


def _check_known(config: type[BaseConfig], name: str) -> None:
    known = [option.path for option in config.options()]
    if name not in known and not any(path.startswith(f"{name}.") for path in known):
        raise ConfigError(f"there is no option '--{name.replace('_', '-')}'; {suggest(name, known)}.")
