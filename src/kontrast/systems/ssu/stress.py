"""A semi-synthetic stress set: real words and labels, made-up sound and face in which the modalities matter.

In public corpora with hand-made features the text carries nearly everything. Here audio and visual streams are made so
that they tell something that the text does not: a burst at the time of the word that bears the sentiment, whose height
follows the label. Speakers differ by offsets, so that a mean over time says little; part of the faces come too early or
too late. What is learned on such data says how a method works, and nothing about people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kontrast.data.utterances import Stream, Utterances
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

DIM = 20
CHANNELS = 3
SHORTEST, LONGEST = 20, 40
"""Segments of a stream."""
PERSISTENCE = 0.7
"""Of the noise from segment to segment."""
BURST = 1.5
"""Deviation of a burst in segments."""
HEIGHTS = {"audio": (0.8, 0.5), "visual": (0.5, 0.8)}
"""Height of a burst per unit of the label, and its noise."""
SHIFTED, SHIFT = 0.2, 0.25
"""Share of visual streams that are shifted in time, and by how much of their length at most."""

Floats = npt.NDArray[np.float64]


def stress_set(data: Utterances, seed: int = 0) -> Utterances:
    """Utterances with the words, syntax and labels of `data` and made-up audio and visual streams.

    A stream has 20 to 40 segments of 20 features: a burst at each of the one or two words with the largest weight in a
    ridge regression of labels on words (fitted on the training part, if there is one), seen through a random matrix of
    rank 3; autoregressive noise (0.7, deviation 1); and an offset N(0, 1) per video and feature. Heights are
    0.8 · label + N(0, 0.5) in audio, 0.5 · label + N(0, 0.8) in visual streams, of which a fifth is shifted by up to a
    quarter of its length.

    Raises:
        DataError: if a label is missing.
    """
    if not np.isfinite(data.labels).all():
        raise DataError(
            "has utterances without a label, and bursts follow labels", file=data.path, mend="label them all"
        )
    weights = word_weights(data)
    places = [bearing_words(words, weights) for words in data.tokens]
    streams = {}
    for name, (slope, noise) in HEIGHTS.items():
        mixing = numpy_rng(seed, "stress set", name).normal(size=(CHANNELS, DIM))
        parts = []
        for key, video, label, where in zip(data.ids, data.videos, data.labels.tolist(), places):
            # What is drawn depends on names alone: an utterance has the same streams in any company.
            offset = numpy_rng(seed, "stress set", name, "video", video).normal(size=DIM)
            rng = numpy_rng(seed, "stress set", name, "utterance", key)
            length = int(rng.integers(SHORTEST, LONGEST + 1))
            shift = rng.uniform(-SHIFT, SHIFT) if name == "visual" and rng.random() < SHIFTED else 0.0
            heights = slope * label + noise * rng.normal(size=len(where))
            track = _track((np.asarray(where) + shift) * length, heights, length)
            parts.append(track @ mixing + _noise(length, rng) + offset)
        values = np.concatenate(parts).astype(np.float32)
        streams[name] = Stream.of(values, np.concatenate([[0], np.cumsum([len(part) for part in parts])]))
    return replace(data, audio=streams["audio"], visual=streams["visual"])


def word_weights(data: Utterances) -> dict[str, float]:
    """The weight of each word in a ridge regression of the training part's labels on the words that occur."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import Ridge

    own = np.ones(len(data), bool) if data.split is None else np.asarray(data.split) == "train"
    own = own if own.any() else np.ones(len(data), bool)
    texts = [" ".join(words) for words, known in zip(data.tokens, own) if known]
    vectoriser = CountVectorizer(token_pattern=r"\S+", binary=True, lowercase=False)
    try:
        counts = vectoriser.fit_transform(texts)
    except ValueError:
        return {}
    coefficients = Ridge(alpha=3.0, solver="lsqr").fit(counts, data.labels[own]).coef_
    return dict(zip(vectoriser.get_feature_names_out().tolist(), np.asarray(coefficients, np.float64).tolist()))


def bearing_words(words: tuple[str, ...], weights: dict[str, float]) -> list[float]:
    """Places in [0, 1] of the word with the largest weight, and of a second one of at least half that weight."""
    if not words:
        return [0.5]
    size = np.abs([weights.get(word, 0.0) for word in words])
    order = np.argsort(-size, kind="stable")[:2]
    kept = [order[0]] if len(order) < 2 or size[order[1]] < size[order[0]] / 2 or size[order[1]] == 0 else list(order)
    return [(float(place) + 0.5) / len(words) for place in kept]


def _track(centres: Floats, heights: Floats, length: int) -> Floats:
    """(length, 3) the bursts: as they are, rising and falling, and one segment late."""
    time = np.arange(length) + 0.5
    plain = (heights * np.exp(-0.5 * np.square((time[:, None] - centres) / BURST))).sum(1)
    late = np.concatenate([[0.0], plain[:-1]])
    return np.stack([plain, plain - late, late], axis=1)


def _noise(length: int, rng: np.random.Generator) -> Floats:
    """(length, DIM) autoregressive noise of deviation 1."""
    drawn = rng.normal(size=(length, DIM)) * np.sqrt(1 - PERSISTENCE**2)
    drawn[0] /= np.sqrt(1 - PERSISTENCE**2)
    for step in range(1, length):
        drawn[step] += PERSISTENCE * drawn[step - 1]
    return np.asarray(drawn)
