"""The elements encoder as a module of sentence-transformers, for folders that `save_elements` wrote.

Nothing of sentence-transformers is imported: it asks its modules only for the methods below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.torch import load_file
from torch import Tensor, nn

from kontrast.data.documents import parse_html
from kontrast.encoders.elements import ElementsEncoder
from kontrast.files import read_json
from kontrast.systems.seal.encoding import Context
from kontrast.systems.seal.reading import ElementReader


class ElementsModule(nn.Module):
    """Texts to unit vectors: HTML as a document, other texts as they are.

    Args:
        reader: with the trained encoder.
        read_as: whether tags of documents count.
    """

    def __init__(self, reader: ElementReader, read_as: str) -> None:
        super().__init__()
        self.encoder = reader.encoder
        self.reader, self.read_as = reader, read_as
        self.tokenizer = reader.encoder.tokenizer
        self.max_seq_length: int | None = None

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> dict[str, Tensor]:
        """The tensors of `ElementsEncoder.collate`."""
        documents = tuple(parse_html(text) for text in texts)
        name = "untag" if self.read_as == "untag" else "tag"
        rows = self.reader.documents(documents).view(name, np.arange(len(documents)))  # type: ignore[arg-type]
        return self.encoder.collate(rows)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """The same, under the name of newer releases."""
        return self.tokenize([f"{prompt or ''}{text}" for text in inputs])

    def forward(self, features: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Adds "sentence_embedding" (n, dim)."""
        return {**features, "sentence_embedding": self.encoder(features)}

    def get_sentence_embedding_dimension(self) -> int:
        """Length of the vectors."""
        return self.encoder.dim

    get_embedding_dimension = get_sentence_embedding_dimension

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Not offered: the folder that `save_elements` wrote is the saved model."""
        raise NotImplementedError("copy the folder that the model was loaded from")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        """The module of a folder."""
        folder = Path(model_name_or_path) / subfolder
        described = read_json(folder / "elements.json")
        encoder = ElementsEncoder.from_structure(described["structure"])
        encoder.load_state_dict(load_file(folder / "model.safetensors"))
        facts = described["context"]
        context = None
        if facts is not None and (folder / "context").is_dir():
            context = Context.load(folder / "context", int(facts["tokens"]))
        elif facts is not None:
            context = Context.from_facts(facts)
        reader = ElementReader(encoder.eval(), context.texts if context is not None else None, int(described["units"]))
        return cls(reader, str(described["read_as"]))
