"""What `predict` searches: the distinct right-hand cells of the training data, or of another table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kontrast.errors import CheckpointError
from kontrast.evaluation.search import SearchIndex
from kontrast.files import read_json, write_json


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
        folder.mkdir()
        save_file({"vectors": self.vectors}, folder / "vectors.safetensors")
        write_json(folder / "candidates.json", {"ids": self.ids, "words": self.words})

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        for name in ("vectors.safetensors", "candidates.json"):
            if not (folder / name).is_file():
                raise CheckpointError(f"has no {name}", file=folder, mend="train or copy the model again")
        listed = read_json(folder / "candidates.json")
        try:
            vectors = load_file(folder / "vectors.safetensors")["vectors"]
            ids, words = listed["ids"], listed["words"]
        except (SafetensorError, KeyError, TypeError) as error:
            raise CheckpointError(f"is damaged ({error})", file=folder, mend="train or copy the model again") from None
        if not len(vectors) == len(ids) == len(words):
            what = f"is damaged: {len(vectors)} vectors, {len(ids)} ids and {len(words)} texts"
            raise CheckpointError(what, file=folder, mend="train or copy the model again")
        return cls(vectors, ids, words)
