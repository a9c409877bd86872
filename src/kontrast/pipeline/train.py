"""`train`: from a file to a run folder with a model, numbers and a report; and `report`, which writes the page anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kontrast.config import BaseConfig, Preset
from kontrast.contract import System, SystemConfig, load_system
from kontrast.data.splits import Splits
from kontrast.errors import CheckpointError, ConfigError, DataError, KontrastError
from kontrast.evaluation.intervals import bootstrap_interval
from kontrast.extras import installed
from kontrast.files import content_hash
from kontrast.pipeline.report import write_figures, write_report
from kontrast.pipeline.run_folder import Metrics, RunFolder
from kontrast.progress import first_process, say, showing
from kontrast.training import FirstGoesFirst, TrainerConfig

# UMAP compiles itself for half a minute; a map of fewer points gains little over PCA.
UMAP_FROM = 500
OWN_TO_RUN = {"directory", "resume", "progress"}
LEFTOVER = ".*.tmp"
"""What `kontrast.files.replacing` names its folders."""


def train_run(
    system: type[System[Any, Any]],
    config: SystemConfig,
    trainer: TrainerConfig,
    *,
    data: str | Path,
    out: str | Path,
    preset: Preset = "cpu",
    command: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    baselines: bool = True,
    report: bool = True,
) -> RunFolder:
    """Trains a system on a file's training part, measures it on the test part and writes everything to `out`.

    Args:
        system: the system's class.
        config: its options.
        trainer: devices, precision, loggers.
        data: what `System.read` takes.
        out: the run folder.
        preset: the name recorded with the run.
        command: words of the command that started it, for the record.
        resume: go on with the run in `out`, if there is one; its data and options must be the same.
        overwrite: replace a run in `out`.
        baselines: also measure the system's baselines.
        report: also write report.html.

    Returns:
        The run folder.

    Raises:
        DataError: if the data cannot be read or learned from, or `out` holds something else.
        CheckpointError: if `resume` finds a run of other data or options.
    """
    with showing(trainer.progress):
        estimator = system(config)
        splits = estimator.split(estimator.read(data))
        _check_parts(estimator, splits, data)
        leaks = estimator.leaks(splits.train, splits.test)
        sha = content_hash(data)
        options = {
            "system": config.model_dump(mode="json"),
            "trainer": trainer.model_dump(mode="json", exclude=OWN_TO_RUN),
        }
        run = RunFolder(Path(out))
        begin = FirstGoesFirst()
        begin.wait()
        if first_process():
            _tidy(run.path)
        if resume and (run.path / "run.json").is_file() and not (run.path / "config.yaml").is_file():
            # It was killed before it wrote its options: there is nothing to go on from, and nothing to lose.
            resume, overwrite = False, True
        resume = resume and (run.path / "run.json").is_file()
        if resume:
            run = RunFolder.open(out)
            _check_same(run, system, sha, options)
            if run.record.status == "finished":
                begin.done()
                say(f"{run.path} is finished already.")
                return run
        with _undone_unless_begun(run.path, replaces=overwrite and not resume):
            if not resume and first_process():
                rows = {name: estimator.size(part) for name, part in splits}
                run = RunFolder.create(
                    out, system=system.card.name, seed=config.seed, preset=preset, command=command, data=data,
                    data_sha256=sha, rows=rows, overwrite=overwrite, extra={"leaks": leaks.sentence},
                )  # fmt: skip
                run.write_config(options)
            begin.done()
            rows_text = ", ".join(f"{estimator.size(part):,} {name}" for name, part in splits)
            say(f"{system.card.name}: {rows_text} rows from {data}")
            say(leaks.sentence)
            estimator = _fitted(run, estimator, splits, trainer.changed(directory=run.path, resume=resume))
        if not first_process():
            return run
        say(f"measuring on the {estimator.size(splits.test):,} test rows")
        with run.timed("evaluate"):
            _measure(run, estimator, splits, baselines)
        if report:
            say("writing the report")
            with run.timed("report"):
                run.write_embeddings(estimator.embed(splits.test), split="test")
                write_figures(run, estimator.figures(splits.test))
                write_page(run, system)
        run.mark("finished")
    return run


def _fitted(
    run: RunFolder, estimator: System[Any, Any], splits: Splits[Any], trainer: TrainerConfig
) -> System[Any, Any]:
    """The trained system: loaded if the run got that far before, else trained and saved."""
    if trainer.resume and run.model.is_dir():
        return type(estimator).load(run.model)
    if not first_process():
        return estimator.fit(splits.train, splits.valid, trainer=trainer)
    with run.timed("train"):
        estimator.fit(splits.train, splits.valid, trainer=trainer)
        run.write_history(estimator.history_)
        estimator.save(run.model)
    run.mark("trained")
    return estimator


def _kept(path: Path) -> Path:
    """Where a run that is being replaced waits until the new one has begun."""
    return path.with_name(f".{path.name}.replaced")


def _tidy(path: Path) -> None:
    """Clears away what a kill left: files half written, and a run half replaced, which comes back."""
    if not (path / "run.json").is_file() and _kept(path).is_dir():
        shutil.rmtree(path, ignore_errors=True)
        _kept(path).rename(path)
    ours = (path / "run.json").is_file() or all(entry.match(LEFTOVER) for entry in path.glob("*"))
    for leftover in list(path.rglob(LEFTOVER)) if ours else ():
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _undone_unless_begun(path: Path, *, replaces: bool) -> Iterator[None]:
    """Leaves `path` as it was if an error that a person can mend comes before the first checkpoint of a new run.

    A wrong option is often found out as late as that; it should cost neither the run that was to be replaced nor leave
    a half-finished one in the way of the next attempt.
    """
    kept = _kept(path)
    there, new = path.is_dir(), not (path / "run.json").is_file()
    if first_process():
        shutil.rmtree(kept, ignore_errors=True)
        if replaces and not new:
            shutil.copytree(path, kept, copy_function=_link)
    try:
        yield
    except KontrastError:
        began = not (new or kept.is_dir()) or any(path.glob("checkpoints/*/*/"))
        if first_process() and not began and (path / "run.json").is_file():
            shutil.rmtree(path)
            if kept.is_dir():
                kept.rename(path)
            elif there:
                path.mkdir()
        raise
    finally:
        if first_process():
            shutil.rmtree(kept, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """A second name for the same bytes, which costs nothing; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _check_parts(estimator: System[Any, Any], splits: Splits[Any], data: str | Path) -> None:
    if splits.test is None:
        raise DataError("leaves no test part", file=data, mend="bring more rows, or a 'split' column with 'test' rows")
    for name, part in splits:
        if estimator.size(part) == 0:
            raise DataError(f"the {name} part has no rows", file=data, mend="bring more rows or a 'split' column")


def _with_defaults(config: type[BaseConfig], stored: dict[str, Any]) -> dict[str, Any]:
    """Stored options as they would be written today: one that did not exist yet when they were is at its default."""
    try:
        return config(**stored).model_dump(mode="json")
    except ConfigError:
        return stored


def _check_same(run: RunFolder, system: type[System[Any, Any]], sha: str, options: dict[str, Any]) -> None:
    record = run.record
    mend = "give the run's own data and options, another --out, or --overwrite instead of --resume"
    if record.system != system.card.name:
        raise CheckpointError(f"is a run of '{record.system}', not of '{system.card.name}'", file=run.path, mend=mend)
    if record.data.get("sha256") != sha:
        raise CheckpointError("was trained on other data (their sha256 differs)", file=run.path, mend=mend)
    stored = run.config()
    schema: dict[str, type[BaseConfig]] = {"system": system.Config, "trainer": TrainerConfig}
    for section, values in options.items():
        before = _with_defaults(schema[section], stored.get(section) or {})
        if section == "trainer":
            before = {option: value for option, value in before.items() if option not in OWN_TO_RUN}
        for option in sorted({*values, *before}):
            if values.get(option) != before.get(option):
                raise CheckpointError(
                    f"was started with {section}.{option}={before.get(option)!r}, now it is {values.get(option)!r}",
                    file=run.path,
                    mend=mend,
                )


def _measure(run: RunFolder, estimator: System[Any, Any], splits: Splits[Any], baselines: bool) -> None:
    card = estimator.card
    test = estimator.measure(splits.test)
    valid = estimator.evaluate(splits.valid) if splits.valid is not None else {}
    counts = {"test": estimator.size(splits.test)}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    items: dict[str, str] = {}
    if test.items is not None and test.item_ids is not None:
        run.write_items("test", test.item_ids, test.items)
        items["test"] = "test"
        counts["test"] = len(test.items)
        interval = bootstrap_interval(test.items, seed=estimator.config.seed)
        intervals["test"] = {card.primary_metric: (interval.low, interval.high)}
    run.write_metrics(
        Metrics(
            primary=card.primary_metric,
            higher_is_better=card.higher_is_better,
            test=test.metrics,
            valid=valid,
            baselines=estimator.baselines(splits.train, splits.test) if baselines else {},
            intervals=intervals,
            counts=counts,
            unit=card.unit,
            items=items,
        )
    )


def report_run(path: str | Path) -> Path:
    """Writes report.html anew from what the run folder holds.

    Raises:
        DataError: if it is no run folder or a part of it is damaged.
    """
    run = RunFolder.open(path)
    return write_page(run, load_system(run.record.system))


def write_page(run: RunFolder, system: type[System[Any, Any]]) -> Path:
    """Writes report.html: maps of the stored embeddings, and everything else as it lies in the folder."""
    stored = run.path / "embeddings.parquet"
    many = stored.is_file() and len(run.embeddings(vectors=False).rows) >= UMAP_FROM
    return write_report(
        run,
        card=system.card,
        options={"system": system.Config, "trainer": TrainerConfig},
        projections=("pca", "umap") if many and installed("umap") else ("pca",),
    )
