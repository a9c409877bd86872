"""What an objective left out: counts that a loss value alone would hide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnostics:
    """Counts of one evaluation of an objective on this process, over all of its directions.

    Args:
        anchors: rows that asked for a loss.
        skipped: those of them that had none, for want of a positive (or of a negative, where the denominator holds
            negatives alone).
        pairs: positive pairs.
    """

    anchors: int
    skipped: int
    pairs: int


_log: ContextVar[list[Diagnostics] | None] = ContextVar("kontrast_diagnostics", default=None)


@contextmanager
def record_diagnostics() -> Iterator[list[Diagnostics]]:
    """Collects the `Diagnostics` of every objective evaluated inside the ``with`` block, in order."""
    log: list[Diagnostics] = []
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


def note(diagnostics: Diagnostics) -> None:
    """Adds to the log of the enclosing `record_diagnostics`, if any."""
    if (log := _log.get()) is not None:
        log.append(diagnostics)
