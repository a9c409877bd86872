"""Trains the toy in processes that kill themselves, for `test_resume`.

    python killable.py '[{"directory": "a", "kill": ["step", 7]}, {"directory": "a", "resume": true}]'

Each run is a fork of this process, which has imported everything and computed nothing, so that a run takes a fraction
of a second. Prints the list of exit codes; -9 is a run that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import training_toy as toy

from kontrast.schedules import Schedule
from kontrast.training import TrainerConfig, _engine, checkpoint, fit, run_stage

VALIDATED = [
    0.1,
    0.5,
    0.3,
    0.45,
    0.2,
    0.9,
    0.95,
    0.1,
]  # stops at epoch 5 with the weights of epoch 2


class Fuse:
    """Kills the process the n-th time (from 1) that a place is reached."""

    def __init__(self, place: str = "", times: int = 0, kind: str = "SIGKILL") -> None:
        self.place, self.left, self.kind = place, times, signal.Signals[kind]

    def reach(self, place: str) -> None:
        if place == self.place:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.kind)

    def before(self, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(place)
            return function(*args, **kwargs)

        return wrapped


class Killable(toy.Toy):
    fuse = Fuse()

    def losses(self, encoded: Any, batch: Any, progress: Any) -> Any:
        terms = super().losses(encoded, batch, progress)
        self.fuse.reach("losses")  # the queue has taken the batch in, the optimiser has not stepped
        return terms

    def after_step(self, progress: Any, batch: Any) -> None:
        self.fuse.reach("step")
        super().after_step(progress, batch)


def arm(fuse: Fuse) -> None:
    def half_saved(tensors: Any, file: Path) -> None:
        if fuse.place == "saving":
            Path(file).write_bytes(b"\x00" * 100)
            fuse.reach("saving")
        save_file(tensors, file)

    save_file = checkpoint.save_file
    checkpoint.save_file = half_saved
    checkpoint._sync = fuse.before("syncing", checkpoint._sync)
    shutil.rmtree = fuse.before("pruning", shutil.rmtree)
    fit.write = fuse.before("finishing", fit.write)
    _engine._Loop._add = fuse.before("row", _engine._Loop._add)


def train(
    directory: str, *, kill: tuple[Any, ...] = (), resume: bool = False, stages: int = 1, workers: int = 0
) -> None:
    fuse = Fuse(*kill)
    arm(fuse)
    model = Killable()
    model.fuse = fuse

    def validate() -> dict[str, float]:
        torch.randn(3)  # validation draws numbers too; training must not notice
        fuse.reach("validate")
        return {"score": VALIDATED[int(model.seen) // toy.ROWS - 1], "size": float(model.encoder[0].weight.norm())}

    options = TrainerConfig(
        accelerator="cpu", checkpoint_every=3, checkpoint_pause=0.0, log_every=4, keep=2,
        patience=3, workers=workers, progress="off", gradient_clip=1.0, directory=directory, resume=resume,
    )  # fmt: skip
    first = toy.stage(
        name="first", model=model, epochs=8, validate=validate, monitor="score",
        weights={"size": Schedule("linear", 0.0, 0.2)},
    )  # fmt: skip
    run_stage(first, options)
    if stages == 2:
        run_stage(toy.stage(name="second", model=model, epochs=2, seed=9), options)


def main() -> None:
    # Whoever starts the tests in the background of a script has their interrupts ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    codes = []
    for run in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                train(**run)
            except KeyboardInterrupt:
                os._exit(130)
            except SystemExit as end:
                os._exit(end.code)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
