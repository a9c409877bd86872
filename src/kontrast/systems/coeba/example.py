"""The written example: a clearly synthetic graph of clubs, in two CSV tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from kontrast.files import write_text
from kontrast.randomness import numpy_rng

CLUBS = ("chess", "rowing", "choir", "robotics", "theatre", "climbing", "gardening", "film")
MEMBERS = 30
INTERESTS = 64
INSIDE, OUTSIDE = 0.16, 0.004


def write_example_graph(folder: str | Path) -> Path:
    """Writes ``edges.csv`` (source, target) and ``nodes.csv`` (id, club as label, interests as features).

    A stochastic block model: members of one club are friends with probability 0.16, others with 0.004. Of 64 yes-or-no
    interests each club favours a few, so features say something about clubs, but less than friends do.
    """
    rng = numpy_rng(0, "example of coeba")
    n = len(CLUBS) * MEMBERS
    club = np.arange(n) // MEMBERS
    chance = np.where(club[:, None] == club[None], INSIDE, OUTSIDE)
    left, right = np.nonzero(np.triu(rng.random((n, n)) < chance, 1))
    favoured = rng.random((len(CLUBS), INTERESTS)) < 0.15
    likes = rng.random((n, INTERESTS)) < np.where(favoured[club], 0.45, 0.05)
    names = [f"{CLUBS[group]}-{number % MEMBERS + 1:02d}" for number, group in enumerate(club)]
    edges = [[names[u], names[v]] for u, v in zip(left, right)]
    nodes = [[name, CLUBS[group], *row] for name, group, row in zip(names, club, likes.astype(int).tolist())]
    target = Path(folder) / "friends"
    header = ["id", "label", *(f"interest_{number + 1}" for number in range(INTERESTS))]
    write_text(target / "edges.csv", _csv([["source", "target"], *edges]))
    write_text(target / "nodes.csv", _csv([header, *nodes]))
    return target


def _csv(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
