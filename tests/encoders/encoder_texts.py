"""Texts of many lengths for the encoder tests."""

from __future__ import annotations

import numpy as np

_WORDS = [
    "read", "write", "table", "column", "vector", "array", "sort", "values", "axis", "numpy", "pandas", "mean",
    "sum", "matrix", "product", "inverse", "image", "crop", "random", "split", "train", "test", "batch", "loss",
    "gradient", "descent", "step", "size", "model", "graph", "node", "edge", "weight", "label", "text", "token",
]  # fmt: skip


def some_texts(n: int = 120, seed: int = 0, longest: int = 40) -> list[str]:
    """n texts of 1 to `longest` words, some of them alike, with identifiers and non-English text among them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(_WORDS, size=rng.integers(1, longest + 1))) for _ in range(n)]
    texts[:5] = ["numpy.sortValues(axis=0)", "ünïcode 漢字 text", "a", texts[5], "word " * 200]
    return texts
