"""A call of the command line and what it gave back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SMALL = ("--epochs", "2", "--text.dim", "64", "--text.vocab-size", "500", "--batch-size", "64")


@dataclass(frozen=True)
class Said:
    """What a call of the command line gave back."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output; fails if anything else is there."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1, f"more than one line on standard output: {self.out[:300]!r}"
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


Call = Callable[..., Said]
