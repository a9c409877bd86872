"""What `predict` searches: the distinct right-hand cells of the training data, or of another table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from kontrast.contract import loading_stored, save_stored
from kontrast.evaluation.search import SearchIndex

NAMES = ("vectors.safetensors", "candidates.json")


@dataclass(frozen=True)
class Corpus:
    """Candidates with their vectors.

    Attributes:
        vectors: float32 (m, d), unit length.
        ids: names of the rows they come from.
        words: what a person reads.
    """

    vectors: npt.NDArray[np.float32]
    ids: list[str]
    words: list[str]

    def index(self, kind: Literal["exact", "faiss"]) -> SearchIndex:
        """A search index over the vectors."""
        return SearchIndex(self.vectors, kind=kind)

    def save(self, folder: Path) -> None:
        """Writes vectors.safetensors and candidates.json into a new folder."""
        save_stored(folder, {"vectors": self.vectors}, {"ids": self.ids, "words": self.words}, names=NAMES)

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        with loading_stored(folder, names=NAMES) as (tensors, listed):
            vectors, ids, words = tensors["vectors"], listed["ids"], listed["words"]
            if not len(vectors) == len(ids) == len(words):
                raise ValueError(f"{len(vectors)} vectors, {len(ids)} ids and {len(words)} texts")
            return cls(vectors, ids, words)
