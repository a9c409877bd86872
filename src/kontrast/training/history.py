"""What happened during training, as rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]


@dataclass
class History:
    """The rows of a training, in order of time.

    A row has ``stage``, ``event``, ``epoch`` and ``step`` (steps done), ``learning_rate``, ``loss`` (the weighted sum),
    ``loss/<term>`` (before weighting) and ``weight/<term>``. Rows with event "step" hold the values of one step; rows
    with event "epoch" hold the mean over the epoch's steps, and ``valid/<metric>`` where it was validated.

    There is no clock time in it: two runs of the same seed, or one run and the same run killed and resumed, have equal
    histories byte for byte. Times are in ``timings.jsonl`` beside the logs.
    """

    rows: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def epochs(self) -> list[Row]:
        """The rows of whole epochs."""
        return [row for row in self.rows if row["event"] == "epoch"]

    def extend(self, rows: Iterable[Row]) -> None:
        """Adds the rows of a further stage."""
        self.rows.extend(rows)

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a data frame; a value that a row lacks is NaN."""
        import pandas

        return pandas.DataFrame(self.rows)

    def to_jsonl(self) -> str:
        """One JSON object per line; numbers are written so that they read back bit for bit."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)

    @classmethod
    def from_jsonl(cls, text: str) -> History:
        """Reads what `to_jsonl` wrote."""
        return cls([json.loads(line) for line in text.splitlines()])
