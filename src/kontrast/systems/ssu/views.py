"""Views: utterances as padded blocks of nodes, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.data.utterances import Stream, Utterances
from kontrast.evaluation.sentiment import seven_classes
from kontrast.systems.ssu.config import GraphSection, ModalityName

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

CLIP = 5.0
"""Standardised features lie within ± this: single frames of pitch and glottal trackers are off by orders."""


def shortened(stream: Stream, longest: int) -> Stream:
    """The stream with sequences of at most `longest` entries: longer ones are averaged in stretches of equal length."""
    lengths = stream.lengths
    if not len(lengths) or lengths.max(initial=0) <= longest:
        return stream
    kept = np.minimum(lengths, longest)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(stream.offsets[-1]) - stream.offsets[:-1][owner]
    bins = offsets[owner] + place * kept[owner] // lengths[owner]
    starts = np.searchsorted(bins, np.arange(offsets[-1]))
    counts = np.bincount(bins, minlength=int(offsets[-1]))
    values = np.add.reduceat(stream.values[stream.rows].astype(np.float64), starts, axis=0) / counts[:, None]
    position = np.add.reduceat(stream.position.astype(np.float64), starts) / counts
    rows = np.arange(offsets[-1])
    return Stream(values.astype(np.float32), rows, offsets, position.astype(np.float32), None, False)


def beginnings(stream: Stream, longest: int) -> tuple[Stream, npt.NDArray[np.bool_]]:
    """The stream with the first `longest` entries of each sequence, and which entries these are (total,)."""
    place = np.arange(stream.offsets[-1]) - np.repeat(stream.offsets[:-1], stream.lengths)
    kept = np.asarray(place < longest)
    offsets = np.concatenate([[0], np.cumsum(np.minimum(stream.lengths, longest))]).astype(np.int64)
    centre = None if stream.centre is None else stream.centre[kept]
    return Stream(stream.values, stream.rows[kept], offsets, stream.position[kept], centre, stream.aligned), kept


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of features, from training data.

    Attributes:
        mean, std: (d,).
    """

    mean: Floats
    std: Floats

    @classmethod
    def fit(cls, stream: Stream) -> Scale:
        """From the vectors that occur in the sequences, each once."""
        values = stream.values[np.unique(stream.rows)].astype(np.float64)
        if not len(values):
            values = np.zeros((1, stream.dim))
        std = values.std(0)
        return cls(values.mean(0).astype(np.float32), np.where(std < 1e-6, 1.0, std).astype(np.float32))

    def to_facts(self) -> dict[str, list[float]]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Scale:
        return cls(np.asarray(facts["mean"], np.float32), np.asarray(facts["std"], np.float32))

    def __call__(self, values: Floats) -> Floats:
        scaled: Floats = np.clip((values - self.mean) / self.std, -CLIP, CLIP).astype(np.float32)
        return scaled


@dataclass(frozen=True, eq=False)
class Prepared:
    """Utterances ready for batches.

    Attributes:
        words: word vectors, standardised as one, or a single column of word numbers as float32.
        heads: (words,) as in `Utterances`, cut with the words.
        sentence: (n, s) or None.
        streams: audio and visual, standardised; only those that the model knows.
        labels: (n,) NaN where unknown.
        classes: (n,) class of each label for the classifier, -1 where unknown.
    """

    words: Stream
    heads: Ints
    sentence: Floats | None
    streams: dict[str, Stream]
    labels: Floats
    classes: Ints

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ints:
        """(n,) how long each utterance is, its longest modality counting most, to batch those of like size."""
        every = np.stack([self.words.lengths, *(stream.lengths for stream in self.streams.values())])
        return np.asarray(64 * every.max(0) + every.sum(0), np.int64)

    def digest(self) -> str:
        """Text that is equal for equal data."""
        found = hashlib.sha256()
        parts = [self.words.values, self.words.rows, self.heads, self.labels, self.words.offsets]
        for stream in self.streams.values():
            parts += [stream.values, stream.rows, stream.offsets]
        if self.sentence is not None:
            parts.append(self.sentence)
        for array in parts:
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    def batch(self, rows: Ints) -> dict[str, Tensor]:
        """Padded tensors of some utterances.

        Returns:
            "words" (b, l, d), "words_mask" (b, l), "heads" (b, l); "sentence" (b, s); for each stream, such as audio,
            "audio" (b, k, d) and "audio_mask", "audio_position", "audio_centre" (b, k); "label", "class" (b,).
            Padding is 0 (of heads -1).
        """
        entries, mask = padded(self.words, rows)
        batch: dict[str, Tensor] = {
            "words": torch.from_numpy(_at(self.words.values, _at(self.words.rows, entries)) * mask[..., None]),
            "words_mask": torch.from_numpy(mask),
            "heads": torch.from_numpy(np.where(mask, _at(self.heads, entries), -1)),
            "label": torch.from_numpy(self.labels[rows]),
            "class": torch.from_numpy(self.classes[rows]),
        }
        if self.sentence is not None:
            batch["sentence"] = torch.from_numpy(self.sentence[rows])
        for name, stream in self.streams.items():
            entries, mask = padded(stream, rows)
            batch[name] = torch.from_numpy(_at(stream.values, _at(stream.rows, entries)) * mask[..., None])
            batch[f"{name}_mask"] = torch.from_numpy(mask)
            batch[f"{name}_position"] = torch.from_numpy(_at(stream.position, entries) * mask)
            centre = mask if stream.centre is None else _at(stream.centre, entries) & mask
            batch[f"{name}_centre"] = torch.from_numpy(centre.astype(np.float32))
        return batch


def _at(values: npt.NDArray[Any], places: Ints) -> npt.NDArray[Any]:
    """Rows of an array; zeros where the array is empty, since all that is asked for then is padding."""
    if len(values):
        return values[places]
    return np.zeros((*places.shape, *values.shape[1:]), values.dtype)


def padded(stream: Stream, rows: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(b, longest) entries of some utterances, any entry in the padding, and which are real. There is one column at
    least, so that an absent modality is a block of padding."""
    lengths = stream.lengths[rows]
    place = np.arange(max(1, int(lengths.max(initial=0))))
    mask = place < lengths[:, None]
    entries = stream.offsets[:-1][rows][:, None] + place
    return np.where(mask, entries, 0), mask


def prepare(data: Utterances, facts: Mapping[str, Any], section: GraphSection, without: list[ModalityName]) -> Prepared:
    """Utterances as the model of these facts reads them.

    Args:
        data: checked to have what the facts ask for.
        facts: what `learn_facts` gave.
        section: longest sequences.
        without: modalities to leave out.
    """
    n = len(data)
    if facts["text"]["vocabulary"] is not None:
        number = {word: place for place, word in enumerate(facts["text"]["vocabulary"], start=1)}
        ids = [float(number.get(word, 0)) for words in data.tokens for word in words]
        words = Stream.of(np.asarray(ids, np.float32).reshape(-1, 1), data.word_offsets, aligned=True)
    else:
        assert data.text is not None
        text, unit = data.text, np.float32(facts["text"]["scale"])
        words = Stream(text.values / unit, text.rows, text.offsets, text.position, None, True)
    heads, sentence = data.heads, None
    if facts["sentence"] is not None:
        assert data.sentence is not None
        sentence = (data.sentence / np.float32(facts["sentence"]["scale"])).astype(np.float32)
    if "text" in without:
        words, heads = _empty(words), np.zeros(0, np.int64)
        sentence = None if sentence is None else np.zeros_like(sentence)
    else:
        # A very long utterance keeps its first words; averaging words would leave no syntax.
        words, kept = beginnings(words, section.max_words)
        heads = np.where(heads[kept] >= section.max_words, -1, heads[kept])
    streams: dict[str, Stream] = {}
    for name, known in facts["streams"].items():
        found = data.streams.get(name)
        if found is None or name in without:
            columns = len(known["scale"]["mean"])
            found = Stream.of(np.zeros((0, columns)), np.zeros(n + 1, np.int64))
        if known["aligned"]:
            found = beginnings(found, section.max_words)[0]
        else:
            found = shortened(found, section.max_segments)
        scale = Scale.from_facts(known["scale"])
        streams[name] = Stream(
            scale(found.values), found.rows, found.offsets, found.position, found.centre, found.aligned
        )
    return Prepared(words, heads, sentence, streams, data.labels, label_classes(data.labels, facts["classes"]))


def _empty(stream: Stream) -> Stream:
    return Stream(
        stream.values, np.zeros(0, np.int64), np.zeros_like(stream.offsets), np.zeros(0, np.float32), None, True
    )


def left_out(batch: dict[str, Tensor], rates: Mapping[str, float], rng: np.random.Generator) -> dict[str, Tensor]:
    """The batch with modalities left out at random: each row keeps one of those it has at least.

    Args:
        batch: as `Prepared.batch` gives it.
        rates: how often each of "text", "audio", "visual" is left out.
        rng: of the draws.
    """
    masks = {"text": "words_mask"} | {name: f"{name}_mask" for name in ("audio", "visual") if name in batch}
    there = np.stack([batch[mask].any(1).numpy() for mask in masks.values()])
    gone = rng.random(there.shape) < np.array([rates[name] for name in masks])[:, None]
    gone &= (there & ~gone).any(0)
    made = dict(batch)
    for name, row in zip(masks, torch.from_numpy(gone)):
        parts = ("words", "words_mask") if name == "text" else (name, f"{name}_mask")
        for part in parts:
            made[part] = batch[part] * ~row.view(-1, *[1] * (batch[part].dim() - 1))
        if name == "text":
            made["heads"] = batch["heads"].masked_fill(row[:, None], -1)
    return made


def label_classes(labels: npt.NDArray[Any], count: int) -> Ints:
    """(n,) classes of labels: seven whole numbers, or three signs (of the label as it is); -1 where it is NaN."""
    known = np.isfinite(labels)
    values = np.where(known, labels, 0.0)
    classes = seven_classes(values) + 3 if count == 7 else np.sign(values).astype(np.int64) + 1
    return np.where(known, classes, -1).astype(np.int64)
