"""What the frozen part of the encoder says of a text: computed once for each text and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast import progress
from kontrast.data.languages import LanguageTexts
from kontrast.encoders.kept import KeptArrays, Where
from kontrast.encoders.layered import FrozenLayers, Place, SlotRows, read_place
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.systems.colap.prompt import Prompt, slot_rows

VERSION = 1
"""Part of every key; another one wherever the numbers would be others."""
_SHOWN = 200
"""Fewer new texts than this take seconds, and nobody needs to be told."""
_KEEP_EVERY = 256


@dataclass(frozen=True, eq=False)
class Readings:
    """What the trained part gets to see of n texts; one of the three is there.

    Attributes:
        vectors: (n, d), read from the frozen encoder.
        states: n arrays (tokens, d) of float16, with the tokens' `rows`.
        rows: the tokens.
    """

    vectors: npt.NDArray[np.float32] | None = None
    states: Sequence[npt.NDArray[np.float16]] | None = None
    rows: SlotRows | None = None
    pad: int = 0

    def __len__(self) -> int:
        return len(self.vectors) if self.vectors is not None else len(self.rows) if self.rows is not None else 0

    def take(self, chosen: npt.NDArray[np.int64]) -> Readings:
        """The texts at these places."""
        return replace(
            self,
            vectors=None if self.vectors is None else self.vectors[chosen],
            states=None if self.states is None else [self.states[place] for place in chosen],
            rows=None if self.rows is None else self.rows[chosen],
        )

    def tensors(self) -> dict[str, Tensor]:
        """A batch of all texts: vectors; or states (n, longest, d), mask and slot; or ids, mask and slot."""
        if self.vectors is not None:
            return {"vectors": torch.from_numpy(self.vectors)}
        assert self.rows is not None
        batch = self.rows.padded(self.pad)
        if self.states is None:
            return batch
        padded = torch.zeros(*batch["ids"].shape, self.states[0].shape[1] if self.states else 1)
        for row, own in enumerate(self.states):
            padded[row, : len(own)] = torch.from_numpy(own).float()
        return {"states": padded, "mask": batch["mask"], "slot": batch["slot"]}


class TextReader:
    """Reads texts through the frozen part of an encoder, with the prompt around them.

    Args:
        encoder: gives the encoder; called when a text has to be read that is not kept.
        key: equal for equal weights of the encoder.
        prompt: the template.
        mode: "vectors" read from the whole frozen encoder, "states" of its first layers, or "ids" for no frozen part.
        layers: frozen layers.
        place: where a vector is read.
        where: where readings are kept.
    """

    def __init__(
        self,
        encoder: Callable[[], TransformerEncoder],
        key: str,
        prompt: Prompt,
        *,
        mode: str,
        layers: int,
        place: Place,
        where: Where,
    ) -> None:
        self.encoder, self.prompt, self.mode, self.layers, self.place = encoder, prompt, mode, layers, place
        facts = f"{VERSION}|{key}|{prompt.template}|{prompt.cut}|{mode}|{layers}|{place if mode == 'vectors' else ''}"
        name = hashlib.blake2b(facts.encode(), digest_size=10).hexdigest()
        self.kept = KeptArrays(f"{mode}-{name}", where)

    def read(self, data: LanguageTexts) -> Readings:
        """What the trained part gets to see of the texts."""
        if self.mode == "ids":
            encoder = self.encoder()
            return Readings(rows=slot_rows(self.prompt, data.fields, encoder), pad=encoder._pad)
        keys = [hashlib.blake2b(_joined(row).encode(), digest_size=16).hexdigest() for row in self._cells(data)]
        found = self.kept.get(keys)
        missing = {key: place for place, key in enumerate(keys) if key not in found}
        if missing:
            found |= self._compute(data, missing)
        if self.mode == "vectors":
            width = found[keys[0]].shape[-1] if keys else 1
            vectors = np.stack([found[key] for key in keys]) if keys else np.zeros((0, width), np.float32)
            return Readings(vectors=vectors.astype(np.float32))
        encoder = self.encoder()
        rows = slot_rows(self.prompt, data.fields, encoder)
        return Readings(states=[found[key] for key in keys], rows=rows, pad=encoder._pad)

    def _cells(self, data: LanguageTexts) -> list[tuple[str, ...]]:
        return list(zip(*(data.fields[name] for name in dict.fromkeys(self.prompt.fields))))

    def _compute(self, data: LanguageTexts, missing: dict[str, int]) -> dict[str, npt.NDArray[np.generic]]:
        encoder = self.encoder()
        names, places = list(missing), np.asarray(list(missing.values()), dtype=np.int64)
        rows = slot_rows(self.prompt, data.take(places).fields, encoder)
        found: dict[str, npt.NDArray[np.generic]] = {}
        fresh: dict[str, npt.NDArray[np.generic]] = {}
        shown = len(names) >= _SHOWN
        with progress.task("reading texts", len(names)) if shown else nullcontext() as work:
            for number, states in FrozenLayers(encoder, self.layers).states(rows):
                fresh[names[number]] = self._kept_form(states, int(rows.slot[number]))
                if work is not None:
                    work.advance()
                if len(fresh) >= _KEEP_EVERY:
                    self.kept.put(fresh)
                    found |= fresh
                    fresh = {}
        self.kept.put(fresh)
        return found | fresh

    def _kept_form(self, states: npt.NDArray[np.float32], slot: int) -> npt.NDArray[np.generic]:
        if self.mode == "states":
            return states.astype(np.float16)
        own = torch.from_numpy(states)[None]
        mask = torch.ones(1, len(states), dtype=torch.int64)
        return read_place(own, mask, torch.tensor([slot]), self.place)[0].numpy()


def _joined(cells: tuple[str, ...]) -> str:
    return "\x1f".join(cells)
