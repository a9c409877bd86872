"""``kill -9`` at random moments of train, embed and report: is the run folder readable each time, and does it go on?

    python benchmarks/kill_anywhere.py                    # 50 kills
    python benchmarks/kill_anywhere.py --kills 5 --seed 3

After every kill the folder must be readable: ``find_runs`` finds whole runs and no leftovers, and every file that it
holds under its own name is whole. Then the same command (train: with ``--resume``, which may be killed again) must end
well with the bytes of a run that nobody killed. Prints a line per kill; the exit code is 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors import safe_open

import kontrast.pipeline.embed
import kontrast.pipeline.train
import kontrast.systems.pairs
import kontrast.training._engine
from kontrast.cli.main import main as kontrast_main
from kontrast.pipeline.run_tables import find_runs

RESULTS = ("metrics.json", "history.parquet", "model/model.safetensors", "items/test.parquet", "config.yaml")
OPTIONS = ("--epochs", "2", "--text.dim", "16", "--batch-size", "32", "--checkpoint-every", "2")
TRIES = 20


def call(words: list[str], log: Path, seconds: float | None = None) -> tuple[int, float]:
    """The command line in a forked child, killed after `seconds`; its exit code (-9: killed) and how long it took."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            torch.set_num_threads(1)
            kontrast.pipeline.train.installed = lambda extra: False  # type: ignore[assignment]  # UMAP is slow
            if seconds is not None:
                # Unhandled, this signal ends the process at once and without a word, as kill -9 does.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
            kontrast_main(words)
        except SystemExit as end:
            code = int(end.code or 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (-9 if ended == -signal.SIGALRM else ended), time.monotonic() - begun


def broken_files(folder: Path) -> list[str]:
    """Files under their own names that are not whole."""
    broken = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not file.is_file():
            continue
        try:
            if file.suffix == ".json":
                json.loads(file.read_text())
            elif file.suffix == ".parquet":
                pq.read_table(file)
            elif file.suffix == ".safetensors":
                with safe_open(file, framework="np") as tensors:
                    list(tensors.keys())
            elif file.suffix == ".html" and not file.read_text().rstrip().endswith("</html>"):
                raise ValueError("cut short")
        except Exception as error:
            broken.append(f"{file.relative_to(folder)} ({type(error).__name__}: {error})")
    return broken


@dataclass
class Trial:
    """The runs of one seed in one folder."""

    work: Path
    seed: int
    faults: list[str] = field(default_factory=list)
    kills: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.log = self.work / "log.txt"
        self.words: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """The data, and every command once without a kill."""
        assert call(["example", "pairs", str(self.work / "data")], self.log)[0] == 0
        table = self.work / "data" / "pairs.csv"
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join(lines[:121]))
        shards = self.work / "shards"
        shards.mkdir()
        for number in range(4):
            (shards / f"{number}.csv").write_text("".join([lines[0], *lines[1 + 30 * number : 31 + 30 * number]]))
        run = self.work / "runs" / "whole"
        self.words = {
            "train": ["train", "pairs", "--data", str(table), *OPTIONS, "--out"],
            "embed": ["embed", str(run)],
            "embed folder": ["embed", str(run), "--data", str(shards), "--output"],
            "report": ["report", str(run)],
        }
        for verb, words in self.words.items():
            place = {"train": [str(run)], "embed folder": [str(self.work / "vectors")]}.get(verb, [])
            code, self.seconds[verb] = call([*words, *place], self.log)
            if code:
                raise SystemExit(f"{verb} ends with {code} without a kill: {self.log.read_text()[-2000:]}")
        self.whole = {name: (run / name).read_bytes() for name in (*RESULTS, "embeddings.parquet")}
        self.vectors = {file.name: pq.read_table(file) for file in (self.work / "vectors").glob("*.parquet")}

    def kill(self, verb: str, words: list[str]) -> float | None:
        """Kills the command at a random moment, as often as it takes to be in time; when it was, as a share."""
        for _ in range(TRIES):
            share = self.random.random()
            code, _ = call(words, self.log, share * self.seconds[verb])
            if code == -9:
                self.kills += 1
                return share
            if code:
                self.faults.append(f"{verb} ends with {code} by itself")
            if "--resume" in words:
                break
            if verb == "train":
                shutil.rmtree(words[-1], ignore_errors=True)
        return None

    def check(self, verb: str, folder: Path) -> None:
        try:
            for run in find_runs([self.work / "runs"]):
                _ = run.record
        except Exception as error:
            self.faults.append(f"after a kill of {verb} the runs cannot be listed: {error}")
        self.faults += [f"after a kill of {verb}: {what}" for what in broken_files(folder)]

    def one(self, verb: str) -> str:
        """One kill (of a training sometimes two), the checks after it, and the way on."""
        out = {
            "train": self.work / "runs" / f"run-{self.kills}",
            "embed folder": self.work / f"vectors-{self.kills}",
        }.get(verb)
        words = [*self.words[verb], *([str(out)] if out is not None else [])]
        moments = [self.kill(verb, words)]
        self.check(verb, self.work / "runs")
        if verb == "train":
            words = [*words, "--resume"]
            if self.random.random() < 0.3:
                moments.append(self.kill(verb, words))
                self.check(verb, self.work / "runs")
        code, _ = call(words, self.log)
        if code:
            self.faults.append(f"{verb} does not go on: {self.log.read_text().splitlines()[-1]}")
        else:
            self.compare(verb, out if out is not None else self.work / "runs" / "whole")
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        said = ", ".join("too late" if share is None else f"{100 * share:.0f} %" for share in moments)
        return f"{verb}: killed at {said} of its time"

    def compare(self, verb: str, folder: Path) -> None:
        if verb == "embed folder":
            found = {file.name: pq.read_table(file) for file in folder.glob("*.parquet")}
            if found != self.vectors:
                self.faults.append("the folder of vectors differs from that of a run that nobody killed")
            return
        for name, content in self.whole.items():
            if (verb == "train") != (name in RESULTS) and verb != "report":
                continue
            if (folder / name).read_bytes() != content:
                self.faults.append(f"after {verb}, {name} differs from that of a run that nobody killed")
        if verb == "train" and (left := [str(path) for path in folder.rglob("*.tmp")]):
            self.faults.append(f"train leaves {left[0]} behind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), args.seed)
        trial.prepare()
        verbs = ["train", "embed", "embed folder", "report"]
        number = 0
        while trial.kills < args.kills and number < 4 * args.kills:
            verb = verbs[number] if number < len(verbs) else trial.random.choice(["train", *verbs])
            before = len(trial.faults)
            print(f"{trial.one(verb)}; {'; '.join(trial.faults[before:]) or 'whole, and goes on'}", flush=True)
            number += 1
    print(f"{trial.kills} kills, {len(trial.faults)} faults")
    sys.exit(1 if trial.faults or trial.kills < args.kills else 0)


if __name__ == "__main__":
    main()
