"""Views of numeric vectors, float (n, d)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kontrast.views.base import check_share

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureMask:
    """Replaces each entry with probability `share`: by `value`, or by the same entry of another row of the batch.

    With ``from_rows=True`` this is the corruption of SCARF (arXiv 2106.15147, algorithm 1): the new values follow each
    feature's own distribution.

    Attributes:
        share: probability of replacing an entry, in [0, 1].
        value: what stands in masked entries.
        from_rows: take the value from a random row instead.
    """

    share: float = 0.2
    value: float = 0.0
    from_rows: bool = False

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def __call__(self, batch: Vectors, rng: np.random.Generator, /) -> Vectors:
        """The vectors with some entries replaced."""
        masked = rng.random(batch.shape) < self.share
        if not self.from_rows:
            return np.where(masked, np.asarray(self.value, dtype=batch.dtype), batch)
        rows = rng.integers(len(batch), size=batch.shape) if len(batch) else np.zeros(batch.shape, dtype=np.int64)
        return np.where(masked, np.take_along_axis(batch, rows, axis=0), batch)


@dataclass(frozen=True)
class GaussianNoise:
    """Adds independent normal noise to every entry.

    Attributes:
        scale: standard deviation of the noise, in the unit of the entries; at least 0.
    """

    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"scale must be at least 0, got {self.scale}")

    def __call__(self, batch: Vectors, rng: np.random.Generator, /) -> Vectors:
        """The vectors with noise."""
        noise = rng.standard_normal(batch.shape, dtype=np.float32)
        return (batch + self.scale * noise).astype(batch.dtype, copy=False)
