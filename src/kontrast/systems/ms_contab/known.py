"""What a fitted system keeps: the vectors of the cohorts and patients that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.contract import loading_stored, save_stored

Vectors = npt.NDArray[np.float32]
NAMES = ("vectors.safetensors", "names.json")
_TENSORS = ("cohorts", "gene", "chromosome", "patients", "classes")


@dataclass(frozen=True, eq=False)
class Known:
    """Vectors of the training and validation data.

    Attributes:
        names: of the c known cohorts, sorted; none where the training data name no cohorts.
        cohorts: (c, dim) embeddings of their summed counts.
        gene: (c, dim) of the gene view alone.
        chromosome: (c, dim) of the chromosome view alone.
        patients: (p, dim) embeddings of single patients; of whole cohorts there are none.
        classes: (p,) places of their cohorts in `names`.
    """

    names: tuple[str, ...]
    cohorts: Vectors
    gene: Vectors
    chromosome: Vectors
    patients: Vectors
    classes: npt.NDArray[np.int64]

    def places(self, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Places of cohorts in `names`, -1 for unknown ones."""
        place = {name: number for number, name in enumerate(self.names)}
        return np.array([place.get(name, -1) for name in names], dtype=np.int64)

    def prototypes(self) -> Vectors:
        """(c, dim) mean of the patients of each cohort; of a cohort without patients its own vector."""
        found = self.cohorts.copy()
        for number in np.unique(self.classes):
            found[number] = self.patients[self.classes == number].mean(0)
        return found

    def save(self, folder: Path) -> None:
        """Writes vectors.safetensors and names.json into a new folder."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        save_stored(folder, tensors, {"names": list(self.names)}, names=NAMES)

    @classmethod
    def load(cls, folder: Path) -> Known:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        with loading_stored(folder, names=NAMES) as (tensors, listed):
            names = tuple(map(str, listed["names"]))
            known = cls(names, **{name: tensors[name] for name in _TENSORS})
            if not len(known.cohorts) == len(names) or not len(known.patients) == len(known.classes):
                raise ValueError("numbers of names and vectors differ")
            return known
