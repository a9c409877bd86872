"""A plan of ablations: read with checks, carried out once, left out where the data are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontrast.errors import ConfigError, DataError
from kontrast.pipeline.plan import Plan, carry_out
from kontrast.pipeline.run_tables import find_runs, results_markdown
from kontrast.systems.pairs.example import write_example_pairs

PLAN = """
seeds: 3
rows:
  faq:
    system: pairs
    data: example/pairs.csv
    options: {epochs: 4, batch_size: 32, trainer: {progress: "off", loggers: []}}
    reduced: {epochs: 1, trainer.max_steps: 2}
  absent:
    system: pairs
    data: absent.csv
"""


@pytest.fixture(autouse=True)
def _no_umap(monkeypatch):
    monkeypatch.setattr("kontrast.pipeline.train.installed", lambda extra: False)


@pytest.fixture
def folder(tmp_path):
    path = write_example_pairs(tmp_path / "example")
    path.rename(path.parent / "pairs.csv")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def test_a_reduced_plan_gives_a_row_with_all_three_arms_and_is_not_run_twice(folder, capsys):
    plan = Plan.read(folder / "plan.yaml")
    made = carry_out(plan, folder / "runs", beside=folder, reduced=True)
    assert list(made) == ["faq"]
    assert "absent is left out" in capsys.readouterr().err
    text = results_markdown(find_runs([folder / "runs"]))
    rows = [line for line in text.splitlines() if line.startswith("| pairs")]
    assert len(rows) == 1
    assert "full − " in rows[0]
    assert "| 0, 1 |" in rows[0]
    times = {file: file.stat().st_mtime_ns for file in (folder / "runs").rglob("metrics.json")}
    assert len(times) == 6
    carry_out(plan.only(["faq"]), folder / "runs", beside=folder, reduced=True)
    assert {file: file.stat().st_mtime_ns for file in (folder / "runs").rglob("metrics.json")} == times


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows: {}", ["plan.yaml", "rows"]),
        ("rows: {a: {system: pairs}}", ["plan.yaml", "rows.a.data"]),
        ("rows: {a: {system: pairs, data: x, epoch: 3}}", ["plan.yaml", "rows.a.epoch"]),
        ("seeds: 1\nrows: {a: {system: pairs, data: x}}", ["plan.yaml", "seeds", "2"]),
        ("rows: {a: [1", ["plan.yaml"]),
    ],
)
def test_a_broken_plan_is_refused_with_its_place(tmp_path, text, words):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Plan.read(tmp_path / "plan.yaml")
    assert all(word in str(caught.value) for word in words)


def test_unknown_rows_systems_and_options_are_refused_before_anything_runs(folder):
    plan = Plan.read(folder / "plan.yaml")
    with pytest.raises(ConfigError, match=r"no row 'fag'.*faq"):
        plan.only(["fag"])
    row = plan.rows["faq"].model_copy(update={"options": {"epoch": 3}})
    with pytest.raises(ConfigError, match=r"row 'late' of the plan.*epoch"):
        carry_out(plan.model_copy(update={"rows": {**plan.rows, "late": row}}), folder / "runs", beside=folder)
    assert not (folder / "runs").exists()


def test_a_plan_without_any_data_says_so(folder):
    with pytest.raises(DataError, match="KONTRAST_DATA"):
        carry_out(Plan.read(folder / "plan.yaml").only(["absent"]), folder / "runs", beside=folder)


def test_a_file_that_a_known_data_set_lacks_is_named(folder, monkeypatch):
    monkeypatch.setenv("KONTRAST_DATA", str(folder / "data"))
    (folder / "data" / "linkpred").mkdir(parents=True)
    (folder / "data" / "linkpred" / "cora.npz").write_bytes(b"")
    plan = Plan(rows={"row": {"system": "coeba", "data": "linkpred/kora.npz"}})
    with pytest.raises(DataError, match=r"no row"):
        carry_out(plan, folder / "runs", beside=folder)


def test_the_plan_of_the_repository_is_valid():
    path = Path(__file__).parents[2] / "examples" / "results.yaml"
    plan = Plan.read(path)
    assert plan.seeds == 5
    from kontrast.pipeline.plan import _settings

    for name, row in plan.rows.items():
        for reduced in (False, True):
            _settings(name, row, path.parent, reduced)
