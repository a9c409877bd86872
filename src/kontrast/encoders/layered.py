"""A transformer in two halves: the lower one is frozen and read once per text, the upper one is trained on its states.

What is read of a text is one vector per layer, from the place that matters: a slot, the last token, or the mean over
all tokens. Layer 0 is the output of the embeddings, layer l that of the l-th transformer layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.encoders.packed import packable
from kontrast.encoders.tokens import TokenIds
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import ConfigError

Place = Literal["mean", "mask", "eos"]
"""Where a text is read: mean over all tokens, the slot, or the last token."""

_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class SlotRows:
    """Whole inputs, special tokens included.

    Attributes:
        tokens: n rows of ids.
        slot: (n,) int64 place of the slot in its row.
    """

    tokens: TokenIds
    slot: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> SlotRows:
        return SlotRows(self.tokens[rows], self.slot[rows])

    def padded(self, pad: int) -> dict[str, Tensor]:
        """ids and mask, both int64 (n, longest), and slot (n,)."""
        ids, mask = self.tokens.padded(pad)
        return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "slot": torch.from_numpy(self.slot)}


def read_place(states: Tensor, mask: Tensor, slot: Tensor, place: Place) -> Tensor:
    """(n, d) of padded states (n, longest, d): their mean over the mask (n, longest), or the state at the slot (n,)."""
    if place == "mean":
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1).float() / mask.sum(1, keepdim=True).clamp(min=1)
    where = slot if place == "mask" else mask.sum(1) - 1
    return states[torch.arange(len(states), device=states.device), where].float()


def layer_count(encoder: TransformerEncoder) -> int:
    """Transformer layers of the encoder."""
    return int(encoder.model.config.num_hidden_layers)


class FrozenLayers:
    """The embeddings and first layers of a transformer, frozen: token states of texts, without gradients.

    It is no module: it takes no part in training, has no place in a checkpoint and stays where the encoder is.

    Args:
        encoder: whose weights are read, not copied.
        layers: transformer layers that are frozen; 0 for the embeddings alone.

    Raises:
        ConfigError: if there are fewer layers, or the model is of a family that cannot be cut.
    """

    def __init__(self, encoder: TransformerEncoder, layers: int) -> None:
        total = layer_count(encoder)
        if not 0 <= layers <= total:
            raise ConfigError(f"option 'frozen': the encoder has {total} layers, got {layers}.")
        self.encoder, self.layers = encoder, layers
        self.packed = packable(encoder.model)
        if layers < total:
            check_divisible(encoder)

    def states(self, rows: SlotRows) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """The number of a row and its states (tokens, d), for each row, the longest first."""
        order = np.argsort(-rows.tokens.lengths, kind="stable")
        model, start = self.encoder.model.eval(), 0
        while start < len(order):
            longest = int(rows.tokens.lengths[order[start]])
            chosen = order[start : start + max(1, _TOKENS // longest)]
            start += len(chosen)
            some = rows[chosen]
            # No generator may hold inference mode open while its caller goes on.
            with torch.inference_mode():
                batch = some.padded(self.encoder._pad)
                found = self._read(model, batch).float().numpy()
            for number, own, length in zip(chosen, found, some.tokens.lengths):
                yield int(number), own[:length]

    def _read(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        if not self.packed:
            found = model(input_ids=batch["ids"], attention_mask=batch["mask"], output_hidden_states=True)
            states: Tensor = found.hidden_states[self.layers]
            return states
        mask = batch["mask"].bool()
        tokens = model.embeddings(input_ids=batch["ids"])[mask]
        for layer in model.encoder.layer[: self.layers]:
            tokens = packed_layer(layer, tokens, mask, _heads(model))
        return _spread(tokens, mask)


class TrainedLayers(nn.Module):
    """The last layers of a transformer, to be trained on the states of the frozen ones.

    Products run over real tokens alone; only attention sees padding.

    Args:
        encoder: whose layers are copied.
        frozen: how many layers come before.
        place: where a text is read.

    Raises:
        ConfigError: if the model is of a family that cannot be cut.
    """

    def __init__(self, encoder: TransformerEncoder, frozen: int, place: Place) -> None:
        super().__init__()
        check_divisible(encoder)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in encoder.model.encoder.layer[frozen:])
        self.layers.requires_grad_(True)  # an encoder that is shared may be frozen
        self.heads, self.place = _heads(encoder.model), place

    def forward(self, states: Tensor, mask: Tensor, slot: Tensor) -> list[Tensor]:
        """From frozen states (n, longest, d), their mask (n, longest) and slots (n,): what is read before the first
        trained layer and after each, as (n, d)."""
        mask = mask.bool()
        tokens = states[mask]
        reads = [self._read(tokens, mask, slot)]
        for layer in self.layers:
            tokens = packed_layer(layer, tokens, mask, self.heads)
            reads.append(self._read(tokens, mask, slot))
        return reads

    def _read(self, tokens: Tensor, mask: Tensor, slot: Tensor) -> Tensor:
        return read_place(_spread(tokens, mask), mask, slot, self.place)


class WholeTransformer(nn.Module):
    """All of a transformer, to be trained with its embeddings; of any family that transformers loads.

    Args:
        encoder: whose model is copied.
        place: where a text is read.
    """

    def __init__(self, encoder: TransformerEncoder, place: Place) -> None:
        super().__init__()
        self.model = copy.deepcopy(encoder.model).requires_grad_(True)
        self.place = place

    def forward(self, ids: Tensor, mask: Tensor, slot: Tensor) -> list[Tensor]:
        """From ids and mask (n, longest) and slots (n,): what is read after the embeddings and each layer, (n, d)."""
        found = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return [read_place(states, mask, slot, self.place) for states in found.hidden_states]


def check_divisible(encoder: TransformerEncoder) -> None:
    """Raises ConfigError for a model whose layers cannot be run one by one here."""
    if not packable(encoder.model):
        family = encoder.model.config.model_type
        raise ConfigError(
            f"option 'train': a model of the family '{family}' cannot be cut between layers; use 'adapter' or 'all'."
        )


def packed_layer(layer: Any, tokens: Tensor, mask: Tensor, heads: int) -> Tensor:
    """One BERT-like layer over the tokens (total, d) that are true in `mask` (n, longest), row by row.

    Dropout is as in transformers: on attention, and before each sum.
    """
    attention, n, width = layer.attention, len(mask), tokens.shape[1]
    joined = torch.cat([getattr(attention.self, name)(tokens) for name in ("query", "key", "value")], 1)
    parts = _spread(joined, mask).view(n, mask.shape[1], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    dropout = attention.self.dropout.p if layer.training else 0.0
    found = F.scaled_dot_product_attention(
        parts[0], parts[1], parts[2], attn_mask=mask[:, None, None, :], dropout_p=dropout
    )
    attended = attention.output.dense(found.transpose(1, 2)[mask].reshape(len(tokens), width))
    tokens = attention.output.LayerNorm(attention.output.dropout(attended) + tokens)
    inner = layer.output.dense(F.gelu(layer.intermediate.dense(tokens)))
    outer: Tensor = layer.output.LayerNorm(layer.output.dropout(inner) + tokens)
    return outer


def _spread(tokens: Tensor, mask: Tensor) -> Tensor:
    """(n, longest, d) with the tokens (total, d) where the mask is true, and zeros elsewhere."""
    padded = tokens.new_zeros(*mask.shape, tokens.shape[1])
    padded[mask] = tokens
    return padded


def _heads(model: Any) -> int:
    return int(model.config.num_attention_heads)
