"""`run_stage` in this process; killing and resuming is in `test_resume`, several ranks in `test_training_ranks`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_toy as toy
from torch import Tensor

from kontrast.errors import CheckpointError, ConfigError, DataError, KontrastError
from kontrast.schedules import Schedule
from kontrast.training import IndexedBatches, Progress, Shard, ShuffledSampler, TrainerConfig, run_stage
from kontrast.training.checkpoint import CheckpointFolder, pack


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def options(**changes: Any) -> TrainerConfig:
    return TrainerConfig(**{"accelerator": "cpu", "progress": "off", **changes})


def test_it_learns_and_tells_progress() -> None:
    stage = toy.line()
    history = run_stage(stage, options())
    assert stage.model.slope.item() == pytest.approx(2.0, abs=0.1)
    assert stage.model.seen[0] == (0, 0, 60)
    assert stage.model.seen[3] == (1, 3, 60)
    assert stage.model.seen[-1] == (19, 59, 60)
    assert not stage.model.training
    epochs = history.epochs()
    assert [row["step"] for row in epochs] == [3 * (epoch + 1) for epoch in range(20)]
    assert epochs[-1]["loss"] < 1e-3 < epochs[0]["loss"]
    frame = history.to_frame()
    assert {"stage", "event", "epoch", "step", "learning_rate", "loss", "loss/square", "weight/square"} <= set(frame)


def test_without_a_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_stage(toy.line(epochs=1), options())
    assert list(tmp_path.iterdir()) == []


def test_global_generators_are_left_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    run_stage(toy.stage(epochs=1), options())
    assert draw() == expected


def test_the_callers_generators_do_not_matter() -> None:
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stage = toy.stage(epochs=2)
        run_stage(stage, options())
        weights.append(pack(stage.model))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_validation_does_not_disturb_training() -> None:
    plain, validated = toy.stage(epochs=3), toy.stage(epochs=3)

    def validate() -> Mapping[str, float]:
        assert not validated.model.training
        assert not torch.is_grad_enabled()
        torch.rand(5)
        validated.model.encoder(torch.randn(4, toy.WIDTH))
        return {"score": 1.0}

    validated.validate = validate
    run_stage(plain, options())
    run_stage(validated, options())
    assert all(torch.equal(one, pack(validated.model)[name]) for name, one in pack(plain.model).items())


def test_submodules_in_evaluation_mode_stay_so() -> None:
    class Frozen(toy.Toy):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.momentum.eval()
            return self

        def losses(self, *given: Any) -> Mapping[str, Tensor]:
            assert self.encoder.training
            assert not self.momentum.training
            return super().losses(*given)

    run_stage(toy.stage(model=Frozen(), epochs=2, validate=lambda: {"a": 1.0}), options())


def test_weights_and_schedules_make_the_total() -> None:
    stage = toy.stage(weights={"size": Schedule("linear", 0.0, 1.0), "contrastive": 0.5})
    history = run_stage(stage, options(log_every=1))
    steps = [row for row in history if row["event"] == "step"]
    assert [row["weight/size"] for row in steps] == [step / 20 for step in range(20)]
    for row in steps:
        total = row["weight/size"] * row["loss/size"] + row["weight/contrastive"] * row["loss/contrastive"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    first = history.epochs()[0]
    assert first["loss/size"] == pytest.approx(np.mean([row["loss/size"] for row in steps[:5]]), rel=1e-12)


def test_a_weight_without_a_term_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'sise', which is no loss term; did you mean 'size'"):
        run_stage(toy.stage(weights={"sise": 1.0}), options())


@pytest.fixture
def _losses_are_read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where losses are read where a row, a checkpoint or an epoch needs them and not at each step."""
    from kontrast.training import _engine

    monkeypatch.setattr(_engine._Loop, "device", property(lambda self: torch.device("meta")))


def test_reading_losses_late_changes_nothing(request: pytest.FixtureRequest) -> None:
    at_once = run_stage(toy.stage(), options(log_every=3))
    request.getfixturevalue("_losses_are_read_late")
    assert run_stage(toy.stage(), options(log_every=3)).to_jsonl() == at_once.to_jsonl()


@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_is_not_finite_names_step_and_term(late: bool, request: pytest.FixtureRequest) -> None:
    if late:
        request.getfixturevalue("_losses_are_read_late")

    class Bad(toy.Toy):
        def losses(self, encoded: Any, batch: Any, progress: Progress) -> Mapping[str, Tensor]:
            terms = dict(super().losses(encoded, batch, progress))
            if progress.step == 6:
                terms["size"] = terms["size"] * float("nan")
            return terms

    with pytest.raises(KontrastError, match=r"stage 'toy', step 7: loss term 'size' is nan; lower the learning rate"):
        run_stage(toy.stage(model=Bad()), options())


def test_a_term_that_is_no_scalar_is_an_error() -> None:
    class Bad(toy.Toy):
        def losses(self, encoded: Any, batch: Any, progress: Progress) -> Mapping[str, Tensor]:
            return {"rows": encoded["query"].sum(dim=1)}

    with pytest.raises(ValueError, match=r"loss term 'rows' must be a scalar, got shape \(8,\)"):
        run_stage(toy.stage(model=Bad(), weights={}), options())


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 0)])
def test_best_weights_come_back(mode: str, best: int) -> None:
    scores = [0.1, 0.5, 0.9, float("nan"), 0.3]
    stage = toy.stage(epochs=5, monitor="score", mode=mode)
    seen: list[dict[str, Tensor]] = []

    def validate() -> Mapping[str, float]:
        seen.append(pack(stage.model))
        return {"score": scores[len(seen) - 1]}

    stage.validate = validate
    history = run_stage(stage, options())
    assert len(seen) == 5
    assert all(torch.equal(one, seen[best][name]) for name, one in pack(stage.model).items())
    assert [row["valid/score"] for row in history.epochs()[:3]] == scores[:3]


def test_patience_ends_the_stage() -> None:
    scores = iter([0.5, 0.4, 0.6, 0.6, 0.5, 0.9])
    stage = toy.stage(epochs=6, validate=lambda: {"score": next(scores)}, monitor="score")
    history = run_stage(stage, options(patience=2))
    assert [row["valid/score"] for row in history.epochs()] == [0.5, 0.4, 0.6, 0.6, 0.5]


def test_validation_each_so_many_epochs_and_at_the_end() -> None:
    stage = toy.stage(epochs=5, validate=lambda: {"score": 1.0})
    history = run_stage(stage, options(validate_every=2))
    assert ["valid/score" in row for row in history.epochs()] == [False, True, False, True, True]


def test_max_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    stage = toy.stage(validate=lambda: {"score": 1.0})
    history = run_stage(stage, options(max_steps=7, directory=tmp_path))
    assert [(row["epoch"], row["step"]) for row in history.epochs()] == [(0, 5), (1, 7)]
    assert "valid/score" in history.epochs()[-1]
    assert (tmp_path / "checkpoints/toy/step-00000007").is_dir()


def test_monitoring_what_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'scor' is not among those of validation; did you mean 'score'"):
        run_stage(toy.stage(validate=lambda: {"score": 1.0}, monitor="scor"), options())
    with pytest.raises(ConfigError, match="option 'patience' needs a metric to monitor"):
        run_stage(toy.stage(validate=lambda: {"score": 1.0}), options(patience=1))
    with pytest.raises(ValueError, match="does not validate"):
        run_stage(toy.stage(monitor="score"), options())


def test_impossible_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        toy.stage(name="../x")
    with pytest.raises(ConfigError, match="at least 1 epoch, got 0"):
        toy.stage(epochs=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_data_stays_one_sentence(workers: int) -> None:
    def collate(rows: np.ndarray, rng: np.random.Generator) -> Any:
        raise DataError("has no row 3", file="x.csv", mend="add one")

    broken = IndexedBatches(ShuffledSampler(8, 4), collate, seed=0)
    with pytest.raises(DataError) as caught:
        run_stage(toy.stage(batches=broken), options(workers=workers))
    assert str(caught.value) == "x.csv: has no row 3; add one."


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_a_run_that_is_asked_to_end_saves_first(tmp_path: Path) -> None:
    class Leaving(toy.Toy):
        def after_step(self, progress: Progress, batch: Any) -> None:
            super().after_step(progress, batch)
            if progress.step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        run_stage(toy.stage(model=Leaving()), options(directory=tmp_path))
    assert caught.value.code == 143
    assert (tmp_path / "checkpoints/toy/step-00000008").is_dir()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(("pause", "steps"), [(0.0, [5, 10, 15, 20]), (1000.0, [20])])
def test_short_epochs_are_not_all_saved(pause: float, steps: list[int], tmp_path: Path) -> None:
    run_stage(toy.stage(), options(directory=tmp_path, checkpoint_pause=pause, keep=9))
    assert CheckpointFolder(tmp_path / "checkpoints/toy").steps() == steps
    assert (tmp_path / "logs/toy/timings.jsonl").read_text().count("\n") == 4


def test_a_damaged_end_is_made_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = toy.stage()
    run_stage(first, options(directory=tmp_path))
    weights = tmp_path / "checkpoints/toy/final/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    history = run_stage(toy.stage(), options(directory=tmp_path, resume=True, progress="lines"))
    assert weights.read_bytes() == whole
    assert len(history.epochs()) == 4
    assert "final: is damaged" in capfd.readouterr().err


def test_deterministic_kernels_are_switched_back() -> None:
    run_stage(toy.stage(epochs=1), options(deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_epoch_without_batches_is_refused() -> None:
    class Empty:
        def count(self, epoch: int) -> int:
            return 1 - epoch

        def get(self, epoch: int, index: int, shard: Shard | None = None) -> Any:
            raise AssertionError

    with pytest.raises(ConfigError, match="no batches to train on in epoch 1"):
        run_stage(toy.stage(batches=Empty()), options())


def test_a_used_directory_is_not_overwritten(tmp_path: Path) -> None:
    run_stage(toy.stage(epochs=1), options(directory=tmp_path))
    with pytest.raises(CheckpointError, match=r"holds checkpoints of an earlier run of stage 'toy'; resume that run"):
        run_stage(toy.stage(epochs=1), options(directory=tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "another seed: 5 there, 6 here"),
        ({"epochs": 5}, "another number of epochs: 4 there, 5 here"),
        ({"optimiser": toy.optimiser(learning_rate=0.5)}, "another optimiser: .*0.01.* there, .*0.5.* here"),
        ({"weights": {"size": 0.2}}, "another loss weights"),
        ({"batches": toy.batches(seed=4)}, "another order of rows"),
        ({"batches": toy.batches(rows=39)}, "another order of rows"),
        ({"fingerprint": {"data": "def"}}, "another data: abc there, def here"),
        ({"fingerprint": {}}, "another data: abc there, nothing here"),
    ],
)
def test_another_run_is_not_resumed(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run_stage(toy.stage(fingerprint={"data": "abc"}), options(directory=tmp_path))
    with pytest.raises(CheckpointError, match=message):
        run_stage(toy.stage(**{"fingerprint": {"data": "abc"}, **changes}), options(directory=tmp_path, resume=True))


def test_resuming_needs_a_directory() -> None:
    with pytest.raises(ConfigError, match="'resume' needs a directory"):
        run_stage(toy.stage(), options(resume=True))


def test_resuming_where_nothing_is_begins(tmp_path: Path) -> None:
    history = run_stage(toy.stage(epochs=1), options(directory=tmp_path, resume=True))
    assert len(history.epochs()) == 1


def test_where_a_run_lives_is_not_part_of_its_configuration(tmp_path: Path) -> None:
    config = TrainerConfig(directory=tmp_path, resume=True, max_steps=3)
    assert not {"directory", "resume"} & config.model_dump().keys()
    assert str(tmp_path) not in config.to_yaml()
    changed = config.changed(max_steps=4)
    assert (changed.directory, changed.resume, changed.max_steps) == (tmp_path, True, 4)
    assert config.changed(resume=False).resume is False


def test_logs_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_stage(toy.stage(epochs=1), options(directory=tmp_path, loggers=["csv", "tensorboard"], log_every=2))
    logs = tmp_path / "logs/toy"
    header, *rows = (logs / "metrics.csv").read_text().splitlines()
    assert {"loss/contrastive", "learning_rate", "step"} <= set(header.split(","))
    assert len(rows) == 3
    assert list(logs.glob("events.out.tfevents.*"))
    assert (logs / "timings.jsonl").read_text().count("\n") == 1


def test_options_reach_lightning_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    from kontrast.training import _engine

    given: dict[str, Any] = {}

    class Caught(Exception):
        pass

    def trainer(**values: Any) -> None:
        given.update(values)
        raise Caught

    monkeypatch.setattr(_engine.lightning, "Trainer", trainer)
    wanted = {"accelerator": "gpu", "devices": [0, 3], "strategy": "ddp_find_unused_parameters_true", "num_nodes": 2,
              "precision": "bf16-mixed", "deterministic": "warn"}  # fmt: skip
    with pytest.raises(Caught):
        run_stage(toy.stage(), options(**wanted, gradient_clip=0.5))
    assert {name: given[name] for name in wanted} == wanted
    assert given["gradient_clip_val"] == 0.5
    assert given["enable_checkpointing"] is False


def test_bf16_computes_in_bf16() -> None:
    kinds = set()

    class Watching(toy.Toy):
        def losses(self, encoded: Any, batch: Any, progress: Progress) -> Mapping[str, Tensor]:
            kinds.add(encoded["query"].dtype)
            return super().losses(encoded, batch, progress)

    stage = toy.stage(model=Watching(), epochs=1)
    history = run_stage(stage, options(precision="bf16-mixed"))
    assert kinds == {torch.bfloat16}
    assert {tensor.dtype for tensor in stage.model.parameters()} == {torch.float32}
    assert np.isfinite(history.epochs()[0]["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "17-mixed"}, "Lightning refuses the trainer's options"),
        ({"accelerator": "abacus"}, "Lightning refuses the trainer's options"),
        ({"strategy": "ddp_spawn", "devices": 2}, "use strategy 'ddp'"),
        ({"progress": "loud"}, "progress"),
        ({"keep": 0}, "keep"),
    ],
)
def test_options_that_cannot_work_are_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_stage(toy.stage(), options(**changes))


def test_gradients_are_clipped() -> None:
    class Steep(toy.Line):
        def losses(self, encoded: Any, batch: Any, progress: Progress) -> Mapping[str, Tensor]:
            return {"steep": 1000 * self.slope.sum()}

    stage = toy.line(
        model=Steep(), optimiser=toy.optimiser(name="sgd", learning_rate=1.0, momentum=0.0, warmup=0.0), epochs=1
    )
    run_stage(stage, options(max_steps=1, gradient_clip=0.25))
    assert stage.model.slope.item() == pytest.approx(-0.25, rel=1e-4)


def test_the_console_shows_our_lines_only(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    run_stage(toy.stage(), options(progress="lines"))
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 10
    assert all(one.startswith("toy epoch ") for one in lines), shown.err
    assert "contrastive" in lines[-1]
    run_stage(toy.stage(), options(progress="off"))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_batches_of_one_row_are_given_to_the_first_rank_only() -> None:
    with pytest.raises(DataError, match="fewer devices"):
        toy.batches(rows=33).get(0, 4, Shard(1, 2))


def test_the_interface_does_not_load_lightning() -> None:
    code = "import sys, kontrast.training; sys.exit('lightning' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
