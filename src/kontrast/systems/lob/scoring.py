"""From streams to vectors and scores: the one inference path that embed, predict, evaluate and the figures share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from kontrast.data.orderbooks import OrderStream
from kontrast.progress import say
from kontrast.systems.lob.config import LobConfig
from kontrast.systems.lob.features import ROLL, Columns, Group, Scaler, raw_features, tick_of
from kontrast.systems.lob.model import BookEncoder, FusionEncoder
from kontrast.systems.lob.views import Floats, Ints, LobData

_BATCH = 2048
POOLED = ""
"""Name under which the statistics of all training stocks together are kept, for stocks that training did not see."""


def book_group(config: LobConfig) -> Group:
    """The columns that the book encoder reads."""
    return "book" if config.book.coding == "diff" else "static"


class RowMaker:
    """Standardised rows of a stretch of a stream, with the latents of the book where the cascade is on.

    Args:
        facts: statistics and ticks per stock, as `learn_facts` made them.
        config: groups of features.
        book: the trained encoder of the book, or None.
    """

    def __init__(self, facts: Mapping[str, Any], config: LobConfig, book: BookEncoder | None) -> None:
        self.facts, self.config, self.book = facts, config, book
        self.columns = Columns.of(config.features, facts["levels"])
        self.book_columns = Columns.of([book_group(config)], facts["levels"])
        self._told: set[str] = set()

    def scaler(self, stream: OrderStream, kind: str) -> Scaler:
        """Statistics of "rows" or "book" of the stream's stock."""
        known = self.facts["stocks"]
        if stream.ticker not in known and stream.ticker not in self._told:
            self._told.add(stream.ticker)
            say(f"{stream.ticker} is not among the training stocks; its features are scaled as theirs are on average.")
        return Scaler.from_facts(known.get(stream.ticker, known[POOLED])[kind])

    def tick(self, stream: OrderStream) -> float:
        """Price step of the stream's stock."""
        stock = self.facts["stocks"].get(stream.ticker)
        return float(stock["tick"]) if stock is not None else tick_of(stream)

    def rows(self, stream: OrderStream, start: int, end: int, *, mirror: bool = False) -> Floats:
        """(end - start, features) rows; earlier messages of the day are looked back on, later ones never."""
        before = ROLL + 2 + (self.book.history if self.book is not None else 0)
        first = max(0, start - before)
        part, tick = stream.take(slice(first, end)), self.tick(stream)
        rows = self.scaler(stream, "rows")(raw_features(part, self.config.features, tick))
        rows = self.columns.mirrored(rows) if mirror else rows
        if self.book is not None:
            latent = self.book.stream_latents(self.book_rows(part, tick, mirror=mirror))
            rows = np.concatenate([rows, latent], axis=1)
        return np.ascontiguousarray(rows[start - first :], np.float32)

    def book_rows(self, part: OrderStream, tick: float, *, mirror: bool = False) -> Floats:
        """(n, columns) standardised rows for the encoder of the book."""
        book = self.scaler(part, "book")(raw_features(part, [book_group(self.config)], tick))
        return self.book_columns.mirrored(book) if mirror else book


@dataclass(frozen=True, eq=False)
class SegmentVectors:
    """Vectors of windows of one segment.

    Attributes:
        start: position of the segment's first message.
        length: messages of the segment.
        place: (length,) index of the window that ends at a message, -1 where none was needed.
        vectors: (k, dim).
    """

    start: int
    length: int
    place: Ints
    vectors: Floats

    def message_scores(self, scores: npt.NDArray[np.float64], positions: Ints, window: int) -> npt.NDArray[np.float64]:
        """Mean score of the windows within the segment that contain each message.

        Args:
            scores: (k,) of the windows.
            positions: (n,) of messages in the stream.
            window: messages of a window.
        """
        full = np.where(self.place >= 0, scores[self.place], 0.0)
        total = np.concatenate([[0.0], np.cumsum(full)])
        first, last = containing(positions - self.start, self.length, window)
        return np.asarray((total[last] - total[first]) / (last - first))


def containing(messages: Ints, length: int, window: int) -> tuple[Ints, Ints]:
    """First and last (exclusive) end of the windows of a segment that contain each of its messages."""
    first = np.maximum(messages, window - 1)
    return first, np.minimum(messages + window, length)


def segment_vectors(data: LobData, rows: RowMaker, fusion: FusionEncoder) -> dict[int, SegmentVectors]:
    """Vectors of all windows that contain one of the messages, by segment.

    Args:
        data: messages that are asked about.
        rows: makes rows.
        fusion: the trained fusion encoder.
    """
    found: dict[int, SegmentVectors] = {}
    window = fusion.config.window
    for number in np.unique(data.rows[:, 0]).tolist():
        stream, start, end = data.segments[number].tolist()
        asked = data.rows[data.rows[:, 0] == number, 2] - start
        first, last = containing(asked, end - start, window)
        edges = np.zeros(end - start + 1, np.int64)
        np.add.at(edges, first, 1)
        np.add.at(edges, last, -1)
        needed = np.flatnonzero(np.cumsum(edges[:-1]) > 0)
        # Only the stretch that the windows cover is computed, so a few messages of a long day are answered at once.
        offset = int(needed[0]) - window + 1
        block = rows.rows(data.streams[stream], start + offset, start + int(needed[-1]) + 1)
        vectors = window_vectors(fusion, block, needed - offset)
        place = np.full(end - start, -1, np.int64)
        place[needed] = np.arange(len(needed))
        found[number] = SegmentVectors(start, end - start, place, vectors)
    return found


@torch.no_grad()
def window_vectors(fusion: FusionEncoder, rows: Floats, ends: Ints) -> Floats:
    """(k, dim) vectors of length 1 of the windows that end at some rows."""
    device = next(fusion.parameters()).device
    parts = []
    for block in np.array_split(ends, max(1, -(-len(ends) // _BATCH))):
        windows = torch.from_numpy(rows[block[:, None] + np.arange(1 - fusion.config.window, 1)]).to(device)
        vectors = F.normalize(fusion.backbone.encode(windows), dim=1)
        parts.append(vectors.float().cpu().numpy())
    return np.concatenate(parts)
