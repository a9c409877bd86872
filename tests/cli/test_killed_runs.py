"""``kill -9`` at any moment, then ``--resume``: the run ends as if nothing had happened, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kontrast.pipeline.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

RESULTS = ("metrics.json", "history.parquet", "model/model.safetensors", "items/test.parquet", "config.yaml")
HERE = Path(__file__).parent


class Jobs:
    """A process that has imported everything once and forks a child for each call."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "killed_runs.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, words: list[str], **death: float) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"words": words, **death}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def jobs():
    started = Jobs()
    yield started
    started.process.stdin.close()
    started.process.wait()


@pytest.fixture(scope="module")
def data(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    path.write_text("".join(example.read_text().splitlines(keepends=True)[:121]))
    return path


def train(data: Path, out: Path, *more: str) -> list[str]:
    options = ("--epochs", "2", "--text.dim", "16", "--batch-size", "32", "--trainer.checkpoint-every", "2", "--json")
    return ["train", "pairs", "--data", str(data), "--out", str(out), *options, *more]


@pytest.fixture(scope="module")
def whole(jobs, data, tmp_path_factory):
    """The uninterrupted run, and how many renames and seconds it took."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    facts = jobs(train(data, folder))
    assert facts["code"] == 0
    return folder, facts


def check_equal(run: Path, whole: Path) -> None:
    for name in RESULTS:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
    assert RunFolder.open(run).record.status == "finished"
    assert (run / "report.html").stat().st_size > 0
    left = [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    assert not left, f"left behind: {left}"


def test_killed_before_each_second_rename(jobs, data, whole, tmp_path):
    folder, facts = whole
    for number in range(1, facts["renames"] + 1, 2):
        out = tmp_path / f"rename-{number}"
        assert jobs(train(data, out), rename=number) == {"killed": 9}
        ended = jobs(train(data, out, "--resume"))
        assert ended.get("code") == 0, f"not resumed after a kill at rename {number}: {ended}"
        check_equal(out, folder)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.55, 0.7, 0.9])
def test_killed_at_some_moment(jobs, data, whole, tmp_path, share):
    folder, facts = whole
    jobs(train(data, tmp_path / "run"), seconds=share * facts["seconds"])
    assert jobs(train(data, tmp_path / "run", "--resume"))["code"] == 0
    check_equal(tmp_path / "run", folder)


def test_killed_three_times(jobs, data, whole, tmp_path):
    folder, facts = whole
    out = tmp_path / "run"
    jobs(train(data, out), rename=facts["renames"] // 3)
    for _ in range(2):
        jobs(train(data, out, "--resume"), rename=4)
    assert jobs(train(data, out, "--resume"))["code"] == 0
    check_equal(out, folder)


def test_killed_while_replacing_a_run(jobs, data, whole, tmp_path):
    folder, facts = whole
    for number in (1, 2, 3, facts["renames"] // 2):
        out = tmp_path / f"run-{number}"
        assert jobs(train(data, out, "--seed", "1"))["code"] == 0
        assert jobs(train(data, out, "--overwrite"), rename=number) == {"killed": 9}
        ended = jobs(train(data, out, "--resume"))
        if ended.get("code") != 0:  # killed before it began: the old run is still there, whole, with its own seed
            assert RunFolder.open(out).record.seed == 1
            assert jobs(train(data, out, "--overwrite"))["code"] == 0
        check_equal(out, folder)
        assert not list(tmp_path.glob(".*")), "the replaced run is left behind"


def test_a_killed_ablation_goes_on(jobs, data, tmp_path):
    def ablate(out):
        return ["ablate", "pairs", *train(data, out)[2:], "--seeds", "2"]

    facts = jobs(ablate(tmp_path / "whole"))
    assert facts["code"] == 0
    for number in range(3, facts["renames"], max(1, facts["renames"] // 5)):
        out = tmp_path / f"cut-{number}"
        assert jobs(ablate(out), rename=number) == {"killed": 9}
        assert jobs(ablate(out))["code"] == 0
        assert (out / "ablation.json").read_bytes() == (tmp_path / "whole" / "ablation.json").read_bytes()
        for folder in sorted((tmp_path / "whole").glob("seed-*/*")):
            mine = out / folder.parent.name / folder.name
            assert (mine / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()
