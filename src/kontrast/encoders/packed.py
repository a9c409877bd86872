"""Transformer inference on the CPU without padding.

Rows of a batch stand one after the other in one long row of tokens, so that every product is over real tokens alone.
Only attention looks beyond a token, and it runs once per group of rows of equal length, which needs no mask. The
numbers are those of the padded forward of training: the sums are over the same terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.encoders.tokens import TokenIds, flat_positions

_FAMILIES = ("bert", "roberta", "xlm-roberta")
_PLAIN = (nn.Linear, nn.LayerNorm, nn.Embedding)


@dataclass(frozen=True)
class PackedRows:
    """Rows without padding.

    Attributes:
        ids: int64 (total,), special tokens included; rows of equal length stand together.
        places: int64 (total,), each token's position in its row.
        groups: rows and tokens per row of each group; the products add up to `total`.
        order: int64 (n,): row i of the packed order is row order[i] of those given.
    """

    ids: Tensor
    places: Tensor
    groups: list[tuple[int, int]]
    order: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: TokenIds, before: Sequence[int], after: Sequence[int]) -> PackedRows:
        """Packs `rows`, each between `before` and `after`."""
        order = np.argsort(-rows.lengths, kind="stable")
        rows = rows[order]
        lengths = rows.lengths + len(before) + len(after)
        starts = np.cumsum(lengths) - lengths
        ids = np.empty(int(lengths.sum()), dtype=np.int64)
        ids[flat_positions(starts + len(before), rows.lengths)] = rows.ids
        for place, token in enumerate(before):
            ids[starts + place] = token
        for back, token in enumerate(reversed(after), start=1):
            ids[starts + lengths - back] = token
        negative, counts = np.unique(-lengths, return_counts=True)
        groups = [(int(count), int(-length)) for length, count in zip(negative, counts)]
        places = flat_positions(np.zeros_like(lengths), lengths)
        return cls(torch.from_numpy(ids), torch.from_numpy(places), groups, order)


@dataclass(frozen=True)
class _Layer:
    """Weights and biases of one layer, in the order in which they are used."""

    query_key_value: tuple[Tensor, Tensor]
    attended: tuple[Tensor, Tensor]
    attended_norm: tuple[Tensor, Tensor]
    inner: tuple[Tensor, Tensor]
    outer: tuple[Tensor, Tensor]
    outer_norm: tuple[Tensor, Tensor]


class PackedTransformer:
    """The forward of a BERT-like model over `PackedRows`, in evaluation mode.

    Weights are copied (and rounded, for bf16): make one for a run over many rows, not one for good.

    Args:
        model: a model for which `packable` is true.
        dtype: of weights and activations. Embeddings are summed, and token vectors pooled, in float32.
    """

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        config, embeddings = model.config, model.embeddings
        self.dtype = dtype
        self.heads, self.epsilon = int(config.num_attention_heads), float(config.layer_norm_eps)
        # The RoBERTa family counts positions from the padding id on.
        self.first = 0 if config.model_type == "bert" else int(config.pad_token_id) + 1
        self.words = embeddings.word_embeddings.weight.detach()
        types = embeddings.token_type_embeddings.weight[0].detach()
        self.positions = embeddings.position_embeddings.weight.detach() + types
        self.norm = (embeddings.LayerNorm.weight.detach(), embeddings.LayerNorm.bias.detach())
        self.layers = [self._layer(layer) for layer in model.encoder.layer]

    def _layer(self, layer: Any) -> _Layer:
        attention = layer.attention
        inputs = [getattr(attention.self, name) for name in ("query", "key", "value")]
        joined = (torch.cat([part.weight for part in inputs]), torch.cat([part.bias for part in inputs]))
        parts = (attention.output.dense, attention.output.LayerNorm, layer.intermediate.dense, layer.output.dense,
                 layer.output.LayerNorm)  # fmt: skip
        pairs = [joined, *((part.weight, part.bias) for part in parts)]
        return _Layer(*((weight.detach().to(self.dtype), bias.detach().to(self.dtype)) for weight, bias in pairs))

    def __call__(self, rows: PackedRows, pooling: str) -> Tensor:
        """Pooled vectors, float32 (n, dim), in the packed order; `pooling` is "mean" or "cls"."""
        tokens = self.words[rows.ids]
        tokens += self.positions[rows.places + self.first]
        width = tokens.shape[1]
        tokens = F.layer_norm(tokens, (width,), *self.norm, self.epsilon).to(self.dtype)
        for layer in self.layers:
            attended = self._attend(F.linear(tokens, *layer.query_key_value), rows.groups)
            attended = F.linear(attended, *layer.attended)
            tokens = F.layer_norm(attended.add_(tokens), (width,), *layer.attended_norm, self.epsilon)
            inner = F.linear(F.gelu(F.linear(tokens, *layer.inner)), *layer.outer)
            tokens = F.layer_norm(inner.add_(tokens), (width,), *layer.outer_norm, self.epsilon)
        pooled, start = [], 0
        for count, length in rows.groups:
            block = tokens[start : start + count * length].view(count, length, width)
            pooled.append(block[:, 0].float() if pooling == "cls" else block.float().mean(1))
            start += count * length
        return torch.cat(pooled)

    def _attend(self, joined: Tensor, groups: list[tuple[int, int]]) -> Tensor:
        width = joined.shape[1] // 3
        result = joined.new_empty(len(joined), width)
        start = 0
        for count, length in groups:
            end = start + count * length
            parts = joined[start:end].view(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            result[start:end].view(count, length, self.heads, -1).copy_(found.transpose(1, 2))
            start = end
        return result


def packable(model: Any) -> bool:
    """Whether `PackedTransformer` computes what `model` computes: a plain BERT or RoBERTa encoder on the CPU.

    A model whose layers were replaced or wrapped (adapters, hooks, other activations) runs as it is.
    """
    config = model.config
    plain = (
        config.model_type in _FAMILIES
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not getattr(config, "is_decoder", False)
    )
    if not plain or any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return False
    with_weights = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return not hooked and all(type(module) in _PLAIN for module in with_weights)
