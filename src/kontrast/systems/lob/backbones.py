"""Backbones of the fusion encoder: a window of rows to one vector, and back.

Each is an autoencoder with two methods, `encode` (batch, length, features) -> (batch, dim) and `decode`, its inverse
for the reconstruction loss. Sizes other than the default are those of the code that the paper builds on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

BackboneName = Literal["conv", "jfds", "lstm", "cnn2", "simlob"]


class Backbone(nn.Module, ABC):
    """An autoencoder of windows."""

    @abstractmethod
    def encode(self, windows: Tensor) -> Tensor:
        """(batch, length, features) to (batch, dim)."""

    @abstractmethod
    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        """(batch, dim) to (batch, length, features); `windows` is the target, for teacher forcing in training."""


class ConvBackbone(Backbone):
    """Two convolutions along time, then a hidden layer; the decoder is a hidden layer."""

    def __init__(self, length: int, features: int, dim: int, width: int) -> None:
        super().__init__()
        self.shape = (length, features)
        reduced = (length + 1) // 2
        self.encoder = nn.Sequential(
            nn.Conv1d(features, width, 5, padding=2), nn.GELU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU(),
            nn.Flatten(), nn.Linear(width * reduced, 256), nn.GELU(), nn.Linear(256, dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, length * features))

    def encode(self, windows: Tensor) -> Tensor:
        latent: Tensor = self.encoder(windows.transpose(1, 2))
        return latent

    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(latent)
        return decoded.view(-1, *self.shape)


class JfdsBackbone(Backbone):
    """A post-norm Transformer autoencoder whose decoder attends to one memory token."""

    def __init__(self, length: int, features: int, dim: int, width: int, layers: int) -> None:
        super().__init__()
        heads = 8 if width % 8 == 0 else 4
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        self.enter_decoder = nn.Linear(features, width)
        self.register_buffer("positions", sinusoids(length, width), persistent=False)
        self.dropout = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.pool, self.memory = nn.Linear(length * width, dim), nn.Linear(dim, width)
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, heads, 4 * width, 0.1, batch_first=True), layers
        )

    positions: Tensor

    def encode(self, windows: Tensor) -> Tensor:
        hidden = self.encoder(self.dropout(self.enter(windows) + self.positions))
        latent: Tensor = self.pool(hidden.flatten(1))
        return latent

    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        memory = self.memory(latent)[:, None]
        before = torch.cat([torch.zeros_like(windows[:, :1]), windows[:, :-1]], dim=1)
        later = torch.triu(torch.ones(windows.shape[1], windows.shape[1], dtype=torch.bool, device=windows.device), 1)
        hidden = self.decoder(self.dropout(self.enter_decoder(before) + self.positions), memory, tgt_mask=later)
        decoded: Tensor = self.leave(hidden)
        return decoded


class LstmBackbone(Backbone):
    """LSTM to the last hidden state; the decoder repeats the vector."""

    def __init__(self, length: int, features: int, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.length = length
        self.enter = nn.Linear(features, width)
        self.encoder = nn.LSTM(width, width, layers, batch_first=True)
        self.pool, self.memory = nn.Linear(width, dim), nn.Linear(dim, width)
        self.decoder = nn.LSTM(width, width, layers, batch_first=True)
        self.leave = nn.Linear(width, features)

    def encode(self, windows: Tensor) -> Tensor:
        hidden, _ = self.encoder(self.enter(windows))
        latent: Tensor = self.pool(hidden[:, -1])
        return latent

    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        hidden, _ = self.decoder(self.memory(latent)[:, None].expand(-1, self.length, -1))
        decoded: Tensor = self.leave(hidden)
        return decoded


class Cnn2Backbone(Backbone):
    """One convolution over all features at once, then four along time, with batch norms."""

    def __init__(self, length: int, features: int, dim: int) -> None:
        super().__init__()
        self.shape = (length, features)
        blocks: list[nn.Module] = []
        width = features
        for out, kernel in ((16, 4), (16, 5), (32, 4), (32, 3), (32, 2)):
            kernel = min(kernel, length)
            blocks += [nn.Conv1d(width, out, kernel), nn.BatchNorm1d(out), nn.PReLU()]
            width, length = out, length - kernel + 1
        self.encoder = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(width * length, dim))
        self.decoder = nn.Sequential(nn.Linear(dim, 256), nn.PReLU(), nn.Linear(256, math.prod(self.shape)))

    def encode(self, windows: Tensor) -> Tensor:
        latent: Tensor = self.encoder(windows.transpose(1, 2))
        return latent

    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(latent)
        return decoded.view(-1, *self.shape)


class SimLobBackbone(Backbone):
    """Pre-norm Transformer, back to the features, and a funnel of linear layers; the decoder mirrors it."""

    def __init__(self, length: int, features: int, dim: int, width: int, layers: int) -> None:
        super().__init__()
        heads = 8 if width % 8 == 0 else 4
        self.shape = (length, features)
        self.register_buffer("positions", sinusoids(length, width), persistent=False)
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        self.back, self.out = nn.Linear(features, width), nn.Linear(width, features)
        self.encoder = _pre_norm(width, heads, layers)
        self.decoder = _pre_norm(width, heads, layers)
        flat, steps = length * features, (1024, 512, dim)
        sizes = [flat, *steps]
        self.funnel = nn.Sequential(*_linears(sizes))
        self.widen = nn.Sequential(*_linears(sizes[::-1]))

    positions: Tensor

    def encode(self, windows: Tensor) -> Tensor:
        hidden = self.leave(self.encoder(self.enter(windows) + self.positions))
        latent: Tensor = self.funnel(hidden.flatten(1))
        return latent

    def decode(self, latent: Tensor, windows: Tensor) -> Tensor:
        rows = self.widen(latent).unflatten(1, self.shape)
        decoded: Tensor = self.out(self.decoder(self.back(rows) + self.positions))
        return decoded


def _pre_norm(width: int, heads: int, layers: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.1, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _linears(sizes: list[int]) -> list[nn.Module]:
    made: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(sizes)):
        made += [nn.ReLU()] * (number > 0) + [nn.Linear(before, after)]
    return made


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of the position."""
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
    return table


def make_backbone(name: BackboneName, length: int, features: int, dim: int, width: int, layers: int) -> Backbone:
    """The backbone of that name.

    Args:
        name: which.
        length: rows of a window.
        features: columns of a row.
        dim: length of the vector of a window.
        width: channels, or width of a token.
        layers: of Transformers and LSTMs.
    """
    if name == "conv":
        return ConvBackbone(length, features, dim, width)
    if name == "cnn2":
        return Cnn2Backbone(length, features, dim)
    if name == "jfds":
        return JfdsBackbone(length, features, dim, width, layers)
    if name == "lstm":
        return LstmBackbone(length, features, dim, width, layers)
    return SimLobBackbone(length, features, dim, width, layers)
