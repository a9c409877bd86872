"""From the parts that a reader found to checked `Utterances`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.utterances.utterances import Floats, Ints, Stream, Utterances
from kontrast.errors import DataError

LIMIT = 3.0
"""Sentiment is a number from -3 to 3."""


def make_utterances(
    ids: Sequence[str],
    tokens: Sequence[Sequence[str]],
    *,
    videos: Sequence[str] | None = None,
    heads: Ints | None = None,
    labels: npt.NDArray[Any] | None = None,
    text: Stream | None = None,
    sentence: Floats | None = None,
    audio: Stream | None = None,
    visual: Stream | None = None,
    split: Sequence[str] | None = None,
    start: npt.NDArray[np.float64] | None = None,
    end: npt.NDArray[np.float64] | None = None,
    path: Path | None = None,
) -> Utterances:
    """Utterances, checked; see `Utterances` for the arguments.

    A stream that claims to have one entry per word is marked so if it does.

    Raises:
        DataError: for repeated ids, labels out of range, heads that point outside, or counts that do not fit.
    """
    n = len(ids)
    if n == 0:
        raise DataError("has no utterances", file=path, mend="give at least one")
    if len(set(ids)) < n:
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"the id '{twice}' comes twice", file=path, mend="give each utterance an id of its own")
    lengths = np.array([len(words) for words in tokens], np.int64)
    total = int(lengths.sum())
    values = np.full(n, np.nan, np.float32) if labels is None else np.asarray(labels, np.float32)
    out = np.flatnonzero(np.abs(np.nan_to_num(values, nan=0.0)) > LIMIT)
    if len(out):
        what = f"utterance '{ids[out[0]]}' has the label {values[out[0]]:g}"
        raise DataError(what, file=path, mend="give sentiment from -3 to 3, and leave it out where it is not known")
    if heads is None:
        heads = np.full(total, -1, np.int64)
    else:
        wrong = np.flatnonzero((heads < -1) | (heads >= np.repeat(lengths, lengths)))
        if len(wrong):
            row = int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))
            what = f"utterance '{ids[row]}' has a head {heads[wrong[0]]} among {lengths[row]} words"
            raise DataError(what, file=path, mend="count words of the utterance from 0; a root points to itself")
    if text is not None and not np.array_equal(text.lengths, lengths):
        row = int(np.flatnonzero(text.lengths != lengths)[0])
        what = f"utterance '{ids[row]}' has {lengths[row]} words and {text.lengths[row]} word vectors"
        raise DataError(what, file=path, mend="give one vector per word")
    return Utterances(
        tuple(ids),
        tuple(ids if videos is None else videos),
        tuple(tuple(words) for words in tokens),
        heads,
        values,
        text,
        sentence,
        _marked(audio, lengths),
        _marked(visual, lengths),
        None if split is None else tuple(split),
        start,
        end,
        path,
    )


def _marked(stream: Stream | None, lengths: Ints) -> Stream | None:
    if stream is None or stream.centre is not None:
        return stream
    there = stream.lengths > 0
    aligned = bool(there.any() and np.array_equal(stream.lengths[there], lengths[there]))
    return Stream(stream.values, stream.rows, stream.offsets, stream.position, None, aligned)
