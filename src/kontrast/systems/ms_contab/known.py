"""What a fitted system keeps: the vectors of the cohorts and patients that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kontrast.errors import CheckpointError
from kontrast.files import read_json, write_json

Vectors = npt.NDArray[np.float32]
MEND = "train it again, or copy the model again"
_TENSORS = ("cohorts", "gene", "chromosome", "patients")


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
        folder.mkdir()
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        save_file({**tensors, "classes": self.classes}, folder / "vectors.safetensors")
        write_json(folder / "names.json", {"names": list(self.names)})

    @classmethod
    def load(cls, folder: Path) -> Known:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        for name in ("vectors.safetensors", "names.json"):
            if not (folder / name).is_file():
                raise CheckpointError(f"has no {name}", file=folder, mend=MEND)
        listed = read_json(folder / "names.json")
        try:
            tensors = load_file(folder / "vectors.safetensors")
            names = tuple(map(str, listed["names"]))
            known = cls(names, **{name: tensors[name] for name in (*_TENSORS, "classes")})
        except (SafetensorError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise CheckpointError(f"is damaged ({reason})", file=folder, mend=MEND) from None
        if not len(known.cohorts) == len(names) or not len(known.patients) == len(known.classes):
            raise CheckpointError("is damaged: numbers of names and vectors differ", file=folder, mend=MEND)
        return known
