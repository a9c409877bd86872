"""`--resume` across versions: an option that a run's kontrast did not have yet counts as being at its default."""

from __future__ import annotations

import pytest
import yaml

from kontrast.errors import CheckpointError
from kontrast.pipeline.train import train_run
from kontrast.systems.pairs import Pairs
from kontrast.training import TrainerConfig


@pytest.fixture
def run(tmp_path):
    """A finished run of `pairs`, and what goes on with it."""
    data = Pairs.write_example(tmp_path)

    def train(resume=True, **options):
        config = Pairs.Config.preset("cpu", **{**Pairs.smoke, **options})
        return train_run(
            Pairs, config, TrainerConfig(progress="off"), data=data, out=tmp_path / "run", resume=resume,
            baselines=False, report=False,
        )  # fmt: skip

    train(resume=False)
    return tmp_path / "run", train


def rewritten(folder, section, option, value=None):
    """The run's config.yaml without an option, or with another value of it."""
    path = folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    assert option in stored[section]
    if value is None:
        del stored[section][option]
    else:
        stored[section][option] = value
    path.write_text(yaml.safe_dump(stored))


def test_an_option_of_a_later_version_is_at_its_default(run):
    folder, train = run
    rewritten(folder, "trainer", "compile")
    rewritten(folder, "system", "temperature")
    assert train().record.status == "finished"


def test_an_option_that_is_not_at_its_default_now_is_refused(run):
    folder, train = run
    rewritten(folder, "system", "temperature")
    with pytest.raises(CheckpointError, match="temperature"):
        train(temperature=0.5)


def test_an_option_that_is_unknown_today_is_refused(run):
    folder, train = run
    path = folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    stored["system"]["gone"] = 3
    path.write_text(yaml.safe_dump(stored))
    with pytest.raises(CheckpointError, match="gone"):
        train()
