"""The run folder: everything about one run, in files that any tool reads.

::

    run.json            what ran: system, seed, command, data and its sha256, versions, status, times
    config.yaml         sections `system` and `trainer`
    metrics.json        what came out; byte-equal for equal runs, so it holds no times
    ablation.json       the three arms, if `ablate` ran
    history.parquet     training curves: stage, epoch, step and one column per quantity
    embeddings.parquet  id, kind, split, the data's own columns, vector (list of float32)
    items/*.parquet     the primary metric per test item: paired intervals resample these
    figures/            the system's own figures
    model/              what `System.load` reads
    checkpoints/ logs/  what training left for `--resume` and for loggers
    report.html         the page a person opens
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from kontrast.config import read_yaml
from kontrast.errors import DataError
from kontrast.files import content_hash, replacing, write_text
from kontrast.pipeline.embedding_files import write_vectors
from kontrast.pipeline.run_records import Ablation, AblationArm, Metrics, RunRecord, Status, plain

if TYPE_CHECKING:  # the contract brings torch; reading a run needs none of it
    from kontrast.contract import Embeddings

__all__ = [
    "Ablation",
    "AblationArm",
    "Metrics",
    "RunFolder",
    "RunRecord",
    "StoredEmbeddings",
    "installed_versions",
]

HISTORY_KEYS = ("stage", "epoch", "step")
_PARTS = (
    "run.json", "config.yaml", "metrics.json", "ablation.json", "history.parquet", "embeddings.parquet", "report.html",
    "items", "figures", "model", "checkpoints", "logs",
)  # fmt: skip
_PACKAGES = ("kontrast", "torch", "numpy", "lightning")


@dataclass(frozen=True)
class StoredEmbeddings:
    """What embeddings.parquet holds.

    Attributes:
        rows: one row per vector: id, kind, split and the data's own columns.
        vectors: float32, shape (n, d); empty (0, 0) if only the rows were asked for.
        label, hover: names of the columns that colour a map and show under the pointer.
    """

    rows: pd.DataFrame
    vectors: NDArray[np.float32]
    label: str | None = None
    hover: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Make one with `create`, come back to it with `open`; every write is whole or does not happen."""

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        system: str,
        seed: int,
        preset: str = "cpu",
        command: Sequence[str] = (),
        data: str | Path | None = None,
        data_sha256: str | None = None,
        rows: int | Mapping[str, int] | None = None,
        device: str = "cpu",
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Self:
        """Starts a run folder with status "running".

        Args:
            path: the folder; made if it is missing.
            system: registered name of the system.
            seed: seed of the run.
            preset: preset of the configuration.
            command: the command line as words.
            data: file or folder of the data; hashed here unless `data_sha256` brings the hash.
            data_sha256: hash of the data, if it is known.
            rows: number of rows, in all or by split.
            device: what it runs on.
            extra: further facts for run.json.
            overwrite: replace a run that is there (its own files only; others in the folder stay).

        Raises:
            DataError: if the folder holds another run or anything else.
        """
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise DataError("is a file, not a folder", file=run.path, mend="give another folder with --out")
        if run.path.is_dir() and any(run.path.iterdir()):
            run._make_room(overwrite)
        facts: dict[str, Any] = {}
        if data is not None:
            facts = {"path": str(data), "sha256": data_sha256 or content_hash(data), "rows": rows}
        record = RunRecord(
            system=system, seed=seed, preset=preset, command=tuple(map(str, command)), data=facts,
            versions=installed_versions(), platform=platform.platform(), device=device, started=_now(),
            extra=dict(extra or {}),
        )  # fmt: skip
        record.write(run._file("run.json"))
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run folder.

        Raises:
            DataError: if there is no such folder, it is no run folder, or run.json is damaged or of a newer format.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise DataError("no such run folder", file=run.path, mend="give the folder that 'kontrast train' wrote")
        if not run._file("run.json").is_file():
            raise DataError(
                "is not a run folder (it has no run.json)",
                file=run.path,
                mend="give the folder that 'kontrast train' wrote",
            )
        _ = run.record
        return run

    def _make_room(self, overwrite: bool) -> None:
        if not self._file("run.json").is_file():
            problem = "is not empty and is not a run folder"
            raise DataError(problem, file=self.path, mend="give another folder with --out")
        if not overwrite:
            record = self.record
            what = f"{record.system}, seed {record.seed}, started {record.started}"
            if record.status in ("trained", "finished"):
                mend = "give another folder with --out, or replace it with --overwrite"
                raise DataError(f"already holds a {record.status} run ({what})", file=self.path, mend=mend)
            mend = "continue it with --resume, or start again with --overwrite"
            raise DataError(f"holds a half-finished run ({what})", file=self.path, mend=mend)
        # run.json goes last: a kill in between leaves a folder that is still known to be a run.
        for part in reversed(_PARTS):
            target = self._file(part)
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)

    # ---- what ran ------------------------------------------------------------------------------------------------

    @property
    def record(self) -> RunRecord:
        """What run.json says now.

        Raises:
            DataError: if it is missing, damaged or of a newer format.
        """
        return RunRecord.read(self._file("run.json"))

    def update(self, **changes: Any) -> RunRecord:
        """Changes fields of run.json; returns the new record."""
        record = replace(self.record, **changes)
        record.write(self._file("run.json"))
        return record

    def mark(self, status: Status, *, failure: str | None = None) -> None:
        """Sets the status; "finished" and "failed" also set the time."""
        over = {"finished": _now()} if status in ("finished", "failed") else {}
        self.update(status=status, failure=failure, **over)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds of its block to run.json under `part`; an error marks the run failed and goes on up."""
        begun = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._add_duration(part, begun)
            self.mark("failed", failure=" ".join(str(error).split()) or type(error).__name__)
            raise
        self._add_duration(part, begun)

    def provenance(self) -> dict[str, str]:
        """Versions, seed, data and its hash, platform and times, as words to print, in reading order."""
        record = self.record
        facts: dict[str, str] = {"system": record.system, "preset": record.preset, "seed": str(record.seed)}
        facts |= {f"data {key}": _words(value) for key, value in record.data.items() if value is not None}
        facts |= {key: str(value) for key, value in record.versions.items()}
        facts |= {"platform": record.platform, "device": record.device}
        facts |= {key: value for key, value in (("started", record.started), ("finished", record.finished)) if value}
        return facts | {f"{part} took": f"{seconds:,.1f} s" for part, seconds in record.durations.items()}

    # ---- configuration -------------------------------------------------------------------------------------------

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Writes config.yaml from the sections "system" and "trainer" as plain values (`model_dump(mode="json")`)."""
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        return write_text(self._file("config.yaml"), text)

    def config(self) -> dict[str, Any]:
        """What config.yaml holds.

        Raises:
            ConfigError: if it is missing or not YAML.
        """
        return read_yaml(self._file("config.yaml"))

    # ---- metrics -------------------------------------------------------------------------------------------------

    def write_metrics(self, metrics: Metrics) -> Path:
        """Writes metrics.json; equal metrics give equal bytes."""
        return metrics.write(self._file("metrics.json"))

    def metrics(self) -> Metrics:
        """What metrics.json holds; a value that was not finite comes back as NaN.

        Raises:
            DataError: if it is missing (the run was not measured) or damaged.
        """
        file = self._file("metrics.json")
        if not file.is_file():
            raise DataError("has no metrics.json", file=self.path, mend="finish the run with --resume, or evaluate it")
        return Metrics.read(file)

    def write_items(self, name: str, ids: Sequence[str], values: NDArray[np.float64] | Sequence[float]) -> Path:
        """Writes the primary metric per item as items/`name`.parquet (columns id, value).

        Raises:
            ValueError: if `ids` and `values` differ in length.
        """
        column = np.asarray(values, dtype=np.float64)
        if column.shape != (len(ids),):
            raise ValueError(f"values must have shape ({len(ids)},) for {len(ids)} ids, got {column.shape}")
        return self._write_table(f"items/{_safe(name)}.parquet", pa.table({"id": list(map(str, ids)), "value": column}))

    def items(self, name: str) -> pd.DataFrame:
        """Columns id and value of items/`name`.parquet.

        Raises:
            DataError: if it is missing or damaged.
        """
        return _frame(self._read_table(f"items/{_safe(name)}.parquet", ("id", "value")))

    def write_ablation(self, ablation: Ablation) -> Path:
        """Writes ablation.json."""
        return ablation.write(self._file("ablation.json"))

    def ablation(self) -> Ablation | None:
        """What ablation.json holds, or None if there is none.

        Raises:
            DataError: if it is damaged.
        """
        file = self._file("ablation.json")
        return Ablation.read(file) if file.is_file() else None

    # ---- curves and vectors --------------------------------------------------------------------------------------

    def write_history(self, history: pd.DataFrame) -> Path:
        """Writes the training curves: stage, epoch, step first, then one column per quantity, NaN where absent.

        Raises:
            ValueError: if stage, epoch or step is missing.
        """
        missing = [key for key in HISTORY_KEYS if key not in history.columns]
        if missing:
            raise ValueError(f"a history has the columns stage, epoch and step; missing: {', '.join(missing)}")
        rest = [name for name in history.columns if name not in HISTORY_KEYS]
        table = pa.Table.from_pandas(history[[*HISTORY_KEYS, *rest]], preserve_index=False)
        return self._write_table("history.parquet", table)

    def history(self) -> pd.DataFrame:
        """The training curves; empty (with stage, epoch, step) if the run has none.

        Raises:
            DataError: if history.parquet is damaged.
        """
        if not self._file("history.parquet").is_file():
            return pd.DataFrame({key: [] for key in HISTORY_KEYS})
        return _frame(self._read_table("history.parquet", HISTORY_KEYS))

    def write_embeddings(self, embeddings: Embeddings, *, split: str | Sequence[str]) -> Path:
        """Writes embeddings.parquet: id, kind, split, the data's own columns, then vector as a list of float32.

        Args:
            embeddings: n rows.
            split: "train", "valid" or "test": one word for all rows, or one for each.

        Raises:
            ValueError: if `split` has another length, or a column is named like one of ours.
        """
        file = self._file("embeddings.parquet")
        with replacing(file) as temporary:
            write_vectors(temporary, embeddings, split=split)
        return file

    def embeddings(self, *, vectors: bool = True) -> StoredEmbeddings:
        """What embeddings.parquet holds; with ``vectors=False`` only the rows, without reading the vectors.

        Raises:
            DataError: if it is missing or damaged, or its vectors differ in length.
        """
        skip = () if vectors else ("vector",)
        table = self._read_table("embeddings.parquet", ("id", "kind", "split", "vector"), skip)
        facts = table.schema.metadata or {}
        label, hover = (facts.get(f"kontrast.{key}".encode(), b"").decode() or None for key in ("label", "hover"))
        matrix = np.zeros((0, 0), dtype=np.float32)
        if vectors:
            matrix = _matrix(table.column("vector"), self._file("embeddings.parquet"))
            table = table.drop_columns(["vector"])
        return StoredEmbeddings(_frame(table), matrix, label, hover)

    # ---- folders -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Path:
        """Where `System.save` writes and `System.load` reads."""
        return self._file("model")

    @property
    def figures(self) -> Path:
        """Where the system's own figures lie."""
        return self._file("figures")

    @property
    def checkpoints(self) -> Path:
        """Where training leaves checkpoints."""
        return self._file("checkpoints")

    @property
    def logs(self) -> Path:
        """Where loggers write."""
        return self._file("logs")

    @property
    def report(self) -> Path:
        """The page a person opens."""
        return self._file("report.html")

    # ---- inside --------------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self.path / name

    def _add_duration(self, part: str, begun: float) -> None:
        durations = dict(self.record.durations)
        durations[part] = round(durations.get(part, 0.0) + time.monotonic() - begun, 3)
        self.update(durations=durations)

    def _write_table(self, name: str, table: pa.Table) -> Path:
        with replacing(self._file(name)) as temporary:
            pq.write_table(table, temporary)
        return self._file(name)

    def _read_table(self, name: str, needed: Sequence[str], skip: Sequence[str] = ()) -> pa.Table:
        file = self._file(name)
        if not file.is_file():
            raise DataError(f"has no {name}", file=self.path, mend="finish the run with --resume")
        try:
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            if missing := [column for column in needed if column not in names]:
                raise DataError(f"has no column '{missing[0]}'; it has {', '.join(names)}", file=file)
            return parquet.read(columns=[column for column in names if column not in skip])
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"is not readable as parquet ({error})", file=file, mend="write it again") from None


def installed_versions() -> dict[str, str]:
    """Versions of python and of the packages that decide the numbers."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _safe(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"'{name}' is no plain file name")
    return name


def _frame(table: pa.Table) -> pd.DataFrame:
    return pd.DataFrame(table.to_pandas())


def _matrix(column: pa.ChunkedArray, file: Path) -> NDArray[np.float32]:
    lengths = {length for chunk in column.chunks for length in chunk.value_lengths().unique().to_pylist()}
    if len(lengths) > 1 or None in lengths:
        raise DataError("has vectors of different lengths", file=file, mend="write it again")
    width = lengths.pop() if lengths else 0
    matrix = np.empty((len(column), width), dtype=np.float32)
    row = 0
    for chunk in column.chunks:
        matrix[row : row + len(chunk)] = chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), width)
        row += len(chunk)
    return matrix
