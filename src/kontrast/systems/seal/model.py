"""Model: one encoder of queries and documents, and one InfoNCE per view of the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kontrast.encoders import Encoder, to_device
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import ConfigError
from kontrast.ops import Pairs, Rule, contrast
from kontrast.systems.seal.config import SealConfig
from kontrast.systems.seal.views import SealBatch
from kontrast.training import Progress, TrainableModel

GATES = ("gates", "word_gates", "attention", "fall")
"""Parameters of `ElementsEncoder` that weight elements."""


class SealModel(TrainableModel):
    """The encoder under L = w_tag L_tag + w_untag L_untag + w_mask L_mask.

    Each L is the InfoNCE of the batch's queries against all documents of all groups in that view. A document that
    stands in the batch more than once is a positive of each query that it answers, every copy by itself against the
    negatives; a further document that answers a query is left out of its negatives.

    Args:
        encoder: of queries and documents.
        config: views, weights, temperature.
    """

    def __init__(self, encoder: Encoder, config: SealConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        if config.encoder.train_layers is not None:
            freeze_lower(encoder, config.encoder.train_layers)

    def encode(self, batch: SealBatch) -> dict[str, Tensor]:
        """Vectors "query" (B, d) and, per view, (B, G, d)."""
        queries, group = batch.documents.shape
        found = {"query": self._vectors(batch.queries)}
        for name, rows in batch.views.items():
            vectors = self._vectors(rows)
            found[name] = vectors.view(queries, group, vectors.shape[1])
        return found

    def _vectors(self, rows: Any) -> Tensor:
        vectors: Tensor = self.encoder(to_device(self.encoder.collate(rows), self.encoder.device))
        return vectors

    def split(self, batch: SealBatch, rows: int) -> Sequence[SealBatch]:
        """Parts of `rows` queries with their groups."""
        n = len(batch.documents)
        return [batch.part(first, min(first + rows, n)) for first in range(0, n, rows)]

    def losses(self, encoded: Mapping[str, Tensor], batch: SealBatch, progress: Progress) -> dict[str, Tensor]:
        """One contrastive term per view, and those between views of documents."""
        config = self.config
        rule = _rule(batch, known=True)
        terms: dict[str, Tensor] = {
            str(name): self._contrast(encoded["query"], encoded[name], rule) for name in config.views
        }
        between = _rule(batch, known=False)
        for name in config.document_terms:
            terms[f"tag-{name}"] = self._contrast(encoded["tag"][:, 0], encoded[name], between)
        return terms

    def learning_rate_scale(self, name: str) -> float:
        """Gates are few and start at 0; they learn faster than the map and the word weights."""
        return self.config.encoder.gate_rate if name.removeprefix("encoder.") in GATES else 1.0

    def _contrast(self, anchors: Tensor, documents: Tensor, rule: Rule) -> Tensor:
        return contrast(
            anchors,
            documents.reshape(-1, documents.shape[-1]),
            rule,
            temperature=self.config.temperature,
            normalize=True,
            products=self.config.products,
        )


def _rule(batch: SealBatch, *, known: bool) -> Rule:
    """Every copy of the query's document is a positive, and no copy (of another process neither) is a negative."""
    own, candidates = batch.documents[:, 0], batch.documents.reshape(-1)
    positives = Pairs(*torch.nonzero(own[:, None] == candidates[None], as_tuple=True))
    further = None
    if known and len(batch.known):
        entry, column = torch.nonzero(batch.known[:, 1:] == candidates[None], as_tuple=True)
        further = Pairs(batch.known[entry, 0], column)
    return Rule(positives, ids=(own, candidates), known=further, denominator="own_positive")


def freeze_lower(encoder: Encoder, layers: int) -> None:
    """Stops the gradient of all but the last layers of a transformer.

    Raises:
        ConfigError: if the encoder has no layers, or not so many.
    """
    if not isinstance(encoder, TransformerEncoder) or not hasattr(encoder.model, "encoder"):
        raise ConfigError("option 'encoder.train_layers' needs an encoder with transformer layers.")
    stack = encoder.model.encoder.layer
    if layers > len(stack):
        raise ConfigError(f"option 'encoder.train_layers': the encoder has {len(stack)} layers, got {layers}.")
    encoder.requires_grad_(False)
    for layer in stack[len(stack) - layers :]:
        layer.requires_grad_(True)
