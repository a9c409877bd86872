"""What a System gives to the trainer: a module that encodes batches and turns encodings into named loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kontrast.training.slices import split_rows


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Args:
        step: optimiser steps that are done.
        total_steps: optimiser steps of the whole stage.
        epoch: the current epoch, counted from 0.
    """

    step: int
    total_steps: int
    epoch: int

    @property
    def fraction(self) -> float:
        """The part of the stage that is done, in [0, 1]."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else 1.0


class TrainableModel(nn.Module, ABC):
    """A model that the trainer can train.

    Everything that changes during training is a parameter or a buffer: a queue and its pointer, a momentum copy,
    running statistics, a learned temperature. A plain Python attribute is not in the checkpoint, and a resumed run
    forgets it. The trainer switches the whole model to training mode; what must stay in evaluation mode, such as a
    frozen backbone's batch norm, is kept there by overriding `train`.
    """

    rowwise: ClassVar[bool] = True
    """Whether `encode` works row by row; False for a model over one connected whole, which cannot be split."""

    @abstractmethod
    def encode(self, batch: Any) -> Mapping[str, Tensor]:
        """Encodes a batch row by row.

        Returns:
            Named tensors whose first dimension follows the rows of the batch: row i depends on row i alone (batch
            norm apart), so that a large batch may be encoded in parts. A model over one connected whole, such as a
            graph, encodes its whole batch at once and says so with ``rowwise = False``; then the rows are the nodes.
            Encoding changes no buffer: with `TrainerConfig.micro_batch` it happens twice.
        """

    def split(self, batch: Any, rows: int) -> Sequence[Any]:
        """The parts of a batch of at most `rows` rows each, in order, for `TrainerConfig.micro_batch`.

        Override it for batches that `kontrast.training.split_rows` cannot split.

        Raises:
            ConfigError: if the batch cannot be split.
        """
        return split_rows(batch, rows)

    @abstractmethod
    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> Mapping[str, Tensor]:
        """The loss terms of a batch, before they are weighted.

        A queue takes in the batch here, after the loss was computed from a copy of it: the backward pass is still to
        come. With several processes each has its own rows here; the objectives of `kontrast.losses` join them.

        Returns:
            Scalars by name. Their sum, each times its weight in the stage, is minimised.
        """

    def after_step(self, progress: Progress, batch: Any) -> None:
        """Called after each optimiser step with the batch it used, without gradients: the place of a momentum update,
        or of scores kept per training row."""

    def learning_rate_scale(self, name: str) -> float:
        """What the learning rate of the parameter `name` is multiplied by: below 1 for a pretrained backbone, say."""
        return 1.0

    def forward(self, batch: Any) -> Mapping[str, Tensor]:
        """The same as `encode`."""
        return self.encode(batch)
