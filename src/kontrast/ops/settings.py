"""How the similarity engine runs: which path, which tiles, how many threads. Never what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

import torch

Path = Literal["auto", "dense", "tiled", "triton"]
Products = Literal["fp32", "bf16"]
Gather = Literal["all", "ring"]
Float32 = Literal["ieee", "tf32x3", "tf32"]


@dataclass(frozen=True)
class EngineSettings:
    """Settings of the engine; change them with `engine_settings`.

    Args:
        path: "dense" holds the n × m logits and lets autograd differentiate them, "tiled" streams over tiles in
            O((n + m) d) memory on any device, "triton" does so with kernels on a GPU (and "tiled" where a rule has no
            kernel), "auto" takes what suits the size and the device at hand.
        tile: rows and columns of a tile. On the CPU its logits should stay in a core's cache, on a GPU it should keep
            all of the chip busy. None chooses them by the size.
        threads: worker threads of the tiled path on the CPU; None means `torch.get_num_threads()` of the calling
            thread. The result has the same bits whatever the number.
        float32: how kernels multiply float32 rows for the logits: "ieee" exactly, "tf32x3" on tensor cores in three
            parts, "tf32" on tensor cores with 10 bits of each factor. The two products of the backward pass are torch's
            own and follow `torch.set_float32_matmul_precision`.
        gather: how the candidates of other ranks come in: "all" gathers them at once, O(ranks × local) memory; with
            "ring" they travel from rank to rank, O(local) memory for about a quarter more arithmetic.
    """

    path: Path = "auto"
    tile: tuple[int, int] | None = None
    threads: int | None = None
    float32: Float32 = "ieee"
    gather: Gather = "all"

    def __post_init__(self) -> None:
        if self.path not in ("auto", "dense", "tiled", "triton"):
            raise ValueError(f"path is 'auto', 'dense', 'tiled' or 'triton', got {self.path!r}")
        if self.float32 not in ("ieee", "tf32x3", "tf32"):
            raise ValueError(f"float32 is 'ieee', 'tf32x3' or 'tf32', got {self.float32!r}")
        if self.tile is not None and (len(self.tile) != 2 or min(self.tile) < 1):
            raise ValueError(f"tile is two positive sizes (rows, columns), got {self.tile!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is a positive number or None, got {self.threads!r}")
        if self.gather not in ("all", "ring"):
            raise ValueError(f"gather is 'all' or 'ring', got {self.gather!r}")

    def tile_of(self, n: int, m: int, device: str = "cpu") -> tuple[int, int]:
        """The tile for n × m logits on a kind of device.

        On the CPU tiles are smaller where there are few, so that every thread has some. Elsewhere a tile is a launch:
        8192 × 4096 logits keep a large GPU busy for about a hundred microseconds and need 128 MiB in float32.
        """
        if device != "cpu":
            return self.tile or (8192, 4096)
        if self.tile:
            return self.tile
        return (256, 256) if n * m <= 1 << 20 else (512, 512) if n * m <= 1 << 22 else (512, 1024)

    def least_tile(self, device: str = "cpu") -> int:
        """The least side of a tile that is worth its fixed cost; the given tile's own where one is given."""
        return 64 if device == "cpu" or self.tile else 2048

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
    *,
    path: Path | None = None,
    tile: tuple[int, int] | None = None,
    threads: int | None = None,
    float32: Float32 | None = None,
    gather: Gather | None = None,
) -> Iterator[EngineSettings]:
    """Runs the engine with other settings inside a ``with`` block; what is not given stays as it is."""
    given = {"path": path, "tile": tile, "threads": threads, "float32": float32, "gather": gather}
    changed = replace(_settings.get(), **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    token = _settings.set(changed)
    try:
        yield changed
    finally:
        _settings.reset(token)
