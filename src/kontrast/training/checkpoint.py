"""Checkpoints: safetensors and JSON in a folder, written whole or not at all. No pickle, neither written nor read.

::

    checkpoints/<stage>/step-00000123/
        model.safetensors      every parameter and buffer of the model
        optimiser.safetensors  the optimiser's tensors, such as Adam's averages
        best.safetensors       the selected weights so far, if weights are selected
        history.jsonl          the rows so far
        state.json             format version, cursor, counters, options of the optimiser, state of the loss scaler,
                               fingerprint, size and checksum of every file
    checkpoints/<stage>/final/
        the same without an optimiser: the stage is finished

There are no states of random generators in it: the trainer seeds them at each step from (seed, stage, step), so the
cursor is their state.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kontrast.errors import CheckpointError
from kontrast.files import replacing
from kontrast.progress import say
from kontrast.training.history import History, Row

FORMAT = 1
_STEP = re.compile(r"step-(\d{8,})")
_TENSOR_FILES = ("model", "optimiser", "best")


@dataclass
class Checkpoint:
    """What is saved.

    Args:
        state: plain JSON values.
        model: parameters and buffers, from `pack`.
        optimiser: tensors of the optimiser, from `pack_optimiser`; none in a final checkpoint.
        best: the selected weights so far; none if nothing is selected.
        rows: the history so far.
    """

    state: dict[str, Any]
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor] | None = None
    best: dict[str, Tensor] | None = None
    rows: list[Row] = field(default_factory=list)


class DamagedError(CheckpointError):
    """A checkpoint is not whole; an older one may be."""


class CheckpointFolder:
    """The checkpoints of one stage.

    Args:
        path: folder of the stage; made when the first checkpoint is saved.
        keep: how many are kept, the newest ones.
    """

    def __init__(self, path: Path, keep: int = 1) -> None:
        self.path = path
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(int(match[1]) for entry in self.path.iterdir() if (match := _STEP.fullmatch(entry.name)))

    def step_path(self, step: int) -> Path:
        """Folder of the checkpoint after `step` steps."""
        return self.path / f"step-{step:08d}"

    @property
    def final_path(self) -> Path:
        """Folder of the finished stage."""
        return self.path / "final"

    def save(self, step: int, checkpoint: Checkpoint) -> Path:
        """Saves the checkpoint after `step` steps; older ones are pruned once it is complete."""
        path = self.step_path(step)
        write(path, checkpoint)
        steps = self.steps()
        # Later ones than this are what an earlier run left damaged: this run went back behind them.
        kept = [other for other in steps if other <= step][-self.keep :]
        for other in set(steps) - set(kept):
            shutil.rmtree(self.step_path(other), ignore_errors=True)
        return path

    def clean(self) -> None:
        """Removes what a killed save left behind."""
        for leftover in self.path.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint; none if there is none at all.

        Raises:
            CheckpointError: if there are some but none is whole, or one is of another format.
        """
        damage: DamagedError | None = None
        for step in reversed(self.steps()):
            try:
                checkpoint = read(self.step_path(step))
            except DamagedError as error:
                damage = damage or error
                say(f"note: {error} Trying an older checkpoint.")
            else:
                return checkpoint
        if damage is not None:
            raise damage
        return None

    def newest(self) -> Checkpoint | None:
        """The final checkpoint of a finished stage, or else `latest`; raises what `latest` raises."""
        if not self.final_path.is_dir():
            return self.latest()
        try:
            return read(self.final_path)
        except DamagedError as error:
            if not self.steps():
                raise
            say(f"note: {error} Trying an older checkpoint.")
            return self.latest()


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint under a temporary name and renames it when all of it is on the disk."""
    with replacing(path) as folder:
        folder.mkdir()
        for name in _TENSOR_FILES:
            tensors = getattr(checkpoint, name)
            if tensors is not None:
                save_file(tensors, folder / f"{name}.safetensors")
        (folder / "history.jsonl").write_text(History(checkpoint.rows).to_jsonl(), encoding="utf-8")
        files = {
            file.name: {"bytes": file.stat().st_size, "crc32": _checksum(file)} for file in sorted(folder.iterdir())
        }
        state = {"format": FORMAT, "files": files, **checkpoint.state}
        state["crc32"] = _seal(state)
        (folder / "state.json").write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        # A rename may reach the disk before the bytes it names; after a power cut that would be a whole-looking wreck.
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
    _sync(path.parent)


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks that it is whole.

    Raises:
        CheckpointError: if it is of another format version (`DamagedError` if a file is missing or damaged).
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if not isinstance(state, dict) or not isinstance(state.get("files"), dict):
            raise ValueError("state.json is not that of a checkpoint")
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"has checkpoint format {state.get('format')!r}, this version of kontrast reads format {FORMAT}",
                file=path,
                mend="resume with the version that wrote it, or train anew in another directory",
            )
        if state.pop("crc32", None) != _seal(state):
            raise ValueError("state.json has changed since it was written")
        for name, facts in state["files"].items():
            if (path / name).stat().st_size != facts["bytes"] or _checksum(path / name) != facts["crc32"]:
                raise ValueError(f"{name} has changed since it was written")
        tensors = {name: load_file(path / f"{name}.safetensors") for name in _TENSOR_FILES if _has(state, name)}
        rows = History.from_jsonl((path / "history.jsonl").read_text(encoding="utf-8")).rows
        return Checkpoint(state, tensors["model"], tensors.get("optimiser"), tensors.get("best"), rows)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        what = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise DamagedError(
            f"is damaged or incomplete ({what})", file=path, mend="remove it, or train anew in another directory"
        ) from None


def pack(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of every parameter and buffer, also of buffers that a state_dict leaves out.

    A tensor that several modules share has one entry, under its first name.
    """
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in _tensors(model)}


@torch.no_grad()
def unpack(model: nn.Module, tensors: Mapping[str, Tensor], file: Path | None = None) -> None:
    """Puts back what `pack` returned, bit for bit.

    Raises:
        CheckpointError: if names or shapes are not those of the model.
    """
    own = dict(_tensors(model))
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())
        side = "the model lacks" if odd[0] in tensors else "it lacks"
        raise CheckpointError(
            f"is of another model: {side} '{odd[0]}'", file=file, mend="use the options it was made with"
        )
    for name, tensor in tensors.items():
        mine = own[name]
        if mine.shape == tensor.shape and mine.dtype == tensor.dtype:
            mine.copy_(tensor)
        elif isinstance(mine, nn.Parameter):
            raise CheckpointError(
                f"is of another model: '{name}' has shape {tuple(tensor.shape)} {tensor.dtype} there, "
                f"{tuple(mine.shape)} {mine.dtype} here",
                file=file,
                mend="use the options it was made with",
            )
        else:
            # A buffer may grow during training, as a queue that is not yet full does.
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = tensor.to(mine.device, copy=True)


def pack_optimiser(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors and as plain JSON values."""
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                plain.setdefault(str(number), {})[key] = value
    return tensors, {"plain": plain, "param_groups": state["param_groups"]}


def unpack_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Puts back what `pack_optimiser` returned."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    for number, plain in values["plain"].items():
        state.setdefault(int(number), {}).update(plain)
    # JSON knows no tuples.
    groups = [
        {key: tuple(value) if isinstance(fresh.get(key), tuple) else value for key, value in group.items()}
        for group, fresh in zip(values["param_groups"], optimiser.param_groups, strict=True)
    ]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _has(state: Mapping[str, Any], name: str) -> bool:
    return f"{name}.safetensors" in state["files"]


def _seal(state: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _sync(path: Path) -> None:
    # Windows cannot open a folder, and needs no sync of one.
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
