"""Files of vectors: parquet (id, kind, the data's own columns, vector as a list of float32) and npz (vectors, ids)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:  # the contract brings torch; reading a run needs none of it
    from kontrast.contract import Embeddings

_ROWS = 16_384


def write_vectors(
    path: Path,
    embeddings: Embeddings,
    *,
    split: str | Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes vectors by the ending of `path`: .npz, else parquet, row group by row group and without a second copy.

    Args:
        path: where; the caller moves it into its place once it is whole.
        embeddings: n rows.
        split: a column of that name, one word for all rows or one for each; None: no such column.
        facts: words kept with the file, as metadata named ``kontrast.<name>``.

    Raises:
        ValueError: if `split` has another length, or a column is named like one of ours.
    """
    if path.suffix == ".npz":
        np.savez(path, vectors=embeddings.vectors, ids=np.asarray(embeddings.ids, dtype=np.str_))
        return
    n = len(embeddings)
    columns = {"id": list(map(str, embeddings.ids)), "kind": _each(embeddings.kind, n)}
    if split is not None:
        columns["split"] = _each(split, n)
    if clash := sorted({*columns, "vector"} & set(embeddings.columns)):
        ours = sorted({*columns, "vector"})
        raise ValueError(f"columns {clash} of the embeddings are named like those of the file: {ours}")
    rows = pa.Table.from_pandas(pd.DataFrame({**columns, **embeddings.columns}), preserve_index=False)
    schema = rows.schema.append(pa.field("vector", pa.list_(pa.float32())))
    words = {f"kontrast.{key}": getattr(embeddings, key) or "" for key in ("label", "hover")}
    words |= {f"kontrast.{key}": value for key, value in (facts or {}).items()}
    schema = schema.with_metadata({**(rows.schema.metadata or {}), **words})
    with pq.ParquetWriter(path, schema) as writer:
        for start, block in _blocks(embeddings.vectors):
            offsets = np.arange(len(block) + 1, dtype=np.int32) * block.shape[1]
            vectors = pa.ListArray.from_arrays(pa.array(offsets), pa.array(block.ravel()))
            writer.write_table(rows.slice(start, len(block)).append_column("vector", vectors).cast(schema))


def read_facts(path: Path) -> dict[str, str] | None:
    """The `facts` of a parquet file of vectors; None if there is no such file or it is not whole."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    words = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"kontrast.")}
    return {key.removeprefix("kontrast."): value for key, value in words.items()}


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, max(len(vectors), 1), _ROWS):
        yield start, np.ascontiguousarray(vectors[start : start + _ROWS])


def _each(value: str | Sequence[str], n: int) -> list[str]:
    if isinstance(value, str):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{len(value)} values for {n} rows")
    return list(map(str, value))
