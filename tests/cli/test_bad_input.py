"""Bad input of every kind: one sentence that names file, field and mend, exit code 2, nothing lost or left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import SMALL, Said

from kontrast.pipeline.run_folder import RunFolder

GOOD = "question,answer\n" + "".join(f"what is {n},it is {n * 7}\n" for n in range(40))


def check_refused(said: Said, *parts: str) -> None:
    """One sentence on standard error that says all of `parts`, and exit code 2."""
    assert said.code == 2, f"exit code {said.code}: {said.out}{said.err}"
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    sentence = lines[0]
    assert sentence.startswith("kontrast: ")
    assert sentence.endswith((".", "?"))
    assert "Traceback" not in sentence
    assert len(sentence) < 700, sentence
    for part in parts:
        assert part in sentence, f"'{part}' is not said: {sentence}"


# ---- tables ------------------------------------------------------------------------------------------------------


def _text(name: str, text: str):
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def _parquet_cut(folder: Path) -> Path:
    path = folder / "cut.parquet"
    pd.DataFrame({"a": ["x"] * 50, "b": ["y"] * 50}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _ragged(folder: Path) -> Path:
    path = folder / "ragged.parquet"
    pd.DataFrame({"a": [f"t{n}" for n in range(20)], "v": [[1.0] * (3 + (n == 7)) for n in range(20)]}).to_parquet(path)
    return path


def _nan_vector(folder: Path) -> Path:
    path = folder / "nan.parquet"
    vectors = np.ones((20, 3))
    vectors[4, 1] = np.nan
    pd.DataFrame({"a": [f"t{n}" for n in range(20)], "v": list(vectors)}).to_parquet(path)
    return path


def _split(words: list[str]):
    def write(folder: Path) -> Path:
        path = folder / "split.csv"
        rows = "".join(f"q{n},a{n},{words[n % len(words)]}\n" for n in range(40))
        path.write_text("question,answer,split\n" + rows)
        return path

    return write


def _folder(folder: Path) -> Path:
    (folder / "some.csv").mkdir()
    return folder / "some.csv"


TABLES = {
    "missing file": (lambda folder: folder / "none.csv", ["none.csv", "no such file"]),
    "misspelt file": (lambda folder: (_text("pears.csv", GOOD)(folder), folder / "pars.csv")[1], ["'pears.csv'"]),
    "folder": (_folder, ["some.csv", "is a folder"]),
    "unknown extension": (_text("a.xlsx", "x"), ["a.xlsx", "'.xlsx'", ".parquet"]),
    "no extension": (_text("table", GOOD), ["table", ".parquet"]),
    "empty": (_text("e.csv", ""), ["e.csv", "is empty"]),
    "header only": (_text("h.csv", "a,b\n"), ["h.csv", "has no rows"]),
    "blank text file": (_text("b.txt", "\n \n"), ["b.txt", "has no rows"]),
    "row too long": (_text("l.csv", GOOD + "a,b,c\n"), ["l.csv", "line 42", "3 cells"]),
    "open quote": (_text("q.csv", GOOD + '"a,b\n'), ["q.csv", "line"]),
    "two columns of one name": (_text("d.csv", GOOD.replace("answer", "question")), ["d.csv", "'question'"]),
    "empty cell": (_text("n.csv", GOOD + "lonely,\n"), ["n.csv", "'answer'", "line 42"]),
    "blank cell": (_text("n.csv", GOOD + "lonely,  \n"), ["n.csv", "'answer'", "line 42"]),
    "null in jsonl": (_text("n.jsonl", '{"a": "x", "b": "y"}\n' * 9 + '{"a": "x", "b": null}\n'), ["'b'", "line 10"]),
    "missing key in jsonl": (_text("k.jsonl", '{"a": "x", "b": "y"}\n' * 9 + '{"a": "x"}\n'), ["'b'", "line 10"]),
    "broken jsonl": (_text("j.jsonl", '{"a": "x", "b": "y"}\n{"a": \n'), ["j.jsonl", "line 2", "JSON"]),
    "list in jsonl": (_text("j.jsonl", "[1, 2]\n"), ["j.jsonl", "line 1", "not an object"]),
    "latin-1": (_text("u.csv", GOOD.encode() + "café,x\n".encode("latin-1")), ["u.csv", "line 42", "UTF-8"]),
    "utf-16": (_text("u.csv", GOOD.encode("utf-16")), ["u.csv", "UTF-8"]),
    "binary": (_text("b.csv", bytes(range(256)) * 9), ["b.csv", "UTF-8"]),
    "cut gzip": (_text("z.csv.gz", b"\x1f\x8b\x08\x00\x00"), ["z.csv.gz", "gzip"]),
    "cut parquet": (_parquet_cut, ["cut.parquet", "parquet"]),
    "ragged vectors": (_ragged, ["ragged.parquet", "'v'", "length 4", "row 8"]),
    "NaN in a vector": (_nan_vector, ["nan.parquet", "'v'", "row 5", "NaN"]),
    "one row": (_text("one.csv", "a,b\nx,y\n"), ["one.csv", "'test'"]),
    "two rows": (_text("two.csv", "a,b\nx,y\nu,v\n"), ["two.csv", "two rows"]),
    "one distinct answer": (_text("c.csv", "q,a\n" + "".join(f"q{n},same\n" for n in range(30))), ["c.csv", "'test'"]),
    "unknown split words": (_split(["train", "teest"]), ["split.csv", "'split'", "'teest'", "valid"]),
    "no test rows": (_split(["train", "valid"]), ["split.csv", "'test'"]),
    "no training rows": (_split(["test"]), ["split.csv", "'train'"]),
    "empty split cells": (_split(["train", ""]), ["split.csv", "'split'", "empty"]),
    "three columns": (_text("t.csv", "a,b,c\n1,2,3\n"), ["t.csv", "a, b, c", "--left"]),
    "split only": (_text("s.csv", "split\ntrain\ntest\n"), ["s.csv", "no column left"]),
    "missing images": (_text("i.csv", "a,b\n" + "".join(f"p{n}.png,t{n}\n" for n in range(9))), ["p0.png", "'a'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(kontrast_, tmp_path, case):
    write, parts = TABLES[case]
    path = write(tmp_path)
    said = kontrast_("train", "pairs", "--data", path, "--out", tmp_path / "run", *SMALL, "--trainer.progress", "off")
    check_refused(said, *parts)
    assert not (tmp_path / "run").exists()


def test_one_distinct_answer_with_a_split_of_ones_own(kontrast_, tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("q,a,split\n" + "".join(f"q{n},same,{'test' if n % 4 == 0 else 'train'}\n" for n in range(40)))
    said = kontrast_("train", "pairs", "--data", path, "--out", tmp_path / "run", *SMALL, "--trainer.progress", "off")
    check_refused(said, "c.csv", "negative")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("damage", "word"), [("cut", "0.png"), ("text", "0.png")])
def test_images_that_cannot_be_decoded(kontrast_, tmp_path, damage, word):
    image = pytest.importorskip("PIL.Image")
    for n in range(12):
        noise = np.random.default_rng(n).integers(0, 255, size=(16, 16, 3)).astype("uint8")
        image.fromarray(noise).save(tmp_path / f"{n}.png")
    first = tmp_path / "0.png"
    first.write_bytes(first.read_bytes()[:200] if damage == "cut" else b"no image")
    path = tmp_path / "i.csv"
    split = ["train" if n < 8 else "test" for n in range(12)]
    path.write_text("a,b,split\n" + "".join(f"{n}.png,t{n},{part}\n" for n, part in enumerate(split)))
    words = ("train", "pairs", "--data", path, "--out", tmp_path / "run", *SMALL, "--trainer.progress", "off")
    check_refused(kontrast_(*words, "--image.width", "8", "--image.dim", "16", "--image.size", "8"), word)
    assert not (tmp_path / "run").exists()


COLUMNS = {
    "left": (["--left", "questoin"], ["good.csv", "'questoin'", "did you mean 'question'"]),
    "right": (["--right", "answr"], ["good.csv", "'answr'", "did you mean 'answer'"]),
    "group": (["--group", "author"], ["good.csv", "'author'"]),
    "label": (["--label", "topic"], ["good.csv", "'topic'"]),
    "id": (["--id", "key"], ["good.csv", "'key'"]),
    "the same twice": (["--left", "answer", "--right", "answer"], ["good.csv", "'answer'", "--right"]),
    "kind": (["--left-kind", "vector"], ["good.csv", "'question'", "list of numbers"]),
    "image": (["--right-kind", "image"], ["good.csv", "'answer'", "which is not there"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_bad_columns(kontrast_, tmp_path, case):
    options, parts = COLUMNS[case]
    path = _text("good.csv", GOOD)(tmp_path)
    said = kontrast_("train", "pairs", "--data", path, "--out", tmp_path / "run", *SMALL, *options)
    check_refused(said, *parts)
    assert not (tmp_path / "run").exists()


def test_names_of_rows_must_differ(kontrast_, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("q,a,id\nx,y,1\nu,v,2\nw,z,1\n")
    said = kontrast_("train", "pairs", "--data", path, "--id", "id", "--out", tmp_path / "run")
    check_refused(said, "d.csv", "'id'", "'1'", "line 2", "line 4")


# ---- options -----------------------------------------------------------------------------------------------------

OPTIONS = {
    "unknown": (["--text.dimm", "3"], ["--text.dimm", "--text.dim", "kontrast info pairs"]),
    "without its section": (["--max-stepz", "3"], ["--max-stepz", "--trainer.max-steps"]),
    "unknown of the trainer": (["--trainer.max-stepz", "3"], ["--trainer.max-stepz", "--trainer.max-steps"]),
    "where the run lies": (["--trainer.directory", "x"], ["--trainer.directory"]),
    "no value": (["--text.dim"], ["--text.dim", "needs a value"]),
    "no value before another": (["--left", "--right", "answer"], ["--left", "needs a value"]),
    "word for a number": (["--text.dim", "wide"], ["'text.dim'", "'wide'", "integer"]),
    "fraction for a number": (["--epochs", "2.5"], ["'epochs'", "'2.5'", "integer"]),
    "too small": (["--text.dim", "0"], ["'text.dim'", "1", "'0'"]),
    "too large": (["--image.size", "5000"], ["'image.size'", "1024"]),
    "not a number": (["--temperature", "nan"], ["'temperature'", "nan"]),
    "none where a number is due": (["--temperature", "none"], ["'temperature'", "None"]),
    "not among the choices": (["--contrast", "maybe"], ["'contrast'", "'shuffled'", "'maybe'"]),
    "not a truth value": (["--share", "perhaps"], ["'share'", "'perhaps'"]),
    "of two numbers, one bad": (["--optimiser.betas", "[0.9, 1.5]"], ["'optimiser.betas", "1.5"]),
    "a section as a word": (["--text", "3"], ["'text'", "'3'"]),
    "word for a list": (["--trainer.loggers", "csv"], ["'trainer.loggers'", "'csv'"]),
    "a stray word": (["stray"], ["'stray'", "--name value"]),
    "a short option": (["-x", "3"], ["'-x'"]),
    "seed": (["--seed", "x"], ["'--seed'", "'x'"]),
    "negative seed": (["--seed", "-1"], ["'seed'", "-1"]),
    "preset": (["--preset", "large"], ["'large'", "cpu, paper"]),
    "encoder": (["--text.name", "nonsense"], ["'nonsense'", "minilm"]),
    "heads": (["--text.name", "transformer", "--text.heads", "3"], ["'heads'", "64"]),
    "precision": (["--trainer.precision", "7"], ["'7'", "bf16-mixed"]),
    "devices": (["--trainer.devices", "0"], ["devices", "0"]),
    "accelerator": (["--trainer.accelerator", "abacus"], ["abacus", "cpu"]),
    "strategy": (["--trainer.strategy", "ddp_spawn"], ["ddp_spawn", "'ddp'"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options(kontrast_, run, example, tmp_path, case):
    options, parts = OPTIONS[case]
    words = ("train", "pairs", "--data", example, "--trainer.progress", "off", *SMALL, *options)
    said = kontrast_(*words, "--out", tmp_path / "run")
    check_refused(Said(said.code, said.out, said.err.rstrip() + ("." if case in LIGHTNINGS else "")), *parts)
    assert not (tmp_path / "run").exists()


# Lightning's own sentences have no full stop.
LIGHTNINGS = ("precision", "devices", "accelerator")


def test_a_refused_option_does_not_cost_the_run_it_was_to_replace(kontrast_, run, example, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "notes.txt").write_text("mine")
    before = {file.relative_to(copy): file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    words = ("train", "pairs", "--data", example, "--out", copy, "--overwrite", *SMALL, "--trainer.progress", "off")
    for option in (["--text.name", "nonsense"], ["--trainer.precision", "7"], ["--left", "nope"]):
        assert kontrast_(*words, *option).code == 2
        assert before == {file.relative_to(copy): file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


CONFIGS = {
    "missing": (None, ["c.yaml", "cannot be read"]),
    "no mapping": ("- a\n- b\n", ["c.yaml", "list"]),
    "no yaml": ("a: [\n", ["c.yaml", "YAML"]),
    "unknown option": ("text:\n  dimm: 3\n", ["c.yaml", "text.dimm", "'dim'"]),
    "unknown option of the trainer": ("trainer:\n  max_stepz: 3\n", ["c.yaml", "trainer.max_stepz", "'max_steps'"]),
    "out of range": ("temperature: 0\n", ["c.yaml", "'temperature'", "0"]),
    "trainer is no section": ("trainer: 3\n", ["c.yaml", "'trainer'", "3"]),
    "text is no section": ("text: bag\n", ["c.yaml", "'text'", "'bag'"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_files(kontrast_, tmp_path, case):
    text, parts = CONFIGS[case]
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    check_refused(kontrast_("train", "pairs", "--print-config", "--config", tmp_path / "c.yaml"), *parts)


WORDS = {
    "no such verb": (["trian", "pairs"], ["'trian'", "'train'"]),
    "no such data verb": (["data", "lst"], ["'lst'", "'list'"]),
    "no system": (["train"], ["SYSTEM"]),
    "no such system": (["info", "pear"], ["'pear'", "'pairs'"]),
    "no such system to try": (["example", "pear", "x"], ["'pear'", "'pairs'"]),
    "no folder": (["example", "pairs"], ["DIR"]),
    "no data": (["train", "pairs"], ["--data"]),
    "no data to ablate": (["ablate", "pairs"], ["--data"]),
    "one seed": (["ablate", "pairs", "--data", "x.csv", "--seeds", "1"], ["--seeds"]),
    "no data to predict for": (["predict", "somewhere"], ["--data"]),
    "nothing to compare": (["compare", "one"], ["two run folders"]),
    "no runs": (["results", "nowhere"], ["nowhere", "no such folder"]),
    "no such run": (["evaluate", "nowhere"], ["nowhere", "no such run folder"]),
    "no such data set": (["data", "info", "truthfulqq"], ["'truthfulqq'", "'truthfulqa'"]),
    "an option too many": (["list", "--all"], ["--all"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_bad_words(kontrast_, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, parts = WORDS[case]
    said = kontrast_(*words)
    if case != "no such data set":  # which lists all that there are
        check_refused(Said(said.code, said.out, said.err.rstrip() + "."), *parts)
    error = kontrast_(*words, "--json")
    assert error.code == 2
    assert list(error.json()) == ["error"]
    assert f"kontrast: {error.json()['error']}\n" == said.err
    assert list(tmp_path.iterdir()) == []


# ---- runs --------------------------------------------------------------------------------------------------------

USES = {
    "evaluate": ["evaluate", "RUN"],
    "embed": ["embed", "RUN"],
    "predict": ["predict", "RUN", "--data", "DATA"],
    "report": ["report", "RUN"],
    "compare": ["compare", "RUN", "RUN"],
}


def _use(verb: str, run: Path, data: Path) -> list[str]:
    return [{"RUN": str(run), "DATA": str(data)}.get(word, word) for word in USES[verb]]


@pytest.mark.parametrize("verb", USES)
def test_verbs_on_what_is_no_run_folder(kontrast_, example, tmp_path, verb):
    check_refused(kontrast_(*_use(verb, tmp_path / "none", example)), "none", "no such run folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    check_refused(kontrast_(*_use(verb, tmp_path / "other", example)), "other", "run.json")
    check_refused(kontrast_(*_use(verb, example, example)), example.name)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the finished run, to damage."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("verb", ["evaluate", "embed", "predict"])
def test_verbs_on_a_run_that_is_not_finished(kontrast_, copy, example, verb):
    shutil.rmtree(copy / "model")
    RunFolder.open(copy).update(status="running", finished=None)
    check_refused(kontrast_(*_use(verb, copy, example)), "copy", "no trained model", "--resume")


DAMAGES = {
    "run.json cut": ("run.json", b'{"system": ', ["evaluate", "report", "compare"]),
    "run.json of a later format": ("run.json", b'{"format": 99}', ["evaluate", "report"]),
    "metrics.json cut": ("metrics.json", b"{", ["report", "compare"]),
    "config.yaml no mapping": ("config.yaml", b"- 3\n", ["report", "compare"]),
    "history.parquet cut": ("history.parquet", b"PAR1", ["report"]),
    "weights cut": ("model/model.safetensors", b"\x00" * 20, ["evaluate", "embed", "predict"]),
    "no weights": ("model/model.safetensors", None, ["evaluate", "embed", "predict"]),
    "model config cut": ("model/config.yaml", b"text: [", ["evaluate"]),
    "system.json cut": ("model/system.json", b"{", ["evaluate"]),
    "no system.json": ("model/system.json", None, ["evaluate"]),
    "corpus cut": ("model/corpus/vectors.safetensors", b"\x00", ["predict"]),
}  # fmt: skip


@pytest.mark.parametrize(("case", "verb"), [(case, verb) for case in DAMAGES for verb in DAMAGES[case][2]])
def test_damaged_runs(kontrast_, copy, example, case, verb):
    name, content, _ = DAMAGES[case]
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    check_refused(kontrast_(*_use(verb, copy, example)), str(copy))


def test_a_run_of_a_system_that_is_not_installed(kontrast_, copy, example):
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "system": "stranger"}))
    for verb in ("evaluate", "embed", "predict", "report"):
        check_refused(kontrast_(*_use(verb, copy, example)), "'stranger'")


def test_a_run_of_another_system(kontrast_, plugin, tmp_path, example):
    kontrast_("example", "toy", tmp_path / "toy")
    words = ("--out", tmp_path / "run", "--json", "--no-baselines")
    assert kontrast_("train", "toy", "--data", tmp_path / "toy" / "points.csv", "--epochs", "2", *words).code == 0
    resumed = kontrast_("train", "pairs", "--data", example, "--resume", *words)
    assert "a run of 'toy'" in resumed.json()["error"]
    foreign = tmp_path / "foreign"
    shutil.copytree(tmp_path / "run", foreign)
    record = json.loads((foreign / "run.json").read_text())
    (foreign / "run.json").write_text(json.dumps({**record, "system": "pairs"}))
    check_refused(kontrast_("evaluate", foreign, "--data", example), "'toy'", "'pairs'")


def test_resume_refuses_other_options_and_other_data(kontrast_, copy, example, tmp_path):
    words = ("train", "pairs", "--out", copy, "--resume", *SMALL)
    check_refused(kontrast_(*words, "--data", example, "--temperature", "0.5"), "system.temperature", "0.07", "0.5")
    other = tmp_path / "other.csv"
    other.write_text(GOOD)
    check_refused(kontrast_(*words, "--data", other), "other data")


def test_data_that_changed_since(kontrast_, copy, tmp_path):
    record = json.loads((copy / "run.json").read_text())
    moved = tmp_path / "moved.csv"
    for content, part in ((None, "not there any more"), (GOOD, "has changed")):
        if content is not None:
            moved.write_text(content)
        record["data"]["path"] = str(moved)
        (copy / "run.json").write_text(json.dumps(record))
        for verb in ("evaluate", "embed"):
            check_refused(kontrast_(verb, copy), "moved.csv", part, "--data")


def test_places_that_cannot_be_written_to(kontrast_, example, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    words = ("train", "pairs", "--data", example, *SMALL, "--trainer.progress", "off", "--out")
    check_refused(kontrast_(*words, tmp_path / "file"), "file", "--out")
    check_refused(kontrast_(*words, tmp_path / "file" / "below"), "file")
    for flag in ([], ["--overwrite"], ["--resume"]):
        check_refused(kontrast_(*words, tmp_path / "full", *flag), "full", "not a run folder", "--out")
    check_refused(kontrast_("embed", run, "--output", tmp_path / "file" / "v.npz"), "v.npz")
    check_refused(kontrast_("predict", run, "--data", example, "--output", tmp_path / "file" / "p.csv"), "p.csv")
    check_refused(kontrast_("results", run.parent, "--output", tmp_path / "file" / "R.md"), "R.md")
    check_refused(kontrast_("example", "pairs", tmp_path / "file"), "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_the_right_to_write(kontrast_, example, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    words = ("train", "pairs", "--data", example, *SMALL, "--trainer.progress", "off")
    check_refused(kontrast_(*words, "--out", tmp_path / "locked" / "run"), "locked", "choose a folder")


ANSWERS = {
    "fixed by training": (["--epochs", "3"], ["--epochs", "--top-k"]),
    "unknown": (["--topk", "3"], ["--topk", "--top-k"]),
    "no value": (["--top-k"], ["--top-k", "needs a value"]),
    "too few": (["--top-k", "0"], ["'top_k'", "'0'"]),
    "no number": (["--top-k", "many"], ["'top_k'", "'many'"]),
    "search": (["--search", "web"], ["'search'", "'faiss'"]),
    "no such corpus": (["--corpus", "none.csv"], ["none.csv", "no such file"]),
    "corpus without the column": (["--corpus", "CORPUS"], ["c.csv", "'answer'"]),
    "output": (["--output", "p.xlsx"], ["p.xlsx", ".parquet"]),
    "no such data": (["--data", "none.csv"], ["none.csv"]),
    "data without the column": (["--data", "CORPUS"], ["c.csv", "'question'"]),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_bad_predictions(kontrast_, run, example, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text("a,b\nx,y\n")
    options, parts = ANSWERS[case]
    options = [str(tmp_path / "c.csv") if word == "CORPUS" else word for word in options]
    data = () if "--data" in options else ("--data", example)
    check_refused(kontrast_("predict", run, *data, *options), *parts)


def test_bad_vectors_files(kontrast_, run, example, tmp_path):
    check_refused(kontrast_("embed", run, "--data", example), "--output")
    check_refused(kontrast_("embed", run, "--data", example, "--output", tmp_path / "v.csv"), "v.csv", ".npz")


def test_evaluate_needs_the_answers(kontrast_, run, tmp_path):
    (tmp_path / "q.csv").write_text("question\nwhere\n")
    check_refused(kontrast_("evaluate", run, "--data", tmp_path / "q.csv"), "q.csv", "'answer'")
