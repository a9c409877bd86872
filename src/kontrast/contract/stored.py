"""What a fitted system keeps beside its model: arrays as safetensors, and facts about them as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kontrast.errors import CheckpointError
from kontrast.files import read_json, write_json

Arrays = dict[str, npt.NDArray[Any]]
MEND = "train it again, or copy the model again"


def save_stored(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any], *, names: tuple[str, str]
) -> None:
    """Writes arrays and facts into a folder, which is made if it is not there.

    Args:
        folder: inside the folder of the model.
        arrays: numbers of any shape by name.
        facts: what JSON can hold.
        names: of the two files, the first ending in .safetensors and the second in .json.
    """
    folder.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / names[0])
    write_json(folder / names[1], facts)


@contextmanager
def loading_stored(folder: Path, *, names: tuple[str, str]) -> Iterator[tuple[Arrays, Any]]:
    """What `save_stored` wrote, for the body of a ``with`` to put together.

    Yields:
        The arrays by name, and the facts.

    Raises:
        CheckpointError: if a file is missing or damaged, or the body misses something in them (`KeyError`,
            `TypeError`, `ValueError`, `IndexError`).
    """
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"has no {name}", file=folder, mend=MEND)
    facts = read_json(folder / names[1])
    try:
        yield load_file(folder / names[0]), facts
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(f"is damaged ({reason})", file=folder, mend=MEND) from None
