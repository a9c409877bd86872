"""Options of training: how the loop runs, and how the weights are updated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kontrast.config import BaseConfig, param
from kontrast.progress import Mode

Logger = Literal["csv", "tensorboard"]


def _beta(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"must be in [0, 1), got {value}")
    return value


Beta = Annotated[float, AfterValidator(_beta)]


class TrainerConfig(BaseConfig):
    """How training runs; nothing here is part of a method.

    `accelerator`, `devices`, `strategy`, `num_nodes`, `precision` and `deterministic` are Lightning's own options and
    reach its Trainer unchanged. `devices` is one by default, because Lightning starts one copy of the calling
    script per device.
    """

    accelerator: str = param("auto", "where to compute: auto, cpu, gpu, mps (Lightning's option)")
    devices: int | str | list[int] = param(1, "number, list of indices or 'auto' (Lightning's option)")
    strategy: str = param("auto", "how devices work together, such as ddp (Lightning's option)")
    num_nodes: int = param(1, "number of machines (Lightning's option)", ge=1)
    precision: str | int = param("32-true", "such as 32-true, bf16-mixed, 16-mixed (Lightning's option)")
    micro_batch: int | None = param(
        None, "encode so many rows of a process at a time; gradient and batch stay whole, memory is that of a part "
        "(GradCache); none: all at once", unit="rows", ge=1,
    )  # fmt: skip
    gather: Literal["all", "ring", "off"] = param(
        "all", "how rows of other processes come into contrastive terms: gathered at once, travelling on a ring in the "
        "memory of one process, or not at all",
    )  # fmt: skip
    deterministic: bool | Literal["warn"] = param(
        False, "only deterministic kernels; a GPU repeats a run bit for bit only with it (Lightning's option)"
    )
    max_steps: int | None = param(None, "end each stage after so many steps, whatever its epochs", unit="steps", ge=1)
    checkpoint_every: int | None = param(
        None, "save each so many steps, besides the end of each epoch; 0 or none: at the end of epochs only",
        unit="steps", ge=0,
    )  # fmt: skip
    checkpoint_pause: float = param(
        30.0, "shortest time between checkpoints at ends of epochs, so that short epochs are not all saved",
        unit="seconds", ge=0,
    )  # fmt: skip
    keep: int = param(2, "how many checkpoints of a stage are kept", ge=1)
    log_every: int = param(50, "a row of history each so many steps, besides one per epoch", unit="steps", ge=1)
    loggers: list[Logger] = param(lambda: ["csv"], "files of metrics that are written into the directory")
    workers: int = param(0, "processes that prepare batches; 0 prepares them in the training process", ge=0)
    progress: Mode = param("auto", "bar on a terminal and lines in a pipe (auto), bar, lines or off")
    compile: bool = param(False, "compile what encodes batches; pays on GPUs and in long runs, see the documentation")
    gradient_clip: float | None = param(None, "largest norm of the gradient", gt=0)
    patience: int | None = param(
        None, "stop after so many validations without a better one; none: never", unit="validations", ge=1
    )
    validate_every: int = param(1, "validate after each so many epochs, and at the end", unit="epochs", ge=1)
    # Where a run lives and whether it goes on are facts of one call, not of the experiment: the run's own config leaves
    # them out (model_dump, to_yaml), so that two runs of one experiment have equal configuration files.
    directory: Path | None = Field(
        default=None, description="where checkpoints and logs go; none: nothing is written", exclude=True
    )
    resume: bool = Field(
        default=False, description="go on from the newest checkpoint in the directory, if any", exclude=True
    )

    def changed(self, **overrides: Any) -> Self:
        """A copy with some fields changed; `directory` and `resume` are carried along."""
        return super().changed(**{"directory": self.directory, "resume": self.resume, **overrides})


class OptimiserConfig(BaseConfig):
    """How weights are updated, and how the learning rate changes over the stage.

    The learning rate is a pure function of the step: a linear warm-up over the first `warmup` of the steps, then
    `schedule` towards `final` times the learning rate at the end.
    """

    name: Literal["adamw", "adam", "sgd"] = param("adamw", "the update rule")
    learning_rate: float = param(1e-3, "learning rate after the warm-up", gt=0)
    weight_decay: float = param(0.01, "decay of weights; never of biases, norms and scalars", ge=0)
    betas: tuple[Beta, Beta] = param((0.9, 0.999), "decay rates of Adam's two averages")
    epsilon: float = param(1e-8, "Adam's guard against division by zero", gt=0)
    momentum: float = param(0.9, "momentum of sgd", ge=0, lt=1)
    nesterov: bool = param(False, "Nesterov's momentum, for sgd")
    schedule: Literal["constant", "linear", "cosine"] = param("cosine", "course of the learning rate after the warm-up")
    warmup: float = param(0.0, "fraction of the steps over which the learning rate rises to its full value", ge=0, lt=1)
    final: float = param(0.0, "learning rate at the end, as a fraction of the full one", ge=0, le=1)

    def factor(self, step: int, total_steps: int) -> float:
        """What the learning rate is multiplied by at `step`, counted from 0, of `total_steps`; in (0, 1]."""
        warm = round(self.warmup * total_steps)
        if step < warm:
            return (step + 1) / warm
        if self.schedule == "constant":
            return 1.0
        done = (step - warm) / max(1, total_steps - warm)
        course = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * course

    @model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError("option 'nesterov' needs name 'sgd' and a momentum above 0")
        return self
