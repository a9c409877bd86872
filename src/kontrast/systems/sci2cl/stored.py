"""The training cells that a saved model keeps: their embeddings and labels, which new cells are labelled by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from kontrast.errors import CheckpointError
from kontrast.files import read_json, write_json


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
        tensors = {"vectors": torch.from_numpy(self.vectors.copy()), "codes": torch.from_numpy(codes)}
        save_file(tensors, folder / "reference.safetensors")
        write_json(folder / "reference.json", {"labels": names, "column": self.column})

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """What `save` wrote.

        Raises:
            CheckpointError: if it is damaged.
        """
        tensors, facts = load_file(folder / "reference.safetensors"), read_json(folder / "reference.json")
        try:
            names = np.asarray([*facts["labels"], ""], dtype=object)[:-1]
            return cls(tensors["vectors"].numpy(), names[tensors["codes"].numpy()], facts["column"])
        except (KeyError, IndexError, TypeError) as error:
            raise CheckpointError(f"is damaged ({error})", file=folder / "reference.json") from None
