"""What systems hand back: embeddings, measurements, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the names of their rows.

    Attributes:
        vectors: float32, shape (n, d), finite.
        ids: n names, unique within a kind.
        kind: what a row is ("node", "cell" ...): one word for all rows, or one for each.
        columns: further columns of n values (labels, texts) for tables, colours and hover texts.
        label: name of the column that colours a map, if any.
        hover: name of the column that a map shows under the pointer, if any.
    """

    vectors: NDArray[np.float32]
    ids: Sequence[str]
    kind: str | Sequence[str]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    label: str | None = None
    hover: str | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32 or len(self.vectors) != n:
            raise ValueError(
                f"vectors must be float32 of shape ({n}, d) for {n} ids, got {self.vectors.dtype} {self.vectors.shape}"
            )
        for name, values in self.columns.items():
            if len(values) != n:
                raise ValueError(f"column '{name}' has {len(values)} values for {n} rows")

    def __len__(self) -> int:
        return len(self.ids)

    def to_frame(self) -> pd.DataFrame:
        """One row per vector: id, kind, the further columns, and `vector` as a list of float32."""
        frame: dict[str, Any] = {"id": list(self.ids), "kind": self.kind, **self.columns, "vector": list(self.vectors)}
        return pd.DataFrame(frame)


@dataclass(frozen=True)
class Measurement:
    """Metrics of one evaluation.

    Attributes:
        metrics: name to value; names are shared across systems ("recall@10", "auroc", "nmi" ...).
        items: the primary metric's value per test item, where it is a mean over items; paired intervals resample these.
            Rows are named by `item_ids`, so that two runs on the same data can be paired.
        item_ids: names of the items.
    """

    metrics: dict[str, float]
    items: NDArray[np.float64] | None = None
    item_ids: Sequence[str] | None = None


@dataclass(frozen=True)
class Figure:
    """Something a person of the field looks at: exactly one of a plotly figure, a PNG or a table.

    Attributes:
        title: short heading.
        caption: what to see in it, in a sentence.
        plotly: figure as plotly's JSON-able dict (data, layout).
        image: PNG bytes.
        table: rows to show.
    """

    title: str
    caption: str
    plotly: dict[str, Any] | None = None
    image: bytes | None = None
    table: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if sum(body is not None for body in (self.plotly, self.image, self.table)) != 1:
            raise ValueError(f"figure '{self.title}' needs exactly one of plotly, image or table")
