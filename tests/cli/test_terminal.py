"""What a person sees: a bar and framed tables on a terminal, plain lines in a pipe, results alone on stdout."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys

import pytest
from command_line import SMALL

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

# UMAP would compile for half a minute.
WITHOUT_UMAP = (
    "import kontrast.pipeline.train as train; train.installed = lambda extra: False; "
    "from kontrast.cli.main import main; main()"
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*words: object, columns: int = 100) -> tuple[int, str]:
    """Exit code and everything a terminal of that width got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_UMAP, *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    got = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not block:
            break
        got += block
    os.close(ours)
    return process.wait(), got.decode()


def test_training_on_a_terminal(example, tmp_path):
    code, got = on_terminal("train", "pairs", "--data", example, "--out", tmp_path / "r", *SMALL)
    assert code == 0
    text = ESCAPES.sub("", got)
    assert "━" in text, "there is no bar"
    assert "8/8" in text
    assert "epoch 2/2" in text
    assert "recall@10" in text
    assert "─" * 20 in text, "the table has no frame"
    assert "Traceback" not in text
    assert got.count("\x1b[?25h") >= got.count("\x1b[?25l"), "the cursor stays hidden"
    shown = [line.split("\r")[-1] for line in text.split("\n")]
    assert max(map(len, shown)) <= 101 + len(str(tmp_path))


def test_option_names_are_whole_on_a_narrow_terminal():
    code, got = on_terminal("info", "pairs", columns=80)
    assert code == 0
    text = ESCAPES.sub("", got)
    for option in ("--optimiser.learning-rate", "--trainer.checkpoint-every", "--views.token-dropout"):
        assert option in text


def test_an_error_on_a_terminal_is_one_line(tmp_path):
    code, got = on_terminal("train", "pairs", "--data", tmp_path / "none.csv", columns=80)
    assert code == 2
    assert got.replace("\r", "").count("\n") == 1
    assert "\x1b" not in got


def test_results_alone_are_on_stdout(example, tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_UMAP, "train", "pairs", "--data", str(example), "--out", str(tmp_path / "r"),
         *SMALL, "--trainer.progress", "bar"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0
    assert said.stdout.startswith("metric")
    assert "\x1b" not in said.stdout
    assert "━" in said.stderr
