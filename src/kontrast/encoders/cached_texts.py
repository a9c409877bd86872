"""A frozen text encoder that remembers every vector on the disk.

Systems that train a light head over frozen vectors ask for the same texts again and again: each seed, each arm of an
ablation, each evaluation. A text is encoded once per machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kontrast.encoders.base import encode_rows
from kontrast.encoders.kept import KeptArrays, Where
from kontrast.encoders.text import TextEncoder

VERSION = 1
_AT_ONCE = 65_536
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
        where: vectors are kept: "disk" (and memory), "memory" or "off".

    Attributes:
        key: name of all that the vectors depend on.
    """

    def __init__(self, encoder: TextEncoder, *, where: Where = "disk") -> None:
        self.encoder = encoder
        self.key = weights_digest(encoder)
        self.kept = KeptArrays(f"units-{self.key}", where)

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
        keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() for text in texts]
        found = {key: array for key, array in self.kept.get(keys).items() if array.shape == (self.dim,)}
        wanted = {key: text for key, text in zip(keys, texts) if key not in found}
        missing = list(wanted)
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            made = dict(zip(part, self._encoded([wanted[key] for key in part], describe)))
            self.kept.put(made)
            found |= made
        result = np.empty((len(texts), self.dim), dtype=np.float16)
        for row, key in enumerate(keys):
            result[row] = found[key]
        return result

    def _encoded(self, texts: Sequence[str], describe: str | None) -> Vectors:
        vectors = encode_rows(self.encoder, self.encoder.prepare(texts), describe=describe)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        found: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float16)
        return found


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
