"""Views: from a collection to batches of queries and documents, tagged, untagged and with elements left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.data.documents import Collection
from kontrast.randomness import numpy_rng
from kontrast.systems.seal.config import SealConfig, ViewName
from kontrast.systems.seal.masking import Masking
from kontrast.systems.seal.reading import DocumentRows, Reader
from kontrast.training import IndexedBatches, ShuffledSampler

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SealBatch:
    """B queries, each with a group of G documents of which the first answers it.

    Attributes:
        queries: prepared rows, B of them.
        views: by name, the prepared rows of all groups one after the other, B·G of them.
        documents: int64 (B, G) numbers of the documents.
        known: int64 (k, 2), pairs of a query's place in the batch and a further document that answers it.
    """

    queries: Any
    views: Mapping[str, Any]
    documents: Tensor
    known: Tensor

    def part(self, first: int, last: int) -> SealBatch:
        """The queries from `first` to `last` with their groups."""
        group = self.documents.shape[1]
        inside = (self.known[:, 0] >= first) & (self.known[:, 0] < last)
        shifted = self.known[inside] - torch.tensor([first, 0], device=self.known.device)
        return SealBatch(
            self.queries[np.arange(first, last)],
            {name: rows[np.arange(first * group, last * group)] for name, rows in self.views.items()},
            self.documents[first:last],
            shifted,
        )


@dataclass(frozen=True)
class Pairing:
    """Which documents answer the training queries, and which mined ones do not.

    Attributes:
        positives: per query, numbers of the documents that answer it.
        pool: int64 (n, k) numbers of documents that negatives are drawn from, -1 where there are fewer.
    """

    positives: Sequence[Sequence[int]]
    pool: Integers

    @property
    def most_negatives(self) -> int:
        """So many negatives can be drawn for every query."""
        return int((self.pool >= 0).sum(1).min()) if self.pool.size else 0


def shuffled_positives(data: Collection, seed: int) -> list[tuple[int, ...]]:
    """The null control: every training document's queries are given to another training document."""
    used = np.array(sorted({place for query in data.queries for place in query.answers}), dtype=np.int64)
    order = numpy_rng(seed, "null control").permutation(len(used))
    # A cyclic shift of a random order leaves no document in its place.
    moved = dict(zip(used[order].tolist(), used[np.roll(order, 1)].tolist()))
    return [tuple(moved[place] for place in query.answers) for query in data.queries]


class SealBatches:
    """Batches of training queries.

    Args:
        data: training queries with answers, over all documents.
        rows: the prepared documents.
        reader: prepares the queries.
        masking: which parts of a document are left out together.
        pairing: positives and pools of negatives.
        config: views, sizes, seed.
    """

    def __init__(
        self,
        data: Collection,
        rows: DocumentRows,
        reader: Reader,
        masking: Masking,
        pairing: Pairing,
        config: SealConfig,
    ) -> None:
        self.rows, self.masking, self.pairing, self.config = rows, masking, pairing, config
        self.queries = reader.queries(data.texts)
        self.group = min(config.group_size, 1 + pairing.most_negatives)
        wanted = {*config.views, *(["tag", *config.document_terms] if config.document_terms else [])}
        self.views: tuple[ViewName, ...] = tuple(name for name in ("tag", "untag", "mask") if name in wanted)

    def stream(self) -> IndexedBatches:
        """The batches as a function of (seed, epoch, index)."""
        n, size = len(self.pairing.positives), self.config.batch_size
        # A last batch of one query may have no negatives and then teaches nothing.
        sampler = ShuffledSampler(n, min(size, n), seed=self.config.seed, drop_last=n > size and n % size == 1)
        return IndexedBatches(sampler, self.collate, seed=self.config.seed)

    def collate(self, chosen: Integers, rng: np.random.Generator) -> SealBatch:
        """The batch of some queries; one positive, the negatives and the masks are drawn."""
        documents = np.empty((len(chosen), self.group), dtype=np.int64)
        known: list[tuple[int, int]] = []
        for place, row in enumerate(chosen):
            answers = self.pairing.positives[row]
            own = answers[int(rng.integers(len(answers)))] if len(answers) > 1 else answers[0]
            documents[place, 0] = own
            known += [(place, other) for other in answers if other != own]
            if self.group > 1:
                pool = self.pairing.pool[row]
                documents[place, 1:] = rng.choice(pool[pool >= 0], self.group - 1, replace=False)
        flat = documents.ravel()
        views: dict[str, Any] = {}
        for name in self.views:
            keep = self.masking.draw(flat, self.config.mask_ratio, rng) if name == "mask" else None
            views[name] = self.rows.view("untag" if name == "untag" else "tag", flat, keep)
        return SealBatch(
            self.queries[np.asarray(chosen)],
            views,
            torch.from_numpy(documents),
            torch.tensor(known, dtype=torch.long).reshape(-1, 2),
        )
