"""Batches are the same wherever and whenever they are asked for."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import training_toy as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.errors import DataError
from kontrast.training import Batches, IndexedBatches, OrderedSampler, Shard, ShuffledSampler, to_device


def stream(rows: int = 20, size: int = 6) -> IndexedBatches:
    return IndexedBatches(
        ShuffledSampler(rows, size, seed=1),
        lambda rows, rng: {"rows": rows, "noise": rng.normal(size=len(rows))},
        seed=2,
    )


def test_it_is_a_stream_of_batches() -> None:
    assert isinstance(stream(), Batches)


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    one, other = stream(), stream()
    keys = [(epoch, index) for epoch in range(4) for index in range(one.count(epoch))]
    forwards = {key: one.get(*key) for key in keys}
    backwards = {key: other.get(*key) for key in reversed(keys)}
    for key in keys:
        assert np.array_equal(forwards[key]["rows"], backwards[key]["rows"])
        assert np.array_equal(forwards[key]["noise"], backwards[key]["noise"])
    noises = np.concatenate([batch["noise"] for batch in forwards.values()])
    assert len(np.unique(noises)) == len(noises), "no two batches draw the same numbers"


@given(rows=st.integers(0, 40), world=st.integers(1, 7))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_shards_joined_in_order_of_rank_are_the_batch(rows: int, world: int) -> None:
    parts = [Shard(rank, world).take(np.arange(rows)) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), np.arange(rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_ranks_draw_different_numbers() -> None:
    first, second = (stream().get(0, 0, Shard(rank, 2))["noise"] for rank in (0, 1))
    assert not np.array_equal(first, second)


def test_a_batch_with_fewer_rows_than_processes_is_an_error() -> None:
    batches = IndexedBatches(OrderedSampler(5, 4), lambda rows, rng: rows, seed=0)
    assert batches.get(0, 1, Shard(0, 2)).tolist() == [4]
    with pytest.raises(DataError, match="batch 1 of epoch 0 has 1 rows for 2 processes"):
        batches.get(0, 1, Shard(1, 2))


def test_wrong_places_are_errors() -> None:
    with pytest.raises(IndexError, match="epoch 0 has 4 batches, batch 4"):
        stream().get(0, 4)
    with pytest.raises(ValueError, match="rank=2 and world=2"):
        Shard(2, 2)


def test_fingerprint_covers_order_seed_and_data() -> None:
    sampler = OrderedSampler(4, 2)
    prints = {
        IndexedBatches(chosen, lambda rows, rng: rows, seed=seed, data=data).fingerprint()
        for chosen, seed, data in [(sampler, 0, ""), (sampler, 1, ""), (sampler, 0, "x"), (OrderedSampler(4, 4), 0, "")]
    }
    assert len(prints) == 4


Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Frozen:
    tensor: torch.Tensor
    name: str


class Encoding:
    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def to(self, device: str) -> Encoding:
        return Encoding(device)


def test_to_device_keeps_types() -> None:
    tensor = torch.zeros(2)
    moved = to_device(
        {"pair": Pair(tensor, [tensor, "text"]), "frozen": Frozen(tensor, "x"), "encoding": Encoding(), "n": 3}, "meta"
    )
    assert moved["pair"].left.device.type == "meta"
    assert moved["pair"].right[0].device.type == "meta"
    assert moved["pair"].right[1] == "text"
    assert moved["frozen"].tensor.device.type == "meta"
    assert moved["frozen"].name == "x"
    assert moved["encoding"].device == "meta"
    assert moved["n"] == 3


def test_toy_batches_are_of_the_size_they_say() -> None:
    batches = toy.batches()
    assert sum(len(batches.get(0, index)["row"]) for index in range(batches.count(0))) == toy.ROWS
