"""Encoder: from the options to the encoder, and to and from the folder of a saved model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kontrast.config import BaseConfig
from kontrast.encoders import TextEncoderConfig, build_encoder, resolve_text_encoder
from kontrast.encoders.resolve import PACKAGED
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import CheckpointError, ConfigError
from kontrast.files import content_hash, read_json, write_json

FOLDER = "encoder"


def find_encoder(config: TextEncoderConfig, texts: Sequence[str], seed: int) -> TransformerEncoder:
    """The encoder that is asked for; texts and seed serve one from scratch.

    Raises:
        ConfigError: if it is no transformer.
    """
    if config.name == "bag":
        raise ConfigError("option 'text.name': 'bag' has no layers and no slot; use e5, transformer or a folder.")
    if config.name in PACKAGED:
        return _packaged(config.to_yaml())
    found = resolve_text_encoder(config, texts=texts, seed=seed)
    if not isinstance(found, TransformerEncoder):
        raise ConfigError(f"option 'text.name': '{config.name}' is no transformer; use e5, or a folder with one.")
    return found.eval()


@lru_cache(maxsize=1)
def _packaged(options: str) -> TransformerEncoder:
    """Frozen and costly to read: one for this process."""
    import yaml

    config: BaseConfig = TextEncoderConfig(**yaml.safe_load(options))
    assert isinstance(config, TextEncoderConfig)
    found = resolve_text_encoder(config)
    if not isinstance(found, TransformerEncoder):
        raise ConfigError(f"option 'text.name': '{config.name}' is no transformer; use e5, or a folder with one.")
    return found.requires_grad_(False).eval()


def key_of_encoder(config: TextEncoderConfig, encoder: TransformerEncoder) -> str:
    """Text that is equal for equal weights, tokenizer and longest input."""
    limits = f"{config.layers}|{encoder.max_tokens}|{encoder.prefix}"
    if config.name in PACKAGED:
        return f"{config.name}|{limits}"
    folder = Path(config.name).expanduser()
    if folder.is_dir():
        names = ("config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json")
        hashes = [content_hash(folder / name) for name in names if (folder / name).is_file()]
        return f"{'|'.join(hashes)}|{limits}"
    digest = hashlib.sha256(encoder.tokenizer.to_str().encode())
    for name, tensor in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"{digest.hexdigest()}|{limits}"


def save_encoder(encoder: TransformerEncoder, folder: Path, *, weights: bool) -> None:
    """Writes structure.json, and model.safetensors unless all weights are in the trained part."""
    place = folder / FOLDER
    place.mkdir()
    write_json(place / "structure.json", encoder.structure())
    if weights:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in
                   encoder.model.state_dict().items()}  # fmt: skip
        save_file(tensors, place / "model.safetensors")


def load_encoder(folder: Path, *, weights: bool) -> TransformerEncoder:
    """What `save_encoder` wrote.

    Raises:
        CheckpointError: if a file is missing or damaged.
    """
    place = folder / FOLDER
    mend = "copy the model again, or train it again"
    structure: Any = read_json(place / "structure.json")
    if not isinstance(structure, dict):
        raise CheckpointError("is damaged", file=place / "structure.json", mend=mend)
    found = build_encoder(structure)
    if not isinstance(found, TransformerEncoder):
        raise CheckpointError("describes no transformer", file=place / "structure.json", mend=mend)
    if weights:
        try:
            found.model.load_state_dict(load_file(place / "model.safetensors"))
        except (SafetensorError, OSError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"is damaged ({reason})", file=place / "model.safetensors", mend=mend) from None
    return found.requires_grad_(False).eval()
