"""The run folder: what is written comes back, equal runs give equal bytes, and mistakes give one clear sentence."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from kontrast.contract import Embeddings
from kontrast.errors import DataError
from kontrast.pipeline.run_folder import Ablation, AblationArm, Metrics, RunFolder


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("a,b\n1,2\n")
    return file


@pytest.fixture
def run(tmp_path, data):
    return RunFolder.create(
        tmp_path / "run", system="pairs", seed=3, data=data, rows={"train": 5}, command=["kontrast", "train"]
    )


def test_record_says_what_ran(run, data):
    record = RunFolder.open(run.path).record
    assert (record.system, record.seed, record.status, record.command) == ("pairs", 3, "running", ("kontrast", "train"))
    assert record.data["path"] == str(data)
    assert record.data["rows"] == {"train": 5}
    assert len(record.data["sha256"]) == 64
    assert set(record.versions) == {"python", "torch", "numpy", "lightning", "kontrast"}
    facts = run.provenance()
    assert facts["seed"] == "3"
    assert facts["data sha256"] == record.data["sha256"]
    assert facts["data rows"] == "train 5"


def test_status_and_durations(run):
    with run.timed("train"):
        pass
    run.mark("trained")
    assert run.record.finished is None
    run.mark("finished")
    assert run.record.status == "finished"
    assert run.record.finished is not None
    assert run.record.durations["train"] >= 0


def test_an_error_marks_the_run_failed_and_goes_on(run):
    with pytest.raises(RuntimeError, match="out of"), run.timed("train"):
        raise RuntimeError("out of\nmemory")
    assert run.record.status == "failed"
    assert run.record.failure == "out of memory"
    assert "train" in run.record.durations


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("finished", "already holds a finished run"),
        ("trained", "already holds"),
        ("running", "--resume"),
        ("failed", "--resume"),
    ],
)
def test_a_run_is_not_overwritten_unasked(run, status, words):
    run.mark(status)
    with pytest.raises(DataError, match=words) as caught:
        RunFolder.create(run.path, system="pairs", seed=0)
    assert str(run.path) in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_overwrite_replaces_the_runs_own_files_only(run):
    run.write_metrics(Metrics("a", test={"a": 1.0}))
    run.write_items("test", ["x"], [1.0])
    (run.path / "notes.txt").write_text("mine")
    again = RunFolder.create(run.path, system="pairs", seed=9, overwrite=True)
    assert again.record.seed == 9
    assert sorted(path.name for path in run.path.iterdir()) == ["notes.txt", "run.json"]


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="not a run folder"):
            RunFolder.create(tmp_path / "full", system="pairs", seed=0, overwrite=overwrite)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        RunFolder.create(tmp_path / "file", system="pairs", seed=0)
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", system="pairs", seed=0).record.data == {}


def test_open_explains_what_is_wrong(tmp_path, run):
    with pytest.raises(DataError, match="no such run folder"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"no run\.json"):
        RunFolder.open(tmp_path / "other")
    file = run.path / "run.json"
    whole = json.loads(file.read_text())
    for text, words in (
        ("{", "not valid JSON"),
        ("[]", "damaged"),
        (json.dumps({**whole, "format": 99}), "upgrade kontrast"),
        (json.dumps({**whole, "seed": "three"}), "'seed' is 'three', expected int"),
        (json.dumps({**whole, "status": "dancing"}), "allowed are running, trained, finished, failed"),
        (json.dumps({key: value for key, value in whole.items() if key != "versions"}), "'versions' is None"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=words) as caught:
            RunFolder.open(run.path)
        assert str(file) in str(caught.value)


def test_an_unknown_field_of_a_later_minor_version_is_ignored(run):
    file = run.path / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mood": "good"}))
    assert RunFolder.open(run.path).record.seed == 3


def test_metrics_come_back_and_equal_runs_give_equal_bytes(tmp_path):
    metrics = Metrics(
        "recall@10",
        True,
        {"recall@10": np.float32(0.5), "mrr": math.nan, "inf": math.inf},
        {"recall@10": 0.4},
        {"BM25": {"recall@10": 0.25}},
        {"test": {"recall@10": (0.4, np.float64(0.6))}},
        {"test": np.int64(12)},
        "queries",
        {"test": "test"},
    )
    contents = []
    for name in ("one", "two"):
        run = RunFolder.create(tmp_path / name, system="pairs", seed=0)
        run.write_metrics(metrics)
        contents.append((run.path / "metrics.json").read_bytes())
        read = run.metrics()
        assert read.test["recall@10"] == 0.5
        assert math.isnan(read.test["mrr"])
        assert math.isnan(read.test["inf"])
        assert read.intervals == {"test": {"recall@10": (0.4, 0.6)}}
        assert (read.primary, read.counts, read.unit, read.items) == (
            "recall@10",
            {"test": 12},
            "queries",
            {"test": "test"},
        )
    assert contents[0] == contents[1]


def test_damaged_metrics_name_the_file(run):
    with pytest.raises(DataError, match=r"has no metrics\.json"):
        run.metrics()
    run.write_metrics(Metrics("a", test={"a": 1.0}))
    file = run.path / "metrics.json"
    whole = json.loads(file.read_text())
    for change, words in (
        ({"format": 2}, "upgrade kontrast"),
        ({"test": {"a": "high"}}, "damaged"),
        ({"test": [1]}, "'test' is"),
        ({"primary_metric": None}, "'primary_metric' is None"),
        ({"intervals": {"test": {"a": [1]}}}, "damaged"),
    ):
        file.write_text(json.dumps({**whole, **change}))
        with pytest.raises(DataError, match=words) as caught:
            run.metrics()
        assert str(file) in str(caught.value)


def test_config_and_history_and_items_come_back(run):
    run.write_config({"system": {"dim": 8, "names": ("a", "b")}, "trainer": {"epochs": 2}})
    assert run.config() == {"system": {"dim": 8, "names": ["a", "b"]}, "trainer": {"epochs": 2}}
    assert run.history().empty
    run.write_history(pd.DataFrame({"loss": [1.0, math.nan], "epoch": [0, 1], "step": [1, 2], "stage": ["main"] * 2}))
    history = run.history()
    assert list(history.columns) == ["stage", "epoch", "step", "loss"]
    assert math.isnan(history["loss"][1])
    with pytest.raises(ValueError, match="missing: stage"):
        run.write_history(pd.DataFrame({"epoch": [], "step": []}))
    run.write_items("test", ["q1", "q2"], [0.0, 1.0])
    assert run.items("test").to_dict("list") == {"id": ["q1", "q2"], "value": [0.0, 1.0]}
    with pytest.raises(ValueError, match=r"\(1,\)"):
        run.write_items("test", ["q1"], [0.0, 1.0])
    with pytest.raises(ValueError, match="plain file name"):
        run.write_items("../x", ["q1"], [0.0])
    with pytest.raises(DataError, match=r"has no items/valid\.parquet"):
        run.items("valid")


def test_ablation_comes_back(run):
    assert run.ablation() is None
    ablation = Ablation(
        "auroc",
        True,
        (
            AblationArm("on", "full", 0.9, seeds=(0.9, 0.9)),
            AblationArm("off", "without", 0.8, difference=0.1, seeds=(0.8, 0.8)),
        ),
        (0, 1),
        "It helps.",
    )
    run.write_ablation(ablation)
    read = run.ablation()
    assert read is not None
    assert (read.metric, read.seeds, read.sentence) == ("auroc", (0, 1), "It helps.")
    assert read.arms[0].difference is None
    assert read.arms[1].difference == 0.1
    assert math.isnan(read.arms[1].difference_low)
    (run.path / "ablation.json").write_text('{"format": 1, "metric": "x"}')
    with pytest.raises(DataError, match="damaged"):
        run.ablation()


@pytest.mark.parametrize("n", [0, 1, 5, 40_000])
def test_embeddings_come_back_bit_for_bit(run, n):
    vectors = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    topic = ["x" if row % 2 else "y" for row in range(n)]
    embeddings = Embeddings(vectors, [f"i{row}" for row in range(n)], "text", {"topic": topic}, label="topic")
    run.write_embeddings(embeddings, split="test")
    schema = pq.read_schema(run.path / "embeddings.parquet")
    assert [schema.names[0], schema.names[-1], str(schema.field("vector").type)] == [
        "id",
        "vector",
        "list<element: float>",
    ]
    stored = run.embeddings()
    assert stored.vectors.dtype == np.float32
    assert stored.vectors.shape == (n, 3 if n else 0)
    np.testing.assert_array_equal(stored.vectors, vectors.reshape(stored.vectors.shape))
    assert (stored.label, stored.hover) == ("topic", None)
    assert list(stored.rows.columns) == ["id", "kind", "split", "topic"]
    assert list(stored.rows["topic"]) == topic
    assert run.embeddings(vectors=False).vectors.size == 0


def test_embeddings_that_do_not_fit_are_refused(run):
    vectors = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="split"):
        run.write_embeddings(Embeddings(vectors, ["a", "b"], "text", {"split": [1, 2]}), split="test")
    with pytest.raises(ValueError, match="1 values for 2 rows"):
        run.write_embeddings(Embeddings(vectors, ["a", "b"], "text"), split=["test"])
    assert not (run.path / "embeddings.parquet").exists()


def test_damaged_parquet_names_the_file(run):
    for name, read in (("history.parquet", run.history), ("embeddings.parquet", run.embeddings)):
        (run.path / name).write_bytes(b"PAR1 not really")
        with pytest.raises(DataError, match=name):
            read()
    pd.DataFrame({"stage": ["a"]}).to_parquet(run.path / "history.parquet")
    with pytest.raises(DataError, match="no column 'epoch'"):
        run.history()


def test_writes_leave_no_temporary_files(run):
    run.write_metrics(Metrics("a"))
    run.write_embeddings(Embeddings(np.zeros((1, 2), np.float32), ["a"], "x"), split="test")
    assert not [path for path in run.path.rglob("*") if ".tmp" in path.name]
