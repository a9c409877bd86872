"""The written example: clearly synthetic sentences in three invented languages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kontrast.data.tables import write_table
from kontrast.randomness import numpy_rng

ROWS = {"train": 120, "dev": 24, "test": 60}
LANGUAGES = ("eng", "left", "right")
TOPICS = ("cooking", "sailing", "gardening")
SPECIFIC = 12
COMMON = 30
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "ji", "ko", "lu", "me", "ni", "po", "ra", "su", "ta", "vo")


def write_example_languages(folder: str | Path) -> Path:
    """Writes a folder in the layout of SIB-200: ``eng/train.tsv`` and so on, with index_id, category and text.

    Every sentence is a string of invented words, some of which tell its topic. The languages "left" and "right" are
    "eng" with half of the words replaced by words of their own, so that what was learned in one helps in the others.
    """
    folder = Path(folder) / "languages"
    rng = numpy_rng(0, "example of languages")
    taken: set[str] = set()

    def word() -> str:
        while True:
            made = "".join(rng.choice(SYLLABLES, 3))
            if made not in taken:
                taken.add(made)
                return made

    concepts = len(TOPICS) * SPECIFIC + COMMON
    words = {"eng": [word() for _ in range(concepts)]}
    for language in LANGUAGES[1:]:
        own = rng.random(concepts) < 0.5
        words[language] = [word() if replaced else shared for replaced, shared in zip(own, words["eng"])]
    number = 0
    for part, rows in ROWS.items():
        drawn = []
        for row in range(rows):
            topic = row % len(TOPICS)
            telling = rng.choice(SPECIFIC, 4, replace=False) + topic * SPECIFIC
            filling = rng.choice(COMMON, 4, replace=False) + len(TOPICS) * SPECIFIC
            drawn.append((number + row, TOPICS[topic], rng.permutation([*telling, *filling])))
        number += rows
        for language in LANGUAGES:
            table = pd.DataFrame(
                {
                    "index_id": [name for name, _, _ in drawn],
                    "category": [topic for _, topic, _ in drawn],
                    "text": [" ".join(words[language][concept] for concept in places) for _, _, places in drawn],
                }
            )
            (folder / language).mkdir(parents=True, exist_ok=True)
            write_table(table, folder / language / f"{part}.tsv")
    return folder
