"""`predict`: the answers of a finished run for new data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kontrast.data.tables import write_table
from kontrast.errors import ConfigError
from kontrast.files import replacing
from kontrast.pipeline.evaluate import load_run

TABLES = (".parquet", ".csv", ".jsonl")


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
        check_ending(output, "answers", TABLES, system.answer_files)
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


def check_ending(output: str | Path, what: str, general: tuple[str, ...], own: Mapping[str, str]) -> None:
    """Raises ConfigError unless the ending of `output` is a general one or one of the system's own."""
    allowed = [*general, *(ending or "a folder" for ending in own)]
    if Path(output).suffix not in (*general, *own):
        raise ConfigError(f"{output}: {what} of this system are written as {' or '.join(allowed)}.")


def _check_free(allowed: tuple[str, ...], overrides: Mapping[str, Any]) -> None:
    for name in overrides:
        if name not in allowed:
            known = ", ".join(f"--{option.replace('_', '-')}" for option in allowed) or "none"
            raise ConfigError(f"'--{name.replace('_', '-')}' does not steer predictions; options that do: {known}.")
