"""The training cells that a saved model keeps: their embeddings and labels, which new cells are labelled by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.contract import loading_stored, save_stored

NAMES = ("reference.safetensors", "reference.json")


@dataclass(frozen=True, eq=False)
class Reference:
    """Labelled training cells.

    Attributes:
        vectors: (n, d) embeddings.
        labels: (n,) cell types.
        column: obs column of the labels, or None without labels.
    """

    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[np.object_]
    column: str | None

    def save(self, folder: Path) -> None:
        """Writes reference.safetensors and reference.json."""
        names = sorted(set(self.labels.tolist()))
        codes = np.asarray([names.index(label) for label in self.labels.tolist()], dtype=np.int64)
        facts = {"labels": names, "column": self.column}
        save_stored(folder, {"vectors": self.vectors, "codes": codes}, facts, names=NAMES)

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """What `save` wrote.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        with loading_stored(folder, names=NAMES) as (tensors, facts):
            names = np.asarray([*facts["labels"], ""], dtype=object)[:-1]
            return cls(tensors["vectors"], names[tensors["codes"]], facts["column"])
