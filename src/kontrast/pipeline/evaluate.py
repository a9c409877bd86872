"""`evaluate`: a finished run on its test part or on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kontrast.contract import System, load_system
from kontrast.errors import DataError
from kontrast.files import content_hash
from kontrast.pipeline.run_folder import RunFolder
from kontrast.progress import say


def load_run(path: str | Path) -> tuple[RunFolder, System[Any, Any]]:
    """A run folder and its fitted system.

    Raises:
        DataError: if it is no run folder, or training has not finished.
        CheckpointError: if the model is damaged.
    """
    run = RunFolder.open(path)
    if not run.model.is_dir():
        raise DataError("holds no trained model yet", file=run.path, mend="finish training with --resume")
    return run, load_system(run.record.system).load(run.model)


def own_test_data(run: RunFolder, system: System[Any, Any]) -> Any:
    """The test part of the data that the run was trained on.

    Raises:
        DataError: if the file is gone or has changed since.
    """
    facts = run.record.data
    path = Path(str(facts.get("path")))
    if not path.exists():
        raise DataError("the run's data are not there any more", file=path, mend="give data with --data")
    if content_hash(path) != facts.get("sha256"):
        raise DataError("has changed since the run was trained on it", file=path, mend="give data with --data")
    return system.split(system.read(path)).test


def evaluate_run(path: str | Path, data: str | Path | None = None) -> dict[str, float]:
    """Metrics of a run on `data`, or on the test part of its own data.

    Raises:
        DataError: if the run or the data cannot be used.
    """
    run, system = load_run(path)
    if data is None:
        return system.evaluate(own_test_data(run, system))
    found = system.read(data)
    if content_hash(data) == run.record.data.get("sha256"):
        say("note: these are the run's own data, training rows included; its test part is measured without --data.")
    return system.evaluate(found)
