"""`embed`: the vectors of a finished run for new data: one file, or a folder of shards for a corpus of any size.

A corpus that does not fit into memory lies in a folder of table files, its shards. Each is read, embedded and written
as a file of its own, first under a temporary name; a shard that is finished is not repeated when the same command is
given again. Processes that were started together (torchrun) share the batches of one file, or the shards of a folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from kontrast.contract import System
from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.encoders.inference import Inference, Precision, fast_bf16, inference
from kontrast.errors import ConfigError, DataError
from kontrast.files import content_hash, read_json, replacing, write_json
from kontrast.pipeline.embedding_files import read_facts, write_vectors
from kontrast.pipeline.evaluate import load_run, own_test_data
from kontrast.pipeline.predict import check_ending
from kontrast.pipeline.run_folder import RunFolder
from kontrast.progress import first_process, say, task

VECTORS = (".parquet", ".npz")
Engine = Literal["local", "ray"]
FACTS = "embedding.json"
"""In a folder of shards: which model made the vectors, and at which precision."""
_LOST = re.compile(r"gloo|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)
_WAIT = timedelta(days=7)


def embed_run(
    path: str | Path,
    data: str | Path | None = None,
    output: str | Path | None = None,
    *,
    precision: Precision = "fp32",
    engine: Engine | None = None,
    workers: int | None = None,
) -> tuple[Path, tuple[int, int]]:
    """Writes the vectors of `data` (or of the run's own test part) into one file, or as `embed_folder` does.

    Of several processes that were started together each encodes its share, and the first one writes.

    Args:
        path: run folder.
        data: what the system reads.
        output: a .parquet (id, kind, further columns, vector) or .npz (vectors, ids) file, or one of the system's
            `embedding_files`; default: the run's own embeddings.parquet, which is only written for the run's own data.
        precision: of the encoder; "bf16" only where there is an `output`, for a run's own file is exact.
        engine: "local" or "ray" take a folder of shards; None: that is done where `data` and `output` are folders.
        workers: of ray.

    Returns:
        The file and the shape (n, d).

    Raises:
        DataError: if the run or the data cannot be used.
        ConfigError: if the kind of `output` is unknown or missing.
    """
    if output is None and data is not None:
        raise ConfigError("give --output FILE (.parquet or .npz) for the vectors of other data.")
    if output is None and precision != "fp32":
        raise ConfigError("the run's own embeddings.parquet is exact; give --output FILE for vectors in bf16.")
    if engine is not None and (data is None or output is None):
        raise ConfigError("--engine embeds a folder of shards: give --data FOLDER and --output FOLDER.")
    if workers is not None and engine != "ray":
        raise ConfigError("--workers is an option of --engine ray.")
    run, system = load_run(path)
    if data is not None and output is not None and (engine is not None or _are_shards(system, data, output)):
        return embed_folder(run, system, data, output, engine=engine or "local", precision=precision, workers=workers)
    if output is not None:
        check_ending(output, "vectors", VECTORS, system.embedding_files)
    asked = own_test_data(run, system) if data is None else system.read(data, purpose="predict")
    with _together() as ranks, inference(precision=precision, split=ranks > 1) as setting:
        embeddings = system.embed(asked)
    _say_precision(setting)
    shape = (embeddings.vectors.shape[0], embeddings.vectors.shape[1])
    written = Path(output) if output is not None else run.path / "embeddings.parquet"
    if not first_process():
        return written, shape
    if output is None:
        return run.write_embeddings(embeddings, split="test"), shape
    with replacing(output) as temporary:
        if temporary.suffix in VECTORS:
            write_vectors(temporary, embeddings)
        else:
            system.write_embeddings(embeddings, asked, temporary)
    return written, shape


def embed_folder(
    run: RunFolder,
    system: System[Any, Any],
    data: str | Path,
    output: str | Path,
    *,
    engine: Engine = "local",
    precision: Precision = "fp32",
    workers: int | None = None,
) -> tuple[Path, tuple[int, int]]:
    """Writes the vectors of every table file in a folder into a folder of parquet files, one for one.

    Args:
        run: run folder.
        system: its system.
        data: a folder of shards (parquet, CSV, TSV, JSONL or text, also gzipped), each of which the system reads.
        output: a folder: new, empty, or begun by the same command before. "a.csv" becomes "a.csv.parquet", and
            "a.parquet" keeps its name.
        engine: "local" embeds shard after shard in this process (with torchrun: in all of them); "ray" has Ray Data
            give the shards to workers, on one machine or many that see the same folders.
        precision: of the encoder.
        workers: of ray; None: one per CPU.

    Returns:
        The folder and the shape (n, d) of all vectors in it.

    Raises:
        DataError: if the run, a shard or the folder cannot be used; shards that were finished before stay.
        MissingExtraError: if ray is asked for and not installed.
    """
    source, folder = Path(data), Path(output)
    shards = find_shards(source, folder)
    first = first_process()
    with _together() as ranks:
        facts = {"model": content_hash(run.model / "system.json"), "precision": precision}
        if first:
            _begin(folder, facts)
        todo = [shard for shard in shards if not shard.finished()]
        if ranks > 1:
            dist.barrier()  # nobody writes before everyone has looked at what is finished
        if done := len(shards) - len(todo):
            say(f"{done} of {len(shards)} shards are finished already")
        if engine == "ray":
            from kontrast.pipeline.embed_ray import embed_with_ray

            embed_with_ray(run.path, todo, precision=precision, workers=workers, done=done)
        else:
            rank = dist.get_rank() if ranks > 1 else 0
            mine = todo[rank::ranks]
            with (
                inference(precision=precision) as setting,
                task("embedding shards", len(mine) + done, done=done) as work,
            ):
                for shard in mine:
                    embed_shard(system, shard)
                    work.advance(note=shard.source.name)
            if mine:
                _say_precision(setting)
        if ranks > 1:
            dist.barrier()
        if first:
            _clear(folder)
    return folder, _shape(shards)


@dataclass(frozen=True)
class Shard:
    """One file of a corpus and where its vectors go."""

    source: Path
    target: Path

    def facts(self) -> dict[str, str]:
        """What tells this state of the source from another: its name, size and time of change."""
        known = self.source.stat()
        return {"source": self.source.name, "bytes": str(known.st_size), "changed": str(known.st_mtime_ns)}

    def finished(self) -> bool:
        """Whether the target is whole and of the source as it is now."""
        stored = read_facts(self.target)
        return stored is not None and all(stored.get(key) == value for key, value in self.facts().items())


def find_shards(source: Path, folder: Path) -> list[Shard]:
    """The table files of a folder by name, without hidden ones.

    Raises:
        DataError: if `source` is no folder of table files, or is `folder` itself.
    """
    if not source.is_dir():
        mend = "give a folder of table files, or a file as --output"
        raise DataError("is not a folder of shards", file=source, mend=mend)
    if folder.exists() and folder.resolve() == source.resolve():
        raise DataError("is the folder of the data themselves", file=folder, mend="give another folder with --output")
    names = sorted(
        entry.name for entry in source.iterdir() if entry.is_file() and entry.name.lower().endswith(TABLE_EXTENSIONS)
    )
    names = [name for name in names if not name.startswith((".", "_"))]
    if not names:
        raise DataError("holds no table files", file=source, mend=f"allowed are {', '.join(TABLE_EXTENSIONS)}")
    targets = {name: name if name.endswith(".parquet") else f"{name}.parquet" for name in names}
    for name, target in targets.items():
        if target != name and target in targets:
            raise DataError(f"'{name}' and '{target}' would share one file of vectors", file=source, mend="rename one")
    return [Shard(source / name, folder / target) for name, target in targets.items()]


def embed_shard(system: System[Any, Any], shard: Shard) -> int:
    """Reads, embeds and writes one shard; returns its rows.

    Raises:
        DataError: if it cannot be read or written.
    """
    facts = shard.facts()  # before reading: a file that changes meanwhile is seen to have changed
    embeddings = system.embed(system.read(shard.source, purpose="predict"))
    with replacing(shard.target) as temporary:
        write_vectors(temporary, embeddings, facts=facts)
    return len(embeddings)


def _are_shards(system: System[Any, Any], data: str | Path, output: str | Path) -> bool:
    """Whether a folder of table files is to become a folder; a system that writes folders of its field does so."""
    return Path(data).is_dir() and not Path(output).suffix and "" not in system.embedding_files


def _begin(folder: Path, facts: dict[str, str]) -> None:
    """Makes the folder, or checks that it was begun with the same model; clears away what a kill left."""
    if folder.exists() and not folder.is_dir():
        raise DataError("is a file, not a folder", file=folder, mend="give a folder with --output")
    stated = folder / FACTS
    if stated.is_file():
        before = read_json(stated)
        for name, value in facts.items():
            came = before.get(name) if isinstance(before, dict) else None
            if came != value:
                what = f"holds vectors of another {name} ({str(came)[:12]} there, {value[:12]} now)"
                raise DataError(what, file=folder, mend="give another folder with --output")
    elif folder.is_dir() and any(not entry.match(".*.tmp") for entry in folder.iterdir()):
        raise DataError("is not empty and was not begun by embed", file=folder, mend="give a new folder with --output")
    _clear(folder)
    if not stated.is_file():
        write_json(stated, facts)


def _clear(folder: Path) -> None:
    """Removes shards under their temporary names: what is left of processes that were killed."""
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _shape(shards: Sequence[Shard]) -> tuple[int, int]:
    import pyarrow.parquet as pq

    rows, width = 0, 0
    for shard in shards:
        with pq.ParquetFile(shard.target) as file:
            rows += file.metadata.num_rows
            if not width and file.metadata.num_rows:
                width = len(next(file.iter_batches(1, columns=["vector"])).column(0)[0])
    return rows, width


def _say_precision(setting: Inference) -> None:
    if setting.precision == "fp32":
        return
    if not setting.lowered:
        say("note: this run has no encoder that knows bf16; the vectors are exact.")
    elif not (fast_bf16() or torch.cuda.is_available()):
        say("note: this CPU has no bf16 products; fp32 is faster here.")


@contextmanager
def _together() -> Iterator[int]:
    """Joins processes that a launcher such as torchrun started together; yields how many they are."""
    ranks = int(os.environ.get("WORLD_SIZE") or "1")
    if ranks == 1 or "RANK" not in os.environ:
        yield 1
        return
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("gloo", timeout=_WAIT)
    try:
        yield ranks
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        what = f"another of the {ranks} processes has ended"
        raise DataError(what, mend="its own message says why; the same command goes on with what is left") from None
    finally:
        if own:
            dist.destroy_process_group()
