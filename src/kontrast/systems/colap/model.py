"""Model: a classifier that fills the slot, once for the source language and once for each target language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.encoders.layered import Place, TrainedLayers, WholeTransformer
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import ConfigError
from kontrast.systems.colap.config import ColapConfig
from kontrast.systems.colap.objectives import xccl, xrcl
from kontrast.systems.colap.words import LanguageModelHead, WordHead
from kontrast.training import Progress, TrainableModel

_SPREAD = 5.0
"""Mean length of what the classifier sees, once it is centred."""
_DROPOUT = 0.1
HEAD_RATE = 10.0
"""A new classifier starts from mere words and learns this much faster than pretrained layers before it."""


@dataclass(frozen=True)
class Cut:
    """Which layers learn.

    Attributes:
        mode: what the trained part sees: "vectors", "states" or "ids".
        frozen: first layers that do not learn.
        contrast: place of the contrasted vectors among what the trained part reads, from 0.
    """

    mode: str
    frozen: int
    contrast: int

    @classmethod
    def of(cls, config: ColapConfig, layers: int) -> Cut:
        """For an encoder of so many layers.

        Raises:
            ConfigError: if the contrast would be within the frozen part.
        """
        if config.train == "adapter":
            return cls("vectors", layers, 0)
        frozen = 0 if config.train == "all" else layers // 2 if config.frozen is None else config.frozen
        if frozen >= layers:
            raise ConfigError(
                f"option 'frozen': must leave some of the encoder's {layers} layers to train, got {frozen}."
            )
        level = config.contrast_layer if config.contrast_layer is not None else max(frozen + 1, round(0.75 * layers))
        if not frozen < level <= layers:
            raise ConfigError(
                f"option 'contrast_layer': must be above the {frozen} frozen layers and at most {layers}, got {level}."
            )
        return cls("ids" if config.train == "all" else "states", frozen, level - frozen)


class Adapter(nn.Module):
    """A bottleneck beside the identity, which it is before training.

    Args:
        dim: width of the vectors.
        inner: width of the bottleneck.
    """

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.dropout = nn.Dropout(_DROPOUT)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, dim)."""
        changed: Tensor = vectors + self.up(self.dropout(F.gelu(self.down(vectors))))
        return changed


class Branch(TrainableModel):
    """The classifier of one language.

    Args:
        dim: width of the encoder.
        classes: number of classes.
        cut: which layers learn.
        config: adapter, place, contrasts.
        encoder: whose layers are copied, where layers learn.
        head: the encoder's own language-model head for the class words; None: a linear layer on centred vectors.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        cut: Cut,
        config: ColapConfig,
        encoder: TransformerEncoder | None,
        *,
        own_head: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.cut, self.own_head = config, cut, own_head
        self.body: TrainedLayers | WholeTransformer | None = None
        if cut.mode != "vectors":
            assert encoder is not None
            place: Place = config.place
            whole = cut.mode == "ids"
            self.body = WholeTransformer(encoder, place) if whole else TrainedLayers(encoder, cut.frozen, place)
        self.adapter = Adapter(dim, config.adapter) if cut.mode == "vectors" else None
        self.head: LanguageModelHead | WordHead
        self.head = LanguageModelHead(dim, classes) if own_head else WordHead(dim, classes, _DROPOUT)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def learning_rate_scale(self, name: str) -> float:
        """Pretrained layers learn ten times more slowly than what is new, and a new classifier behind them ten times
        faster; where the whole model learns (the released code's recipe) the learning rate is that of the model."""
        if self.cut.mode == "vectors" or self.own_head:
            return 1.0
        if name.startswith("head."):
            return HEAD_RATE
        return 1 / HEAD_RATE if self.cut.mode == "states" and name.startswith("body.") else 1.0

    def read(self, side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The contrasted vectors (n, dim), and those that the head sees (n, dim), not yet centred."""
        if self.body is None:
            found = self._centred(side["vectors"])
            assert self.adapter is not None
            adapted = self.adapter(found)
            return adapted, adapted
        contrasted, last = self.raw(side)
        return contrasted, last if self.own_head else self._centred(last)

    def raw(self, side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The contrasted vectors, and what the last layer says, (n, dim) each, before anything is taken off."""
        assert self.body is not None
        first = side["ids"] if isinstance(self.body, WholeTransformer) else side["states"]
        reads = self.body(first, side["mask"], side["slot"])
        return reads[self.cut.contrast], reads[-1]

    def _centred(self, vectors: Tensor) -> Tensor:
        return (F.normalize(vectors, dim=1) - self.centre) * self.scale

    def forward_side(self, side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The contrasted vectors (n, dim) and the logits of the classes (n, classes)."""
        contrasted, last = self.read(side)
        return contrasted, self.head(last)

    @torch.no_grad()
    def learn_centre(self, vectors: Tensor) -> None:
        """Sets what is taken off and the scale, from vectors (n, dim) of the source language before training."""
        unit = F.normalize(vectors, dim=1)
        self.centre.copy_(unit.mean(0))
        spread = (unit - self.centre).norm(dim=1).mean()
        self.scale.copy_(_SPREAD / spread.clamp(min=1e-6))

    def encode(self, batch: Any) -> dict[str, Tensor]:
        """Vectors and logits of each side that the batch has, row by row."""
        found = {}
        for name in ("target", "source"):
            side = side_of(batch, name)
            if side:
                found[f"{name}_vectors"], found[f"{name}_logits"] = self.forward_side(side)
        return found

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Cross-entropy of the target texts (stage 1: of the source texts), and the contrasts."""
        config = self.config
        if "target_logits" not in encoded:
            return {"cross_entropy": F.cross_entropy(encoded["source_logits"], batch["source_class"])}
        found = {"cross_entropy": F.cross_entropy(encoded["target_logits"], batch["target_class"])}
        if "source_logits" not in encoded:
            return found
        if config.source_ce > 0:
            found["source_cross_entropy"] = F.cross_entropy(encoded["source_logits"], batch["source_class"])
        if config.contrasts:
            target, source = encoded["target_vectors"], encoded["source_vectors"]
            if config.xrcl > 0:
                found["xrcl"] = xrcl(
                    target, source, temperature=config.temperature, numerator=config.xrcl_numerator
                )  # fmt: skip
            if config.xccl > 0:
                found["xccl"] = xccl(
                    target, source, batch["target_class"], batch["paired_class"], temperature=config.temperature
                )
        return found


def side_of(batch: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What a batch holds of one side."""
    prefix, parts = f"{name}_", ("vectors", "states", "ids", "mask", "slot")
    return {part: batch[prefix + part] for part in parts if prefix + part in batch}


class ColapModel(TrainableModel):
    """One branch for the source language, and one for each target language that begins as its copy.

    Args:
        facts: dim, layers, classes, targets, own_head.
        config: all options.
        encoder: whose layers are copied, where layers learn.
    """

    def __init__(self, facts: Mapping[str, Any], config: ColapConfig, encoder: TransformerEncoder | None) -> None:
        super().__init__()
        cut = Cut.of(config, int(facts["layers"]))

        def branch() -> Branch:
            return Branch(
                int(facts["dim"]), len(facts["class_names"]), cut, config, encoder, own_head=bool(facts["own_head"])
            )

        self.cut = cut
        self.source = branch()
        self.adapted = nn.ModuleDict({key_of(language): branch() for language in facts["targets"]})

    def branch(self, language: str) -> Branch:
        """The branch that answers for a language: its own, else the source's (zero-shot)."""
        adapted = dict(self.adapted.items())
        found = adapted.get(key_of(language), self.source)
        assert isinstance(found, Branch)
        return found

    def start(self, language: str) -> Branch:
        """A target language's branch, made equal to the source's."""
        branch = self.branch(language)
        branch.load_state_dict(self.source.state_dict())
        return branch

    def encode(self, batch: Any) -> dict[str, Tensor]:
        """As the source branch does."""
        return self.source.encode(batch)

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        """As the source branch does."""
        return self.source.losses(encoded, batch, progress)


def key_of(language: str) -> str:
    """A language code as the name of a module."""
    return "language_" + language.encode().hex()
