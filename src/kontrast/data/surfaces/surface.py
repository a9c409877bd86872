"""A surface: one image of an inspected object, with what is known about it; and a set of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.surfaces.files import StoredFile

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1


@dataclass(frozen=True)
class Surface:
    """One image.

    Attributes:
        id: its name within the data, unique.
        domain: the product, material or organ that it shows; whole domains are held out.
        part: "train" or "test" as the data say, or "" where they do not.
        label: 0 normal, 1 anomalous, -1 unknown.
        kind: "good", or the type of defect.
        file: the image.
        mask: the mask of its anomalous pixels, or None.
        group: images of one group (an object photographed several times) belong into one part.
    """

    id: str
    domain: str
    part: str
    label: int
    kind: str
    file: StoredFile
    mask: StoredFile | None = None
    group: str | None = None


@dataclass(frozen=True)
class SurfaceSet:
    """Images in an order; nothing is decoded yet.

    Attributes:
        rows: the images.
        path: where they come from, for messages.
        masked: domains with pixel masks: there, an image without a mask has no anomalous pixel.
        beside: further images that belong to these without being part of them, such as the normal images of a held-out
            domain, which only an upper reference may use.
    """

    rows: tuple[Surface, ...]
    path: Path | None = None
    masked: frozenset[str] = frozenset()
    beside: SurfaceSet | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> SurfaceSet:
        """Some images, in the order given; a Boolean array (n,) chooses, too."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        return replace(self, rows=tuple(self.rows[row] for row in chosen.astype(np.int64).tolist()))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order of first appearance."""
        return tuple(dict.fromkeys(row.domain for row in self.rows))

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(n,) 0 normal, 1 anomalous, -1 unknown."""
        return np.array([row.label for row in self.rows], dtype=np.int64)

    def of(self, *domains: str) -> npt.NDArray[np.bool_]:
        """(n,) which images belong to these domains."""
        return np.array([row.domain in domains for row in self.rows], dtype=bool)

    def counts(self) -> str:
        """A phrase such as "tile 160 normal and 20 anomalous, pcb 8 normal", for messages."""
        words = {NORMAL: "normal", ANOMALOUS: "anomalous", UNKNOWN: "unlabelled"}
        found = Counter((row.domain, row.label) for row in self.rows)
        parts = []
        for domain in self.domains:
            here = [f"{found[domain, label]} {word}" for label, word in words.items() if found[domain, label]]
            parts.append(f"{domain} {' and '.join(here)}")
        return ", ".join(parts)
