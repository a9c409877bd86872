"""Words: the class words' vectors, and the heads that compare a slot with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import CheckpointError
from kontrast.systems.colap.prompt import word_pieces

_LAYOUTS = (
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight"),
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
     "cls.predictions.decoder.weight"),
)  # fmt: skip
"""How RoBERTa-like and BERT-like folders name the parts of their language-model head."""


class WordHead(nn.Module):
    """logits_k = w_k · h + b_k, with w_k from the class word's vector at the start.

    Args:
        dim: width of h.
        classes: number of classes.
        dropout: on h.
    """

    def __init__(self, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, classes)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, classes)."""
        logits: Tensor = self.linear(self.dropout(vectors))
        return logits

    @torch.no_grad()
    def start(self, words: Tensor) -> None:
        """Begins with word vectors (classes, dim), centred (what all words share tells nothing) and of length 1."""
        centred = words - words.mean(0)
        self.linear.weight.copy_(F.normalize(centred, dim=1))
        self.linear.bias.zero_()


class LanguageModelHead(nn.Module):
    """A language model's own head, restricted to the class words.

    Args:
        dim: width of the encoder.
        classes: number of classes.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, classes)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, classes)."""
        logits: Tensor = self.linear(self.norm(F.gelu(self.dense(vectors))))
        return logits

    @torch.no_grad()
    def start(self, parts: dict[str, Tensor], pieces: Sequence[Sequence[int]]) -> None:
        """Begins with the weights that `own_head_parts` read; a class of several pieces takes their mean."""
        self.dense.load_state_dict({"weight": parts["dense.weight"], "bias": parts["dense.bias"]})
        self.norm.load_state_dict({"weight": parts["norm.weight"], "bias": parts["norm.bias"]})
        for number, ids in enumerate(pieces):
            self.linear.weight[number] = parts["decoder"][list(ids)].mean(0)
            self.linear.bias[number] = parts["bias"][list(ids)].mean()


def word_vectors(encoder: TransformerEncoder, pieces: Sequence[Sequence[int]]) -> Tensor:
    """(classes, dim) input embeddings of the class words, of several pieces their mean."""
    table = encoder.model.get_input_embeddings().weight.detach().cpu()
    return torch.stack([table[list(ids)].float().mean(0) for ids in pieces])


def piece_ids(words: Sequence[str], encoder: TransformerEncoder) -> list[list[int]]:
    """Ids of each word's pieces."""
    return [word_pieces(word, encoder).tolist() for word in words]


def own_head_parts(folder: Path, encoder: TransformerEncoder) -> dict[str, Tensor] | None:
    """The weights of a folder's language-model head, None where it has none.

    Raises:
        CheckpointError: if it has one in part, or the file is damaged.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stream:
            names = set(stream.keys())
            layout = next((layout for layout in _LAYOUTS if f"{layout[0]}.weight" in names), None)
            if layout is None:
                return None
            dense, norm, bias, decoder = layout
            found = {
                "dense.weight": stream.get_tensor(f"{dense}.weight"),
                "dense.bias": stream.get_tensor(f"{dense}.bias"),
                "norm.weight": stream.get_tensor(f"{norm}.weight"),
                "norm.bias": stream.get_tensor(f"{norm}.bias"),
                "bias": stream.get_tensor(bias),
            }
            # The table is usually shared with the embeddings, and then not in the file.
            if decoder in names:
                found["decoder"] = stream.get_tensor(decoder)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"has no whole language-model head ({error})", file=file) from None
    found.setdefault("decoder", encoder.model.get_input_embeddings().weight.detach())
    return {name: tensor.float().cpu() for name, tensor in found.items()}
