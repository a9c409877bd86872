"""The written example: self-made sentences about films that do not exist, with the stress set's sound and face."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kontrast.data.utterances import Utterances, make_utterances, write_utterances
from kontrast.randomness import numpy_rng
from kontrast.systems.ssu.stress import stress_set

EACH = 8
PARTS = ("train",) * 28 + ("valid",) * 4 + ("test",) * 8
NOUNS = ("film", "plot", "acting", "music", "ending", "dialogue", "director", "cast", "camera", "script")
ADJECTIVES = {
    "wonderful": 2.4, "great": 1.8, "good": 1.2, "charming": 1.4, "decent": 0.6, "clever": 1.0,
    "terrible": -2.4, "awful": -2.0, "bad": -1.4, "boring": -1.6, "dull": -1.0, "weak": -0.8,
}  # fmt: skip
DEGREES = {"very": 1.3, "really": 1.2, "somewhat": 0.6, "rather": 0.8}
OPENINGS = ((), ("i", "think"), ("honestly",), ("for", "me"), ("well",))


def write_example_utterances(folder: str | Path) -> Path:
    """Writes ``utterances.jsonl`` and ``features.npz``: 320 synthetic utterances of 40 speakers, split by speaker.

    Sentences such as "i think the plot was not very good" have a head for every word. The label follows the adjective,
    its degree and a negation, with noise. Audio and visual streams are made by `stress_set`.
    """
    return write_utterances(stress_set(made_up_utterances(), seed=0), Path(folder) / "film_talk")


def made_up_utterances() -> Utterances:
    """The sentences with heads and labels, without sound and face."""
    rng = numpy_rng(0, "example of ssu")
    ids, videos, tokens, labels, split = [], [], [], [], []
    heads: list[int] = []
    for speaker, part in enumerate(PARTS):
        for number in range(EACH):
            words, own, label = _sentence(rng)
            ids.append(f"speaker-{speaker + 1:02d}-{number + 1:02d}")
            videos.append(f"speaker-{speaker + 1:02d}")
            tokens.append(words)
            heads += own
            labels.append(label)
            split.append(part)
    return make_utterances(ids, tokens, videos=videos, heads=np.asarray(heads), labels=np.asarray(labels), split=split)


def _sentence(rng: np.random.Generator) -> tuple[list[str], list[int], float]:
    """Words, their heads and the label: opening, "the", noun, "was", "not", degree, adjective."""
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    noun = NOUNS[int(rng.integers(len(NOUNS)))]
    adjective, value = list(ADJECTIVES.items())[int(rng.integers(len(ADJECTIVES)))]
    first = len(opening)
    verb = first + 2
    words = [*opening, "the", noun, "was"]
    heads = [*([verb] * first), first + 1, verb, verb]
    if rng.random() < 0.3:
        words, heads, value = [*words, "not"], [*heads, verb], -0.7 * value
    if rng.random() < 0.5:
        degree, factor = list(DEGREES.items())[int(rng.integers(len(DEGREES)))]
        words, heads, value = [*words, degree], [*heads, len(words) + 1], factor * value
    words, heads = [*words, adjective], [*heads, verb]
    return words, heads, float(np.clip(value + 0.3 * rng.normal(), -3, 3))
