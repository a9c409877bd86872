"""Structured documents as gated sums of their elements: whole documents, minutes on a CPU.

A row is a list of units (elements that belong together) in reading order. Each unit has the class of its tag, its
place, its words, and, if it is among the first of the document, the vector that a frozen text encoder gives its text.
The row's vector has up to three parts, each of length 1 before they are weighted against each other:

- *context*: the frozen vectors, each times exp(gate of its tag class + attention to the vector itself) and a falling
  factor of its place, summed, and passed through a linear map that starts as the identity;
- *table*: trainable token vectors, summed over the words with the weights of the words;
- *words*: the words themselves. Token t with weighted count c has the value sqrt(c)·exp(w_t) and a fixed place and sign
  among `sketch` entries (feature hashing, arXiv 0902.2206), so that the dot product of two rows is about that of their
  bags of words. The weights w_t start from the inverse document frequency.

Learned are the gates, the attention, the fall with the place, the map, token vectors and word weights. A query is a row
of one unit without a tag, whose gates drop out by normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.data.documents import TAG_CLASSES
from kontrast.data.tables import ColumnKind
from kontrast.encoders.base import Batch, Encoder, seeded
from kontrast.encoders.saving import own_tokenizer
from kontrast.encoders.tokens import flat_positions
from kontrast.randomness import numpy_rng

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ElementRows:
    """Ragged rows of units with ragged words.

    Attributes:
        units: int64 (n + 1,); row i owns the units ``units[i]:units[i + 1]``.
        tag: int64 (U,) classes of tags, positions in `TAG_CLASSES`.
        place: float32 (U,) position of the unit in its document, from 0.
        context: int64 (U,) row of the unit's vector in `vectors`, -1 where it has none.
        words: int64 (U + 1,); unit u owns the words ``words[u]:words[u + 1]``.
        token: int32 (W,) token ids, each once per unit.
        count: float32 (W,) how often.
        vectors: float16 (C, d) of the frozen encoder.
    """

    units: Integers
    tag: Integers
    place: npt.NDArray[np.float32]
    context: Integers
    words: Integers
    token: npt.NDArray[np.int32]
    count: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.units) - 1

    def __getitem__(self, index: Integers | slice) -> ElementRows:
        """The rows at these positions, in that order."""
        starts, sizes = self.units[:-1][index], np.diff(self.units)[index]
        return self._of_units(flat_positions(starts, sizes), sizes)

    def keep(self, mask: npt.NDArray[np.bool_]) -> ElementRows:
        """The units where `mask` (U,) is true; rows may become empty."""
        kept = np.concatenate([[0], np.cumsum(mask)])[self.units]
        return self._of_units(np.flatnonzero(mask), np.diff(kept))

    def untagged(self) -> ElementRows:
        """The same rows with the class "none" for every tag."""
        return replace(self, tag=np.zeros_like(self.tag))

    def _of_units(self, chosen: Integers, sizes: Integers) -> ElementRows:
        starts, lengths = self.words[:-1][chosen], np.diff(self.words)[chosen]
        flat = flat_positions(starts, lengths)
        return ElementRows(
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            self.tag[chosen],
            self.place[chosen],
            self.context[chosen],
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            self.token[flat],
            self.count[flat],
            self.vectors,
        )

    @property
    def sizes(self) -> Integers:
        """Units per row, (n,)."""
        return np.diff(self.units)

    @property
    def row_of_unit(self) -> Integers:
        """(U,) the row of each unit."""
        return np.repeat(np.arange(len(self)), self.sizes)


def element_rows(
    tokens: Sequence[Sequence[Sequence[int]]],
    tags: Sequence[Sequence[int]],
    context: Sequence[Sequence[int]],
    vectors: npt.NDArray[np.float16],
) -> ElementRows:
    """Rows from nested lists: per row and unit its token ids, its tag's class, and its row in `vectors` (or -1)."""
    sizes = np.array([len(row) for row in tags], dtype=np.int64)
    flat = [np.unique(np.asarray(unit, dtype=np.int32), return_counts=True) for row in tokens for unit in row]
    empty = np.empty(0, dtype=np.int32)
    return ElementRows(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.array([tag for row in tags for tag in row], dtype=np.int64),
        np.concatenate([np.empty(0), *(np.arange(size) for size in sizes)]).astype(np.float32),
        np.array([place for row in context for place in row], dtype=np.int64),
        np.concatenate([[0], np.cumsum([len(ids) for ids, _ in flat])]).astype(np.int64),
        np.concatenate([empty, *(ids for ids, _ in flat)]),
        np.concatenate([empty, *(counts for _, counts in flat)]).astype(np.float32),
        vectors,
    )


class ElementsEncoder(Encoder):
    """Rows of elements to unit vectors (n, dim); see the module for the parts of a vector.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or its JSON text.
        context: length of the frozen vectors; 0 leaves the part out.
        table: length of the trainable token vectors; 0 leaves the part out.
        sketch: entries of the hashed words; 0 leaves the part out.
        frequency: (vocabulary,) documents of the training data that hold each token, and
        documents: their number; None leaves all word weights at 0.
        share: of the context in a vector's squared length, where there are other parts.
        seed: token vectors and hashing depend on it alone.
    """

    reads: ClassVar[ColumnKind] = "text"
    slot: Tensor
    sign: Tensor

    def __init__(
        self,
        tokenizer: Any,
        *,
        context: int = 0,
        table: int = 0,
        sketch: int = 0,
        frequency: npt.NDArray[np.int64] | None = None,
        documents: int = 0,
        share: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not context + table + sketch:
            raise ValueError("an elements encoder needs at least one of context, table and sketch")
        self.tokenizer = own_tokenizer(tokenizer)
        self.sizes = {"context": context, "table": table, "words": sketch}
        self.dim = context + table + sketch
        self.seed = seed
        size = self.tokenizer.get_vocab_size()
        weights = torch.zeros(size)
        if frequency is not None:
            weights = torch.from_numpy(np.log(np.log((1 + documents) / (1 + frequency)) + 1)).float()
        self.word_weights = nn.Parameter(weights)
        classes = len(TAG_CLASSES)
        self.word_gates = nn.Parameter(torch.zeros(classes))
        self.share = share
        if context:
            self.gates = nn.Parameter(torch.zeros(classes))
            self.attention = nn.Parameter(torch.zeros(context))
            self.fall = nn.Parameter(torch.ones(()))
            self.map = nn.Linear(context, context, bias=False)
            nn.init.eye_(self.map.weight)
        with seeded(seed, "elements encoder"):
            self.table = nn.Parameter(torch.randn(size, table) / table**0.5) if table else None
        if sketch:
            rng = numpy_rng(seed, "hashed words")
            self.register_buffer("slot", torch.from_numpy(rng.integers(sketch, size=size)))
            self.register_buffer("sign", torch.from_numpy(rng.choice([-1.0, 1.0], size=size)).float())

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> ElementsEncoder:
        """The inverse of `structure`; the weights are to be loaded."""
        sizes = structure["sizes"]
        return cls(
            structure["tokenizer"],
            context=sizes["context"],
            table=sizes["table"],
            sketch=sizes["words"],
            share=structure["share"],
            seed=structure["seed"],
        )

    def structure(self) -> dict[str, Any]:
        """Tokenizer, sizes, share and seed, JSON-able."""
        return {
            "encoder": "elements",
            "tokenizer": self.tokenizer.to_str(),
            "sizes": self.sizes,
            "share": self.share,
            "seed": self.seed,
        }

    def prepare(self, cells: ElementRows) -> ElementRows:
        """The rows as they are: `element_rows` has prepared them."""
        return cells

    def lengths(self, rows: ElementRows) -> Integers:
        """Words per row."""
        return np.diff(rows.words[rows.units])

    def collate(self, rows: ElementRows) -> Batch:
        """Flat tensors of units and words; words of one row with one token share a slot."""
        owner = rows.row_of_unit
        word_unit = np.repeat(np.arange(len(owner)), np.diff(rows.words))
        size = self.word_weights.shape[0]
        keys, place = np.unique(owner[word_unit] * size + rows.token, return_inverse=True)
        with_vector = np.flatnonzero(rows.context >= 0)
        batch = {
            "rows": torch.zeros(len(rows)),
            "tag": torch.from_numpy(rows.tag),
            "word_unit": torch.from_numpy(word_unit),
            "word_slot": torch.from_numpy(place.reshape(-1)),
            "count": torch.from_numpy(rows.count),
            "slot_row": torch.from_numpy(keys // size),
            "slot_token": torch.from_numpy(keys % size),
        }
        if self.sizes["context"]:
            batch["context"] = torch.from_numpy(rows.vectors[rows.context[with_vector]].astype(np.float32))
            batch["context_unit"] = torch.from_numpy(with_vector)
            batch["context_row"] = torch.from_numpy(owner[with_vector])
            batch["place"] = torch.from_numpy(rows.place[with_vector])
        return batch

    def forward(self, batch: Batch) -> Tensor:
        """Unit vectors (n, dim)."""
        n = len(batch["rows"])
        parts = []
        if self.sizes["context"]:
            gate = self.gates[batch["tag"][batch["context_unit"]]] - self.fall * torch.log1p(batch["place"] / 3)
            gate = gate + batch["context"] @ self.attention
            weighted = batch["context"] * gate.exp()[:, None]
            summed = weighted.new_zeros(n, weighted.shape[1]).index_add(0, batch["context_row"], weighted)
            parts.append(self.map(F.normalize(summed, dim=1)))
        if self.table is not None or self.sizes["words"]:
            counts = batch["count"] * self.word_gates[batch["tag"]].exp()[batch["word_unit"]]
            token, row = batch["slot_token"], batch["slot_row"]
            summed = counts.new_zeros(len(token)).index_add(0, batch["word_slot"], counts)
            values = summed.clamp(min=1e-12).sqrt() * self.word_weights[token].exp()
            if self.table is not None:
                starts = torch.searchsorted(row, torch.arange(n, device=row.device))
                parts.append(F.embedding_bag(token, self.table, starts, mode="sum", per_sample_weights=values))
            if self.sizes["words"]:
                width = self.sizes["words"]
                flat = values.new_zeros(n * width).index_add(
                    0, row * width + self.slot[token], values * self.sign[token]
                )
                parts.append(flat.view(n, width))
        joined = torch.cat([F.normalize(part, dim=1) * weight for part, weight in zip(parts, self._weights())], dim=1)
        return F.normalize(joined, dim=1).float()

    def _weights(self) -> list[float]:
        """What each part of the vector is multiplied by; squares add up to 1."""
        others = sum(size > 0 for name, size in self.sizes.items() if name != "context")
        if not self.sizes["context"] or not others:
            return [1 / math.sqrt(max(others, 1))] * max(others, 1)
        return [math.sqrt(self.share), *[math.sqrt((1 - self.share) / others)] * others]

    def importance(self) -> dict[str, float]:
        """exp(gate) of each class of tags in the first part that has gates, relative to the class "none"."""
        gates = self.gates if self.sizes["context"] else self.word_gates
        values = (gates - gates[0]).exp().tolist()
        return dict(zip(TAG_CLASSES, values))
