"""What `predict` searches: documents with their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from kontrast.contract import loading_stored, save_stored
from kontrast.data.documents import Document, parse_html
from kontrast.evaluation.search import SearchIndex

NAMES = ("vectors.safetensors", "documents.json")


@dataclass(frozen=True)
class Corpus:
    """Documents to search in.

    Attributes:
        ids: their names.
        html: bare-tag HTML of each; parsed when an answer is shown.
        vectors: float32 (m, d), unit length.
    """

    ids: list[str]
    html: list[str]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def document(self, number: int) -> Document:
        """One document, parsed."""
        return parse_html(self.html[number])

    def index(self, kind: Literal["exact", "faiss"]) -> SearchIndex:
        """A search index over the vectors."""
        return SearchIndex(self.vectors, kind=kind)

    def save(self, folder: Path) -> None:
        """Writes vectors.safetensors and documents.json into a folder."""
        save_stored(folder, {"vectors": self.vectors}, {"ids": self.ids, "html": self.html}, names=NAMES)

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """What `save` wrote.

        Raises:
            CheckpointError: if a file is missing or damaged.
        """
        with loading_stored(folder, names=NAMES) as (tensors, listed):
            vectors, ids, html = tensors["vectors"], listed["ids"], listed["html"]
            if not len(vectors) == len(ids) == len(html):
                raise ValueError(f"{len(vectors)} vectors, {len(ids)} ids and {len(html)} documents")
            return cls(ids, html, vectors)
