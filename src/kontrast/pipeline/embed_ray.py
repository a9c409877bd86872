"""`embed --engine ray`: Ray Data gives the shards of a corpus to workers, each with the system loaded once.

The shards pass through Ray as names alone; a worker reads its shard and writes its vectors, so that nothing of the
corpus goes through Ray's memory. Several machines must see the same folders.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kontrast.encoders.inference import Precision, inference
from kontrast.errors import DataError, KontrastError
from kontrast.extras import require
from kontrast.pipeline.embed import Shard, embed_shard
from kontrast.pipeline.evaluate import load_run
from kontrast.progress import set_mode, task

# How often a worker that was killed is started again, and its shard with it, before the command gives up.
_RETRIES = 2


class ShardWorker:
    """Runs in a process of Ray: embeds the shards it is given.

    Args:
        run: run folder.
        precision: of the encoder.
    """

    def __init__(self, run: Path, precision: Precision) -> None:
        set_mode("off")
        torch.set_num_threads(1)
        _, self.system = load_run(run)
        self.precision = precision

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Embeds each shard of the batch: columns "source" and "target" to "source", "rows" and "problem"."""
        names, rows, problems = [], [], []
        for source, target in zip(batch["source"], batch["target"]):
            count, problem = 0, ""
            try:
                with inference(precision=self.precision):
                    count = embed_shard(self.system, Shard(Path(str(source)), Path(str(target))))
            except KontrastError as error:  # a person can mend it: the sentence goes home, without Ray's traceback
                problem = str(error)
            names.append(str(source))
            rows.append(count)
            problems.append(problem)
        return {"source": names, "rows": rows, "problem": problems}


def embed_with_ray(
    run: Path, shards: Sequence[Shard], *, precision: Precision, workers: int | None = None, done: int = 0
) -> None:
    """Embeds shards on a Ray cluster: the one that RAY_ADDRESS names, else one on this machine.

    Args:
        run: run folder.
        shards: those to do.
        precision: of the encoder.
        workers: how many; None: one per CPU of the cluster, and no more than shards.
        done: shards that were finished before, for the display.

    Raises:
        MissingExtraError: if ray is not installed.
        DataError: if a shard cannot be used, after the others are done, or if workers keep dying.
    """
    ray = require("ray", extra="ray", purpose="for --engine ray")
    require("ray.data", extra="ray", purpose="for --engine ray")
    if not shards:
        return
    started = not ray.is_initialized()
    if started:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if "RAY_ADDRESS" not in os.environ:
            quiet |= {"include_dashboard": False, "num_cpus": workers or os.cpu_count()}
        ray.init(**quiet)
    try:
        _run(ray, run.resolve(), shards, precision, workers, done)
    finally:
        if started:
            ray.shutdown()


def _run(ray: Any, run: Path, shards: Sequence[Shard], precision: Precision, workers: int | None, done: int) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # kontrast shows the progress itself
    cpus = int(ray.cluster_resources().get("CPU", 1))
    names = [{"source": str(shard.source.resolve()), "target": str(shard.target.resolve())} for shard in shards]
    embedded = ray.data.from_items(names, override_num_blocks=len(names)).map_batches(
        ShardWorker,
        fn_constructor_args=(run, precision),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers or cpus, len(shards))),
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )
    problems = []
    try:
        with task("embedding shards", len(shards) + done, done=done) as work:
            for row in embedded.iter_rows():
                work.advance(note=Path(row["source"]).name)
                if row["problem"]:
                    problems.append(row["problem"])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        what = f"the workers of ray stopped before the corpus was done ({reason})"
        raise DataError(what, mend="the same command goes on after the shards that are finished") from None
    if problems:
        more = f" ({len(problems) - 1} more shards failed)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0].rstrip('.')}{more}", mend="the same command then does what is left")
