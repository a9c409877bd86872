"""Importing the room loads none of the optional or heavy packages."""

from __future__ import annotations

import subprocess
import sys

import kontrast.evaluation


def test_the_import_is_light() -> None:
    heavy = ("sklearn", "umap", "faiss", "bm25s", "numba", "transformers", "pandas", "plotly", "scipy.stats")
    code = f"import sys, kontrast.evaluation; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(kontrast.evaluation, name) for name in kontrast.evaluation.__all__)
