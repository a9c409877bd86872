"""The contract: one grammar for every method."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from pydantic import field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kontrast.config import BaseConfig, Preset, as_preset, param, read_yaml
from kontrast.contract.card import Card
from kontrast.contract.results import Embeddings, Figure, Measurement
from kontrast.data.splits import Splits
from kontrast.errors import CheckpointError, ConfigError, DataError, NotFittedError
from kontrast.evaluation.leaks import LeakReport
from kontrast.files import content_hash, read_json, replacing, write_json
from kontrast.randomness import derive_seed
from kontrast.training import Stage, TrainableModel, TrainerConfig, run_stage

FORMAT_VERSION = 1
MEND = "copy the model again, or train it again"


class SystemConfig(BaseConfig):
    """Options that every system has."""

    seed: int = param(0, "seed of weights, batch order and augmentation", ge=0)
    split_seed: int = param(0, "seed of the train/valid/test split where the data bring none", ge=0)
    contrast: Literal["on", "off", "shuffled"] = param(
        "on", "the contrastive part: on, off (ablation) or with its pairing shuffled (null control)"
    )

    @field_validator("contrast", mode="before")
    @classmethod
    def _words_of_yaml(cls, value: Any) -> Any:
        """YAML reads a bare ``on`` or ``off`` as a truth value."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


ConfigT = TypeVar("ConfigT", bound=SystemConfig)
DataT = TypeVar("DataT")


class System(ABC, Generic[ConfigT, DataT]):
    """A contrastive method as an estimator over standard files.

    The constructor stores options; `fit` checks data and learns; what it learned ends in an underscore. `embed`,
    `predict` and `evaluate` share one inference path: `embed`. A subclass supplies the methods that are abstract here
    and usually inherits `fit`, `save` and `load`.

    Class attributes:
        card: facts about the method.
        Config: its options, a subclass of `SystemConfig`.
        smoke: options under which it learns the data of `write_example` within seconds; the check suite uses them.
        exports: folders inside a saved model that are for other tools; `load` neither reads nor checks them.
        answer_options: names of options that steer `predict` and may change after training, such as ``("top_k",)``.
        answer_files: what `write_answers` writes, by ending: ``{".h5mu": "the cells with their clusters"}``; the ending
            ``""`` is a folder. Tables (.parquet, .csv, .jsonl) every system has.
        embedding_files: what `write_embeddings` writes, by ending; .parquet and .npz every system has.

    Args:
        config: a ready configuration; or give
        preset: ``"cpu"`` or ``"paper"``, and
        options: single options by name (sections as dicts or dotted keys in ``**{"optimiser.learning_rate": 1e-3}``).

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    card: ClassVar[Card]
    Config: ClassVar[type[SystemConfig]]
    smoke: ClassVar[dict[str, Any]] = {}
    exports: ClassVar[tuple[str, ...]] = ()
    answer_options: ClassVar[tuple[str, ...]] = ()
    answer_files: ClassVar[dict[str, str]] = {}
    embedding_files: ClassVar[dict[str, str]] = {}

    config: ConfigT
    model_: TrainableModel
    facts_: dict[str, Any]

    def __init__(self, config: ConfigT | None = None, *, preset: Preset = "cpu", **options: Any) -> None:
        if config is not None and options:
            raise ConfigError("give either a ready config or single options, not both.")
        self.config = config if config is not None else self.Config.preset(preset, **options)  # type: ignore[assignment]

    # ---- data ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> DataT:
        """Reads and validates a file or folder of the method's standard formats.

        Args:
            path: the file or folder.
            purpose: ``"predict"`` accepts data without the answers (labels, right-hand column).

        Raises:
            DataError: naming file, field, row, what is allowed, what came and the mend.
        """

    @classmethod
    @abstractmethod
    def write_example(cls, path: str | Path) -> Path:
        """Writes a small synthetic data set in the standard format into a folder; returns what `read` takes."""

    @abstractmethod
    def split(self, data: DataT) -> Splits[DataT]:
        """Train, validation and test: the parts that the data name, else seeded by `split_seed` and leak-free."""

    @abstractmethod
    def size(self, data: DataT) -> int:
        """Number of rows that `take` can choose from."""

    @abstractmethod
    def take(self, data: DataT, rows: Sequence[int] | np.ndarray) -> DataT:
        """The same data restricted to some rows, in the order given."""

    @abstractmethod
    def permuted(self, data: DataT, seed: int) -> DataT:
        """The data with the truth that `evaluate` compares against permuted: an honest model scores `chance` on it."""

    @abstractmethod
    def chance(self, data: DataT) -> float:
        """Expected primary metric of random answers on `data`."""

    @abstractmethod
    def leaks(self, train: DataT, test: DataT) -> LeakReport:
        """Items of `test` that `train` gives away."""

    # ---- learning ------------------------------------------------------------------------------------------------

    @abstractmethod
    def learn_facts(self, train: DataT) -> dict[str, Any]:
        """What the model's shape depends on (input sizes, classes ...), JSON-able, from training data alone."""

    @abstractmethod
    def build(self, facts: dict[str, Any]) -> TrainableModel:
        """The untrained model for these facts; weights depend on `config.seed` alone."""

    @abstractmethod
    def stages(self, train: DataT, valid: DataT | None) -> Iterable[Stage]:
        """The trainings, one after another; a later stage may use what an earlier one learned."""

    def fit(self, train: DataT, valid: DataT | None = None, *, trainer: TrainerConfig | None = None) -> Self:
        """Learns from `train`; `valid` serves model selection and early stopping only.

        Args:
            train: data as `read` returns them.
            valid: held-out data of the same kind, or None: then the last weights are kept.
            trainer: devices, precision, checkpoints, loggers; the defaults train quietly in memory.

        Returns:
            The system itself, with `model_` on the CPU in evaluation mode and the training curves in `history_`.

        Raises:
            DataError: if the data cannot be learned from.
        """
        trainer = trainer if trainer is not None else TrainerConfig(progress="off", loggers=[])
        if self.size(train) == 0:
            raise DataError("the training data have no rows", mend="check the split")
        self.facts_ = self.learn_facts(train)
        self.initialise()
        histories = []
        for stage in self.stages(train, valid):
            history = run_stage(stage, trainer)
            histories.append(history.to_frame().assign(stage=stage.name))
        keys = pd.DataFrame({"stage": [], "epoch": [], "step": []})
        self.history_ = pd.concat(histories, ignore_index=True) if histories else keys
        self.model_.eval().to("cpu")
        self.finish(train, valid)
        return self

    def initialise(self) -> None:
        """Builds `model_` from `facts_` with weights that depend on the seed alone, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.config.seed, "weights"))
            self.model_ = self.build(self.facts_)
        self.model_.eval()

    def finish(self, train: DataT, valid: DataT | None) -> None:
        """Hook after training, such as keeping the candidates that `predict` searches."""

    # ---- use -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, data: DataT) -> Embeddings:
        """Vectors of the rows; a row's vector does not depend on the other rows of its batch.

        Raises:
            NotFittedError: before `fit` or `load`.
        """

    @abstractmethod
    def predict(self, data: DataT) -> pd.DataFrame:
        """The method's answer for each row of `data`, as a table."""

    @abstractmethod
    def measure(self, data: DataT) -> Measurement:
        """Metrics on held-out data, with per-item values where the primary metric is a mean over items."""

    def evaluate(self, data: DataT) -> dict[str, float]:
        """Metrics on held-out data; names are shared across systems."""
        return self.measure(data).metrics

    @abstractmethod
    def baselines(self, train: DataT, test: DataT) -> dict[str, dict[str, float]]:
        """Metrics of the simple methods that a reader would try first, on the same test data, by name."""

    def figures(self, data: DataT) -> list[Figure]:
        """What a person of the field looks at."""
        return []

    def write_answers(self, answers: pd.DataFrame, data: DataT, path: Path) -> None:
        """Writes what `predict` returned for `data` into a file of the field, one of `answer_files`.

        Args:
            answers: the table that `predict` returned.
            data: what it was asked about.
            path: where to write; the caller moves it into its place once it is whole.
        """
        raise NotImplementedError(f"{type(self).__name__} declares answer_files but not how they are written.")

    def write_embeddings(self, embeddings: Embeddings, data: DataT, path: Path) -> None:
        """Writes the vectors of `data` into a file of the field, one of `embedding_files`, as `write_answers` does."""
        raise NotImplementedError(f"{type(self).__name__} declares embedding_files but not how they are written.")

    def check_fitted(self) -> None:
        """Raises NotFittedError before `fit` or `load`."""
        if not hasattr(self, "model_"):
            raise NotFittedError(
                f"{type(self).__name__} is not fitted; call fit(...) or {type(self).__name__}.load(folder) first."
            )

    # ---- saving --------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Writes config.yaml, model.safetensors and system.json (format version, facts, sha256 of the files).

        The folder is written whole or not at all.

        Raises:
            NotFittedError: before `fit` or `load`.
        """
        self.check_fitted()
        with replacing(folder) as temporary:
            temporary.mkdir()
            self.config.to_yaml(temporary / "config.yaml")
            tensors = {
                name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.model_.state_dict().items()
            }
            save_file(tensors, temporary / "model.safetensors")
            self.save_extra(temporary)
            files = [file.relative_to(temporary) for file in sorted(temporary.rglob("*")) if file.is_file()]
            hashes = {
                file.as_posix(): content_hash(temporary / file) for file in files if file.parts[0] not in self.exports
            }
            write_json(
                temporary / "system.json",
                {"format": FORMAT_VERSION, "system": self.card.name, "facts": self.facts_, "sha256": hashes},
            )
        return Path(folder)

    def save_extra(self, folder: Path) -> None:
        """Hook: writes what the model needs besides tensors (a tokeniser, an index)."""

    def load_extra(self, folder: Path) -> None:
        """Hook: reads what `save_extra` wrote; runs before `build`."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The system that `save` wrote.

        Raises:
            CheckpointError: if a file is missing, damaged, of another system or of a newer format.
        """
        folder = Path(folder)
        if not (folder / "system.json").is_file():
            raise CheckpointError("has no system.json", file=folder, mend="give the 'model' folder of a finished run")
        meta = read_json(folder / "system.json")
        came = meta.get("system") if isinstance(meta, dict) else None
        if came != cls.card.name:
            raise CheckpointError(
                f"belongs to the system {came!r}, not to '{cls.card.name}'", file=folder / "system.json"
            )
        if meta.get("format") != FORMAT_VERSION:
            raise CheckpointError(
                f"has format {meta.get('format')!r}, this kontrast reads format {FORMAT_VERSION}",
                file=folder / "system.json",
                mend="use the kontrast version that wrote it",
            )
        hashes = meta.get("sha256")
        if not isinstance(meta.get("facts"), dict) or not isinstance(hashes, dict):
            raise CheckpointError("is damaged", file=folder / "system.json", mend=MEND)
        for name, sha in hashes.items():
            if not (folder / name).is_file():
                raise CheckpointError(f"has no {name}", file=folder, mend=MEND)
            if content_hash(folder / name) != sha:
                raise CheckpointError("is damaged or was changed (its sha256 differs)", file=folder / name, mend=MEND)
        config: Any = cls.Config(**read_yaml(folder / "config.yaml"))
        system = cls(config)
        system.facts_ = meta["facts"]
        try:
            system.load_extra(folder)
            system.initialise()
            system.model_.load_state_dict(load_file(folder / "model.safetensors"))
        except (SafetensorError, RuntimeError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            what = f"does not hold this model's weights ({reason})"
            raise CheckpointError(what, file=folder / "model.safetensors", mend=MEND) from None
        system.model_.eval()
        return system


def default_preset() -> Preset:
    """``"paper"`` where there is an accelerator, else ``"cpu"``; the variable KONTRAST_PRESET decides if it is set."""
    chosen = os.environ.get("KONTRAST_PRESET")
    if chosen is not None:
        return as_preset(chosen)
    return "paper" if torch.accelerator.is_available() else "cpu"
