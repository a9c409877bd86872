"""A frozen text encoder that remembers every vector on the disk.

Systems that train a light head over frozen vectors ask for the same texts again and again: each seed, each arm of an
ablation, each evaluation. A text is encoded once per machine; files lie under the cache folder of
`kontrast.data.catalogue.cache_folder`, named by what the vectors depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kontrast.data.catalogue import cache_folder
from kontrast.encoders.base import encode_rows
from kontrast.encoders.text import TextEncoder
from kontrast.files import replacing

VERSION = 1
_SHARD = 65_536
_SHAPE = (
    "model_type", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "max_position_embeddings",
    "pad_token_id",
)  # fmt: skip

Vectors = npt.NDArray[np.float16]


class CachedTexts:
    """Unit vectors of texts by a frozen encoder, as float16.

    A vector is rounded to float16 whether it was found or made, so that the cache changes no number.

    Args:
        encoder: is used in evaluation mode and never changed.
        folder: where vectors are kept; None: a folder of the cache that is named by the encoder's weights.
        keep: False remembers within this object alone.
    """

    def __init__(self, encoder: TextEncoder, *, folder: Path | None = None, keep: bool = True) -> None:
        self.encoder = encoder
        self.key = weights_digest(encoder)
        self.folder = folder or cache_folder() / "texts" / self.key
        self.keep = keep
        self._known: dict[bytes, Vectors] = {}
        self._read: set[str] = set()

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.encoder.dim

    def vectors(self, texts: Sequence[str], describe: str | None = None) -> Vectors:
        """Vectors of n texts, float16 (n, dim); only those that are not known yet are computed.

        Args:
            texts: n strings.
            describe: words for the progress display while texts are computed.
        """
        names = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        if any(name not in self._known for name in names) and self.keep:
            self._read_shards()
        wanted: dict[bytes, str] = {}
        for name, text in zip(names, texts):
            if name not in self._known:
                wanted.setdefault(name, text)
        missing = list(wanted)
        for start in range(0, len(missing), _SHARD):
            part = missing[start : start + _SHARD]
            self._add(part, self._encoded([wanted[name] for name in part], describe))
        result = np.empty((len(texts), self.dim), dtype=np.float16)
        for row, name in enumerate(names):
            result[row] = self._known[name]
        return result

    def _encoded(self, texts: Sequence[str], describe: str | None) -> Vectors:
        vectors = encode_rows(self.encoder, self.encoder.prepare(texts), describe=describe)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        found: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float16)
        return found

    def _add(self, names: list[bytes], vectors: Vectors) -> None:
        self._known.update(zip(names, vectors))
        if not self.keep:
            return
        joined = b"".join(names)
        place = self.folder / f"{hashlib.blake2b(joined, digest_size=12).hexdigest()}.npy"
        self._read.add(place.name)
        # Names and vectors in one array of bytes: a shard is there whole or not at all.
        block = np.concatenate(
            [np.frombuffer(joined, np.uint8).reshape(len(names), 16), vectors.view(np.uint8).reshape(len(names), -1)], 1
        )
        with replacing(place) as temporary:
            np.save(temporary, block)

    def _read_shards(self) -> None:
        if not self.folder.is_dir():
            return
        for place in sorted(self.folder.glob("*.npy")):
            if place.name in self._read:
                continue
            self._read.add(place.name)
            try:
                block = np.load(place, allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue  # a damaged shard is made again
            if block.ndim != 2 or block.dtype != np.uint8 or block.shape[1] != 16 + 2 * self.dim:
                continue
            vectors = np.ascontiguousarray(block[:, 16:]).view(np.float16)
            self._known.update(zip((bytes(name) for name in block[:, :16]), vectors))


def weights_digest(encoder: TextEncoder) -> str:
    """A name of all that an encoder's vectors depend on: tokenizer, options, shape, weights, and the version here."""
    structure = encoder.structure()
    if "model" in structure:
        # Libraries add fields of their own to a model's configuration from release to release.
        structure["model"] = {name: structure["model"].get(name) for name in _SHAPE}
    digest = hashlib.blake2b(json.dumps([VERSION, structure], sort_keys=True).encode(), digest_size=12)
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
