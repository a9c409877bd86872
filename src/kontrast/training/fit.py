"""Training a model, one stage after another."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from kontrast.errors import CheckpointError, ConfigError
from kontrast.progress import say, showing, task
from kontrast.schedules import Schedule
from kontrast.training.batches import Batches
from kontrast.training.checkpoint import Checkpoint, CheckpointFolder, pack, unpack, write
from kontrast.training.config import OptimiserConfig, TrainerConfig
from kontrast.training.history import History
from kontrast.training.model import TrainableModel
from kontrast.training.state import LoopState, Run


@dataclass
class Stage:
    """One training: a model, batches and how the one learns from the other.

    Args:
        name: names its folder of checkpoints and its rows: letters, digits, hyphens and underscores.
        model: what is trained, in place.
        batches: the stream of batches, a pure function of (epoch, index). What depends on the model, such as mined
            negatives, is renewed between stages.
        epochs: passes over the batches, at least 1.
        optimiser: how weights are updated.
        seed: of everything random during the stage; the batches have their own.
        weights: weight of a loss term, a number or a schedule over the stage; 1 where none is given.
        validate: computes metrics of the model as it is: on the device that trains, in evaluation mode, without
            gradients. Of several ranks the first one calls it.
        monitor: the metric by which weights are selected: the stage ends with those of the best validation.
        mode: whether more of that metric is better or less.
        fingerprint: facts that a resumed run must share, such as {"config": ..., "data": content hash}.
    """

    name: str
    model: TrainableModel
    batches: Batches
    epochs: int
    optimiser: OptimiserConfig
    seed: int
    weights: Mapping[str, float | Schedule] = field(default_factory=dict)
    validate: Callable[[], Mapping[str, float]] | None = None
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise ValueError(f"the name of a stage has letters, digits, hyphens and underscores, got '{self.name}'")
        if self.epochs < 1:
            raise ConfigError(f"stage '{self.name}' needs at least 1 epoch, got {self.epochs}.")


def run_stage(stage: Stage, trainer: TrainerConfig | None = None) -> History:
    """Trains `stage.model` in place; afterwards it is on the CPU, in evaluation mode.

    The same stage and seed give the same weights and history bit for bit (on a GPU with ``deterministic=True``), also
    when the run was killed at any moment and resumed. Python's, NumPy's and torch's global generators are left as they
    were.

    Args:
        stage: what to train.
        trainer: how to run it; nothing is written without a directory. With ``resume=True`` it goes on from the newest
            whole checkpoint there, and a stage that is finished there is loaded instead of trained.

    Returns:
        The history of the stage.

    Raises:
        CheckpointError: if the directory holds checkpoints and ``resume`` is off, if they are damaged, or if they were
            made with other options, data or seeds.
        ConfigError: if options do not fit together or Lightning refuses them.
        KontrastError: if a loss is not finite; the message names the stage, the step and the term.
    """
    trainer = trainer or TrainerConfig()
    if stage.monitor is not None and stage.validate is None:
        raise ValueError(f"stage '{stage.name}' monitors '{stage.monitor}' but does not validate")
    if trainer.patience is not None and stage.monitor is None and stage.validate is not None:
        raise ConfigError(f"option 'patience' needs a metric to monitor, and stage '{stage.name}' monitors none.")
    folder = None
    if trainer.directory is not None:
        folder = CheckpointFolder(trainer.directory / "checkpoints" / stage.name, trainer.keep)
    if trainer.micro_batch is not None and not stage.model.rowwise:
        raise ConfigError(
            f"option 'micro_batch' needs a model that encodes each row by itself, and the {type(stage.model).__name__} "
            f"of stage '{stage.name}' encodes one connected whole; train without micro_batch."
        )
    counts = [stage.batches.count(epoch) for epoch in range(stage.epochs)]
    if 0 in counts:
        raise ConfigError(f"stage '{stage.name}' has no batches to train on in epoch {counts.index(0)}.")
    total_steps = sum(counts)
    if trainer.max_steps is not None:
        total_steps = min(total_steps, trainer.max_steps)
    fingerprint = _fingerprint(stage, trainer, total_steps)
    with showing(trainer.progress), _generators_kept():
        checkpoint = _restore(stage, folder, fingerprint, resume=trainer.resume)
        if checkpoint is not None and checkpoint.state["finished"]:
            say(f"stage '{stage.name}' is finished; its weights are loaded.")
            stage.model.eval()
            return History(checkpoint.rows)
        state = LoopState() if checkpoint is None else LoopState(**checkpoint.state["loop"])
        rows = [] if checkpoint is None else checkpoint.rows
        _train(stage, trainer, Run(total_steps, fingerprint, folder, checkpoint, state, rows))
    stage.model.to("cpu").eval().zero_grad(set_to_none=True)
    return History(rows)


def _train(stage: Stage, trainer: TrainerConfig, run: Run) -> None:
    # Lightning takes seconds to import, and only training needs it.
    from kontrast.training._engine import fit

    state, checkpoint = run.state, run.checkpoint
    if checkpoint is not None:
        say(f"stage '{stage.name}' goes on after step {state.step} of {run.total_steps}.")
    if state.step < run.total_steps and not state.stopped:
        stage.model.train()
        with task(stage.name, run.total_steps, done=state.step) as run.task:
            fit(stage, trainer, run)
    elif checkpoint is not None and checkpoint.best is not None:
        # It was killed between its last step and its end.
        unpack(stage.model, checkpoint.best)
    if state.stopped:
        say(f"stage '{stage.name}' stopped early after step {state.step}; its best was at step {state.best_step}.")
    if run.folder is None:
        return
    if _rank() == 0:
        facts = {
            "finished": True,
            "fingerprint": dict(run.fingerprint),
            "step": state.step,
            "best": state.best,
            "best_step": state.best_step,
        }
        write(run.folder.final_path, Checkpoint(facts, pack(stage.model), rows=run.rows))
    if _distributed():
        torch.distributed.barrier()


def _restore(
    stage: Stage, folder: CheckpointFolder | None, fingerprint: Mapping[str, str], *, resume: bool
) -> Checkpoint | None:
    """The checkpoint to go on from, its weights in the model already; none if the stage begins."""
    if folder is None:
        if resume:
            raise ConfigError("option 'resume' needs a directory to resume from.")
        return None
    if not resume:
        if folder.steps() or folder.final_path.is_dir():
            raise CheckpointError(
                f"holds checkpoints of an earlier run of stage '{stage.name}'",
                file=folder.path,
                mend="resume that run, remove them or choose another directory",
            )
        folder.clean()
        return None
    folder.clean()
    checkpoint = folder.newest()
    if checkpoint is None:
        return None
    made_with = checkpoint.state["fingerprint"]
    for name in sorted(made_with.keys() | fingerprint.keys()):
        there, here = made_with.get(name, "nothing"), fingerprint.get(name, "nothing")
        if there != here:
            raise CheckpointError(
                f"was made with another {name}: {there} there, {here} here",
                file=folder.path,
                mend="resume with the options and data of that run, or train anew in another directory",
            )
    unpack(stage.model, checkpoint.model, folder.path)
    checkpoint.model.clear()
    return checkpoint


def _fingerprint(stage: Stage, trainer: TrainerConfig, total_steps: int) -> dict[str, str]:
    """What must be equal for a resumed run to end as the uninterrupted one; by name, for the sake of the message."""
    tensors = [*stage.model.named_parameters(), *stage.model.named_buffers()]
    layout = str([(name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad) for name, tensor in tensors])
    describe = getattr(stage.batches, "fingerprint", None)
    return {
        "seed": str(stage.seed),
        "number of epochs": str(stage.epochs),
        "number of steps": str(total_steps),
        "optimiser": str(stage.optimiser),
        "loss weights": str({name: str(weight) for name, weight in sorted(stage.weights.items())}),
        "selection": f"{stage.mode} {stage.monitor}, patience={trainer.patience}, every={trainer.validate_every}",
        "precision": str(trainer.precision),
        "gradient_clip": str(trainer.gradient_clip),
        "micro_batch": str(trainer.micro_batch),
        "gather": trainer.gather if trainer.gather == "off" else "joined",
        "order of rows": describe() if callable(describe) else "unknown",
        "model": hashlib.sha256(layout.encode()).hexdigest()[:16],
        **{name: str(value) for name, value in stage.fingerprint.items()},
    }


def _rank() -> int:
    return torch.distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def _generators_kept() -> Generator[None]:
    """Leaves the global generators as they were: training should not decide what its caller draws next."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the global one that is meant
    # A GPU that nobody has used yet has drawn nothing that could be kept.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
