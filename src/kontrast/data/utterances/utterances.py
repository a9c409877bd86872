"""Utterances: what is said, how it sounds and how it looks, as sequences of vectors with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MODALITIES = ("text", "audio", "visual")


@dataclass(frozen=True, eq=False)
class Stream:
    """One modality of n utterances: each has a sequence of vectors, which may be empty.

    Entries point into `values`, so that a vector that stands in several sequences (an utterance in the surroundings of
    its neighbours) is held once.

    Attributes:
        values: (m, d) float32, finite.
        rows: (total,) the row of `values` of each entry.
        offsets: (n + 1,) utterance k has the entries offsets[k] to offsets[k + 1].
        position: (total,) float32, when the entry is within its utterance, in [0, 1].
        centre: (total,) whether the entry is the utterance itself, where others are its surroundings; else None.
        aligned: whether there is one entry for each word.
    """

    values: Floats
    rows: Ints
    offsets: Ints
    position: Floats
    centre: npt.NDArray[np.bool_] | None = None
    aligned: bool = False

    @classmethod
    def of(cls, values: npt.NDArray[Any], offsets: npt.NDArray[Any], *, aligned: bool = False) -> Stream:
        """Sequences that lie one after another: utterance k has the rows offsets[k] to offsets[k + 1] of `values`."""
        offsets = np.asarray(offsets, np.int64)
        lengths = np.diff(offsets)
        rows = np.arange(offsets[-1], dtype=np.int64)
        place = rows - np.repeat(offsets[:-1], lengths)
        position = (place + 0.5) / np.repeat(np.maximum(lengths, 1), lengths)
        return cls(np.asarray(values, np.float32), rows, offsets, position.astype(np.float32), aligned=aligned)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> Ints:
        """(n,) entries of each utterance."""
        return np.diff(self.offsets)

    def entries(self, chosen: Ints) -> tuple[Ints, Ints]:
        """Entries of some utterances one after another, and their offsets (k + 1,)."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths)
        return np.arange(offsets[-1], dtype=np.int64) + shift, offsets

    def take(self, chosen: Ints) -> Stream:
        """The sequences of some utterances; `values` is shared."""
        entries, offsets = self.entries(chosen)
        centre = None if self.centre is None else self.centre[entries]
        return Stream(self.values, self.rows[entries], offsets, self.position[entries], centre, self.aligned)


@dataclass(frozen=True, eq=False)
class Utterances:
    """n utterances of spoken opinion.

    Attributes:
        ids: names, unique.
        videos: the recording (and so the speaker) each comes from; the id itself where the data do not say.
        tokens: words of each.
        heads: (words,) position of the syntactic head within the utterance, the word's own for roots, or -1 where it is
            not known; words of all utterances one after another.
        labels: (n,) float32 sentiment, NaN where it is not known.
        text: word vectors, one entry per word, or None.
        sentence: (n, s) float32, a vector of the whole text, or None.
        audio, visual: streams, or None. A modality that an utterance lacks has no entries.
        split: "train", "valid" or "test" of each, or None where the data bring no split.
        start, end: (n,) seconds in the video, or None.
        path: where they were read from.
    """

    ids: tuple[str, ...]
    videos: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    heads: Ints
    labels: Floats
    text: Stream | None = None
    sentence: Floats | None = None
    audio: Stream | None = None
    visual: Stream | None = None
    split: tuple[str, ...] | None = None
    start: npt.NDArray[np.float64] | None = None
    end: npt.NDArray[np.float64] | None = None
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def word_offsets(self) -> Ints:
        """(n + 1,) where the words of each utterance begin in `heads`."""
        return np.concatenate([[0], np.cumsum([len(words) for words in self.tokens])]).astype(np.int64)

    @property
    def streams(self) -> dict[str, Stream]:
        """Audio and visual, as far as the data have them."""
        both = {"audio": self.audio, "visual": self.visual}
        return {name: stream for name, stream in both.items() if stream is not None}

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> Utterances:
        """Some utterances, in the order given."""
        chosen = np.asarray(rows, np.int64)
        places = chosen.tolist()
        offsets = self.word_offsets
        words = Stream(np.zeros((0, 0), np.float32), np.arange(offsets[-1]), offsets, np.zeros(offsets[-1], np.float32))
        return replace(
            self,
            ids=tuple(self.ids[row] for row in places),
            videos=tuple(self.videos[row] for row in places),
            tokens=tuple(self.tokens[row] for row in places),
            heads=self.heads[words.entries(chosen)[0]],
            labels=self.labels[chosen],
            text=None if self.text is None else self.text.take(chosen),
            sentence=None if self.sentence is None else self.sentence[chosen],
            audio=None if self.audio is None else self.audio.take(chosen),
            visual=None if self.visual is None else self.visual.take(chosen),
            split=None if self.split is None else tuple(self.split[row] for row in places),
            start=None if self.start is None else self.start[chosen],
            end=None if self.end is None else self.end[chosen],
        )

    def with_labels(self, labels: npt.NDArray[Any]) -> Utterances:
        """The same utterances with other labels (n,)."""
        return replace(self, labels=np.asarray(labels, np.float32))


def surroundings(
    values: npt.NDArray[Any],
    present: npt.NDArray[np.bool_],
    videos: Sequence[str],
    start: npt.NDArray[np.float64] | None,
    end: npt.NDArray[np.float64] | None,
    reach: int,
) -> Stream:
    """Sequences made of one vector per utterance: the utterance's own, and those around it in the same video.

    An utterance that lacks the modality has no entries, and it is left out of its neighbours' surroundings. Utterances
    of a video are ordered by their start, or as they stand in the file. An entry's position is 0.5 for the utterance
    itself, and nears 0 or 1 with its distance: 20 seconds (or, where times are unknown, 3 utterances) away it is 0.12
    or 0.88.

    Args:
        values: (n, d), one vector per utterance.
        present: (n,) whether the utterance has it.
        videos: (n,) the video of each.
        start, end: (n,) seconds, or None.
        reach: how many utterances before and after.
    """
    n = len(values)
    middle = None if start is None or end is None else (start + end) / 2
    _, video = np.unique(np.asarray(videos, dtype=object).astype(str), return_inverse=True)
    order = np.lexsort((np.arange(n) if middle is None else middle, video))
    # Neighbour k of an utterance stands k places away in this order, if it is of the same video.
    steps = np.arange(-reach, reach + 1)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    target = place[:, None] + steps
    inside = (target >= 0) & (target < n)
    rows = order[np.clip(target, 0, n - 1)]
    kept = inside & (video[rows] == video[:, None]) & present[rows] & present[:, None]
    if middle is None:
        gap = np.broadcast_to(steps / 3.0, rows.shape)
    else:
        gap = (middle[rows] - middle[:, None]) / 20.0
    position = 0.5 + 0.5 * np.tanh(gap)
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int64)
    centre = np.broadcast_to(steps == 0, rows.shape)
    return Stream(
        np.asarray(values, np.float32), rows[kept], offsets, position[kept].astype(np.float32), centre[kept].copy()
    )


def finite(values: npt.NDArray[Any], name: str, path: Path | None) -> Floats:
    """A matrix (m, d) as float32 with NaN and infinite entries set to 0, as audio tools write them for silence.

    Raises:
        DataError: if it is no matrix of numbers, or has no finite entry.
    """
    if values.ndim != 2 or values.dtype.kind not in "fiub" or values.shape[1] == 0:
        what = f"'{name}' has the shape {values.shape} and type {values.dtype}"
        raise DataError(what, file=path, mend="give numbers of shape (rows, features)")
    with np.errstate(over="ignore", invalid="ignore"):
        made = values.astype(np.float32)
    bad = ~np.isfinite(made)
    if made.size and bad.all():
        raise DataError(f"'{name}' has no finite value", file=path, mend="extract the features again")
    made[bad] = 0.0
    return made
