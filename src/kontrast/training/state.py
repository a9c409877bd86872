"""Where a run is: what the loop knows besides tensors and history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kontrast.progress import Task
from kontrast.training.checkpoint import Checkpoint, CheckpointFolder
from kontrast.training.history import Row


@dataclass
class LoopState:
    """Cursor and counters; plain JSON values, saved in every checkpoint.

    Args:
        epoch, index: the next batch.
        step: optimiser steps done.
        sums, counts: of each column of history, over the steps of the current epoch.
        best: the best value of the monitored metric so far.
        best_step: the step it was reached at.
        waited: validations since then.
        stopped: early stopping has ended the stage.
    """

    epoch: int = 0
    index: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    stopped: bool = False


@dataclass
class Run:
    """One run of a stage, from its beginning or from a checkpoint on.

    Args:
        total_steps: optimiser steps of the whole stage.
        fingerprint: what a run that resumes this one must share, by name.
        folder: where checkpoints go; none: nowhere.
        checkpoint: what it goes on from; its tensors are dropped as they are put in place.
        state: where it is.
        rows: the history so far.
        task: what a person sees of it.
    """

    total_steps: int
    fingerprint: Mapping[str, str]
    folder: CheckpointFolder | None
    checkpoint: Checkpoint | None
    state: LoopState
    rows: list[Row]
    task: Task | None = None
