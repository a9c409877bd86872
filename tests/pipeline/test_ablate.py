"""`ablate`: three arms that differ in `contrast` alone, compared in pairs from the numbers of their run folders."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from kontrast.errors import CheckpointError
from kontrast.evaluation.intervals import paired_difference
from kontrast.pipeline.ablate import ARMS, ablate_system, ablation_lines
from kontrast.pipeline.run_folder import Ablation, RunFolder
from kontrast.systems.pairs import Pairs
from kontrast.systems.pairs.example import write_example_pairs
from kontrast.training import TrainerConfig

CONFIG = Pairs(
    epochs=6, batch_size=32, seed=3, text={"dim": 32, "vocab_size": 300}, optimiser={"learning_rate": 1e-2}
).config
TRAINER = TrainerConfig(progress="off", loggers=[])
SEEDS = (3, 4, 5)


def ablate(data: Path, out: Path, **changes: object) -> Ablation:
    return ablate_system(Pairs, CONFIG.changed(**changes), TRAINER, data=data, out=out, seeds=len(SEEDS))


@pytest.fixture(scope="module", autouse=True)
def _no_umap():
    """UMAP compiles for half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontrast.pipeline.train.installed", lambda extra: False)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = write_example_pairs(tmp_path_factory.mktemp("example"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:241]))
    return path


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """The folder and the result of an ablation."""
    out = tmp_path_factory.mktemp("runs") / "ablation"
    return out, ablate(data, out)


def runs(out: Path, arm: str) -> list[RunFolder]:
    return [RunFolder.open(out / f"seed-{seed}" / arm) for seed in SEEDS]


def test_the_arms_differ_in_contrast_and_nothing_else(done):
    out, _ = done
    for seed in SEEDS:
        options = {arm: yaml.safe_load((out / f"seed-{seed}" / arm / "config.yaml").read_text()) for arm in ARMS}
        for arm, values in options.items():
            assert values["system"].pop("contrast") == arm
            assert values["system"].pop("seed") == seed
        assert options["on"] == options["off"] == options["shuffled"]
        hashes = {RunFolder.open(out / f"seed-{seed}" / arm).record.data["sha256"] for arm in ARMS}
        assert len(hashes) == 1


def test_all_arms_are_measured_on_the_same_items(done):
    out, _ = done
    ids = {tuple(sorted(run.items("test")["id"])) for arm in ARMS for run in runs(out, arm)}
    assert len(ids) == 1


def test_numbers_are_those_of_the_run_folders(done):
    out, result = done
    assert result.metric == "recall@10"
    assert result.seeds == SEEDS
    assert [arm.name for arm in result.arms] == list(ARMS)
    for arm in result.arms:
        values = [run.metrics().test["recall@10"] for run in runs(out, arm.name)]
        assert arm.seeds == tuple(values)
        assert arm.value == pytest.approx(np.mean(values))
    full = result.arms[0]
    assert full.difference is None
    for arm in result.arms[1:]:
        assert arm.difference == pytest.approx(full.value - arm.value)
        tables = [
            np.stack([run.items("test").sort_values("id")["value"].to_numpy() for run in runs(out, name)])
            for name in ("on", arm.name)
        ]
        expected = paired_difference(*tables, direction="max")
        assert (arm.difference_low, arm.difference_high) == pytest.approx((expected.low, expected.high))


def test_the_off_arm_is_the_untrained_encoder(done):
    out, _ = done
    metrics = RunFolder.open(out / "seed-3" / "on").metrics()
    off = RunFolder.open(out / "seed-3" / "off").metrics()
    untrained = metrics.baselines["untrained encoder"]
    assert {name: off.test[name] for name in untrained} == untrained
    assert RunFolder.open(out / "seed-3" / "off").history().empty


def test_it_is_seen_that_contrast_helps_and_that_the_pairing_matters(done):
    _, result = done
    for arm in result.arms[1:]:
        assert arm.difference_low > 0, f"{arm.name} should be worse: {arm}"
    sentences = result.sentence.split(". ")
    assert len(sentences) >= 2
    assert "recall@10" in result.sentence
    assert "The true pairing" in result.sentence
    lines = ablation_lines(result)
    assert lines[-1] == result.sentence
    assert len(lines) == 5
    assert f"{result.arms[0].value:.4f}" in lines[1]


def test_the_verdict_is_kept_beside_the_runs_and_in_the_first_report(done):
    out, result = done
    # repr, because intervals that are not known are NaN, which equals nothing.
    assert repr(RunFolder(out).ablation()) == repr(result)
    assert repr(runs(out, "on")[0].ablation()) == repr(result)
    assert result.sentence[:40] in (out / "seed-3" / "on" / "report.html").read_text()
    assert not (out / "seed-4" / "on" / "report.html").exists()
    assert "untrained encoder" in runs(out, "on")[1].metrics().baselines
    assert runs(out, "off")[0].metrics().baselines == {}


def test_finished_runs_are_not_repeated(data, done):
    out, result = done
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    assert repr(ablate(data, out)) == repr(result)
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}


def test_it_goes_on_where_it_stopped(data, done, tmp_path, monkeypatch):
    out, result = done
    made: list[object] = []
    plain = RunFolder.write_metrics

    def third_fails(self, metrics):
        made.append(self.path)
        if len(made) == 3:
            raise KeyboardInterrupt
        return plain(self, metrics)

    monkeypatch.setattr(RunFolder, "write_metrics", third_fails)
    with pytest.raises(KeyboardInterrupt):
        ablate(data, tmp_path / "a")
    assert not (tmp_path / "a" / "ablation.json").exists()
    assert repr(ablate(data, tmp_path / "a")) == repr(result)
    assert len(made) == 3 + 7, "two finished runs were measured again"
    assert (tmp_path / "a" / "ablation.json").read_bytes() == (out / "ablation.json").read_bytes()


def test_other_options_are_refused(data, done):
    out, result = done
    with pytest.raises(CheckpointError, match=r"system\.temperature"):
        ablate(data, out, temperature=0.5)
    assert repr(RunFolder(out).ablation()) == repr(result)


def test_arms_that_lack_items_are_compared_by_seeds(done, tmp_path):
    from kontrast.pipeline.ablate import compare_arms

    out, _ = done
    table = {arm: runs(out, arm) for arm in ARMS}
    stripped = {}
    for arm, found in table.items():
        stripped[arm] = []
        for number, run in enumerate(found):
            record, metrics = run.record, run.metrics()
            copy = RunFolder.create(tmp_path / f"{arm}-{number}", system=record.system, seed=record.seed)
            metrics.items.clear()
            copy.write_metrics(metrics)
            stripped[arm].append(copy)
    result = compare_arms(Pairs.card, stripped, SEEDS)
    for arm in result.arms[1:]:
        assert arm.difference == pytest.approx(result.arms[0].value - arm.value)


def test_the_data_are_what_the_test_thinks(data):
    with data.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 240
