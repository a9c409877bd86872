"""Model: the encoder of the book, trained to reconstruct and frozen, and the fusion encoder on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.losses import supcon
from kontrast.systems.lob.backbones import make_backbone
from kontrast.systems.lob.config import LobConfig
from kontrast.training import Progress, TrainableModel

Floats = npt.NDArray[np.float32]

_CHUNK = 128
_BATCH = 1024


class BookEncoder(TrainableModel):
    """Step 1: a causal Transformer over the rows of the book, with a narrow latent per row.

    A row attends to itself and the `span` - 1 rows before it, through learned biases by distance, so its latent is the
    same whichever stretch of the stream it is computed in. A whole day is encoded in one pass.

    Args:
        columns: numbers of a row of the book.
        config: sizes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: int, config: LobConfig) -> None:
        super().__init__()
        section = config.book
        self.span = config.window
        self.enter = nn.Linear(columns, section.width)
        self.layers = nn.ModuleList(LocalLayer(section.width, section.heads, self.span) for _ in range(section.layers))
        self.norm = nn.LayerNorm(section.width)
        self.narrow = nn.Linear(section.width, section.latent)
        self.decoder = nn.Sequential(
            nn.Linear(section.latent, 2 * section.width), nn.GELU(), nn.Linear(2 * section.width, columns)
        )
        self.register_buffer("mean", torch.zeros(section.latent))
        self.register_buffer("std", torch.ones(section.latent))

    @property
    def history(self) -> int:
        """Rows before a row on which its latent depends."""
        return len(self.layers) * (self.span - 1)

    def latents(self, rows: Tensor) -> Tensor:
        """(batch, rows, columns) to (batch, rows, latent); the first `history` rows see fewer before them."""
        hidden = self.enter(rows)
        for layer in self.layers:
            hidden = layer(hidden)
        latent: Tensor = self.narrow(self.norm(hidden))
        return latent

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latents and reconstruction of stretches of rows."""
        latent = self.latents(batch["book"])
        return {"latent": latent, "decoded": self.decoder(latent)}

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Mean squared error of the standardised numbers of the book."""
        return {"book": F.mse_loss(encoded["decoded"], batch["book"])}

    @torch.no_grad()
    def stream_latents(self, rows: Floats) -> Floats:
        """(n, columns) rows of one stream to (n, latent) standardised latents."""
        device, n, before = self.mean.device, len(rows), self.history
        latents = np.empty((n, len(self.mean)), np.float32)
        # The first stretch begins at the first row; later ones bring the rows that they look back on.
        starts = [0, *range(_CHUNK, n, _CHUNK)]
        latents[:_CHUNK] = self._block(torch.from_numpy(rows[:_CHUNK])[None].to(device))[0]
        whole = [start for start in starts[1:] if start >= before and start + _CHUNK <= n]
        for group in np.array_split(np.asarray(whole, np.int64), max(1, -(-len(whole) // _BATCH))):
            if len(group):
                index = group[:, None] + np.arange(-before, _CHUNK)
                block = self._block(torch.from_numpy(rows[index]).to(device))[:, before:]
                latents[index[:, before:]] = block
        for start in set(starts[1:]) - set(whole):
            stretch = torch.from_numpy(rows[max(0, start - before) : start + _CHUNK])[None].to(device)
            latents[start : start + _CHUNK] = self._block(stretch)[0, start - max(0, start - before) :]
        return latents

    def _block(self, rows: Tensor) -> Floats:
        return ((self.latents(rows) - self.mean) / self.std).cpu().numpy()


class LocalLayer(nn.Module):
    """A pre-norm Transformer layer in which a row attends to the last `span` rows, itself included."""

    def __init__(self, width: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, span))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, rows: Tensor) -> Tensor:
        n = rows.shape[1]
        distance = torch.arange(n, device=rows.device)[:, None] - torch.arange(n, device=rows.device)
        near = (distance >= 0) & (distance < self.span)
        bias = self.bias[:, distance.clamp(0, self.span - 1)].masked_fill(~near, -torch.inf)
        query, key, value = self.projections(self.first(rows)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        rows = rows + self.out(attended.transpose(1, 2).flatten(2))
        added: Tensor = rows + self.feed(self.second(rows))
        return added


class FusionEncoder(TrainableModel):
    """Step 2: a window of hand-made features and latents to one vector, by reconstruction and contrast.

    Args:
        features: columns of a row.
        config: sizes, losses.
    """

    def __init__(self, features: int, config: LobConfig) -> None:
        super().__init__()
        self.config = config
        section = config.fusion
        self.backbone = make_backbone(
            section.backbone, config.window, features, section.dim, section.width, section.layers
        )
        self.head = nn.Linear(section.dim, 1)

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors of windows, their reconstruction, and the logit of manipulation."""
        windows = batch["windows"]
        vectors = self.backbone.encode(windows)
        encoded = {"vectors": vectors, "decoded": self.backbone.decode(vectors, windows)}
        if self.config.classify_weight > 0:
            encoded["logits"] = self.logits(vectors)
        return encoded

    def logits(self, vectors: Tensor) -> Tensor:
        """(n,) logits of manipulation from vectors (n, dim), whatever their length."""
        logits: Tensor = self.head(F.normalize(vectors, dim=1))[:, 0]
        return logits

    def head_arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weights (dim,) and bias (1,) of the head."""
        weight, bias = (tensor.detach().cpu().double().numpy() for tensor in (self.head.weight[0], self.head.bias))
        return weight, bias

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Reconstruction, the supervised contrast of the windows' vectors, and cross-entropy where it is asked for."""
        terms = {"reconstruction": F.mse_loss(encoded["decoded"], batch["windows"])}
        if self.config.contrasts:
            terms["contrast"] = supcon(encoded["vectors"], batch["label"], temperature=self.config.temperature)
        if "logits" in encoded:
            terms["classify"] = F.binary_cross_entropy_with_logits(encoded["logits"], batch["label"].float())
        return terms


class LobModel(TrainableModel):
    """Both encoders; each is trained in a stage of its own.

    Args:
        facts: "book_columns" and "features", the columns of a row without the latent.
        config: sizes, losses.
    """

    def __init__(self, facts: Mapping[str, Any], config: LobConfig) -> None:
        super().__init__()
        self.book = BookEncoder(facts["book_columns"], config) if config.cascade else None
        latent = config.book.latent if config.cascade else 0
        self.fusion = FusionEncoder(facts["features"] + latent, config)

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the fusion encoder does."""
        return self.fusion.encode(batch)

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """As the fusion encoder does."""
        return self.fusion.losses(encoded, batch, progress)
