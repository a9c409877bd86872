"""The folder layout of sentence-transformers: modules.json, one folder per module, prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from kontrast.encoders.heads import ProjectionHead
from kontrast.extras import require
from kontrast.files import replacing, write_json

PROMPT = "default"


@dataclass(frozen=True)
class SavedModule:
    """One entry of modules.json.

    Attributes:
        type: dotted class name, as every release since 3.0 resolves it.
        write: writes the module's files into the (existing) folder that it is given.
    """

    type: str
    write: Callable[[Path], None]


def write_sentence_transformer(
    folder: str | Path,
    modules: Sequence[SavedModule],
    *,
    prefix: str,
    dim: int,
    head: ProjectionHead | None = None,
) -> Path:
    """Writes a model folder, whole or not at all; the first module lies at its top."""
    chain = [*modules, *(_dense_modules(head) if head is not None else [])]
    dim = head.dim if head is not None else dim
    with replacing(folder) as temporary:
        temporary.mkdir()
        listed = []
        for number, module in enumerate(chain):
            place = "" if number == 0 else f"{number}_{module.type.rsplit('.', 1)[1]}"
            (temporary / place).mkdir(exist_ok=True)
            module.write(temporary / place)
            listed.append({"idx": number, "name": str(number), "path": place, "type": module.type})
        write_json(temporary / "modules.json", listed)
        prompts = {"prompts": {PROMPT: prefix}, "default_prompt_name": PROMPT} if prefix else {}
        write_json(temporary / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **prompts})
        (temporary / "README.md").write_text(_CARD.format(dim=dim, name=Path(folder).name), encoding="utf-8")
    return Path(folder)


def normalise_module() -> SavedModule:
    """L2 normalisation behind an encoder."""
    return SavedModule("sentence_transformers.models.Normalize", lambda inside: None)


def own_tokenizer(tokenizer: Any) -> Any:
    """A private copy of a tokenizer (or of its JSON text) that neither pads nor cuts, and trims texts.

    Releases of sentence-transformers differ in whether they trim; with the trimming in the tokenizer they agree.
    """
    tokenizers = require("tokenizers", extra="text", purpose="to tokenise texts")
    facts = json.loads(tokenizer if isinstance(tokenizer, str) else tokenizer.to_str())
    trim = {"type": "Strip", "strip_left": True, "strip_right": True}
    given = facts.get("normalizer")
    steps = given["normalizers"] if given and given["type"] == "Sequence" else [given] if given else []
    if trim not in steps[:1]:
        facts["normalizer"] = {"type": "Sequence", "normalizers": [trim, *steps]}
    facts["padding"] = facts["truncation"] = None
    return tokenizers.Tokenizer.from_str(json.dumps(facts, ensure_ascii=False))


def _dense_modules(head: ProjectionHead) -> list[SavedModule]:
    layers = list(head.network)
    modules = []
    for position, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            activated = any(isinstance(after, nn.GELU) for after in layers[position + 1 : position + 2])
            modules.append(_dense_module(layer, nn.GELU() if activated else nn.Identity()))
    return modules


def _dense_module(layer: nn.Linear, activation: nn.Module) -> SavedModule:
    def write(inside: Path) -> None:
        config = {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
            "bias": layer.bias is not None,
            "activation_function": f"{type(activation).__module__}.{type(activation).__qualname__}",
        }
        write_json(inside / "config.json", config)
        weights = {f"linear.{name}": value.detach().float().cpu() for name, value in layer.named_parameters()}
        save_file(weights, inside / "model.safetensors")

    return SavedModule("sentence_transformers.models.Dense", write)


_CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers, feature-extraction, sentence-similarity]
---
# {name}

A text encoder trained with kontrast. Vectors have {dim} dimensions; compare them by cosine.

    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer("{name}")
    vectors = model.encode(["a text", "another text"])
"""
