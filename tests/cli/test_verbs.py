"""Every verb, as a person types it and as a program calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import SMALL

from kontrast.contract import load_system
from kontrast.pipeline.evaluate import evaluate_run
from kontrast.pipeline.run_folder import RunFolder

VERBS = ("list", "info", "example", "train", "evaluate", "ablate", "embed", "predict", "report", "compare", "results")
DATA_VERBS = ("list", "info", "path", "fetch")


# ---- help and listings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), *((verb,) for verb in VERBS), ("data",), *(("data", v) for v in DATA_VERBS)])
def test_every_verb_has_help(kontrast_, words):
    said = kontrast_(*words, "--help")
    assert said.code == 0
    assert said.out.startswith("Usage: kontrast")
    assert said.err == ""
    if words not in ((), ("data",)):
        assert "--json" in said.out


def test_the_first_screen_fits_and_says_where_to_start(kontrast_):
    said = kontrast_("--help")
    assert all(verb in said.out for verb in (*VERBS, "data"))
    assert "..." not in said.out.partition("Commands:")[2], "a verb's line does not fit"
    assert "kontrast example pairs" in said.out
    bare = kontrast_()
    assert (bare.code, bare.out) == (2, said.out)


@pytest.mark.parametrize("verb", ["train", "ablate"])
def test_help_of_a_system_lists_its_options(kontrast_, verb):
    without = kontrast_(verb, "--help").out
    assert "pairs" in without
    assert "--text.dim" not in without
    said = kontrast_(verb, "pairs", "--help").out
    for option in ("--text.dim", "--temperature", "--optimiser.learning-rate", "--trainer.max-steps"):
        assert option in said


def test_list_and_info(kontrast_):
    listed = kontrast_("list", "--json").json()["systems"]
    assert "pairs" in [row["system"] for row in listed]
    assert "retrieval" in kontrast_("list").out
    facts = kontrast_("info", "pairs", "--json").json()
    options = {row["option"]: row for row in facts["options"]}
    assert options["--temperature"]["default"] == 0.07
    assert options["--temperature"]["range"] == "> 0, ≤ 10"
    assert options["--batch-size"]["paper"] == 32768
    assert facts["primary_metric"] == "recall@10"
    assert "--learn-temperature" in kontrast_("info", "pairs").out


def test_example_writes_data_and_replaces_nothing(kontrast_, tmp_path):
    path = kontrast_("example", "pairs", tmp_path / "new", "--json").json()["data"]
    assert path == str(tmp_path / "new" / "pairs.csv")
    (tmp_path / "new" / "pairs.csv").write_text("mine")
    said = kontrast_("example", "pairs", tmp_path / "new")
    assert said.code == 2
    assert "is not empty" in said.err
    assert (tmp_path / "new" / "pairs.csv").read_text() == "mine"


# ---- configuration -----------------------------------------------------------------------------------------------


def test_options_come_from_preset_file_and_command_line_in_that_order(kontrast_, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("text: {dim: 32, heads: 2}\nepochs: 7\noptimiser.learning_rate: 1e-2\ntrainer.max_steps: 9\n")
    words = ("train", "pairs", "--print-config", "--preset", "paper", "--config", file, "--seed", "5")
    config = kontrast_(*words, "--text.dim", "64", "--no-share", "--augment", "--trainer.keep=3", "--json").json()
    assert config["text"]["dim"] == 64
    assert config["text"]["heads"] == 2
    assert config["epochs"] == 7
    assert config["seed"] == 5
    assert config["batch_size"] == 32768
    assert config["optimiser"]["learning_rate"] == 0.01
    assert config["optimiser"]["weight_decay"] == 0.2
    assert (config["share"], config["augment"]) == (False, True)
    assert (config["trainer"]["max_steps"], config["trainer"]["keep"]) == (9, 3)


def test_print_config_is_a_config_file(kontrast_, tmp_path):
    said = kontrast_("train", "pairs", "--print-config", "--text.dim", "32", "--trainer.max-steps", "4")
    (tmp_path / "printed.yaml").write_text(said.out)
    again = kontrast_("train", "pairs", "--print-config", "--config", tmp_path / "printed.yaml")
    assert again.out == said.out
    assert yaml.safe_load(said.out)["trainer"]["max_steps"] == 4


def test_a_runs_config_is_a_config_file(kontrast_, run):
    said = kontrast_("train", "pairs", "--print-config", "--config", run / "config.yaml", "--json").json()
    assert said["text"]["dim"] == 64
    assert said["epochs"] == 2


def test_words_of_options_mean_what_they_say(kontrast_, tmp_path):
    def config(*words):
        return kontrast_("train", "pairs", "--print-config", "--json", *words).json()

    assert config("--text.prefix", "")["text"]["prefix"] == ""
    assert config("--text.prefix", "null")["text"]["prefix"] is None
    assert config("--left", "007")["left"] == "007"
    assert config("--optimiser.betas", "[0.8, 0.9]")["optimiser"]["betas"] == [0.8, 0.9]
    (tmp_path / "bare.yaml").write_text("contrast: off\n")
    assert config("--config", tmp_path / "bare.yaml")["contrast"] == "off"


# ---- runs --------------------------------------------------------------------------------------------------------


def test_train_writes_a_whole_run_folder(run):
    for name in ("run.json", "config.yaml", "metrics.json", "history.parquet", "embeddings.parquet", "report.html"):
        assert (run / name).stat().st_size > 0
    record = RunFolder.open(run).record
    assert record.status == "finished"
    assert record.command[:3] == ("kontrast", "train", "pairs")
    assert "--epochs" in record.command
    assert not list(run.parent.glob(".*"))


def test_train_json_is_one_object_and_silence(kontrast_, example, tmp_path):
    said = kontrast_("train", "pairs", "-d", example, "-o", tmp_path / "r", "--json", *SMALL, "--no-baselines")
    assert said.err == ""
    result = said.json()
    assert result["run"] == str(tmp_path / "r")
    assert result["test"]["recall@10"] == RunFolder.open(tmp_path / "r").metrics().test["recall@10"]
    assert result["baselines"] == {}


def test_train_in_words(kontrast_, example, tmp_path):
    said = kontrast_("train", "pairs", "-d", example, "-o", tmp_path / "r", *SMALL)
    assert said.code == 0
    assert "recall@10 *" in said.out
    assert "BM25" in said.out
    assert str(tmp_path / "r" / "report.html") in said.out
    assert "240 train, 15 valid, 45 test rows" in said.err
    assert "epoch 2/2" in said.err
    assert "\r" not in said.err + said.out
    assert "\x1b" not in said.err + said.out


def test_progress_off_is_silent(kontrast_, example, tmp_path):
    words = ("train", "pairs", "-d", example, "-o", tmp_path / "r", *SMALL, "--no-baselines")
    assert kontrast_(*words, "--trainer.progress", "off").err == ""


def test_trainer_options_reach_the_trainer(kontrast_, example, tmp_path):
    words = ("train", "pairs", "-d", example, "-o", tmp_path / "r", *SMALL, "--no-baselines", "--json")
    kontrast_(*words, "--trainer.max-steps", "3", "--trainer.precision", "bf16-mixed", "--trainer.loggers", "[]")
    history = RunFolder.open(tmp_path / "r").history()
    assert history["step"].max() == 3
    assert not (tmp_path / "r" / "logs" / "contrast" / "metrics.csv").exists()


def test_an_old_run_is_replaced_only_when_asked(kontrast_, example, run, tmp_path):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    words = ("train", "pairs", "-d", example, "-o", copy, *SMALL, "--no-baselines", "--json")
    before = (copy / "metrics.json").read_bytes()
    refused = kontrast_(*words, "--seed", "1")
    assert refused.code == 2
    assert "--overwrite" in refused.json()["error"]
    assert (copy / "metrics.json").read_bytes() == before
    assert kontrast_(*words, "--seed", "1", "--overwrite").code == 0
    assert (copy / "metrics.json").read_bytes() != before
    assert not list(tmp_path.glob(".*"))


def test_resuming_a_finished_run_changes_nothing(kontrast_, example, run):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    said = kontrast_("train", "pairs", "-d", example, "-o", run, *SMALL, "--resume", "--json")
    assert said.json()["test"] == RunFolder.open(run).metrics().test
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}


def test_evaluate_repeats_the_runs_own_numbers(kontrast_, run, example):
    own = RunFolder.open(run).metrics().test
    assert kontrast_("evaluate", run, "--json").json()["metrics"] == own
    assert evaluate_run(run) == own
    said = kontrast_("evaluate", run)
    assert said.out.splitlines()[0].split() == ["recall@1", f"{own['recall@1']:.4f}".rstrip("0")]
    other = kontrast_("evaluate", run, "--data", example, "--json").json()["metrics"]
    assert other["recall@10"] != own["recall@10"]
    assert "training rows included" in kontrast_("evaluate", run, "--data", example).err
    assert said.err == ""


def test_embed_writes_vectors(kontrast_, run, example, tmp_path):
    said = kontrast_("embed", run, "--data", example, "--output", tmp_path / "v.parquet", "--json").json()
    assert (said["rows"], said["dim"]) == (600, 64)
    frame = pd.read_parquet(tmp_path / "v.parquet")
    assert list(frame.columns) == ["id", "kind", "text", "side", "vector"]
    vectors = np.stack(frame["vector"].to_list())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    kontrast_("embed", run, "--data", example, "--output", tmp_path / "v.npz")
    stored = np.load(tmp_path / "v.npz")
    np.testing.assert_array_equal(stored["vectors"], vectors)
    assert stored["ids"].tolist() == frame["id"].to_list()


def test_embed_of_the_runs_own_data_renews_its_file(kontrast_, run):
    before = (run / "embeddings.parquet").read_bytes()
    assert kontrast_("embed", run, "--json").json()["output"] == str(run / "embeddings.parquet")
    assert (run / "embeddings.parquet").read_bytes() == before


def test_predict_answers_new_questions(kontrast_, run, example, tmp_path):
    (tmp_path / "q.txt").write_text("Where is the red basket of plum?\nwhere\n")
    (tmp_path / "q.csv").write_text('question\n"Where is the red basket of plum?"\nwhere\n')
    from_txt = kontrast_("predict", run, "--data", tmp_path / "q.txt", "--top-k", "3", "--json").json()["rows"]
    from_csv = kontrast_("predict", run, "--data", tmp_path / "q.csv", "--top-k", "3", "--json").json()["rows"]
    assert [row["answer"] for row in from_txt] == [row["answer"] for row in from_csv]
    assert [row["rank"] for row in from_txt] == [1, 2, 3, 1, 2, 3]
    assert set(from_txt[0]) == {"id", "query", "rank", "answer_id", "answer", "score"}
    shown = kontrast_("predict", run, "--data", tmp_path / "q.txt", "--top-k", "1").out.splitlines()
    assert shown[0].split() == ["id", "query", "rank", "answer_id", "answer", "score"]
    assert len(shown) == 3


def test_predict_searches_another_table_and_writes_every_format(kontrast_, run, example, rows, tmp_path):
    (tmp_path / "q.txt").write_text("where\n")
    words = ("predict", run, "--data", tmp_path / "q.txt", "--corpus", example)
    for suffix, reader in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        assert kontrast_(*words, "--top-k", "9999", "--output", tmp_path / f"p{suffix}").code == 0
        frame = reader(tmp_path / f"p{suffix}")
        assert len(frame) == len(rows)
        assert frame["score"].is_monotonic_decreasing
    kontrast_(*words, "--search", "faiss", "--output", tmp_path / "p.jsonl")
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 10


def test_report_is_written_anew(kontrast_, run, tmp_path):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    (copy / "report.html").unlink()
    assert kontrast_("report", copy, "--json").json() == {"report": str(copy / "report.html")}
    assert "recall@10" in (copy / "report.html").read_text()


def test_compare_and_results(kontrast_, example, run, tmp_path):
    other = tmp_path / "other"
    kontrast_("train", "pairs", "-d", example, "-o", other, *SMALL, "--temperature", "0.5", "--json")
    result = kontrast_("compare", run, other, "--json").json()
    assert [row["option"] for row in result["options"]] == ["system.temperature"]
    assert len(result["differences"]) == 1
    assert "temperature" in kontrast_("compare", run, other).out
    said = kontrast_("results", run, other, "--output", tmp_path / "RESULTS.md", "--json").json()
    assert said["runs"] == 2
    assert "| pairs |" in (tmp_path / "RESULTS.md").read_text()


def test_ablate_says_whether_the_contrastive_part_helps(kontrast_, example, tmp_path):
    words = ("ablate", "pairs", "--data", example, "--out", tmp_path / "a", "--seeds", "2", *SMALL)
    said = kontrast_(*words, "--epochs", "6", "--optimiser.learning-rate", "1e-2", "--json")
    assert said.err == ""
    result = said.json()
    assert [arm["name"] for arm in result["arms"]] == ["on", "off", "shuffled"]
    assert result["arms"][1]["difference"] > 0
    again = kontrast_(*words, "--epochs", "6", "--optimiser.learning-rate", "1e-2")
    assert result["sentence"] in again.out
    assert again.out.count("95 % interval") >= 2


def test_data_verbs(kontrast_, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_DATA", str(tmp_path))
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "truthfulqa").mkdir()
    here = {row["name"]: row["here"] for row in kontrast_("data", "list", "--json").json()["data"]}
    assert here["truthfulqa"] == "yes"
    assert here["pydocs"] == "no"
    assert "truthfulqa" in kontrast_("data", "list").out
    assert kontrast_("data", "info", "truthfulqa", "--json").json()["licence"] == "Apache-2.0"
    assert "Apache-2.0" in kontrast_("data", "info", "truthfulqa").out
    for verb in ("path", "fetch"):
        said = kontrast_("data", verb, "truthfulqa")
        assert said.out == f"{tmp_path / 'truthfulqa'}\n"
        assert kontrast_("data", verb, "truthfulqa", "--json").json()["path"] == str(tmp_path / "truthfulqa")
    assert "kontrast data fetch pydocs" in kontrast_("data", "path", "pydocs").err


# ---- from Python, and as a process -------------------------------------------------------------------------------


def test_the_same_from_python(run, example):
    system = load_system("pairs").load(run / "model")
    test = system.split(system.read(example)).test
    assert system.evaluate(test) == RunFolder.open(run).metrics().test
    assert len(system.embed(test)) == 90
    assert system.predict(test).groupby("id").size().eq(10).all()


def test_as_a_process_and_as_a_module(run):
    said = subprocess.run(
        [sys.executable, "-m", "kontrast", "evaluate", str(run), "--json"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0
    assert said.stderr == ""
    assert json.loads(said.stdout)["metrics"] == RunFolder.open(run).metrics().test


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\nfrom kontrast.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'pandas', 'numpy', 'pydantic', 'plotly', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


def test_a_reader_who_leaves_early_sees_no_complaint(run):
    command = f'"{sys.executable}" -m kontrast info pairs | head -n 1'
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert said.stdout.startswith("name")
    assert said.stderr == ""
