"""Tables over runs: what differs is shown, and seeds are averaged only where nothing else differs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from kontrast.errors import DataError
from kontrast.pipeline.run_folder import Ablation, AblationArm, Metrics, RunFolder
from kontrast.pipeline.run_tables import compare_runs, find_runs, results_markdown


@pytest.fixture
def make(tmp_path):
    data = tmp_path / "cities.csv"
    data.write_text("a\n")

    def make(
        name, value, *, seed=0, contrast="on", dim=8, baselines=None, items=None, status="finished", system="pairs"
    ):
        run = RunFolder.create(tmp_path / "runs" / name, system=system, seed=seed, data=data)
        run.write_config({"system": {"seed": seed, "contrast": contrast, "dim": dim}, "trainer": {"epochs": 2}})
        if items is not None:
            run.write_items("test", [f"i{place}" for place in range(len(items))], items)
        run.write_metrics(
            Metrics(
                "recall@10",
                test={"recall@10": value, "mrr": value / 2},
                baselines=baselines or {},
                intervals={"test": {"recall@10": (value - 0.1, value + 0.1)}},
                counts={"test": 1204},
                unit="queries",
                items={"test": "test"} if items is not None else {},
            )
        )
        run.mark(status)
        return run

    return make


def rows_of(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ][1:]


def test_seeds_are_averaged_with_their_interval_and_arms_are_columns(make):
    values = [0.5, 0.6, 0.64]
    for seed, value in enumerate(values):
        make(f"s{seed}/on", value, seed=seed, baselines={"BM25": {"recall@10": 0.3}} if seed == 0 else None)
        make(f"s{seed}/off", value - 0.2, seed=seed, contrast="off")
    first = make("s0/null", 0.1, contrast="shuffled")
    arms = (
        AblationArm("on", "full", 0.58),
        AblationArm("off", "without", 0.38, difference=0.2, difference_low=0.15, difference_high=0.25),
    )
    RunFolder.open(first.path.parent / "on").write_ablation(Ablation("recall@10", True, arms, (0, 1, 2), "It helped."))
    text = results_markdown(find_runs([first.path.parents[1]]), command="kontrast results my-runs")
    (row,) = rows_of(text)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert row[0] == "pairs"
    assert row[1].startswith("cities.csv (")
    assert row[2:7] == ["–", "recall@10 ↑", "0, 1, 2", f"0.580 ± {half:.3f}", "BM25 0.300"]
    assert row[7] == f"0.380 ± {half:.3f}; full − +0.200 [+0.150, +0.250]"
    assert row[8] == "0.100 [0.000, 0.200]".replace("0.000", "0")
    assert row[9] == "1,204 queries"
    assert "`kontrast results my-runs`" in text


def test_runs_of_other_options_are_never_averaged(make):
    make("a", 0.5, dim=8)
    make("b", 0.9, dim=16, seed=1)
    make("c", 0.7, system="others")
    text = results_markdown(find_runs([make("d", 0.1, status="failed").path.parent]))
    rows = rows_of(text)
    assert [(row[0], row[2], row[4], row[5]) for row in rows] == [
        ("others", "–", "0", "0.700 [0.600, 0.800]"),
        ("pairs", "dim=16", "1", "0.900 [0.800, 1.000]"),
        ("pairs", "dim=8", "0", "0.500 [0.400, 0.600]"),
    ]
    assert "without a full arm: 1." in text


def test_the_text_depends_on_the_runs_alone(make):
    runs = [make(name, value, seed=seed) for seed, (name, value) in enumerate({"z": 0.1, "a": 0.2, "m": 0.3}.items())]
    assert results_markdown(runs) == results_markdown(runs[::-1])
    twice = make("again", 0.9, seed=0)
    assert "0, 1, 2 " in results_markdown([*runs, twice])


def test_comparison_shows_what_differs(make):
    rng = np.random.default_rng(0)
    items = rng.normal(size=200)
    one = make("one", float(items.mean()), items=items)
    two = make("two", float(items.mean() - 0.3), items=items - 0.3 + rng.normal(size=200) * 0.1, dim=16, seed=1)
    three = make("three", 0.4)
    result = compare_runs([one, two, three])
    assert json.loads(json.dumps(result)) == result
    assert [entry["option"] for entry in result["options"]] == ["system.dim", "system.seed"]
    assert result["options"][0]["values"] == [8, 16, 8]
    assert [entry["metric"] for entry in result["metrics"]] == ["recall@10", "mrr"]
    assert result["differences"][0]["difference"] == pytest.approx(0.3, abs=0.03)
    assert "is better than" in result["differences"][0]["sentence"]
    assert result["differences"][1]["low"] is None
    assert "no interval can be given" in result["differences"][1]["sentence"]
    assert result["notes"] == []


def test_what_a_kill_leaves_is_no_run(make, tmp_path):
    make("whole", 0.5)
    run = RunFolder.open(tmp_path / "runs" / "whole")
    for name in (".whole.replaced", ".whole.x1y2.tmp"):
        shutil.copytree(run.path, run.path.parent / name)
    assert [found.path.name for found in find_runs([run.path.parent])] == [run.path.name]
    hidden = tmp_path / ".cache" / "runs" / "kept"
    shutil.copytree(run.path, hidden)
    assert [found.path for found in find_runs([hidden.parent])] == [hidden], "asked for by name"


def test_missing_folders_and_unmeasured_runs_are_named(tmp_path, make):
    with pytest.raises(DataError, match="no such folder"):
        find_runs([tmp_path / "nowhere"])
    run = RunFolder.create(tmp_path / "runs" / "new", system="pairs", seed=0)
    with pytest.raises(DataError, match=r"has no metrics\.json"):
        compare_runs([make("a", 0.5), run])
    assert len(find_runs([tmp_path / "runs", tmp_path / "runs" / "a"])) == 2
