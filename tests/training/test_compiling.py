"""`compile`: the same training, and one sentence where it cannot be had; and a data worker that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_toy as toy
from torch import Tensor

from kontrast.errors import ConfigError, KontrastError
from kontrast.training import IndexedBatches, ShuffledSampler, TrainerConfig, run_stage
from kontrast.training.compiling import compiled_encode


def options(**changes: Any) -> TrainerConfig:
    return TrainerConfig(**{"accelerator": "cpu", "progress": "off", **changes})


@pytest.mark.slow
def test_a_compiled_training_is_that_of_the_uncompiled_model(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    weights = {}
    for compiled in (False, True):
        stage = toy.line(epochs=3)
        run_stage(stage, options(compile=compiled))
        weights[compiled] = stage.model.state_dict()
    assert list(weights[True]) == list(weights[False])
    for name, tensor in weights[True].items():
        torch.testing.assert_close(tensor, weights[False][name], rtol=1e-4, atol=1e-6)


def test_compile_is_the_option_that_decides(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function: calls.append(function) or function)
    run_stage(toy.line(epochs=1), options())
    assert not calls
    run_stage(toy.line(epochs=1), options(compile=True))
    assert len(calls) == 1


def test_without_a_compiler_or_with_parts_it_is_refused(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="micro_batch"):
        run_stage(toy.line(epochs=1), options(compile=True, micro_batch=4))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"g\+\+"):
        run_stage(toy.line(epochs=1), options(compile=True))


def test_a_model_that_cannot_be_compiled_is_named(monkeypatch) -> None:
    def fail(batch: Any) -> Mapping[str, Tensor]:
        raise torch._dynamo.exc.BackendCompilerFailed("inductor", ValueError("no such operation"), None)

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(ConfigError, match=r"cannot be compiled \(.*no such operation.*'compile'"):
        compiled_encode(toy.line(epochs=1).model, parts=False)({})


def test_a_killed_data_worker_is_one_sentence(tmp_path: Path) -> None:
    def collate(rows: np.ndarray, rng: np.random.Generator) -> Any:
        if 7 in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": torch.ones(len(rows))}

    broken = IndexedBatches(ShuffledSampler(16, 4, seed=0), collate, seed=0)
    with pytest.raises(KontrastError, match=r"'workers'.*--resume") as caught:
        run_stage(toy.stage(batches=broken), options(workers=1, directory=tmp_path))
    assert "\n" not in str(caught.value)
