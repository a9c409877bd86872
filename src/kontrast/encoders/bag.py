"""Texts as weighted means of token vectors: no order, no attention, and by far the fastest to train and to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from kontrast.encoders.base import Batch, seeded
from kontrast.encoders.heads import ProjectionHead
from kontrast.encoders.saving import SavedModule, own_tokenizer, write_sentence_transformer
from kontrast.encoders.text import TextEncoder, tokenize_contents
from kontrast.encoders.tokens import TokenIds

_SIF = 1e-3


class BagEncoder(TextEncoder):
    r"""The mean of token vectors, each times a learned weight: :math:`\frac{1}{L} \sum_l w_{t_l} e_{t_l}`.

    Weights start at a / (a + p(t)) with the token's share p of the training texts and a = 0.001 (smooth inverse
    frequency, Arora et al., ICLR 2017), so that frequent words count little from the first step on. A saved encoder
    holds the products w·e. A text without tokens is the zero vector.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or its JSON text.
        dim: length of the vectors.
        counts: occurrences of each token in the training texts, (vocabulary,); None leaves all weights at 1.
        max_tokens: longer texts are cut.
        prefix: put before every text.
        seed: the token vectors depend on it alone.
    """

    def __init__(
        self,
        tokenizer: Any,
        dim: int,
        *,
        counts: np.ndarray[Any, Any] | None = None,
        max_tokens: int = 256,
        prefix: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = own_tokenizer(tokenizer)
        self.dim, self.max_tokens, self.prefix = dim, max_tokens, prefix
        size = self.tokenizer.get_vocab_size()
        with seeded(seed, "bag encoder"):
            self.vectors = nn.Parameter(torch.randn(size, dim) / dim**0.5)
        start = torch.ones(size)
        if counts is not None:
            if len(counts) != size:
                raise ValueError(f"counts has {len(counts)} entries, the vocabulary has {size}")
            start = torch.from_numpy(_SIF / (_SIF + counts / max(counts.sum(), 1))).float()
        self.log_weights = nn.Parameter(start.log())

    @classmethod
    def from_texts(
        cls, tokenizer: Any, texts: Sequence[str], dim: int, *, max_tokens: int, prefix: str = "", seed: int = 0
    ) -> BagEncoder:
        """A new encoder whose weights start from the token frequencies of `texts`."""
        ids = tokenize_contents(tokenizer, texts, prefix, max_tokens).ids
        counts = np.bincount(ids, minlength=tokenizer.get_vocab_size())
        return cls(tokenizer, dim, counts=counts, max_tokens=max_tokens, prefix=prefix, seed=seed)

    @classmethod
    def from_table(cls, tokenizer: Any, table: Tensor, *, max_tokens: int, prefix: str = "") -> BagEncoder:
        """An encoder with ready token vectors (vocabulary, dim) and all weights 1."""
        encoder = cls(tokenizer, table.shape[1], max_tokens=max_tokens, prefix=prefix)
        if encoder.vectors.shape != table.shape:
            raise ValueError(f"the table has {len(table)} rows, the vocabulary {len(encoder.vectors)} entries")
        encoder.vectors.data.copy_(table)
        return encoder

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> BagEncoder:
        """The inverse of `structure`; the weights are to be loaded."""
        return cls(
            structure["tokenizer"], structure["dim"], max_tokens=structure["max_tokens"], prefix=structure["prefix"]
        )

    def structure(self) -> dict[str, Any]:
        """Tokenizer, sizes and prefix, JSON-able."""
        return {
            "encoder": "bag",
            "tokenizer": self.tokenizer.to_str(),
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            "prefix": self.prefix,
        }

    def tokenize(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of texts, cut to `max_tokens`."""
        return tokenize_contents(self.tokenizer, texts, self.prefix, self.max_tokens)

    def collate(self, rows: TokenIds) -> Batch:
        """ids (total,) and offsets (n,), both int64."""
        return {"ids": torch.from_numpy(rows.ids).long(), "offsets": torch.from_numpy(rows.offsets[:-1])}

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        ids, offsets = batch["ids"], batch["offsets"]
        weights = self.log_weights[ids].exp()
        sums = F.embedding_bag(ids, self.vectors, offsets, mode="sum", per_sample_weights=weights)
        ends = torch.cat([offsets[1:], offsets.new_full((1,), len(ids))])
        return (sums / (ends - offsets).clamp(min=1)[:, None]).float()

    def folded(self) -> Tensor:
        """Token vectors times their weights, (vocabulary, dim): the mean of its rows is the text's vector."""
        return (self.vectors * self.log_weights.exp()[:, None]).detach().float().cpu().contiguous()

    def save_sentence_transformers(self, folder: str | Path, *, head: ProjectionHead | None = None) -> Path:
        """Writes a StaticEmbedding model; see the base class."""

        def write(inside: Path) -> None:
            save_file({"embedding.weight": self.folded()}, inside / "model.safetensors")
            tokenizer = own_tokenizer(self.tokenizer)
            # StaticEmbedding adds no special tokens and knows no longest input: the tokenizer itself has to cut.
            tokenizer.enable_truncation(self.max_tokens)
            tokenizer.save(str(inside / "tokenizer.json"))

        module = SavedModule("sentence_transformers.models.StaticEmbedding", write)
        return write_sentence_transformer(folder, [module], prefix=self.prefix, dim=self.dim, head=head)
