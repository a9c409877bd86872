"""A toy plug-in, as a stranger would write it: points in a CSV file, brought together by class.

Config, Views, Model, System: the whole of a system on one page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kontrast.config import param
from kontrast.contract import Card, Embeddings, Figure, Measurement, System, SystemConfig
from kontrast.data.splits import Splits, split_table
from kontrast.data.tables import Table, read_table, write_table
from kontrast.errors import DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.randomness import numpy_rng
from kontrast.training import IndexedBatches, OptimiserConfig, Progress, ShuffledSampler, Stage, TrainableModel

AXES = ("x", "y", "z")


class ToyConfig(SystemConfig):
    """Options of the toy."""

    dim: int = param(8, "length of the vectors", ge=2, le=64, paper=32)
    temperature: float = param(0.2, "softmax temperature", gt=0, le=10)
    epochs: int = param(15, "passes over the points", ge=1)
    batch_size: int = param(64, "points in a batch", ge=2)


@dataclass(frozen=True)
class Points:
    """Rows of a table with the columns x, y, z and kind."""

    table: Table

    def positions(self) -> np.ndarray:
        return np.stack([self.table.numbers(axis) for axis in AXES], axis=1).astype(np.float32)

    def kinds(self) -> list[str]:
        return self.table.ids("kind")


class ToyModel(TrainableModel):
    """Two linear maps under a supervised contrastive loss (arXiv 2004.11362, eq. 2)."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(len(AXES), 32), nn.GELU(), nn.Linear(32, config.dim))
        self.temperature = config.temperature

    def encode(self, batch: Any) -> dict[str, Tensor]:
        return {"z": nn.functional.normalize(self.layers(batch["points"]), dim=-1)}

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        logits = encoded["z"] @ encoded["z"].T / self.temperature
        logits = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), -1e9)
        positive = (batch["kinds"][:, None] == batch["kinds"]).fill_diagonal_(False)
        share = (logits.log_softmax(1) * positive).sum(1) / positive.sum(1).clamp(min=1)
        return {"contrastive": -share[positive.any(1)].sum() / max(1, int(positive.any(1).sum()))}


class Toy(System[ToyConfig, Points]):
    """Points in space, brought together by class."""

    card: ClassVar[Card] = Card(
        name="toy",
        title="points in space by class",
        summary="A small network brings points of one class together.",
        task="classification",
        modalities=("vector",),
        formats=("CSV with the columns x, y, z and kind",),
        primary_metric="accuracy",
        higher_is_better=True,
        ablation="supervised contrastive training",
        null_control="the classes of the training points",
        unit="points",
    )
    Config = ToyConfig
    smoke: ClassVar[dict[str, Any]] = {"epochs": 10}

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> Points:
        table = read_table(path, [*AXES, *(["kind"] if purpose == "train" else [])], optional=("split", "kind"))
        for axis in AXES:
            table.numbers(axis)
        if purpose == "train" and len(set(table.ids("kind"))) < 2:
            raise DataError("column 'kind' holds one class only", file=path, mend="bring points of two classes")
        return Points(table)

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        rng = numpy_rng(0, "toy example")
        points = rng.normal(size=(400, 3))
        kinds = np.where(np.linalg.norm(points, axis=1) > 1.5, "outer", "inner")
        frame = pd.DataFrame(points.round(4), columns=list(AXES)).assign(kind=kinds)
        return write_table(frame, Path(path) / "points.csv")

    def split(self, data: Points) -> Splits[Points]:
        parts = split_table(data.table, list(AXES[:1]), seed=self.config.split_seed, require=("train", "test"))
        return parts.map(Points)

    def size(self, data: Points) -> int:
        return len(data.table)

    def take(self, data: Points, rows: Sequence[int] | np.ndarray) -> Points:
        return Points(data.table.take(np.asarray(rows)))

    def permuted(self, data: Points, seed: int) -> Points:
        kinds = np.asarray(data.kinds())[numpy_rng(seed, "permuted").permutation(len(data.table))]
        return Points(Table(data.table.frame.assign(kind=kinds), data.table.path, data.table.counted))

    def chance(self, data: Points) -> float:
        shares = pd.Series(data.kinds()).value_counts(normalize=True)
        answers = self.predict(data)["kind"].value_counts(normalize=True)
        return float((shares * answers.reindex(shares.index).fillna(0)).sum())

    def leaks(self, train: Points, test: Points) -> LeakReport:
        return check_leaks({"point": train.positions()}, {"point": test.positions()})

    def learn_facts(self, train: Points) -> dict[str, Any]:
        return {"kinds": sorted(set(train.kinds()))}

    def build(self, facts: dict[str, Any]) -> ToyModel:
        model = ToyModel(self.config)
        model.register_buffer("centres", torch.zeros(len(facts["kinds"]), self.config.dim))
        return model

    def stages(self, train: Points, valid: Points | None) -> Iterator[Stage]:
        if self.config.contrast == "off":
            return
        points = torch.from_numpy(train.positions())
        kinds = torch.tensor([self.facts_["kinds"].index(kind) for kind in train.kinds()])
        if self.config.contrast == "shuffled":
            kinds = kinds[torch.from_numpy(numpy_rng(self.config.seed, "null").permutation(len(kinds)))]
        sampler = ShuffledSampler(len(points), min(len(points), self.config.batch_size), seed=self.config.seed)
        batches = IndexedBatches(
            sampler, lambda rows, rng: {"points": points[rows], "kinds": kinds[rows]}, seed=self.config.seed
        )
        yield Stage(
            "contrast", self.model_, batches, self.config.epochs, OptimiserConfig(learning_rate=1e-2), self.config.seed
        )

    def finish(self, train: Points, valid: Points | None) -> None:
        vectors = torch.from_numpy(self._vectors(train))
        for number, kind in enumerate(self.facts_["kinds"]):
            members = torch.tensor([name == kind for name in train.kinds()])
            self.model_.centres[number] = vectors[members].mean(0)

    @torch.no_grad()
    def _vectors(self, data: Points) -> np.ndarray:
        return self.model_.encode({"points": torch.from_numpy(data.positions())})["z"].numpy()

    def embed(self, data: Points) -> Embeddings:
        self.check_fitted()
        columns = {"class": data.kinds()} if "kind" in data.table.columns else {}
        return Embeddings(self._vectors(data), data.table.ids(), "point", columns, label="class" if columns else None)

    def predict(self, data: Points) -> pd.DataFrame:
        vectors = self.embed(data).vectors
        nearest = np.linalg.norm(vectors[:, None] - self.model_.centres.numpy(), axis=2).argmin(1)
        return pd.DataFrame({"id": data.table.ids(), "kind": [self.facts_["kinds"][number] for number in nearest]})

    def measure(self, data: Points) -> Measurement:
        right = np.array(
            [guess == kind for guess, kind in zip(self.predict(data)["kind"], data.kinds())], dtype=np.float64
        )
        return Measurement({"accuracy": float(right.mean())}, right, data.table.ids())

    def baselines(self, train: Points, test: Points) -> dict[str, dict[str, float]]:
        most = pd.Series(train.kinds()).mode()[0]
        return {"majority": {"accuracy": float(np.mean([kind == most for kind in test.kinds()]))}}

    def figures(self, data: Points) -> list[Figure]:
        return [
            Figure(
                "Answers",
                "Counts of the answered classes.",
                table=self.predict(data)["kind"].value_counts().reset_index(),
            )
        ]
