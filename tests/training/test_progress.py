"""One console: bars on a terminal, lines in a pipe, nothing when off; chatter on stderr, results on stdout."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kontrast import progress


@pytest.fixture(autouse=True)
def _mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    before = progress.set_mode("auto")
    yield
    progress.set_mode(before)


def test_a_pipe_gets_about_ten_lines(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(1234), "embedding")) == list(range(1234))
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "embedding   10%"
    assert lines[-1] == "embedding  100%"


@pytest.mark.parametrize("total", [1, 3, 7, 10, 11])
def test_few_elements_get_few_lines(total: int, capfd: pytest.CaptureFixture[str]) -> None:
    list(progress.track(range(total), "x"))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == min(total, 10)
    assert lines[-1] == "x  100%"


def test_an_unknown_total_shows_nothing_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capfd.readouterr().err == ""


def test_off_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    progress.set_mode("off")
    progress.say("hello")
    list(progress.track(range(20), "embedding"))
    assert capfd.readouterr() == ("", "")


def test_chatter_is_on_stderr_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    progress.say("a [bold]note[/bold]")
    shown = capfd.readouterr()
    assert (shown.err, shown.out) == ("a [bold]note[/bold]\n", "")


def test_other_ranks_are_silent(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    progress.say("hello")
    assert progress.mode() == "off"
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    progress.say("hello")
    assert capfd.readouterr().err == "hello\n"


def test_bars_show_values_and_may_be_nested(capfd: pytest.CaptureFixture[str]) -> None:
    progress.set_mode("bar")
    with progress.task("training", 4, done=2) as outer:
        progress.say("[a note]")
        for _ in progress.track(range(3), "validating"):
            pass
        outer.advance(2, note="epoch 2/2", values={"loss": 0.125})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err)
    assert "[a note]" in shown
    last = shown.rstrip().splitlines()[-1]
    assert last.startswith("training epoch 2/2")
    assert "4/4" in last
    assert "loss 0.125" in last
    assert progress._live is None


def test_a_bar_ends_with_the_error_that_ends_its_work(capfd: pytest.CaptureFixture[str]) -> None:
    progress.set_mode("bar")
    with pytest.raises(RuntimeError, match="broken"), progress.task("work", 3):
        raise RuntimeError("broken")
    assert progress._live is None


def test_showing_leaves_the_choice_outside_in_force() -> None:
    progress.set_mode("off")
    with progress.showing("auto"):
        assert progress.mode() == "off"
    with progress.showing("lines"):
        assert progress.mode() == "lines"
    assert progress.mode() == "off"


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown progress mode 'loud'; known: auto, bar, lines, off"):
        progress.set_mode("loud")  # type: ignore[arg-type]


def test_a_terminal_gets_a_bar() -> None:
    pty = pytest.importorskip("pty")
    import os

    code = (
        "from kontrast import progress\nassert progress.mode() == 'bar'\nlist(progress.track(range(3), 'embedding'))\n"
    )
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 0, shown
    assert "3/3" in shown


def test_importing_it_is_cheap() -> None:
    code = "import sys, kontrast.progress; sys.exit(any(name in sys.modules for name in ('rich', 'torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
