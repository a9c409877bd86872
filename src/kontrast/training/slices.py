"""Cutting a batch into parts of some rows each, whatever it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kontrast.errors import ConfigError

_MEND = "override 'split' of the model, or train without micro_batch"


def split_rows(batch: Any, rows: int) -> list[Any]:
    """The parts of a batch, `rows` rows each and the last one maybe fewer.

    A batch is tensors, arrays, mappings, tuples, lists and dataclasses of such, all with the same number of rows as
    their first dimension. A list of plain values (texts, say) with one value per row is cut, too. A mapping that holds
    ``offsets`` (n,), the starts of rows of unequal length as in `torch.nn.EmbeddingBag`, is n rows of whatever else it
    holds. Single values and tensors without a dimension belong to the whole batch and are in each part.

    Raises:
        ConfigError: if the number of rows cannot be told, or something in the batch has another.
    """
    count = row_count(batch)
    return [_cut(batch, first, min(first + rows, count), count) for first in range(0, count, rows)]


def row_count(batch: Any) -> int:
    """How many rows a batch has; raises what `split_rows` raises."""
    found: dict[int, str] = {}
    _count(batch, "", found)
    if not found:
        raise ConfigError(f"option 'micro_batch' needs batches with rows, and this one holds no tensor; {_MEND}.")
    if len(found) > 1:
        (first, here), (second, there) = list(found.items())[:2]
        raise ConfigError(
            f"option 'micro_batch' cannot tell the rows of a batch: {here} has {first} and {there} {second}; {_MEND}."
        )
    return next(iter(found))


def _count(part: Any, name: str, found: dict[int, str]) -> None:
    """Notes each number of rows that there is, with the name of the first that has it."""
    shown = f"'{name}'" if name else "the batch"
    if isinstance(part, Tensor | np.ndarray):
        if part.ndim:
            found.setdefault(len(part), shown)
    elif _ragged(part):
        found.setdefault(len(part["offsets"]), shown)
    elif _plain(part):
        found.setdefault(len(part), shown)
    elif (members := _members(part)) is not None:
        for key, value in members.items():
            _count(value, f"{name}.{key}" if name else str(key), found)
    elif not isinstance(part, str | bytes | int | float | bool | None):
        kind = type(part).__name__
        raise ConfigError(f"option 'micro_batch' cannot split {shown}, which is of type {kind}; {_MEND}.")


def _cut(part: Any, first: int, last: int, count: int) -> Any:
    if isinstance(part, Tensor | np.ndarray):
        return part[first:last] if part.ndim else part
    if _ragged(part):
        return _cut_ragged(part, first, last)
    if _plain(part):
        return type(part)(part[first:last])
    members = _members(part)
    if members is None:
        return part
    cut = {key: _cut(value, first, last, count) for key, value in members.items()}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return dataclasses.replace(part, **cut)
    if isinstance(part, Mapping):
        return cut
    return type(part)(*cut.values()) if hasattr(part, "_fields") else type(part)(cut.values())


def _members(part: Any) -> dict[Any, Any] | None:
    """What a container holds, by name; None if it is none."""
    if isinstance(part, Mapping):
        return dict(part)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return dict(zip(part._fields, part))
    return dict(enumerate(part)) if isinstance(part, list | tuple) else None


def _plain(part: Any) -> bool:
    """A list of texts or numbers, one per row."""
    return isinstance(part, list) and bool(part) and all(isinstance(one, str | int | float) for one in part)


def _ragged(part: Any) -> bool:
    offsets = part.get("offsets") if isinstance(part, Mapping) else None
    return isinstance(offsets, Tensor) and offsets.ndim == 1 and not offsets.is_floating_point()


def _cut_ragged(part: Mapping[str, Any], first: int, last: int) -> dict[str, Any]:
    offsets = part["offsets"]
    rows = len(offsets)
    flat = {key: value for key, value in part.items() if key != "offsets" and isinstance(value, Tensor) and value.ndim}
    lengths = {len(value) for key, value in flat.items()}
    if len(lengths) > 1:
        raise ConfigError(
            f"option 'micro_batch' cannot split rows told by 'offsets': their tensors have {sorted(lengths)} entries "
            f"and should have equally many; {_MEND}."
        )
    total = lengths.pop() if lengths else 0
    start = int(offsets[first])
    end = int(offsets[last]) if last < rows else total
    out = {key: value[start:end] if key in flat else value for key, value in part.items()}
    return {**out, "offsets": offsets[first:last] - start}


def same_rows(encoded: Mapping[str, Tensor], rows: int) -> None:
    """Checks that what was encoded follows the rows of its part.

    Raises:
        ConfigError: if a tensor has another first dimension.
    """
    for name, tensor in encoded.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != rows:
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ConfigError(
                f"option 'micro_batch' needs one row of each encoding per row of the batch; 'encode' returned '{name}' "
                f"of shape {shape} for {rows} rows; train without micro_batch."
            )


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The encodings of all parts, one after another."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
