"""Encoders of `seal`: how a fresh one is made, and the frozen encoder of single elements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from kontrast.data.documents import Collection
from kontrast.encoders import Encoder, TextEncoderConfig, resolve_text_encoder
from kontrast.encoders.cached_texts import CachedTexts
from kontrast.encoders.elements import ElementsEncoder
from kontrast.encoders.resolve import PACKAGED
from kontrast.encoders.saving import SavedModule, write_sentence_transformer
from kontrast.encoders.wordpieces import train_tokenizer
from kontrast.errors import CheckpointError, ConfigError
from kontrast.files import write_json
from kontrast.randomness import derive_seed
from kontrast.systems.seal.config import EncoderSection, SealConfig

MODULE = "kontrast.systems.seal.sentence_module.ElementsModule"
_SCRATCH = ("bag", "transformer")


@dataclass(frozen=True)
class Context:
    """The frozen text encoder of single elements.

    Attributes:
        name: of a packaged model, or None for one from a folder.
        tokens: of an element that are read.
        texts: gives and remembers the vectors.
    """

    name: str | None
    tokens: int
    texts: CachedTexts

    @classmethod
    def of(cls, section: EncoderSection) -> Context | None:
        """What the configuration asks for, or None.

        Raises:
            ConfigError: for an encoder that would have to be trained first.
        """
        if section.name != "elements" or section.context is None:
            return None
        if section.context in _SCRATCH:
            what = f"'{section.context}' is an encoder from scratch, and the vectors of elements are not trained"
            raise ConfigError(f"option 'encoder.context': {what}; use minilm, e5, a folder or none.")
        return cls._named(section.context, section.context_tokens)

    @classmethod
    def _named(cls, name: str, tokens: int) -> Context:
        encoder = resolve_text_encoder(TextEncoderConfig(name=name, max_tokens=tokens))
        return cls(name if name in PACKAGED else None, tokens, CachedTexts(encoder))

    def facts(self) -> dict[str, Any]:
        """What `from_facts` needs, JSON-able."""
        return {"name": self.name, "tokens": self.tokens, "key": self.texts.key}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Context:
        """The packaged encoder that a saved model names.

        Raises:
            CheckpointError: if the package now holds other weights.
        """
        found = cls._named(str(facts["name"]), int(facts["tokens"]))
        if found.texts.key != facts["key"]:
            what = (
                f"was trained over another version of the encoder '{facts['name']}' than the installed package brings"
            )
            raise CheckpointError(what, mend="install the version of constraints.txt, or train again")
        return found

    def save(self, folder: Path) -> None:
        """Writes the encoder into a new folder unless a package brings it."""
        if self.name is None:
            self.texts.encoder.save_sentence_transformers(folder)

    @classmethod
    def load(cls, folder: Path, tokens: int) -> Context:
        """What `save` wrote."""
        encoder = resolve_text_encoder(TextEncoderConfig(name=str(folder), max_tokens=tokens))
        return cls(None, tokens, CachedTexts(encoder))


def fresh_encoder(config: SealConfig, train: Collection, context: Context | None) -> Encoder:
    """The encoder before training; what it learns from texts comes from training documents and queries.

    Args:
        config: which one.
        train: training queries over all documents; only those that the queries name are looked at.
        context: the frozen encoder of single elements, whose tokenizer is used, or None.

    Raises:
        ConfigError, CheckpointError, MissingExtraError: as `resolve_text_encoder`.
    """
    section, seed = config.encoder, derive_seed(config.seed, "encoder")
    texts = [train.documents[number].plain() for number in train.used()]
    if section.name != "elements":
        chosen = TextEncoderConfig(
            name=section.name,
            dim=section.dim,
            vocab_size=section.vocab_size,
            layers=section.layers,
            max_tokens=section.max_tokens if section.name in _SCRATCH else None,
        )
        encoder = resolve_text_encoder(chosen, texts=[*texts, *train.texts], seed=seed)
        encoder.max_tokens = min(encoder.max_tokens, section.max_tokens)
        return encoder
    if context is not None:
        tokenizer = getattr(context.texts.encoder, "tokenizer")  # noqa: B009 - every text encoder here has one
    else:
        tokenizer = train_tokenizer([*texts, *train.texts], section.vocab_size)
    frequency = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        frequency[np.unique(encoding.ids)] += 1
    return ElementsEncoder(
        tokenizer,
        context=context.texts.dim if context is not None else 0,
        table=section.table,
        sketch=section.words,
        frequency=frequency,
        documents=len(texts),
        share=section.share,
        seed=seed,
    )


def save_elements(folder: Path, encoder: ElementsEncoder, context: Context | None, config: SealConfig) -> Path:
    """Writes a folder that ``SentenceTransformer(folder, trust_remote_code=True)`` loads where kontrast is installed.

    Texts with tags are read as documents, others as queries or plain documents.
    """

    def write(inside: Path) -> None:
        described = {
            "structure": encoder.structure(),
            "context": context.facts() if context is not None else None,
            "units": config.encoder.context_units,
            "read_as": config.read_as,
        }
        write_json(inside / "elements.json", described)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
        save_file(tensors, inside / "model.safetensors")
        if context is not None:
            context.save(inside / "context")

    return write_sentence_transformer(folder, [SavedModule(MODULE, write)], prefix="", dim=encoder.dim)
