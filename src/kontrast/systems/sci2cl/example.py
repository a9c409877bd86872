"""The written example: clearly synthetic cells of a garden, with counts of genes and of proteins, as one h5mu file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from kontrast.data.omics import CountMatrix, write_h5mu
from kontrast.files import replacing
from kontrast.randomness import numpy_rng

TYPES = ("root", "stem", "leaf", "petal", "pollen")
CELLS, GENES, PROTEINS = 300, 60, 20


def write_example_cells(folder: str | Path) -> Path:
    """Writes ``garden.h5mu``: 300 cells of five types; `hours` rises from the first type to the last.

    Each type favours a few genes and, more faintly, a few proteins; two types share their proteins and two their genes,
    so that only both modalities together tell all five apart.
    """
    rng = numpy_rng(0, "example of sci2cl")
    kind = rng.permutation(np.arange(CELLS) % len(TYPES))
    gene_group, protein_group = np.array([0, 0, 1, 2, 3])[kind], np.array([0, 1, 2, 3, 3])[kind]
    depth = rng.lognormal(0.0, 0.3, CELLS)
    genes = rng.poisson(depth[:, None] * _means(rng, 4, GENES, 12, 6.0)[gene_group])
    proteins = rng.poisson(depth[:, None] * _means(rng, 4, PROTEINS, 4, 25.0)[protein_group])
    parts = np.array(["train", "train", "train", "valid", "test"])[rng.permutation(np.arange(CELLS) % 5)]
    obs = pd.DataFrame(
        {
            "cell_type": [TYPES[number] for number in kind],
            "batch": np.where(rng.random(CELLS) < 0.5, "bed-1", "bed-2"),
            "hours": kind * 2.0 + rng.random(CELLS),
            "split": parts,
        },
        index=[f"plant-{number + 1:03d}" for number in range(CELLS)],
    )
    path = Path(folder) / "garden.h5mu"
    names = [np.asarray([f"{word}-{number + 1}" for number in range(count)], dtype=object) for word, count in
             (("gene", GENES), ("prot:protein", PROTEINS))]  # fmt: skip
    with replacing(path) as temporary:
        write_h5mu(
            temporary,
            [("rna", CountMatrix.of(genes), names[0]), ("prot", CountMatrix.of(proteins), names[1])],
            obs,
            {},
        )
    return path


def _means(rng: np.random.Generator, groups: int, features: int, favoured: int, factor: float) -> np.ndarray:
    """(groups, features) expected counts."""
    base = rng.lognormal(0.0, 0.5, features)
    means = np.tile(base, (groups, 1))
    for group in range(groups):
        means[group, rng.choice(features, favoured, replace=False)] *= factor
    return means
