"""Checkpoints: bit for bit, and damage is told from absence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import training_toy as toy
from torch import nn

from kontrast.errors import CheckpointError
from kontrast.training.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    pack,
    pack_optimiser,
    read,
    unpack,
    unpack_optimiser,
)
from kontrast.training.optimiser import build_optimiser


def scrambled(seed: int) -> toy.Toy:
    model = toy.Toy()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)) * 9)
    return model


def some(step: int = 0) -> Checkpoint:
    return Checkpoint({"step": step, "pi": 0.1 + 0.2}, pack(scrambled(step)), {}, None, [{"loss": 1 / 3}])


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "stage")
    assert folder.latest() is None
    source = scrambled(1)
    folder.save(3, Checkpoint({"x": 0.1}, pack(source), {"0.step": torch.tensor(3.0)}, pack(scrambled(2)), [{"a": 1}]))
    back = folder.latest()
    assert back is not None
    assert equal(back.model, pack(source))
    assert "seen" in back.model, "buffers that a state_dict leaves out are saved too"
    assert back.best is not None
    assert equal(back.best, pack(scrambled(2)))
    assert (back.state["x"], back.rows) == (0.1, [{"a": 1}])
    target = toy.Toy()
    unpack(target, back.model)
    assert equal(pack(target), pack(source))


def test_pack_is_a_copy() -> None:
    model = toy.Toy()
    packed = pack(model)
    before = packed["queue.rows"].clone()
    model.queue.rows += 1
    assert torch.equal(packed["queue.rows"], before)


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
        model["head"].weight = model["embed"].weight
        model.register_buffer("row", model["embed"].weight.detach()[0])  # a view of the same storage
        return model

    source, target = tied(), tied()
    CheckpointFolder(tmp_path).save(1, Checkpoint({}, pack(source)))
    unpack(target, read(tmp_path / "step-00000001").model)
    assert torch.equal(target["head"].weight, source["head"].weight)
    assert target["head"].weight is target["embed"].weight


def test_a_buffer_that_grew_comes_back() -> None:
    source, target = toy.Toy(), toy.Toy()
    source.queue.rows = torch.randn(100, 4)
    unpack(target, pack(source))
    assert torch.equal(target.queue.rows, source.queue.rows)
    assert "queue.rows" in dict(target.named_buffers())


def test_optimiser_comes_back(tmp_path: Path) -> None:
    def trained(steps: int) -> tuple[toy.Toy, torch.optim.Optimizer]:
        model = toy.Toy()
        optimiser = build_optimiser(model, toy.optimiser())
        for step in range(steps):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1 * (step + 1)) if parameter.requires_grad else None
            optimiser.step()
        return model, optimiser

    _, source = trained(3)
    tensors, values = pack_optimiser(source)
    _, fresh = trained(0)
    unpack_optimiser(fresh, tensors, json.loads(json.dumps(values)))
    again, values_again = pack_optimiser(fresh)
    assert equal(tensors, again)
    assert json.dumps(values) == json.dumps(values_again)
    assert isinstance(fresh.param_groups[0]["betas"], tuple)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 5, 100_000_000):
        folder.save(step, some(step))
    assert folder.steps() == [5, 100_000_000]


def test_leftovers_of_a_killed_save_are_not_checkpoints(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, some())
    leftover = tmp_path / ".step-00000002.abc.tmp"
    (leftover / "step-00000002").mkdir(parents=True)
    assert folder.steps() == [1]
    folder.clean()
    assert not leftover.exists()


DAMAGE = {
    "truncated": lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-8]),
    "flipped": lambda path: (path / "model.safetensors").write_bytes(
        (path / "model.safetensors").read_bytes()[:-1] + b"\xaa"
    ),
    "emptied": lambda path: (path / "optimiser.safetensors").write_bytes(b""),
    "missing": lambda path: (path / "history.jsonl").unlink(),
    "no state": lambda path: (path / "state.json").unlink(),
    "half a state": lambda path: (path / "state.json").write_text((path / "state.json").read_text()[:40]),
    "another state": lambda path: (path / "state.json").write_text(
        (path / "state.json").read_text().replace("0.30000000000000004", "0.3")
    ),
    "foreign json": lambda path: (path / "state.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_falls_back_to_an_older_one(damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    folder.save(1, some(1))
    folder.save(2, some(2))
    DAMAGE[damage](folder.step_path(2))
    with pytest.raises(CheckpointError, match="is damaged or incomplete"):
        read(folder.step_path(2))
    back = folder.latest()
    assert back is not None
    assert back.state["step"] == 1
    note = capfd.readouterr().err
    assert "step-00000002: is damaged" in note
    assert "Trying an older checkpoint" in note
    # The damaged one goes only when a whole one has been written from here on, and then does not count as kept.
    assert folder.steps() == [1, 2]
    folder.keep = 1
    folder.save(1, some(1))
    assert folder.steps() == [1]


def test_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, some())
    DAMAGE["truncated"](folder.step_path(1))
    with pytest.raises(
        CheckpointError, match=r"step-00000001: is damaged or incomplete \(model.safetensors has changed"
    ):
        folder.latest()


def test_another_format_is_named(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, some())
    folder.save(2, some())
    file = folder.step_path(2) / "state.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="has checkpoint format 99, this version of kontrast reads format 1"):
        folder.latest()


def test_another_model_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"it lacks 'encoder\.0\.bias'"):
        unpack(toy.Toy(), {name: value for name, value in pack(toy.Toy()).items() if name != "encoder.0.bias"})
    with pytest.raises(CheckpointError, match="the model lacks 'extra'"):
        unpack(toy.Toy(), {**pack(toy.Toy()), "extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'encoder.0.weight' has shape \(2,\)"):
        unpack(toy.Toy(), {**pack(toy.Toy()), "encoder.0.weight": torch.zeros(2)})


def test_nothing_is_pickled(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save(1, some())
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or file.suffix in {".safetensors", ".json", ".jsonl"}
