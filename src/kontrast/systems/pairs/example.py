"""The written example: a clearly synthetic table of questions and answers that training can learn."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from kontrast.files import write_text
from kontrast.randomness import numpy_rng

ROWS = 700
FRUITS = ("apple", "pear", "plum", "cherry", "quince", "fig", "grape", "melon", "peach", "lemon", "mango", "olive")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "purple", "orange", "grey")
VESSELS = ("basket", "crate", "bowl", "jar", "sack", "box", "barrel", "tray")
PLACES = ("cellar", "kitchen", "garden", "attic", "garage", "pantry", "market", "harbour")
CODES = ("KA", "ZU", "MI", "RO", "TE", "LO", "VA", "NI", "SE", "PO", "GU", "HE")


def write_example_pairs(folder: str | Path) -> Path:
    """Writes ``pairs.csv`` with the columns question and answer into `folder`.

    Every question names a fruit, a colour, a vessel and a place in plain words; its answer names the same four by codes
    of two letters. No word stands on both sides, so nothing but learned correspondence finds the answer.
    """
    rng = numpy_rng(0, "example of pairs")
    words = (FRUITS, COLOURS, VESSELS, PLACES)
    codes = [rng.permutation(CODES)[: len(list_)] for list_ in words]
    sizes = [len(list_) for list_ in words]
    total = sizes[0] * sizes[1] * sizes[2] * sizes[3]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["question", "answer"])
    for number in rng.choice(total, ROWS, replace=False):
        picks = []
        for size in sizes:
            number, pick = divmod(int(number), size)
            picks.append(pick)
        fruit, colour, vessel, place = (list_[pick] for list_, pick in zip(words, picks))
        parts = [f"{sign}{code[pick]}" for sign, code, pick in zip("FCVP", codes, picks)]
        writer.writerow([f"Where is the {colour} {vessel} of {fruit} that stood in the {place}?", " ".join(parts)])
    return write_text(Path(folder) / "pairs.csv", stream.getvalue())
