"""The written example: a clearly synthetic collection of HTML data sheets with questions in other words."""

from __future__ import annotations

import json
from pathlib import Path

from kontrast.files import write_text
from kontrast.randomness import numpy_rng

SHEETS = 240
FRUITS = ("apple", "pear", "plum", "cherry", "quince", "fig", "grape", "melon", "peach", "lemon", "mango", "olive")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "purple", "orange", "grey")
VESSELS = ("basket", "crate", "bowl", "jar", "sack", "box", "barrel", "tray")
PLACES = ("cellar", "kitchen", "garden", "attic", "garage", "pantry", "market", "harbour")
LETTERS = ("ka", "zu", "mi", "ro", "te", "lo", "va", "ni", "se", "po", "gu", "he")
NOISE = ("Read the terms below.", "This sheet is printed on both sides.", "Keep it dry.", "See the annex for dates.")
PARTS = (("train", 0.0, 0.7), ("dev", 0.7, 0.8), ("test", 0.8, 1.0))


def write_example_collection(folder: str | Path) -> Path:
    """Writes a folder in BEIR's layout: corpus.jsonl with HTML, queries.jsonl, and qrels for train, dev and test.

    A sheet names a fruit, a colour, a vessel and a place by made-up codes in its heading, a list and a table; the two
    questions about it use plain words. No word stands on both sides, so nothing but learned correspondence finds the
    sheet. The sheets of the three parts differ.
    """
    folder = Path(folder) / "sheets"
    rng = numpy_rng(0, "example of seal")
    words = (FRUITS, COLOURS, VESSELS, PLACES)
    codes = [rng.permutation(LETTERS)[: len(list_)] for list_ in words]
    sizes = [len(list_) for list_ in words]
    chosen = rng.choice(sizes[0] * sizes[1] * sizes[2] * sizes[3], SHEETS, replace=False)
    corpus, queries = [], []
    judged: dict[str, list[str]] = {name: [] for name, _, _ in PARTS}
    for sheet, number in enumerate(chosen):
        picks = []
        for size in sizes:
            number, pick = divmod(int(number), size)
            picks.append(pick)
        fruit, colour, vessel, place = (list_[pick] for list_, pick in zip(words, picks))
        first, second, third, fourth = (f"{sign}{code[pick]}" for sign, code, pick in zip("fcvp", codes, picks))
        noise = [str(text) for text in rng.permutation(NOISE)[:2]]
        html = (
            f"<section><h1>Sheet {first}</h1><p>{noise[0]}</p><dl><dt>Tint</dt><dd>{second}</dd>"
            f"<dt>Vessel</dt><dd>stored in <b>{third}</b></dd></dl></section>"
            f"<section><h2>Where</h2><table><tr><td>Place</td><td>{fourth}</td></tr></table>"
            f"<ul><li>{noise[1]}</li></ul></section>"
        )
        name = f"s{sheet:03d}"
        corpus.append({"_id": name, "html": html})
        part = next(part for part, low, high in PARTS if low <= sheet / SHEETS < high)
        asked = (
            f"Where is the {colour} {vessel} of {fruit} that stood in the {place}?",
            f"the {place}, a {vessel} with {colour} {fruit}",
        )
        for place_, text in enumerate(asked):
            queries.append({"_id": f"{name}-{place_}", "text": text})
            judged[part].append(f"{name}-{place_}\t{name}\t1\n")
    write_text(folder / "corpus.jsonl", "".join(json.dumps(row) + "\n" for row in corpus))
    write_text(folder / "queries.jsonl", "".join(json.dumps(row) + "\n" for row in queries))
    for part, lines in judged.items():
        write_text(folder / "qrels" / f"{part}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder
