"""Batches of every kind are cut into parts that together are the batch; what cannot be cut is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from kontrast.errors import ConfigError
from kontrast.training import split_rows


@dataclass(frozen=True)
class Views:
    first: Tensor
    second: Tensor
    scale: float = 2.0


class Named(NamedTuple):
    x: Tensor
    names: list[str]


ROWS = torch.arange(7)


def test_containers_keep_their_kind() -> None:
    batch = {
        "views": Views(ROWS[:, None], ROWS * 2),
        "named": Named(ROWS * 3, [str(row) for row in range(7)]),
        "pair": (ROWS.float(), [ROWS, ROWS + 1]),
        "array": ROWS.numpy(),
        "scale": torch.tensor(3.0),
        "word": "as it is",
        "nothing": None,
    }
    parts = split_rows(batch, 3)
    assert [len(part["views"].first) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part["views"].second for part in parts]), ROWS * 2)
    assert [name for part in parts for name in part["named"].names] == batch["named"].names
    assert torch.equal(torch.cat([part["pair"][1][1] for part in parts]), ROWS + 1)
    assert np.array_equal(np.concatenate([part["array"] for part in parts]), ROWS.numpy())
    for part in parts:
        assert isinstance(part["views"], Views)
        assert isinstance(part["named"], Named)
        assert isinstance(part["pair"], tuple)
        assert (part["scale"], part["word"], part["nothing"], part["views"].scale) == (3.0, "as it is", None, 2.0)


def test_rows_of_unequal_length_are_cut_at_their_offsets() -> None:
    rows = [[5, 6], [], [7], [1, 2, 3], []]
    flat = torch.tensor([one for row in rows for one in row])
    offsets = torch.tensor([0, 2, 2, 3, 6])
    batch = {"left": {"ids": flat, "weights": flat * 0.5, "offsets": offsets}, "y": torch.arange(5)}
    found = []
    for part in split_rows(batch, 2):
        ids, starts = part["left"]["ids"], part["left"]["offsets"].tolist()
        assert torch.equal(part["left"]["weights"], ids * 0.5)
        assert len(starts) == len(part["y"])
        found += [ids[a:b].tolist() for a, b in zip(starts, [*starts[1:], len(ids)])]
    assert found == rows


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"x": torch.zeros(4, 2), "edges": torch.zeros(2, 9)}, ("'x' has 4", "'edges' 2")),
        ({"x": torch.zeros(4), "deep": [torch.zeros(3)]}, ("'deep.0' 3",)),
        ({"a": 1, "b": torch.tensor(2.0)}, ("holds no tensor",)),
        ({"x": torch.zeros(4), "graph": object()}, ("'graph', which is of type object",)),
        ({"ids": torch.zeros(5), "more": torch.zeros(4), "offsets": torch.tensor([0, 2])}, ("[4, 5] entries",)),
    ],
)
def test_what_cannot_be_cut_is_named(batch: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        split_rows(batch, 2)
    for word in (*words, "micro_batch", "'split'"):
        assert word in str(caught.value)
