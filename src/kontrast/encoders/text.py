"""Text encoders: what all of them share.

Three kinds exist: `BagEncoder` (weighted mean of token vectors), `TransformerEncoder` (from scratch or from a folder in
Hugging Face layout), and packaged models, which are folders too. All tokenise once, save in the format of
sentence-transformers, and load from it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kontrast.config import BaseConfig, param
from kontrast.data.tables import ColumnKind
from kontrast.encoders.base import Encoder, encode_rows
from kontrast.encoders.heads import ProjectionHead
from kontrast.encoders.tokens import TokenIds


class TextEncoderConfig(BaseConfig):
    """Which text encoder, and its size where it is made from scratch."""

    name: str = param("bag", "bag or transformer (from scratch), minilm, e5, or a folder in Hugging Face layout")
    dim: int = param(256, "length of the vectors of an encoder from scratch", ge=1, le=4096)
    vocab_size: int = param(16_000, "most vocabulary entries of an encoder from scratch", ge=100, le=500_000)
    layers: int | None = param(None, "transformer layers: of one from scratch (None: 4), or the first ones kept", ge=1)
    heads: int = param(4, "attention heads of a transformer from scratch", ge=1)
    dropout: float = param(0.1, "dropout of a transformer from scratch", ge=0, lt=1)
    max_tokens: int | None = param(None, "longer texts are cut; None: 256, or what a ready model states", ge=3)
    prefix: str | None = param(None, "put before every text; None: what a ready model states")


class TextEncoder(Encoder):
    """Base of text encoders: texts to vectors (n, dim).

    Attributes:
        max_tokens: longest input in tokens, those that open and close a text included.
        prefix: put before every text.
    """

    reads: ClassVar[ColumnKind] = "text"
    max_tokens: int
    prefix: str

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of texts, cut to `max_tokens`; cacheable, on the CPU."""

    def prepare(self, cells: Sequence[str]) -> TokenIds:
        """The same as `tokenize`."""
        return self.tokenize(cells)

    def lengths(self, rows: TokenIds) -> npt.NDArray[np.int64]:
        """Tokens per row."""
        return rows.lengths

    @abstractmethod
    def save_sentence_transformers(self, folder: str | Path, *, head: ProjectionHead | None = None) -> Path:
        """Writes a folder that `sentence_transformers.SentenceTransformer(folder)` loads with equal vectors.

        Args:
            folder: replaced whole or not at all.
            head: saved behind the encoder, so that the loaded model gives projected vectors.
        """


def tokenize_contents(tokenizer: Any, texts: Sequence[str], prefix: str, most: int) -> TokenIds:
    """Ids without special tokens, at most `most` per text; `tokenizer` neither cuts nor pads."""
    if isinstance(texts, str):
        raise ValueError("texts must be a sequence of strings, not one string")
    encoded = tokenizer.encode_batch_fast([prefix + text for text in texts], add_special_tokens=False)
    return TokenIds.of([encoding.ids[:most] for encoding in encoded])


def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    head: ProjectionHead | None = None,
    describe: str | None = None,
) -> npt.NDArray[np.float32]:
    """Vectors of texts; equal texts are encoded once.

    Args:
        encoder: any text encoder.
        texts: n strings.
        batch_size: texts per forward pass.
        head: applied to the vectors.
        describe: words for the progress display; None shows nothing.

    Returns:
        float32 (n, dim).
    """
    places: dict[str, int] = {}
    where = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
    rows = encoder.tokenize(list(places))
    return encode_rows(encoder, rows, batch_size=batch_size, head=head, describe=describe)[where]
