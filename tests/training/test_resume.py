"""After kill -9 at any moment, a resumed run ends bit for bit as the uninterrupted one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Where the process dies: a place of `killable.py` and the time it is reached, from 1. Checkpoints fall on each third
# step and on the ends of epochs, which have five.
DEATHS: dict[str, list[list[Any]]] = {
    "before the first checkpoint": [["step", 1]],
    "in a step, after its losses": [["losses", 8]],
    "after a step, before its momentum update": [["step", 10]],
    "in validation": [["validate", 2]],
    "before the row of an epoch": [["row", 3]],
    "in the first save": [["saving", 1]],
    "in the middle of a save": [["saving", 7]],
    "before the files are on the disk": [["syncing", 9]],
    "before the folder is on the disk": [["syncing", 14]],
    "before old checkpoints are pruned": [["pruning", 2]],
    "after the last step": [["finishing", 1]],
    "again and again": [["step", 2], ["losses", 5], ["saving", 4], ["validate", 1], ["step", 1], ["finishing", 1]],
}
SIGNALS = {"interrupted": (["step", 9, "SIGINT"], 130), "asked to end": (["step", 8, "SIGTERM"], 143)}
DEATHS_OF_SECOND = {"in the second stage": [["step", 31]], "between the stages": [["losses", 26]]}


def run(runs: list[dict[str, Any]]) -> list[int]:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "killable.py"), json.dumps(runs)],
        capture_output=True, text=True, timeout=300, cwd=here,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if not name.endswith("timings.jsonl")}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    root = tmp_path_factory.mktemp("runs")
    plans: dict[str, list[dict[str, Any]]] = {
        "one": [{}], "one again": [{}], "one workers": [{"workers": 2}], "two": [{"stages": 2}],
        "workers": [{"workers": 2, "kill": ["step", 13]}, {"workers": 2, "resume": True}],
        "finished": [{}, {"resume": True}],
    }  # fmt: skip
    for name, deaths in DEATHS.items():
        plans[name] = [{"kill": death, "resume": place > 0} for place, death in enumerate(deaths)] + [{"resume": True}]
    for name, deaths in DEATHS_OF_SECOND.items():
        plans[name] = [{"stages": 2, "kill": deaths[0]}, {"stages": 2, "resume": True}]
    for name, (death, _) in SIGNALS.items():
        plans[name] = [{"kill": death}, {"resume": True}]
    runs = [{"directory": str(root / name), **step} for name, steps in plans.items() for step in steps]
    codes = iter(run(runs))
    return root, {name: [next(codes) for _ in steps] for name, steps in plans.items()}


def test_same_seed_twice_gives_the_same_bytes(outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, codes = outcome
    assert codes["one"] == codes["one again"] == [0]
    one = files(root / "one")
    assert one == files(root / "one again")
    assert {"checkpoints/first/final/model.safetensors", "logs/first/metrics.csv"} <= one.keys()
    history = [json.loads(line) for line in one["checkpoints/first/final/history.jsonl"].decode().splitlines()]
    # Early stopping: the best was at the end of the second epoch, patience is three validations.
    assert history[-1]["step"] == 25
    assert json.loads(one["checkpoints/first/final/state.json"])["best_step"] == 10


def test_worker_processes_change_nothing(outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, _ = outcome
    assert files(root / "one") == files(root / "one workers")


@pytest.mark.parametrize("death", [*DEATHS, "workers"])
def test_killed_and_resumed_equals_uninterrupted(death: str, outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, codes = outcome
    assert codes[death] == [-9] * (len(codes[death]) - 1) + [0]
    assert files(root / death) == files(root / "one")


@pytest.mark.parametrize("death", SIGNALS)
def test_polite_signals(death: str, outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, codes = outcome
    assert codes[death] == [SIGNALS[death][1], 0]
    assert files(root / death) == files(root / "one")


@pytest.mark.parametrize("death", DEATHS_OF_SECOND)
def test_a_finished_stage_is_not_trained_again(death: str, outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, codes = outcome
    assert codes[death] == [-9, 0]
    assert files(root / death) == files(root / "two")


def test_resuming_a_finished_run_changes_nothing(outcome: tuple[Path, dict[str, list[int]]]) -> None:
    root, codes = outcome
    assert codes["finished"] == [0, 0]
    assert files(root / "finished") == files(root / "one")


def test_resuming_again_with_a_damaged_newest_checkpoint(
    outcome: tuple[Path, dict[str, list[int]]], tmp_path: Path
) -> None:
    root, _ = outcome
    directory = tmp_path / "run"
    assert run([{"directory": str(directory), "kill": ["step", 17]}]) == [-9]
    damaged = directory / "checkpoints/first/step-00000015/optimiser.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert run([{"directory": str(directory), "resume": True}]) == [0]
    assert files(directory) == files(root / "one")
