"""The transformer in two halves, and the arrays that are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kontrast.encoders import kept, resolve_text_encoder
from kontrast.encoders.kept import KeptArrays, RecentlyUsed
from kontrast.encoders.layered import FrozenLayers, SlotRows, TrainedLayers, WholeTransformer, layer_count, read_place
from kontrast.encoders.text import TextEncoderConfig
from kontrast.encoders.tokens import TokenIds
from kontrast.errors import ConfigError

TEXTS = ["one two three", "four five six seven eight nine ten", "two", "three four five six", "seven nine"]


@pytest.fixture(scope="module")
def encoder():
    config = TextEncoderConfig(name="transformer", dim=24, layers=3, heads=2, vocab_size=100, max_tokens=24)
    return resolve_text_encoder(config, texts=TEXTS * 2).eval()


@pytest.fixture(scope="module")
def rows(encoder):
    tokens = encoder.tokenize(TEXTS)
    whole = TokenIds.of([[*encoder._before, *tokens.row(row), *encoder._after] for row in range(len(TEXTS))])
    return SlotRows(whole, np.maximum(0, whole.lengths - 2))


@pytest.mark.parametrize("place", ["mean", "mask", "eos"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_two_halves_say_what_the_whole_says(encoder, rows, place, frozen):
    batch = rows.padded(encoder._pad)
    with torch.no_grad():
        whole = WholeTransformer(encoder, place).eval()(**batch)
    assert len(whole) == layer_count(encoder) + 1
    found = dict(FrozenLayers(encoder, frozen).states(rows))
    states = torch.zeros(*batch["ids"].shape, encoder.dim)
    for row, own in found.items():
        states[row, : len(own)] = torch.from_numpy(own)
    with torch.no_grad():
        reads = TrainedLayers(encoder, frozen, place).eval()(states, batch["mask"], batch["slot"])
    for mine, other in zip(reads, whole[frozen:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_frozen_states_of_a_row_do_not_depend_on_its_neighbours(encoder, rows):
    found = dict(FrozenLayers(encoder, 2).states(rows))
    for row in range(len(rows)):
        alone = dict(FrozenLayers(encoder, 2).states(rows[np.asarray([row])]))[0]
        np.testing.assert_allclose(alone, found[row], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_trained_layers_are_copies_and_all_learn(encoder, rows, frozen):
    batch = rows.padded(encoder._pad)
    encoder.requires_grad_(not frozen)  # one that several systems share is frozen
    upper = TrainedLayers(encoder, 1, "mask").train()
    assert all(parameter.requires_grad for parameter in WholeTransformer(encoder, "mask").parameters())
    states = torch.randn(*batch["ids"].shape, encoder.dim, generator=torch.Generator().manual_seed(0))
    upper(states, batch["mask"], batch["slot"])[-1].square().sum().backward()
    assert all(parameter.grad is not None for parameter in upper.parameters())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_places():
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    slot = torch.tensor([0, 1])
    assert read_place(states, mask, slot, "mask").tolist() == [[0.0, 1.0], [8.0, 9.0]]
    assert read_place(states, mask, slot, "eos").tolist() == [[4.0, 5.0], [8.0, 9.0]]
    assert read_place(states, mask, slot, "mean").tolist() == [[2.0, 3.0], [7.0, 8.0]]


def test_too_many_frozen_layers(encoder):
    with pytest.raises(ConfigError, match="has 3 layers, got 4"):
        FrozenLayers(encoder, 4)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))


def test_kept_arrays_come_back_from_the_disk(own_cache, monkeypatch):
    first = KeptArrays("test-disk")
    arrays = {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float16)}
    first.put(arrays)
    kept._memory.clear()
    found = KeptArrays("test-disk").get(["a", "b", "c"])
    assert sorted(found) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert KeptArrays("test-disk", "off").get(["a"]) == {}
    assert KeptArrays("another").get(["a"]) == {}


def test_a_damaged_file_of_kept_arrays_costs_nothing_but_time(own_cache, monkeypatch):
    first = KeptArrays("test-damaged")
    first.put({"a": np.arange(3)})
    first.path.write_bytes(b"no database" * 1000)
    kept._memory.clear()
    assert KeptArrays("test-damaged").get(["a"]) == {}
    KeptArrays("test-damaged").put({"a": np.arange(3)})  # clears the damage away
    KeptArrays("test-damaged").put({"b": np.arange(4)})
    kept._memory.clear()
    assert list(KeptArrays("test-damaged").get(["b"])) == ["b"]


def test_memory_lets_the_oldest_go():
    held = RecentlyUsed(100, lambda array: array.nbytes)
    for number in range(5):
        held.put(str(number), np.zeros(5))
    assert [number for number in range(5) if held.get(str(number)) is not None] == [3, 4][-len(held.held) :]
    held.put("large", np.zeros(50))
    assert list(held.held) == ["large"]
