"""How the similarity engine runs: which path, which tiles, how many threads. Never what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

import torch

Path = Literal["auto", "dense", "tiled"]
Products = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class EngineSettings:
    """Settings of the engine; change them with `engine_settings`.

    Args:
        path: "dense" holds the n × m logits and lets autograd differentiate them, "tiled" streams over tiles in
            O((n + m) d) memory, "auto" takes the faster one for the size at hand.
        tile: rows and columns of a tile, whose logits should stay in a core's cache; None chooses them by the size.
        threads: worker threads of the tiled path; None means `torch.get_num_threads()` of the calling thread.
            The result has the same bits whatever the number.
    """

    path: Path = "auto"
    tile: tuple[int, int] | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.path not in ("auto", "dense", "tiled"):
            raise ValueError(f"path is 'auto', 'dense' or 'tiled', got {self.path!r}")
        if self.tile is not None and (len(self.tile) != 2 or min(self.tile) < 1):
            raise ValueError(f"tile is two positive sizes (rows, columns), got {self.tile!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is a positive number or None, got {self.threads!r}")

    def tile_of(self, n: int, m: int) -> tuple[int, int]:
        """The tile for n × m logits: smaller where there are few, so that every thread has some."""
        return self.tile or ((512, 512) if n * m <= 1 << 22 else (512, 1024))

    def worker_count(self) -> int:
        """The number of worker threads to use for a call made now."""
        return self.threads or torch.get_num_threads()


_DEFAULT = EngineSettings()
_settings: ContextVar[EngineSettings] = ContextVar("kontrast_engine_settings", default=_DEFAULT)


def current_settings() -> EngineSettings:
    """The settings in force. A backward pass uses those of its forward pass."""
    return _settings.get()


@contextmanager
def engine_settings(
    *, path: Path | None = None, tile: tuple[int, int] | None = None, threads: int | None = None
) -> Iterator[EngineSettings]:
    """Runs the engine with other settings inside a ``with`` block; what is not given stays as it is."""
    given = {"path": path, "tile": tile, "threads": threads}
    changed = replace(_settings.get(), **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    token = _settings.set(changed)
    try:
        yield changed
    finally:
        _settings.reset(token)
