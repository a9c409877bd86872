"""The errors a person can cause and mend.

Every one is a single sentence that names the file, the field and the mend. The command line prints it without a
traceback and exits with code 2; anything that is not a `KontrastError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike


class KontrastError(Exception):
    """Base of every error that its reader can mend."""


class DataError(KontrastError):
    """The data cannot be used as they are.

    Args:
        problem: what is wrong, with the value that came ("has 3 rows with an empty 'answer'").
        file: the file at fault, when there is one.
        mend: what to do about it, in the imperative ("drop them or fill them in").
    """

    def __init__(self, problem: str, *, file: str | PathLike[str] | None = None, mend: str | None = None) -> None:
        where = f"{file}: " if file is not None else ""
        super().__init__(f"{where}{'; '.join(part.rstrip('.') for part in (problem, mend) if part)}.")
        self.file = file


class ConfigError(KontrastError):
    """An option is unknown, of the wrong type or outside its range."""


class CheckpointError(DataError):
    """A saved model or checkpoint is missing, damaged or of another format version."""


class NotFittedError(KontrastError, AttributeError):
    """`embed`, `predict` or `evaluate` was called before `fit` or `load`."""


class MissingExtraError(KontrastError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence part for an unknown name: the nearest known one, then all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
