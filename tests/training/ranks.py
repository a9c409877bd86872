"""Trains the toy in two processes, for `test_training_ranks`: python ranks.py DIRECTORY DEVICES [die|resume]

Lightning starts this script again for the second rank.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import training_toy as toy
from torch import Tensor

from kontrast.training import Progress, TrainerConfig, run_stage
from kontrast.training.checkpoint import pack


class Ranked(toy.Toy):
    die = False

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> Mapping[str, Tensor]:
        if self.die and progress.step == 7 and os.environ.get("LOCAL_RANK", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(encoded, batch, progress)


def main() -> None:
    directory, devices, what = Path(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] or [""])[0]
    torch.set_num_threads(1)
    model = Ranked()
    model.die = what == "die"
    scores = iter([0.1, 0.9, 0.2, 0.3])
    if what == "resume":
        next(scores)
    options = TrainerConfig(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", directory=directory,
        resume=what == "resume", progress="lines", keep=1, checkpoint_every=3, log_every=3,
    )  # fmt: skip
    # Only the first rank validates; the other has to hear of it.
    run_stage(toy.stage(name="first", model=model, validate=lambda: {"score": next(scores)}, monitor="score"), options)
    history = run_stage(toy.stage(name="second", model=model, epochs=1, seed=8), options)
    line = toy.line(epochs=1)
    run_stage(line, options.changed(directory=None, resume=False))
    (directory / "slope.txt").write_text(repr(line.model.slope.item()))
    digest = hashlib.sha256()
    for name, tensor in sorted(pack(model).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    digest.update(history.to_jsonl().encode())
    (directory / f"{what}-rank{os.environ.get('LOCAL_RANK', '0')}.txt").write_text(digest.hexdigest())


if __name__ == "__main__":
    main()
