"""Views: from streams of messages to windows of standardised rows, and to batches that hold enough manipulation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kontrast.data.orderbooks import OrderStream, Truth
from kontrast.randomness import numpy_rng
from kontrast.training.samplers import Indices, Sampler

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LobData:
    """Messages that are asked about, with the streams around them.

    Rows are messages; `take` chooses among them. The streams and segments stay whole, so a message keeps the windows
    that it is part of, whatever other messages are asked about.

    Attributes:
        streams: messages and books, one stock and day each.
        segments: (k, 3) stream, first and last (exclusive) position: the stretches of this part. A window lies within
            one of them.
        rows: (n, 3) segment, stream and position of each message.
        truth: of the rows, where it is known.
        part: "whole" as it was read, or the name of the part.
    """

    streams: tuple[OrderStream, ...]
    segments: Ints
    rows: Ints
    truth: Truth | None
    part: str = "whole"

    @classmethod
    def of(cls, streams: Sequence[OrderStream], segments: npt.ArrayLike, part: str = "whole") -> LobData:
        """All messages of the segments."""
        cut = np.asarray(segments, np.int64).reshape(-1, 3)
        rows = [
            np.stack([np.full(end - start, number), np.full(end - start, stream), np.arange(start, end)], axis=1)
            for number, (stream, start, end) in enumerate(cut.tolist())
        ]
        joined = np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)
        truth = None
        if streams and all(stream.truth is not None for stream in streams):
            parts = [streams[s].truth.take(slice(a, b)) for s, a, b in cut.tolist()]  # type: ignore[union-attr]
            fields = ("label", "event", "kind")
            truth = Truth(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
        return cls(tuple(streams), cut, joined, truth, part)

    def __len__(self) -> int:
        return len(self.rows)

    def asked(self) -> npt.NDArray[np.bool_]:
        """Of the messages of all segments, one segment after another, which are among the rows."""
        lengths = self.segments[:, 2] - self.segments[:, 1]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        found = np.zeros(int(offsets[-1]), bool)
        number = self.rows[:, 0]
        found[offsets[number] + self.rows[:, 2] - self.segments[number, 1]] = True
        return found

    def take(self, rows: npt.ArrayLike) -> LobData:
        """The messages at these places, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(self, rows=self.rows[chosen], truth=None if self.truth is None else self.truth.take(chosen))

    def with_truth(self, truth: Truth) -> LobData:
        """The same messages with another truth."""
        return replace(self, truth=truth)

    def column(self, name: str) -> npt.NDArray[Any]:
        """(n,) of an array of the streams, such as "time_ns", at the rows."""
        if not len(self.rows):
            return np.zeros(0, np.int64)
        values = np.zeros(len(self.rows), getattr(self.streams[int(self.rows[0, 1])], name).dtype)
        for number, stream in enumerate(self.streams):
            mine = self.rows[:, 1] == number
            values[mine] = getattr(stream, name)[self.rows[mine, 2]]
        return values

    def tickers(self) -> list[str]:
        """(n,) stock of each row."""
        names = np.asarray([stream.ticker for stream in self.streams], dtype=object)
        return list(names[self.rows[:, 1]])

    def names(self) -> list[str]:
        """(n,) a name for each row: stock, day and place within the day."""
        prefixes = [stream.name for stream in self.streams]
        return [f"{prefixes[s]} #{position + 1}" for _, s, position in self.rows.tolist()]

    def keys(self) -> list[tuple[str, int]]:
        """(n,) what tells a message from all others: the stream and its place in it."""
        prefixes = [stream.name for stream in self.streams]
        return [(prefixes[s], position) for _, s, position in self.rows.tolist()]

    def event_codes(self) -> Ints:
        """(n,) what tells the event of a message from all others: stream · 2^32 + its number there, -1 for none."""
        if self.truth is None:
            return np.full(len(self), -1, np.int64)
        return np.where(self.truth.event >= 0, (self.rows[:, 1] << 32) + self.truth.event, -1)

    def event_name(self, code: int) -> str:
        """What a person calls the event of that code."""
        return f"{self.streams[code >> 32].name} event {code & 0xFFFFFFFF}"


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of some segments, as positions in one array of standardised rows.

    Attributes:
        rows: (n, features) float32, segments one after another.
        ends: (k,) row at which a window ends; it begins `length` - 1 rows before.
        label: (k,) 1 where any row of the window is manipulated.
        event: (k,) the event of its last manipulated row, numbered across stocks; -1 for none.
        length: rows of a window.
    """

    rows: Floats
    ends: Ints
    label: npt.NDArray[np.int8]
    event: Ints
    length: int

    def get(self, which: Ints) -> Floats:
        """(len(which), length, features) windows."""
        windows: Floats = self.rows[self.ends[which][:, None] + np.arange(1 - self.length, 1)]
        return windows

    def where(self, kept: npt.NDArray[np.bool_]) -> Windows:
        """The windows that end at one of the rows that are kept, (n,) true or false."""
        inside = kept[self.ends]
        return replace(self, ends=self.ends[inside], label=self.label[inside], event=self.event[inside])

    def digest(self) -> str:
        """Equal for equal windows."""
        return hashlib.sha256(self.rows.tobytes() + self.ends.tobytes()).hexdigest()[:16]


def window_ends(segments: Ints, length: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) position at which a window within the segment ends, for each segment."""
    for _, start, end in segments.tolist():
        yield min(start + length - 1, end), end


def windows_of(
    parts: Sequence[Floats], labels: Sequence[npt.NDArray[np.int8]], events: Sequence[Ints], length: int
) -> Windows:
    """Windows of segments, none of which crosses a border.

    Args:
        parts: (n, features) rows of each segment.
        labels: (n,) of each segment.
        events: (n,) of each segment; unique across segments.
        length: rows of a window.
    """
    ends, label, event, offset = [], [], [], 0
    for rows, marked, number in zip(parts, labels, events):
        last = np.maximum.accumulate(np.where(marked > 0, np.arange(len(rows)), -1))
        end = np.arange(length - 1, len(rows))
        inside = last[end] > end - length
        ends.append(end + offset)
        label.append(inside.astype(np.int8))
        event.append(np.where(inside, number[np.maximum(last[end], 0)], -1))
        offset += len(rows)
    return Windows(np.concatenate(parts), np.concatenate(ends), np.concatenate(label), np.concatenate(event), length)


def rotated(label: npt.NDArray[np.int8], event: Ints, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], Ints]:
    """Labels of a segment moved to another time: the null control keeps the shape and number of events."""
    n = len(label)
    shift = int(rng.integers(n // 10, n - n // 10)) if n >= 10 else 0
    return np.roll(label, shift), np.roll(event, shift)


class EventSampler(Sampler):
    """Batches with a set share of manipulated windows, drawn with replacement event first, then window.

    Windows of one event overlap; drawn by window, most positives of a batch would be copies of one another.

    Args:
        label: (k,) of the windows.
        event: (k,) of the windows.
        batch_size: windows of a batch.
        share: of manipulated windows in a batch; 0 draws from the others alone.
        steps: batches of an epoch.
        seed: seed of the draws.
    """

    def __init__(
        self, label: npt.NDArray[np.int8], event: Ints, batch_size: int, *, share: float, steps: int, seed: int
    ) -> None:
        self.normal = np.flatnonzero(label == 0)
        marked = np.flatnonzero(label == 1)
        self.marked = marked[np.argsort(event[marked], kind="stable")]
        _, self.starts, self.counts = np.unique(event[self.marked], return_index=True, return_counts=True)
        self.batch_size, self.share, self.steps, self.seed = batch_size, share, steps, seed
        self.positives = min(batch_size - 1, max(2, round(share * batch_size))) if len(marked) and share > 0 else 0

    def count(self, epoch: int) -> int:
        """Batches of an epoch; the same in every epoch."""
        return self.steps

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch, the manipulated windows first."""
        rng = numpy_rng(self.seed, "events", epoch)
        normal = self.normal[rng.integers(len(self.normal), size=(self.steps, self.batch_size - self.positives))]
        if not self.positives:
            return list(normal)
        event = rng.integers(len(self.starts), size=(self.steps, self.positives))
        within = (rng.random(event.shape) * self.counts[event]).astype(np.int64)
        drawn = self.marked[self.starts[event] + within]
        # Mixed, so that every process gets its share of both.
        return list(rng.permuted(np.concatenate([drawn, normal], axis=1), axis=1))

    def fingerprint(self) -> str:
        """Sizes, seed and a hash of the labels."""
        digest = hashlib.sha256(self.marked.tobytes() + self.starts.tobytes() + self.normal.tobytes())
        return (
            f"EventSampler batch_size={self.batch_size} share={self.share} steps={self.steps} seed={self.seed} "
            f"windows={digest.hexdigest()[:16]}"
        )


class StretchSampler(Sampler):
    """Begins of stretches of consecutive rows, none across a border and none with manipulation.

    Args:
        lengths: rows of each segment.
        length: rows of a stretch, cut to the shortest segment.
        batch_size: stretches of a batch.
        steps: batches of an epoch.
        seed: seed of the draws.
        taken: (rows,) of each segment, 1 where a row may not be in a stretch; ignored where that leaves nothing.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        length: int,
        batch_size: int,
        *,
        steps: int,
        seed: int,
        taken: Sequence[npt.NDArray[np.int8]],
    ) -> None:
        self.length = min(length, *lengths)
        begins, free, offset = [], [], 0
        for rows, marks in zip(lengths, taken):
            begin = np.arange(rows - self.length + 1)
            total = np.concatenate([[0], np.cumsum(marks)])
            begins.append(begin + offset)
            free.append(total[begin + self.length] == total[begin])
            offset += rows
        everything, clean = np.concatenate(begins), np.concatenate(free)
        self.begins = everything[clean] if clean.any() else everything
        self.batch_size, self.steps, self.seed = batch_size, steps, seed

    def count(self, epoch: int) -> int:
        """Batches of an epoch; the same in every epoch."""
        return self.steps

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch, as first rows of stretches."""
        rng = numpy_rng(self.seed, "stretches", epoch)
        return list(self.begins[rng.integers(len(self.begins), size=(self.steps, self.batch_size))])

    def fingerprint(self) -> str:
        """Sizes, seed and a hash of the begins."""
        digest = hashlib.sha256(self.begins.tobytes()).hexdigest()[:16]
        return (
            f"StretchSampler length={self.length} batch_size={self.batch_size} steps={self.steps} seed={self.seed} "
            f"begins={digest}"
        )


def window_batch(
    windows: Windows, mirror: Windows | None, which: Indices, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Windows and labels of a batch; of each window the mirror image with probability one half, if there is one."""
    drawn = windows.get(which)
    if mirror is not None:
        turned = rng.random(len(which)) < 0.5
        drawn[turned] = mirror.get(which[turned])
    return {
        "windows": torch.from_numpy(drawn),
        "label": torch.from_numpy(windows.label[which].astype(np.int64)),
    }
