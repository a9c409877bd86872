"""Two processes that train together from the command line: the same numbers, one set of files, one voice."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from command_line import SMALL

from kontrast.pipeline.run_folder import RunFolder

pytestmark = pytest.mark.slow

SCRIPT = """
import kontrast.pipeline.train as train
train.installed = lambda extra: False
from kontrast.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A script as the command ``kontrast`` is one: Lightning starts it again for the second process."""
    path = tmp_path_factory.mktemp("bin") / "kontrast_cli.py"
    path.write_text(SCRIPT)
    return path


def start(script, *words):
    said = subprocess.run(
        [sys.executable, str(script), *map(str, words), "--json"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("\n") == 1
    return json.loads(said.stdout)


TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")


def test_two_processes_train_as_one(script, example, tmp_path):
    words = ("train", "pairs", "--data", example, *SMALL, "--trainer.log-every", "1", "--no-baselines")
    one = start(script, *words, "--out", tmp_path / "one")
    two = start(script, *words, "--out", tmp_path / "two", *TWO)
    curves = [RunFolder.open(tmp_path / name).history() for name in ("one", "two")]
    assert list(curves[0]["step"]) == list(curves[1]["step"])
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=1e-3)
    assert two["test"]["mrr"] == pytest.approx(one["test"]["mrr"], abs=0.03)
    assert RunFolder.open(tmp_path / "two").record.status == "finished"
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in (tmp_path / "two").iterdir()
    )
    again = start(script, *words, "--out", tmp_path / "two", *TWO, "--resume")
    assert again == two


def test_an_ablation_in_two_processes(script, example, tmp_path):
    words = ("ablate", "pairs", "--data", example, *SMALL, "--epochs", "1", "--seeds", "2")
    result = start(script, *words, "--out", tmp_path / "a", *TWO)
    assert [arm["name"] for arm in result["arms"]] == ["on", "off", "shuffled"]
    assert len(list((tmp_path / "a").glob("seed-*/*/metrics.json"))) == 6
