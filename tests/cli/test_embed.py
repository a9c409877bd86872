"""``kontrast embed``: one file, a folder of shards that goes on where it stopped, several processes, Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from kontrast import progress
from kontrast.contract import load_system
from kontrast.pipeline import embed
from kontrast.pipeline.embed_ray import ShardWorker


@pytest.fixture
def corpus(rows, tmp_path) -> Path:
    """Ninety rows in four shards of three formats, and things that are no shards."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    table = pd.DataFrame(rows[:90])[["question", "answer"]]
    table[:30].to_csv(folder / "a.csv", index=False)
    table[30:50].to_parquet(folder / "b.parquet")
    table[50:60].to_json(folder / "c.jsonl", orient="records", lines=True)
    table[60:].to_parquet(folder / "d.parquet")
    (folder / ".hidden.csv").write_text("x")
    (folder / "_SUCCESS").write_text("")
    (folder / "README.md").write_text("mine")
    return folder


def vectors(folder: Path) -> np.ndarray:
    """All left and right vectors of a folder, in the order of its files."""
    files = sorted(folder.glob("*.parquet"))
    return np.concatenate([np.stack(pd.read_parquet(file)["vector"].to_list()) for file in files])


def expected(run: Path, corpus: Path) -> np.ndarray:
    """The same from one process that embeds file after file."""
    system = load_system("pairs").load(run / "model")
    files = sorted(path for path in corpus.iterdir() if path.suffix in (".csv", ".parquet", ".jsonl"))
    parts = [system.embed(system.read(file)).vectors for file in files if not file.name.startswith(".")]
    return np.concatenate(parts)


def test_a_folder_becomes_a_folder(kontrast_, run, corpus, tmp_path):
    out = tmp_path / "vectors"
    said = kontrast_("embed", run, "--data", corpus, "--output", out, "--json")
    assert said.json() == {"output": str(out), "rows": 180, "dim": 64}
    names = ["a.csv.parquet", "b.parquet", "c.jsonl.parquet", "d.parquet", "embedding.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (vectors(out) == expected(run, corpus)).all()
    first = pd.read_parquet(out / "b.parquet")
    assert list(first.columns[:3]) == ["id", "kind", "text"]
    assert pq.read_schema(out / "b.parquet").field("vector").type.value_type == "float"


def test_finished_shards_are_not_repeated(kontrast_, run, corpus, tmp_path, monkeypatch):
    out = tmp_path / "vectors"
    words = ("embed", run, "--data", corpus, "--output", out)
    assert kontrast_(*words).code == 0
    done: list[str] = []
    whole = embed.embed_shard
    monkeypatch.setattr(
        embed, "embed_shard", lambda system, shard: done.append(shard.source.name) or whole(system, shard)
    )
    said = kontrast_(*words)
    assert said.code == 0
    assert "4 of 4 shards are finished already" in said.err
    assert done == []
    # What a kill leaves: a shard under its temporary name; and one that a full disk or a copy cut short.
    (out / "b.parquet").unlink()
    leftover = out / ".b.parquet.xyz.tmp"
    leftover.mkdir()
    (leftover / "b.parquet").write_bytes(b"PAR1")
    (out / "c.jsonl.parquet").write_bytes((out / "c.jsonl.parquet").read_bytes()[:200])
    table = pd.read_parquet(corpus / "d.parquet")
    table[:7].to_parquet(corpus / "d.parquet")
    assert kontrast_(*words, "--json").json()["rows"] == 2 * 67
    assert done == ["b.parquet", "c.jsonl", "d.parquet"]
    assert not leftover.exists()
    assert (vectors(out) == expected(run, corpus)).all()


def test_a_bad_shard_is_named_and_the_rest_goes_on_later(kontrast_, run, corpus, tmp_path):
    out = tmp_path / "vectors"
    text = (corpus / "c.jsonl").read_text()
    (corpus / "c.jsonl").write_text(text + '{"question": 3}\n')
    said = kontrast_("embed", run, "--data", corpus, "--output", out)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"kontrast: {corpus}/c.jsonl:")
    assert (out / "b.parquet").is_file()
    (corpus / "c.jsonl").write_text(text)
    assert "2 of 4 shards" in kontrast_("embed", run, "--data", corpus, "--output", out).err
    assert (vectors(out) == expected(run, corpus)).all()


def refused(said, *parts: str) -> None:
    assert said.code == 2
    sentence = said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert all(part in sentence for part in parts), sentence


def test_what_cannot_be_embedded(kontrast_, run, corpus, example, tmp_path):
    out, empty = tmp_path / "vectors", tmp_path / "empty"
    empty.mkdir()
    refused(kontrast_("embed", run, "--engine", "local", "--data", corpus), "--output")
    refused(kontrast_("embed", run, "--engine", "local", "--data", example, "--output", out), example.name, "folder")
    refused(kontrast_("embed", run, "--data", empty, "--output", out), "no table files", ".parquet")
    refused(kontrast_("embed", run, "--data", corpus, "--output", corpus), "--output")
    refused(kontrast_("embed", run, "--data", corpus, "--output", out, "--workers", "2"), "--workers", "ray")
    refused(kontrast_("embed", run, "--data", corpus, "--output", out, "--engine", "spark"), "spark", "ray")
    refused(kontrast_("embed", run, "--data", corpus, "--output", out, "--precision", "fp8"), "fp8", "bf16")
    refused(kontrast_("embed", run, "--precision", "bf16"), "--output")
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    refused(kontrast_("embed", run, "--data", corpus, "--output", out), "not empty", "--output")
    (out / "thesis.tex").unlink()
    (out / "embedding.json").write_text(json.dumps({"model": "another", "precision": "fp32"}))
    refused(kontrast_("embed", run, "--data", corpus, "--output", out), "another model", "--output")
    shutil.copy(corpus / "b.parquet", corpus / "a.csv.parquet")
    refused(kontrast_("embed", run, "--data", corpus, "--output", empty), "a.csv", "one file")


def test_an_encoder_without_bf16_says_so(kontrast_, run, example, tmp_path):
    words = ("embed", run, "--data", example, "--output")
    said = kontrast_(*words, tmp_path / "low.npz", "--precision", "bf16")
    assert said.code == 0
    assert "the vectors are exact" in said.err
    assert kontrast_(*words, tmp_path / "exact.npz").code == 0
    with np.load(tmp_path / "low.npz") as low, np.load(tmp_path / "exact.npz") as exact:
        assert (low["vectors"] == exact["vectors"]).all()


def test_a_transformer_in_bf16(kontrast_, example, tmp_path):
    pytest.importorskip("transformers")
    size = ("--text.dim", "32", "--text.layers", "2", "--text.vocab-size", "500", "--epochs", "1")
    words = ("train", "pairs", "--data", example, "--text.name", "transformer", *size, "--no-baselines")
    assert kontrast_(*words, "--out", tmp_path / "run").code == 0
    for precision in ("fp32", "bf16"):
        output = ("--output", tmp_path / f"{precision}.parquet", "--precision", precision)
        said = kontrast_("embed", tmp_path / "run", "--data", example, *output)
        assert said.code == 0
        assert "exact" not in said.err
    exact, low = (
        np.stack(pd.read_parquet(tmp_path / f"{name}.parquet")["vector"].to_list()) for name in ("fp32", "bf16")
    )
    assert 0.999 < (exact * low).sum(1).min() < 1


# ---- several processes -------------------------------------------------------------------------------------------


def together(*words: object, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """The command in several processes that torchrun starts."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [*launch, "-m", "kontrast", *map(str, words), "--json"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_ranks_write_the_file_of_one_process(kontrast_, run, example, corpus, tmp_path):
    assert kontrast_("embed", run, "--data", example, "--output", tmp_path / "one.parquet").code == 0
    said = together("embed", run, "--data", example, "--output", tmp_path / "two.parquet")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["rows"] == 600
    one, two = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one.drop(columns="vector"), two.drop(columns="vector"))
    assert (np.stack(one["vector"].to_list()) == np.stack(two["vector"].to_list())).all()

    said = together("embed", run, "--data", corpus, "--output", tmp_path / "vectors")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["rows"] == 180
    assert (vectors(tmp_path / "vectors") == expected(run, corpus)).all()


@pytest.mark.slow
def test_a_bad_shard_ends_all_ranks(run, corpus, tmp_path):
    (corpus / "b.parquet").write_bytes(b"PAR1")
    said = together("embed", run, "--data", corpus, "--output", tmp_path / "vectors")
    assert said.returncode != 0
    assert f"kontrast: {corpus}/b.parquet:" in said.stderr
    assert 'File "' not in said.stderr.split("torch/distributed")[0]
    assert (tmp_path / "vectors" / "a.csv.parquet").is_file()


# ---- ray ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray_here(monkeypatch):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_writes_what_one_process_writes(ray_here, kontrast_, run, corpus, tmp_path):
    out = tmp_path / "vectors"
    words = ("embed", run, "--data", corpus, "--output", out, "--engine", "ray", "--workers", "2")
    whole = (corpus / "c.jsonl").read_text()
    (corpus / "c.jsonl").write_text('{"question": 3}\n')
    refused(kontrast_(*words), f"{corpus}/c.jsonl", "the same command")
    assert sorted(path.name for path in out.glob("*.parquet")) == ["a.csv.parquet", "b.parquet", "d.parquet"]
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    (corpus / "c.jsonl").write_text(whole)
    said = kontrast_(*words, "--json")
    assert said.code == 0, said.err
    assert said.json()["rows"] == 180
    assert all((out / name).stat().st_mtime_ns == changed for name, changed in before.items())
    np.testing.assert_allclose(vectors(out), expected(run, corpus), atol=1e-6)


def test_a_worker_sends_home_what_a_person_can_mend(run, corpus, tmp_path):
    mode, threads = progress.set_mode("off"), torch.get_num_threads()
    try:
        worker = ShardWorker(run, "fp32")
        (corpus / "c.jsonl").write_text('{"question": 3}\n')
        targets = [tmp_path / "a.parquet", tmp_path / "c.parquet"]
        batch = {"source": [str(corpus / "a.csv"), str(corpus / "c.jsonl")], "target": list(map(str, targets))}
        made = worker(batch)
    finally:
        progress.set_mode(mode)
        torch.set_num_threads(threads)
    assert made["rows"][0] > 0
    assert made["rows"][1] == 0
    assert made["problem"][0] == ""
    assert "c.jsonl" in made["problem"][1]
    assert [target.exists() for target in targets] == [True, False]


def test_without_ray_the_extra_is_named(kontrast_, run, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = kontrast_("embed", run, "--data", corpus, "--output", tmp_path / "v", "--engine", "ray")
    refused(said, "ray", "kontrast[ray]")


# ---- disks -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_the_right_to_write(kontrast_, run, corpus, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(kontrast_("embed", run, "--data", corpus, "--output", tmp_path / "locked" / "v"), "locked", "may write")


def test_a_full_disk(kontrast_, run, corpus, tmp_path, monkeypatch):
    """Arrow's own error when the third file does not fit any more; what was written before stays."""
    out = tmp_path / "vectors"
    write, written = embed.write_vectors, []

    def fill(path, embeddings, **more):
        write(path, embeddings, **more)
        written.append(path.name)
        if len(written) == 3:
            raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(embed, "write_vectors", fill)
    words = ("embed", run, "--data", corpus, "--output", out)
    said = kontrast_(*words)
    refused(said, f"{out}/c.jsonl.parquet: cannot be written (No space left on device)", "the same command")
    assert sorted(path.name for path in out.iterdir()) == ["a.csv.parquet", "b.parquet", "embedding.json"]
    assert "2 of 4 shards are finished already" in kontrast_(*words).err
    assert written[3:] == ["c.jsonl.parquet", "d.parquet"]
