"""The loop: a generic Lightning module around a `TrainableModel`. The only file that imports Lightning.

Lightning sees one long pass over the batches that are still to come; epochs, cursor, validation, checkpoints and
stopping are kept here. So a resumed run is simply a shorter pass with other counters. Restoring Lightning's own loops
instead would mean to load several dozen private counters whose meaning shifts between releases, with an order of hooks
that differs by where in an epoch the checkpoint fell.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from kontrast.errors import ConfigError, KontrastError, suggest
from kontrast.extras import require
from kontrast.ops import engine_settings, joined_ranks
from kontrast.progress import say
from kontrast.randomness import derive_seed
from kontrast.training.batches import Batches, Shard, to_device
from kontrast.training.checkpoint import Checkpoint, pack, pack_optimiser, unpack, unpack_optimiser
from kontrast.training.compiling import Encode, compiled_encode
from kontrast.training.config import TrainerConfig
from kontrast.training.grad_cache import check_rows_alone, encode_in_parts
from kontrast.training.history import Row
from kontrast.training.model import Progress
from kontrast.training.optimiser import build_optimiser, set_learning_rate
from kontrast.training.processes import Companions, average_gradients, launched_together, share_tensors
from kontrast.training.state import LoopState, Run

if TYPE_CHECKING:
    from kontrast.training.fit import Stage


def fit(stage: Stage, config: TrainerConfig, run: Run) -> None:
    """Trains `stage.model` from where `run` is to the end of the stage; `run` is brought up to date in place."""
    with _quiet(), _settings_kept():
        trainer = _trainer(stage, config, run.state)
        companions = Companions(
            lambda: getattr(trainer.strategy.launcher, "procs", []), resumable=config.directory is not None
        )
        alone = trainer.num_devices * trainer.num_nodes == 1
        try:
            with nullcontext() if alone else companions.watched():
                trainer.fit(_Loop(stage, config, run))
        except SIGTERMException:
            raise SystemExit(128 + signal.SIGTERM) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            what = "a process that prepares batches (option 'workers') was killed, maybe for want of memory"
            way = "start the same command again with --resume" if config.directory is not None else "train again"
            raise KontrastError(f"{what}; {way}, with fewer workers.") from None
        except SystemExit:
            # Lightning ends the process on Ctrl-C; a library must not.
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise


class _Loop(lightning.LightningModule):
    def __init__(self, stage: Stage, config: TrainerConfig, run: Run) -> None:
        super().__init__()
        self.model = stage.model
        self.stage = stage
        self.config = config
        self.run = run
        self.state = run.state
        self.best = run.checkpoint.best if run.checkpoint is not None else None
        self._pending: list[tuple[tuple[str, ...], Tensor]] = []
        self._weights: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self._learning_rate = math.nan
        self._counted = (-1, 0)  # an epoch and its number of batches
        self._clock = self._saved_at = time.perf_counter()
        self._spent = {"validating": 0.0, "saving": 0.0}
        self._checked = False  # whether the first batch could be encoded in parts
        self._encode_whole: Encode = stage.model.encode

    # -- what Lightning asks for -------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimiser(self.stage.model, self.stage.optimiser)

    def train_dataloader(self) -> DataLoader[Any]:
        stage, state = self.stage, self.state
        shard = Shard(self.global_rank, self.trainer.world_size)
        return DataLoader(
            _Stream(stage.batches, shard, stage.seed, stage.name),
            batch_size=None,
            sampler=_Keys(stage.batches, state.epoch, state.index, self.run.total_steps - state.step),
            num_workers=self.config.workers,
            collate_fn=_unchanged,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            # The loader draws a seed for its workers; from a generator of its own, so that no other one moves.
            generator=torch.Generator(),
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, _Failure):
            raise batch.error
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return to_device(batch, device)

    def on_fit_start(self) -> None:
        checkpoint = self.run.checkpoint
        if checkpoint is not None:
            unpack_optimiser(self._optimiser, checkpoint.optimiser or {}, checkpoint.state["optimiser"])
            self.trainer.precision_plugin.load_state_dict(checkpoint.state["precision"])
            checkpoint.optimiser = None
        for logger in self.trainer.loggers:
            # A new CSV file replaces the one of the interrupted run, which may hold rows from after the checkpoint.
            if isinstance(logger, CSVLogger):
                for row in self.run.rows:
                    _log(logger, row)
        if self.trainer.world_size > 1:
            self._check_shares()
            say(f"{self.trainer.world_size} processes train stage '{self.stage.name}' together.")
        self._clock = self._saved_at = time.perf_counter()

    def _check_shares(self) -> None:
        """Every process sees that the batches suffice, before one of them misses a row in the middle of an epoch."""
        smallest = getattr(self.stage.batches, "smallest", None)
        if callable(smallest) and (rows := smallest(self.state.epoch)) < self.trainer.world_size:
            raise ConfigError(
                f"stage '{self.stage.name}' has a batch of {rows} rows for {self.trainer.world_size} processes; use "
                "fewer devices, another batch size, or drop the last batch."
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        state = self.state
        seed_everything(self.stage.seed, self.stage.name, "step", state.step, self.global_rank)
        factor = self.stage.optimiser.factor(state.step, self.run.total_steps)
        self._learning_rate = set_learning_rate(self._optimiser, factor)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        progress = self._progress()
        encoded = self._encode(batch)
        with self._joined():
            terms = self.model.losses(encoded, batch, progress)
        self._weights = self._weigh(terms, progress)
        total = functools.reduce(torch.add, (weight * terms[name] for name, weight in self._weights.items()))
        values = [total.detach(), *(term.detach() for term in terms.values())]
        self._pending.append((tuple(terms), torch.stack([value.to(torch.float32) for value in values])))
        return total

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        state = self.state
        with torch.no_grad(), self._joined():
            self.model.after_step(self._progress(), batch)
        state.step += 1
        state.index += 1
        if state.epoch != self._counted[0]:
            self._counted = state.epoch, self.stage.batches.count(state.epoch)
        epoch_ends = state.index == self._counted[1]
        last = state.step == self.run.total_steps
        logs = state.step % self.config.log_every == 0
        every = self.config.checkpoint_every
        due = bool(every and state.step % every == 0)
        # Reading a loss off a GPU waits for it; steps in between go on without.
        values: dict[str, float] = {}
        if logs or due or epoch_ends or last or self.device.type == "cpu":
            values = self._collect()
        if logs:
            self._add("step", values)
        metrics = self._end_epoch(last) if epoch_ends or last else {}
        self._show(values, metrics)
        if epoch_ends:
            state.epoch, state.index = state.epoch + 1, 0
        # Which checkpoints there are never changes the numbers, so a clock may have a say.
        paused = time.perf_counter() - self._saved_at < self.config.checkpoint_pause
        if due or last or state.stopped or (epoch_ends and not paused):
            self._save()
        elif self.trainer.received_sigterm and self.trainer.world_size == 1:
            # The machine is being taken away, and Lightning ends the run after this step.
            self._collect()
            self._save()
        if epoch_ends or last:
            self._note_time()
        if state.stopped:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        if self.best is not None:
            unpack(self.stage.model, self.best)
        if self.trainer.world_size > 1:
            # Buffers such as running statistics are each rank's own until the next step; there is none.
            share_tensors([*self.stage.model.parameters(), *self.stage.model.buffers()])

    # -- a step in parts, and of several processes --------------------------------------------------------------------

    def on_train_start(self) -> None:
        if self.config.compile:
            self._encode_whole = compiled_encode(self.model, parts=self.config.micro_batch is not None)
        wrapped = self.trainer.strategy.model
        if self.config.micro_batch is not None and isinstance(wrapped, DistributedDataParallel):
            # Parameters get their gradients part by part; they are averaged once, when all of them are whole.
            wrapped.require_backward_grad_sync = False

    def on_after_backward(self) -> None:
        if self.config.micro_batch is not None and self.trainer.world_size > 1:
            average_gradients(self.stage.model.parameters())

    def _encode(self, batch: Any) -> Mapping[str, Tensor]:
        rows = self.config.micro_batch
        if rows is None:
            return self._encode_whole(batch)
        if self.trainer.world_size > 1:
            share_tensors(self.stage.model.buffers())  # as is done for undivided steps by what wraps the model
        if not self._checked:
            self._checked = check_rows_alone(self.model, batch, rows)
        return encode_in_parts(self.model, batch, rows)

    @contextmanager
    def _joined(self) -> Generator[None]:
        """Contrastive terms and queues take in the rows of all processes, in the way that is asked for."""
        with ExitStack() as stack:
            if self.trainer.world_size > 1 and self.config.gather != "off":
                stack.enter_context(joined_ranks("world"))
                stack.enter_context(engine_settings(gather=self.config.gather))
            yield

    @property
    def _optimiser(self) -> torch.optim.Optimizer:
        optimiser = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimiser, torch.optim.Optimizer)
        return optimiser

    # -- loss terms --------------------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        return Progress(self.state.step, self.run.total_steps, self.state.epoch)

    def _weigh(self, terms: Mapping[str, Tensor], progress: Progress) -> dict[str, float]:
        given = self.stage.weights
        for name in given:
            if name not in terms:
                raise ConfigError(f"a weight is given for '{name}', which is no loss term; {suggest(name, terms)}.")
        for name, term in terms.items():
            if term.ndim != 0:
                raise ValueError(f"loss term '{name}' must be a scalar, got shape {tuple(term.shape)}")
        if not terms:
            raise ValueError("the model returned no loss terms")
        return {name: _value(given.get(name, 1.0), progress.fraction) for name in terms}

    def _collect(self) -> dict[str, float]:
        """Reads the losses of the steps since the last call; returns those of the last step.

        Raises:
            KontrastError: if one is not finite.
        """
        if not self._pending:
            return {}
        block = torch.cat([values for _, values in self._pending])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(block)
            block /= self.trainer.world_size
        numbers = iter(block.tolist())
        columns: dict[str, float] = {}
        first = self.state.step - len(self._pending)
        for offset, (names, _) in enumerate(self._pending):
            total = next(numbers)
            columns = {"loss": total, **{f"loss/{name}": next(numbers) for name in names}}
            odd = [name for name in names if not math.isfinite(columns[f"loss/{name}"])]
            if odd or not math.isfinite(total):
                what = f"loss term '{odd[0]}'" if odd else "the weighted loss"
                value = columns[f"loss/{odd[0]}"] if odd else total
                raise KontrastError(
                    f"stage '{self.stage.name}', step {first + offset + 1}: {what} is {value}; lower the learning rate "
                    f"(it is {self._learning_rate:g}), set gradient_clip, or look for data that are not finite."
                )
            for column, value in columns.items():
                self.state.sums[column] = self.state.sums.get(column, 0.0) + value
                self.state.counts[column] = self.state.counts.get(column, 0) + 1
        self._pending.clear()
        return columns

    def _add(self, event: str, values: Mapping[str, float]) -> None:
        row: Row = {
            "stage": self.stage.name,
            "event": event,
            "epoch": self.state.epoch,
            "step": self.state.step,
            "learning_rate": self._learning_rate,
            **{name: value for name, value in values.items() if not name.startswith("valid/")},
            **{f"weight/{name}": weight for name, weight in self._weights.items()},
            **{name: value for name, value in values.items() if name.startswith("valid/")},
        }
        self.run.rows.append(row)
        for logger in self.trainer.loggers:
            _log(logger, row)

    # -- end of an epoch ---------------------------------------------------------------------------------------------

    def _end_epoch(self, last: bool) -> dict[str, float]:
        state = self.state
        means = {column: state.sums[column] / state.counts[column] for column in state.sums}
        state.sums, state.counts = {}, {}
        metrics: dict[str, float] = {}
        if self.stage.validate is not None and (last or (state.epoch + 1) % self.config.validate_every == 0):
            started = time.perf_counter()
            metrics = self._validate(self.stage.validate)
            self._spent["validating"] += time.perf_counter() - started
            if self.stage.monitor is not None:
                self._select(metrics, self.stage.monitor)
        self._add("epoch", {**means, **{f"valid/{name}": value for name, value in metrics.items()}})
        for logger in self.trainer.loggers:
            logger.save()
        return metrics

    def _show(self, values: Mapping[str, float], metrics: Mapping[str, float]) -> None:
        self._metrics.update(metrics)
        shown = None
        if values:
            # A narrow terminal shows the first ones. A term that is alone is the loss.
            terms = {name.removeprefix("loss/"): value for name, value in values.items() if name != "loss"}
            shown = {"loss": values["loss"], **self._metrics, **(terms if len(terms) > 1 else {})}
        if self.run.task is not None:
            self.run.task.advance(note=f"epoch {self.state.epoch + 1}/{self.stage.epochs}", values=shown)

    def _validate(self, validate: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if self.global_rank == 0:
            model = self.stage.model
            modes = [(module, module.training) for module in model.modules()]
            model.eval()
            seed_everything(self.stage.seed, self.stage.name, "validate", self.state.step)
            try:
                with torch.no_grad():
                    metrics = {str(name): float(value) for name, value in validate().items()}
            finally:
                for module, training in modes:
                    module.training = training
        if self.trainer.world_size > 1:
            metrics = self.trainer.strategy.broadcast(metrics, src=0)
        return metrics

    def _select(self, metrics: Mapping[str, float], monitor: str) -> None:
        if monitor not in metrics:
            raise ConfigError(f"the monitored metric '{monitor}' is not among those of validation; "
                              f"{suggest(monitor, metrics)}.")  # fmt: skip
        state, value = self.state, metrics[monitor]
        if math.isfinite(value) and (
            state.best is None or (value > state.best if self.stage.mode == "max" else value < state.best)
        ):
            state.best, state.best_step, state.waited = value, state.step, 0
            self.best = pack(self.stage.model)
            return
        state.waited += 1
        state.stopped = self.config.patience is not None and state.waited >= self.config.patience

    def _save(self) -> None:
        run, started = self.run, time.perf_counter()
        if run.folder is None or self.global_rank != 0:
            return
        tensors, values = pack_optimiser(self._optimiser)
        state = {
            "finished": False,
            "loop": asdict(run.state),
            "fingerprint": dict(run.fingerprint),
            "optimiser": values,
            "precision": self.trainer.precision_plugin.state_dict(),
        }
        run.folder.save(run.state.step, Checkpoint(state, pack(self.stage.model), tensors, self.best, run.rows))
        self._saved_at = time.perf_counter()
        self._spent["saving"] += self._saved_at - started

    def _note_time(self) -> None:
        """Clock times go to a file of their own: no other file of a run depends on them."""
        if self.config.directory is None or self.global_rank != 0:
            return
        now = time.perf_counter()
        facts = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            "seconds": now - self._clock,
            **{f"seconds_{name}": value for name, value in self._spent.items()},
        }
        self._clock = now
        self._spent = dict.fromkeys(self._spent, 0.0)
        file = self.config.directory / "logs" / self.stage.name / "timings.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(facts) + "\n")


def seed_everything(*keys: int | str) -> None:
    """Seeds Python's, NumPy's and torch's global generators (also of GPUs in use) from `keys` alone."""
    seed = derive_seed(*keys)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - libraries draw from it
    # torch.manual_seed formats a stack trace for each kind of accelerator not in use: milliseconds, at each step.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available() and not torch.mps._is_in_bad_fork():
        torch.mps.manual_seed(seed)


class _Failure:
    """An error that its reader can mend, on its way from a worker: raised there, it would turn into a traceback."""

    def __init__(self, error: KontrastError) -> None:
        self.error = error


class _Stream(Dataset[Any]):
    def __init__(self, batches: Batches, shard: Shard, seed: int, name: str) -> None:
        self.batches = batches
        self.shard = shard
        self.seed = seed
        self.name = name

    def __getitem__(self, key: tuple[int, int]) -> Any:
        # Augmentations of other libraries draw from the global generators; in the training process this is harmless,
        # as each step seeds them again.
        seed_everything(self.seed, self.name, "batch", *key, self.shard.rank)
        try:
            return self.batches.get(*key, self.shard)
        except KontrastError as error:
            return _Failure(error)


class _Keys(Sampler[tuple[int, int]]):
    """(epoch, index) of the next `steps` batches, from a cursor on."""

    def __init__(self, batches: Batches, epoch: int, index: int, steps: int) -> None:
        self.batches = batches
        self.epoch = epoch
        self.index = index
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, index, count = self.epoch, self.index, self.batches.count(self.epoch)
        for _ in range(self.steps):
            while index >= count:
                epoch, index = epoch + 1, 0
                count = self.batches.count(epoch)
            yield epoch, index
            index += 1


def _unchanged(batch: Any) -> Any:
    return batch


def _value(weight: float | Callable[[float], float], fraction: float) -> float:
    return float(weight(fraction)) if callable(weight) else float(weight)


def _log(logger: Logger, row: Row) -> None:
    logger.log_metrics(
        {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}, row["step"]
    )


def _trainer(stage: Stage, config: TrainerConfig, state: LoopState) -> lightning.Trainer:
    devices, num_nodes, strategy = config.devices, config.num_nodes, config.strategy
    if devices == 1 and (launched := launched_together()) is not None:
        # Nobody asked for devices, yet there are processes: each would train a model of its own.
        devices, num_nodes = launched
        strategy = "ddp" if strategy == "auto" else strategy
    try:
        trainer = lightning.Trainer(
            accelerator=config.accelerator,
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            precision=cast(Any, config.precision),
            deterministic=config.deterministic,
            gradient_clip_val=config.gradient_clip,
            max_epochs=1,
            log_every_n_steps=config.log_every,
            logger=_loggers(stage, config, state),
            callbacks=[],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=config.directory,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"Lightning refuses the trainer's options: {' '.join(str(error).split())}") from None
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            f"strategy '{strategy}' trains in copies of this process, whose results do not come back; "
            "use strategy 'ddp' from a script or the command line."
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigError(
            f"strategy '{strategy}' splits the weights over devices, and checkpoints need them whole; use 'ddp'."
        )
    return trainer


def _loggers(stage: Stage, config: TrainerConfig, state: LoopState) -> list[Logger] | bool:
    if config.directory is None:
        return False
    loggers: list[Logger] = []
    for name in dict.fromkeys(config.loggers):
        if name == "csv":
            loggers.append(CSVLogger(config.directory, name="logs", version=stage.name))
        else:
            require("tensorboard", extra="tensorboard", purpose="to write logs for TensorBoard")
            purge = state.step + 1 if state.step else None
            loggers.append(TensorBoardLogger(config.directory, name="logs", version=stage.name, purge_step=purge))
    return loggers or False


@contextmanager
def _quiet() -> Generator[None]:
    """Keeps Lightning's advice off the console; what matters of it is in our own errors and options."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|pytorch_lightning)(\.|$)")
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            for start in (r".*num_workers", r"GPU available", r".*exists and is not empty", r".*LeafSpec"):
                warnings.filterwarnings("ignore", message=start)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _settings_kept() -> Generator[None]:
    """Lightning leaves SIGINT ignored after an interrupt, and deterministic kernels switched on."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if main:
            signal.signal(signal.SIGINT, handler)
