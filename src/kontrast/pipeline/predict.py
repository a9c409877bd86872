"""`embed` and `predict`: a finished run on new data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kontrast.data.tables import write_table
from kontrast.errors import ConfigError
from kontrast.files import replacing
from kontrast.pipeline.evaluate import load_run, own_test_data

TABLES = (".parquet", ".csv", ".jsonl")
VECTORS = (".parquet", ".npz")


def embed_run(
    path: str | Path, data: str | Path | None = None, output: str | Path | None = None
) -> tuple[Path, tuple[int, int]]:
    """Writes the vectors of `data` (or of the run's own test part).

    Args:
        path: run folder.
        data: what the system reads.
        output: a .parquet (id, kind, further columns, vector) or .npz (vectors, ids) file, or one of the system's
            `embedding_files`; default: the run's own embeddings.parquet, which is only written for the run's own data.

    Returns:
        The file and the shape (n, d).

    Raises:
        DataError: if the run or the data cannot be used.
        ConfigError: if the kind of `output` is unknown or missing.
    """
    if output is None and data is not None:
        raise ConfigError("give --output FILE (.parquet or .npz) for the vectors of other data.")
    run, system = load_run(path)
    if output is not None:
        _check_ending(output, "vectors", VECTORS, system.embedding_files)
    asked = own_test_data(run, system) if data is None else system.read(data, purpose="predict")
    embeddings = system.embed(asked)
    shape = (embeddings.vectors.shape[0], embeddings.vectors.shape[1])
    if output is None:
        return run.write_embeddings(embeddings, split="test"), shape
    with replacing(output) as temporary:
        if temporary.suffix == ".npz":
            np.savez(temporary, vectors=embeddings.vectors, ids=np.asarray(embeddings.ids, dtype=np.str_))
        elif temporary.suffix == ".parquet":
            embeddings.to_frame().to_parquet(temporary, index=False)
        else:
            system.write_embeddings(embeddings, asked, temporary)
    return Path(output), shape


def predict_run(
    path: str | Path,
    data: str | Path,
    output: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The system's answers for `data`, also written to `output` if given.

    Args:
        path: run folder.
        data: what the system reads for prediction.
        output: a .parquet, .csv or .jsonl file, or one of the system's `answer_files`.
        overrides: options of the system that steer the answer, such as ``top_k``.

    Raises:
        DataError: if the run or the data cannot be used.
        ConfigError: if an option is unknown, or one that training fixed, or the kind of `output` is unknown.
    """
    _, system = load_run(path)
    if output is not None:
        _check_ending(output, "answers", TABLES, system.answer_files)
    if overrides:
        _check_free(system.answer_options, overrides)
        system.config = system.config.changed(**overrides)
    asked = system.read(data, purpose="predict")
    frame = system.predict(asked)
    if output is not None and Path(output).suffix in TABLES:
        write_table(frame, output)
    elif output is not None:
        with replacing(output) as temporary:
            system.write_answers(frame, asked, temporary)
    return frame


def _check_ending(output: str | Path, what: str, general: tuple[str, ...], own: Mapping[str, str]) -> None:
    allowed = [*general, *(ending or "a folder" for ending in own)]
    if Path(output).suffix not in (*general, *own):
        raise ConfigError(f"{output}: {what} of this system are written as {' or '.join(allowed)}.")


def _check_free(allowed: tuple[str, ...], overrides: Mapping[str, Any]) -> None:
    for name in overrides:
        if name not in allowed:
            known = ", ".join(f"--{option.replace('_', '-')}" for option in allowed) or "none"
            raise ConfigError(f"'--{name.replace('_', '-')}' does not steer predictions; options that do: {known}.")
