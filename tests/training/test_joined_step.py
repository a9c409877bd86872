"""Steps of several processes: losses, gradients, queues and weights are those of one process on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import joined
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


def together(folder: Path, world: int, micro_batch: int, gather: str) -> list[dict[str, torch.Tensor]]:
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "joined.py"), str(folder), str(world), str(rank), str(micro_batch), gather],
            cwd=HERE, env=os.environ | {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    shown = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world, "\n".join(shown)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(world)]


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return joined.train()


def check(found: list[dict[str, torch.Tensor]], wanted: dict[str, torch.Tensor]) -> None:
    for told in found:
        assert told.keys() == wanted.keys()
        for name, value in wanted.items():
            where = f"{name}: {told[name]} and {value}"
            torch.testing.assert_close(told[name], value, rtol=1e-5, atol=1e-5, msg=where)


def test_two_processes_are_one_on_the_joined_batch(tmp_path: Path, alone: dict[str, torch.Tensor]) -> None:
    assert len(alone) == 4 * (5 + 1 + 14)
    check(together(tmp_path, 2, 3, "ring"), alone)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize("gather", ["all", "ring"])
def test_every_way_is_one_process_on_the_joined_batch(
    tmp_path: Path, alone: dict[str, torch.Tensor], world: int, micro_batch: int, gather: str
) -> None:
    check(together(tmp_path, world, micro_batch, gather), alone)


@pytest.mark.slow
def test_gathering_can_be_switched_off(tmp_path: Path, alone: dict[str, torch.Tensor]) -> None:
    first, second = together(tmp_path, 2, 0, "off")
    assert not torch.allclose(first["0/clip"], second["0/clip"])
    assert not torch.allclose(first["0/clip"], alone["0/clip"])
    assert torch.equal(first["3/head.weight.grad"], second["3/head.weight.grad"])  # still averaged
