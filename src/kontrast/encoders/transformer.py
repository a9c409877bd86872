"""Transformer text encoders: from scratch, or from a local folder in Hugging Face or sentence-transformers layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kontrast.encoders.base import Batch, Runner, seeded
from kontrast.encoders.heads import ProjectionHead
from kontrast.encoders.inference import current
from kontrast.encoders.packed import PackedRows, PackedTransformer, packable
from kontrast.encoders.saving import (
    SavedModule,
    normalise_module,
    own_tokenizer,
    write_sentence_transformer,
)
from kontrast.encoders.text import TextEncoder, tokenize_contents
from kontrast.encoders.tokens import TokenIds
from kontrast.encoders.wordpieces import PAD
from kontrast.errors import CheckpointError, DataError
from kontrast.extras import require
from kontrast.files import read_json, write_json

Pooling = Literal["mean", "cls"]

# Tokens of a batch: enough to fill the products, few enough that a layer's activations stay in the cache.
_TOKENS = 2048
_PURPOSE = "to run transformer encoders"
_MODULES = ("Transformer", "StaticEmbedding", "Pooling", "Normalize", "Dropout")
_TOKEN_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token", "eos_token")


class TransformerEncoder(TextEncoder):
    """A transformer whose token vectors are pooled into one vector per text.

    Args:
        model: a transformers encoder that maps input_ids and attention_mask to last_hidden_state.
        tokenizer: a `tokenizers.Tokenizer` or its JSON text.
        pooling: "mean" over all tokens of the text, or "cls", the first one.
        normalize: whether vectors are scaled to length 1.
        max_tokens: longest input, special tokens included.
        prefix: put before every text.
        names: special tokens by role ("pad_token" ...), kept for the saved tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        pooling: Pooling = "mean",
        normalize: bool = False,
        max_tokens: int = 256,
        prefix: str = "",
        names: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got '{pooling}'")
        # The pooler is trained for another task and would be a parameter without a gradient.
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.model = model
        self.tokenizer = own_tokenizer(tokenizer)
        self.dim = int(model.config.hidden_size)
        self.pooling, self.normalize = pooling, normalize
        self.max_tokens, self.prefix = max_tokens, prefix
        self.names = dict(names or {})
        self._before, self._after = _special_ends(self.tokenizer)
        pad = self.tokenizer.token_to_id(self.names.get("pad_token", PAD))
        self._pad = pad if pad is not None else int(model.config.pad_token_id or 0)

    @classmethod
    def from_scratch(
        cls,
        tokenizer: Any,
        *,
        dim: int,
        layers: int,
        heads: int,
        max_tokens: int,
        dropout: float = 0.1,
        prefix: str = "",
        seed: int = 0,
    ) -> TransformerEncoder:
        """A small BERT with mean pooling and a feed-forward width of 4·dim.

        Raises:
            ValueError: if `dim` is not a multiple of `heads`.
        """
        transformers = require("transformers", extra="text", purpose=_PURPOSE)
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got {dim} and {heads}")
        config = transformers.BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=dim,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * dim,
            max_position_embeddings=max_tokens,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            type_vocab_size=1,
            pad_token_id=tokenizer.token_to_id(PAD),
        )
        with seeded(seed, "transformer encoder"):
            model = transformers.BertModel(config, add_pooling_layer=False)
        names = dict(zip(_TOKEN_NAMES, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))
        return cls(model, tokenizer, max_tokens=max_tokens, prefix=prefix, names=names)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        layers: int | None = None,
        max_tokens: int | None = None,
        prefix: str | None = None,
    ) -> TransformerEncoder:
        """A ready model from a local folder; nothing is ever looked up on the network.

        Args:
            folder: config.json, model.safetensors (or its shards) and tokenizer.json; pooling, normalisation, longest
                input and prompt are taken from the files of sentence-transformers where they are there, else mean
                pooling and no normalisation.
            layers: keep only the first ones.
            max_tokens: cut texts at this length, at most what the model can read.
            prefix: replaces the folder's default prompt.

        Raises:
            CheckpointError: if a file is missing or damaged, weights are only there as pickle, or a part of the model
                is of a kind that is not supported.
        """
        folder = Path(folder)
        transformers = require("transformers", extra="text", purpose=_PURPOSE)
        layout = read_layout(folder)
        _check_files(folder)
        with _quiet(transformers):
            try:
                config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
                if layers is not None:
                    if layers > config.num_hidden_layers:
                        what = f"has {config.num_hidden_layers} layers, fewer than the {layers} asked for"
                        raise CheckpointError(what, file=folder, mend="ask for fewer, or leave 'layers' out")
                    config.num_hidden_layers = layers
                model, info = transformers.AutoModel.from_pretrained(
                    str(folder), config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            except CheckpointError:
                raise
            except Exception as error:  # transformers raises many kinds for a folder that it cannot use
                reason = " ".join(str(error).split())[:200]
                raise CheckpointError(f"cannot be loaded as a text model ({reason})", file=folder) from None
        missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
        if missing:
            what = f"lacks the weights {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}"
            raise CheckpointError(
                what, file=folder / "model.safetensors", mend="give the folder of a whole encoder model"
            )
        tokenizer, names, stated = _read_tokenizer(folder)
        readable = _positions(config)
        limit = min(number for number in (layout.max_tokens or stated or 512, readable, max_tokens) if number)
        return cls(
            model.float(),
            tokenizer,
            pooling=layout.pooling,
            normalize=layout.normalize,
            max_tokens=limit,
            prefix=layout.prefix if prefix is None else prefix,
            names=names,
        )

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> TransformerEncoder:
        """The inverse of `structure`; the weights are to be loaded."""
        transformers = require("transformers", extra="text", purpose=_PURPOSE)
        settings = dict(structure["model"])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        options = {name: structure[name] for name in ("pooling", "normalize", "max_tokens", "prefix", "names")}
        return cls(transformers.AutoModel.from_config(config), structure["tokenizer"], **options)

    def structure(self) -> dict[str, Any]:
        """Model configuration, tokenizer and options, JSON-able."""
        return {
            "encoder": "transformer",
            "model": self.model.config.to_dict(),
            "tokenizer": self.tokenizer.to_str(),
            "pooling": self.pooling,
            "normalize": self.normalize,
            "max_tokens": self.max_tokens,
            "prefix": self.prefix,
            "names": self.names,
        }

    def tokenize(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of texts, without special tokens, cut so that with them they fit `max_tokens`."""
        most = self.max_tokens - len(self._before) - len(self._after)
        return tokenize_contents(self.tokenizer, texts, self.prefix, most)

    def collate(self, rows: TokenIds) -> Batch:
        """input_ids and attention_mask, both int64 (n, longest)."""
        ids, mask = rows.padded(self._pad, self._before, self._after)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        mask = batch["attention_mask"]
        states = self.model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            vectors = states[:, 0].float()
        else:
            weights = mask[..., None].to(states.dtype)
            vectors = (states * weights).sum(1).float() / mask.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(vectors, dim=1) if self.normalize else vectors

    def lengths(self, rows: TokenIds) -> npt.NDArray[np.int64]:
        """Tokens per row, special tokens included."""
        return rows.lengths + len(self._before) + len(self._after)

    def runner(self) -> Runner:
        """Without padding where the model allows it, one thread per core; else as `forward`, on a GPU in bf16 if asked.

        Products of bf16 are asked for with `kontrast.encoders.inference`.
        """
        setting = current()
        low = setting.precision == "bf16"
        if packable(self.model) and not (self._forward_hooks or self._forward_pre_hooks):
            setting.lowered |= low
            packed = PackedTransformer(self.model, torch.bfloat16 if low else torch.float32)

            def compute(rows: TokenIds) -> Tensor:
                batch = PackedRows.of(rows, self._before, self._after)
                pooled = packed(batch, self.pooling)
                vectors = torch.empty_like(pooled)
                vectors[torch.from_numpy(batch.order)] = pooled
                return F.normalize(vectors, dim=1) if self.normalize else vectors

            return Runner(compute, cost=_TOKENS, threads=torch.get_num_threads())
        plain = super().runner()
        if not low or self.device.type != "cuda":
            return plain
        setting.lowered = True

        def autocast(rows: TokenIds) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return plain.compute(rows)

        return Runner(autocast)

    def save_sentence_transformers(self, folder: str | Path, *, head: ProjectionHead | None = None) -> Path:
        """Writes Transformer, Pooling and, if vectors are normalised, Normalize; see the base class."""
        modules = [
            SavedModule("sentence_transformers.models.Transformer", self._write_model),
            SavedModule("sentence_transformers.models.Pooling", self._write_pooling),
            *([normalise_module()] if self.normalize else []),
        ]
        return write_sentence_transformer(folder, modules, prefix=self.prefix, dim=self.dim, head=head)

    def _write_model(self, inside: Path) -> None:
        with _quiet(require("transformers", extra="text", purpose=_PURPOSE)):
            self.model.save_pretrained(str(inside))
        self.tokenizer.save(str(inside / "tokenizer.json"))
        write_json(
            inside / "tokenizer_config.json",
            {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_tokens, **self.names},
        )
        write_json(inside / "sentence_bert_config.json", {"max_seq_length": self.max_tokens, "do_lower_case": False})

    def _write_pooling(self, inside: Path) -> None:
        modes = {"pooling_mode_cls_token": self.pooling == "cls", "pooling_mode_mean_tokens": self.pooling == "mean"}
        write_json(inside / "config.json", {"word_embedding_dimension": self.dim, **modes})


@dataclass(frozen=True)
class Layout:
    """What the files of sentence-transformers in a folder say.

    Attributes:
        kind: "transformer", or "static" for a table of token vectors.
        pooling: how token vectors become one.
        normalize: whether vectors are scaled to length 1.
        max_tokens: longest input, None if it is not stated.
        prefix: the default prompt.
    """

    kind: Literal["transformer", "static"] = "transformer"
    pooling: Pooling = "mean"
    normalize: bool = False
    max_tokens: int | None = None
    prefix: str = ""


def read_layout(folder: Path) -> Layout:
    """Reads modules.json and what it names; a plain Hugging Face folder gives the defaults.

    Raises:
        CheckpointError: if the folder is missing, or a module or a way of pooling is not supported.
    """
    if not folder.is_dir():
        raise CheckpointError("no such folder", file=folder, mend="give one with config.json and model.safetensors")
    if not (folder / "modules.json").is_file():
        return Layout()
    listed = read_json(folder / "modules.json")
    modules = {str(entry["type"]).rsplit(".", 1)[-1]: folder / entry["path"] for entry in listed}
    strange = [name for name in modules if name not in _MODULES]
    if strange:
        mend = "give a model of Transformer or StaticEmbedding with Pooling and Normalize"
        raise CheckpointError(f"has a module of type {strange[0]}, which is not supported", file=folder, mend=mend)
    said = folder / "config_sentence_transformers.json"
    facts = read_json(said) if said.is_file() else {}
    prefix = (facts.get("prompts") or {}).get(facts.get("default_prompt_name") or "", "")
    pooling: Pooling = "mean"
    if "Pooling" in modules:
        pooling = _read_pooling(modules["Pooling"] / "config.json")
    bert = folder / "sentence_bert_config.json"
    limit = read_json(bert).get("max_seq_length") if bert.is_file() else None
    return Layout(
        kind="static" if "StaticEmbedding" in modules else "transformer",
        pooling=pooling,
        normalize="Normalize" in modules,
        max_tokens=limit,
        prefix=prefix or "",
    )


def _read_pooling(path: Path) -> Pooling:
    config = read_json(path)
    stated = config.get("pooling_mode")
    on = [stated] if isinstance(stated, str) else stated
    if on is None:
        switches = {name.removeprefix("pooling_mode_"): value for name, value in config.items()}
        on = [name for name, value in switches.items() if value is True and f"pooling_mode_{name}" in config]
    short = [{"mean_tokens": "mean", "cls_token": "cls"}.get(name, name) for name in on]
    if short == ["mean"]:
        return "mean"
    if short == ["cls"]:
        return "cls"
    what = f"pools by {', '.join(short)}, which is not supported"
    raise CheckpointError(what, file=path, mend="use a model that pools by mean or cls")


def _check_files(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            mend = "save it with transformers: model.save_pretrained(folder), tokenizer.save_pretrained(folder)"
            raise CheckpointError(f"has no {name}", file=folder, mend=mend)
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        what = "has no model.safetensors"
        if any(folder.glob("*.bin")):
            what = "holds its weights only as pickle (.bin), which is never loaded"
        raise CheckpointError(what, file=folder, mend="save it again with transformers: model.save_pretrained(folder)")


def _read_tokenizer(folder: Path) -> tuple[Any, dict[str, str], int | None]:
    """The tokenizer, its special tokens by role, and the longest input it states."""
    tokenizers = require("tokenizers", extra="text", purpose="to tokenise texts")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"is not a tokenizer ({error})", file=folder / "tokenizer.json") from None
    facts: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            facts |= read_json(folder / name)
    names = {}
    for role in _TOKEN_NAMES:
        token = facts.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            names[role] = token
    limit = facts.get("model_max_length")
    return tokenizer, names, int(limit) if isinstance(limit, (int, float)) and limit < 10**6 else None


def _positions(config: Any) -> int | None:
    most = getattr(config, "max_position_embeddings", None)
    if most is None:
        return None
    # The RoBERTa family counts positions from the padding id on, so that its table has some unused rows.
    offset = int(config.pad_token_id or 0) + 1 if "roberta" in config.model_type or config.model_type == "mpnet" else 0
    return int(most) - offset


def _special_ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after every text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise DataError("the tokenizer changes a text when it adds special tokens", mend="use another tokenizer.json")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keeps transformers' load reports and bars off the terminal; kontrast reports what matters itself."""
    logging = transformers.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
