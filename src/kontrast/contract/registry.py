"""The one registry of systems: entry points of the group ``kontrast.systems``, ours and plug-ins alike."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from kontrast.errors import ConfigError, suggest

if TYPE_CHECKING:
    from kontrast.contract.system import System

GROUP = "kontrast.systems"


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def system_names() -> list[str]:
    """Registered names, sorted; loads no system."""
    return sorted(_points())


def load_system(name: str) -> type[System[Any, Any]]:
    """The class registered under `name`.

    Raises:
        ConfigError: if there is none, or if the plug-in that offers it is broken.
    """
    points = _points()
    if name not in points:
        raise ConfigError(f"there is no system '{name}'; {suggest(name, points)}.")
    found = points[name].load()
    card = getattr(found, "card", None)
    if card is None or card.name != name:
        raise ConfigError(
            f"entry point '{name}' ({points[name].value}) does not lead to a System whose card is named '{name}'."
        )
    return found  # type: ignore[no-any-return]
