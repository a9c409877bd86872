"""The engine's benchmark: its competitors compute one loss, its table says what was left out and why."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "loss_engine.py"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("loss_engine", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["loss_engine"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["loss_engine"]


@pytest.mark.parametrize("objective", ["clip", "supcon"])
def test_competitors_agree(benchmark: ModuleType, objective: str) -> None:
    rows = benchmark.measure(objective, 64, 16, 1, "cpu", 2**30, libraries=False)
    measured = {row.method: row for row in rows}
    assert {"dense torch", "kontrast fp32", "kontrast bf16", "floor fp32", "floor bf16"} <= set(measured)
    for name, row in measured.items():
        assert row.seconds > 0
        if not name.startswith("floor"):
            assert row.relative_error < (1e-2 if "bf16" in name else 1e-5), name


def test_what_would_not_fit_is_skipped_with_a_note(benchmark: ModuleType) -> None:
    rows = benchmark.measure("clip", 64, 8, 1, "cpu", 7 * 4 * 64**2 - 1, libraries=False)
    assert rows[0].seconds is None
    assert "skipped: needs about" in rows[0].note
    assert "skipped: needs about" in benchmark.table(rows)


def test_the_published_tiles_give_the_dense_gradient(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.INF_CL_TILE, "cpu", 7)
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 20, 5, generator=g)
    found = []
    for step in (benchmark.inf_cl, benchmark.dense_clip):
        a, b = (x.clone().requires_grad_() for x in rows)
        step(a, b, a).backward()
        found.append((a.grad, b.grad))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
