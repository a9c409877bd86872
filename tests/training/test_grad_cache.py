"""Encoding in parts gives the gradient of encoding at once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_toy as toy
from torch import Tensor, nn

from kontrast.errors import ConfigError
from kontrast.losses import ClipLoss, SupCon
from kontrast.negatives import FeatureQueue, MomentumEncoder
from kontrast.training import (
    IndexedBatches,
    OrderedSampler,
    Progress,
    Stage,
    TrainableModel,
    TrainerConfig,
    encode_in_parts,
    run_stage,
)
from kontrast.training.grad_cache import check_rows_alone

NOW = Progress(0, 1, 0)


class Towers(TrainableModel):
    """Two towers, a head and a temperature that only the losses use, a momentum copy and a queue."""

    def __init__(self, dropout: float = 0.0, norm: type[nn.Module] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            middle: list[nn.Module] = [nn.LayerNorm(16) if norm is None else norm(16), nn.GELU(), nn.Dropout(dropout)]
            self.left = nn.Sequential(nn.Linear(toy.WIDTH, 16), *middle, nn.Linear(16, 8))
            self.right = nn.Sequential(nn.Linear(toy.WIDTH, 8), nn.Tanh(), nn.Dropout(dropout))
            self.head = nn.Linear(8, 8)
        self.momentum = MomentumEncoder(self.right)
        self.queue = FeatureQueue(32, 8)
        self.clip, self.classes = ClipLoss(learnable=True), SupCon(learnable=True)

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "left": self.left(batch["view"]), "right": self.right(batch["other"]), "key": self.momentum(batch["other"])
        }  # fmt: skip

    def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
        assert not encoded["key"].requires_grad
        left = self.head(encoded["left"])
        terms = {"clip": self.clip(left, encoded["right"]), "classes": self.classes(left, batch["row"] % 3)}
        if len(self.queue):
            terms["queue"] = (encoded["left"] @ self.queue.features().T).logsumexp(1).mean()
        self.queue.enqueue(encoded["key"])
        return terms


def batch(rows: int = 13) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    view, other = torch.randn(2, rows, toy.WIDTH, generator=draws)
    return {"row": torch.arange(rows), "view": view, "other": other}


def gradients(model: TrainableModel, encoded: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    (sum(model.losses(encoded, batch(), NOW).values()) * scale).backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def check_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("rows", [1, 4, 13, 100])
def test_the_gradient_is_that_of_the_whole_batch(rows: int) -> None:
    model, twin = Towers().double(), Towers().double()
    inputs = {key: value.double() if value.is_floating_point() else value for key, value in batch().items()}
    for scale in (1.0, 512.0):  # as a loss scaler does; the second round has a filled queue
        found = gradients(model, encode_in_parts(model, inputs, rows), scale)
        check_equal(found, gradients(twin, twin.encode(inputs), scale), 1e-10)
    assert {"head.weight", "clip.temperature.log_scale", "left.0.weight", "right.0.bias"} <= found.keys()
    assert not [name for name in found if name.startswith("momentum")]
    torch.testing.assert_close(model.queue.features(), twin.queue.features())


def test_dropout_drops_the_same_in_both_passes() -> None:
    """The wanted gradient is autograd's own over parts that draw the same numbers."""
    model = Towers(dropout=0.5)
    torch.manual_seed(11)
    found = gradients(model, encode_in_parts(model, batch(), 4))
    after = torch.rand(3)
    twin = Towers(dropout=0.5)
    torch.manual_seed(11)
    parts = [twin.encode(part) for part in twin.split(batch(), 4)]
    check_equal(found, gradients(twin, {name: torch.cat([part[name] for part in parts]) for name in parts[0]}))
    assert torch.equal(after, torch.rand(3)), "the backward pass moved the generator"
    undropped = Towers()
    other = gradients(undropped, undropped.encode(batch()))
    assert any(not torch.allclose(found[name], other[name], atol=1e-3) for name in other)


class Restless(Towers):
    """Draws from every global generator there is."""

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoded = super().encode(batch)
        noise = random.random() + float(np.random.rand()) + torch.rand(len(batch["view"]), 1)  # noqa: NPY002
        return {**encoded, "left": encoded["left"] * noise}


def test_every_global_generator_is_replayed() -> None:
    draws = []
    for cut in (True, False):
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)
        model = Restless()
        if cut:
            encoded = encode_in_parts(model, batch(), 5)
        else:
            parts = [model.encode(part) for part in model.split(batch(), 5)]
            encoded = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        draws.append((gradients(model, encoded), random.random(), float(np.random.rand())))  # noqa: NPY002
    check_equal(draws[0][0], draws[1][0])
    assert draws[0][1:] == draws[1][1:]


def test_autocast_of_the_step_holds_in_both_passes() -> None:
    found = {}
    for cut in (True, False):
        model = Towers()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if cut:
                check_rows_alone(model, batch(), 4)
            encoded = encode_in_parts(model, batch(), 4) if cut else model.encode(batch())
            assert encoded["left"].dtype == torch.bfloat16
            total = sum(model.losses(encoded, batch(), NOW).values())
        total.backward()
        found[cut] = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    # The sums of bf16 weight gradients are rounded part by part.
    check_equal(found[True], found[False], 3e-2)


class Coupled(Towers):
    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoded = super().encode(batch)
        return {**encoded, "left": encoded["left"] - encoded["left"].mean(0)}


class Counting(Towers):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("met", torch.zeros(()))

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.training:
            self.met += len(batch["view"])
        return super().encode(batch)


class Stacked(Towers):
    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoded = super().encode(batch)
        return {"both": torch.cat([encoded["left"], encoded["right"]])}


class Connected(Towers):
    rowwise = False


def stage(model: TrainableModel, **changes: Any) -> Stage:
    rows = batch(40)
    stream = IndexedBatches(
        OrderedSampler(40, 16), lambda at, rng: {name: value[at] for name, value in rows.items()}, seed=0
    )
    return toy.stage(model=model, batches=stream, epochs=2, weights={}, **changes)


def trainer(**changes: Any) -> TrainerConfig:
    return TrainerConfig(**{"accelerator": "cpu", "progress": "off", "loggers": [], **changes})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Towers(norm=nn.BatchNorm1d), "batch norm"),
        (Coupled(), "'left' of Coupled a row changes by"),
        (Counting(), "changes 'met' each time"),
        (Stacked(), "'both' of shape (10, 8) for 5 rows"),
        (Connected(), "encodes one connected whole"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_models_that_cannot_be_cut_are_refused(model: TrainableModel, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_stage(stage(model), trainer(micro_batch=5))
    assert words in str(caught.value)
    assert "micro_batch" in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_a_frozen_batch_norm_is_no_hindrance() -> None:
    class Frozen(Towers):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.left[1].eval()
            return self

    model = Frozen(norm=nn.BatchNorm1d)
    run_stage(stage(model), trainer(micro_batch=5, max_steps=1))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_stage_in_parts_learns_the_same(dropout: float) -> None:
    whole, parts = Towers(dropout), Towers(dropout)
    history = run_stage(stage(whole), trainer(log_every=1))
    other = run_stage(stage(parts), trainer(log_every=1, micro_batch=5))
    assert len(history) == len(other)
    pairs = zip(whole.state_dict().values(), parts.state_dict().values())
    apart = max(float((one - two).abs().max()) for one, two in pairs)
    # With dropout other numbers are drawn, part by part instead of at once.
    assert (apart < 1e-4) == (dropout == 0)


def test_a_killed_run_in_parts_ends_as_the_whole_one(tmp_path: Path) -> None:
    options = {"micro_batch": 5, "checkpoint_every": 2}
    one, two = Towers(0.3), Towers(0.3)
    run_stage(stage(one), trainer(**options, directory=tmp_path / "a"))

    class Stop(Exception):
        pass

    class Killed(Towers):
        def losses(self, encoded: Mapping[str, Tensor], batch: Any, progress: Progress) -> dict[str, Tensor]:
            if progress.step == 3:
                raise Stop
            return super().losses(encoded, batch, progress)

    with pytest.raises(Stop):
        run_stage(stage(Killed(0.3)), trainer(**options, directory=tmp_path / "b"))
    run_stage(stage(two), trainer(**options, directory=tmp_path / "b", resume=True))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    with pytest.raises(ConfigError, match="micro_batch"):
        TrainerConfig(micro_batch=0)
