"""What a person sees while something runs: one mechanism for the whole library.

On a terminal: bars. In a pipe or a log file: plain lines, about one per tenth of the work. Off (``--json``):
nothing. Chatter and progress go to stderr, so that results alone are on stdout. Of several processes that train
together, the first one speaks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

Mode = Literal["auto", "bar", "lines", "off"]
T = TypeVar("T")

_mode: Mode = "auto"
_live: RichProgress | None = None


def set_mode(mode: Mode) -> Mode:
    """Chooses what is shown from now on; returns the mode before.

    Args:
        mode: "auto" (a bar on a terminal, lines elsewhere), "bar", "lines" or "off".

    Raises:
        ValueError: for another word.
    """
    global _mode
    if mode not in get_args(Mode):
        raise ValueError(f"unknown progress mode '{mode}'; known: {', '.join(get_args(Mode))}")
    before, _mode = _mode, mode
    return before


@contextmanager
def showing(mode: Mode) -> Generator[None]:
    """`set_mode` for the length of a block. "auto" leaves the choice that is in force outside."""
    before = set_mode(_mode if mode == "auto" else mode)
    try:
        yield
    finally:
        set_mode(before)


def mode() -> Literal["bar", "lines", "off"]:
    """What is in force here and now: "auto" resolved, and "off" in all processes but the first."""
    if _mode == "off" or not first_process():
        return "off"
    if _mode == "auto":
        return "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
    return _mode


def first_process() -> bool:
    """Whether this is the first of the processes that train together; true where one trains alone.

    Lightning starts the same command again for each further process: what must happen once, such as making a run
    folder, is for the first one.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def console(*, stderr: bool = True) -> Console:
    """A rich console on stderr (chatter) or stdout (results), as they are at the time of the call."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, force_terminal=True if stderr and mode() == "bar" else None)


def say(message: str) -> None:
    """One line of chatter on stderr; nothing when off."""
    if mode() == "off":
        return
    if _live is not None:
        _live.console.print(message, markup=False, highlight=False)
    else:
        print(message, file=sys.stderr, flush=True)


class Task:
    """One piece of work that is under way; made by `task`."""

    def __init__(self, description: str, total: int | None, lines: int) -> None:
        self.description = description
        self.total = total
        self.done = 0
        self.values: dict[str, float] = {}
        self.note = ""
        self._shown = mode()
        self._lines = lines
        self._bar: Any = None

    def advance(self, amount: int = 1, *, note: str | None = None, values: Mapping[str, float] | None = None) -> None:
        """Counts `amount` more as done.

        Args:
            amount: how much, in the unit of the total.
            note: a word on where the work is, such as "epoch 3/10"; stays until another one comes.
            values: numbers to show beside, such as ``{"loss": 0.12}``; they stay until others come.
        """
        before, self.done = self.done, self.done + amount
        self.values = dict(self.values if values is None else values)
        self.note = self.note if note is None else note
        if self._bar is not None and _live is not None:
            _live.update(self._bar, completed=self.done, description=self._head(), values=self._tail())
        if self._shown == "lines" and self.total and self._lines:
            step = self.total / self._lines
            if int(self.done / step) > int(before / step) or before < self.total <= self.done:
                share = f"{100 * self.done / self.total:3.0f}%"
                print(
                    "  ".join(part for part in (self._head(), share, self._tail()) if part), file=sys.stderr, flush=True
                )

    def _head(self) -> str:
        return f"{self.description} {self.note}".rstrip()

    def _tail(self) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in self.values.items())


@contextmanager
def task(description: str, total: int | None = None, *, done: int = 0, lines: int = 10) -> Generator[Task]:
    """Shows a piece of work while the block runs. Tasks may be nested or side by side.

    Args:
        description: what is done, such as "embedding".
        total: how much there is; without it a bar shows that something moves, and lines show nothing.
        done: how much was done before, for a run that goes on.
        lines: how many lines it makes in a pipe, at most.

    Yields:
        The task, whose `advance` counts.
    """
    global _live
    work = Task(description, total, lines)
    work.done = done
    if work._shown != "bar":
        yield work
        return
    outer = _live
    live = outer if outer is not None else _new_bars()
    _live = live
    if outer is None:
        live.start()
    work._bar = live.add_task(work._head(), total=total, completed=done, values="")
    try:
        yield work
    finally:
        if outer is None:
            live.stop()
            _live = None
        else:
            live.remove_task(work._bar)


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Generator[T]:
    """Goes through `iterable` and shows how far it is.

    Args:
        iterable: what to go through.
        description: what is done with it.
        total: number of elements; asked of `iterable` if it knows.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with task(description, total) as work:
        for element in iterable:
            yield element
            work.advance()


def _new_bars() -> RichProgress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} it/s" if speed >= 1 else f"{1 / speed:.1f} s/it")

    def whole() -> Column:
        return Column(no_wrap=True)

    # The values give way where a terminal is narrow; the rest is shown whole.
    values = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=whole()),
        BarColumn(bar_width=16, table_column=whole()),
        MofNCompleteColumn(table_column=whole()),
        Speed(table_column=whole()),
        TimeRemainingColumn(compact=True, table_column=whole()),
        TextColumn("{task.fields[values]}", markup=False, table_column=values),
        console=console(),
        expand=True,
    )
