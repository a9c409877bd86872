"""Two processes train together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import training_toy as toy

from kontrast.training import TrainerConfig, run_stage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by group")]


def run(directory: Path, *arguments: str) -> tuple[int, str]:
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, str(here / "ranks.py"), str(directory), "2", *arguments],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        # Until the second rank has ended, too: both write into the pipe.
        shown = process.communicate(timeout=240)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, shown


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("ranks") / "whole"
    directory.mkdir()
    code, shown = run(directory)
    assert code == 0, shown
    return directory, shown


def test_ranks_end_with_the_same_weights_and_history(trained: tuple[Path, str]) -> None:
    directory, shown = trained
    assert (directory / "-rank0.txt").read_text() == (directory / "-rank1.txt").read_text()
    lines = [line for line in shown.splitlines() if line.startswith("first epoch")]
    assert len(lines) == 10, shown  # one rank speaks


def test_two_ranks_learn_what_one_process_learns(trained: tuple[Path, str]) -> None:
    line = toy.line(epochs=1)
    run_stage(line, TrainerConfig(accelerator="cpu", progress="off"))
    assert 0.1 < line.model.slope.item() < 1.9
    assert float((trained[0] / "slope.txt").read_text()) == pytest.approx(line.model.slope.item(), rel=1e-5)


def test_a_killed_run_is_resumed(trained: tuple[Path, str], tmp_path: Path) -> None:
    code, shown = run(tmp_path, "die")
    assert code == -signal.SIGKILL, shown
    assert shown.count("is gone, and this one cannot train without it; start the same command again with --resume") == 1
    assert not list(tmp_path.glob("*rank*.txt"))
    code, shown = run(tmp_path, "resume")
    assert code == 0, shown
    assert "stage 'first' goes on after step 6 of 20" in shown
    whole = (trained[0] / "-rank0.txt").read_text()
    assert (tmp_path / "resume-rank0.txt").read_text() == whole
    assert (tmp_path / "resume-rank1.txt").read_text() == whole
