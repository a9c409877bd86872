"""Splits: stated ones are obeyed, made ones cannot leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data import Splits, Table, connected_groups, leak_free_parts, leaked_rows, split_table
from kontrast.errors import DataError

PARTS = ("train", "valid", "test")


def pairs(n: int, distinct: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(distinct, size=n), rng.integers(distinct, size=n)
    return Table.of({"q": [f"Q {i}" for i in left], "a": [f"a{i}" for i in right], "n": list(range(n))})


def slow_groups(keys: list[list[object]]) -> list[set[int]]:
    groups = [{i} for i in range(len(keys[0]))]
    merged = True
    while merged:
        merged = False
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                linked = any(
                    key[a] == key[b] and key[a] is not None for key in keys for a in groups[i] for b in groups[j]
                )
                if linked:
                    groups[i] |= groups.pop(j)
                    merged = True
                    break
            if merged:
                break
    return groups


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6))), min_size=1, max_size=12))
def test_groups_equal_the_slow_twin(rows: list[tuple[int, int | None]]) -> None:
    keys = [[a for a, _ in rows], [b for _, b in rows]]
    fast = connected_groups(keys)
    assert {frozenset(np.flatnonzero(fast == g).tolist()) for g in set(fast)} == {
        frozenset(g) for g in slow_groups(keys)
    }


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(2, 60), st.integers(2, 200), st.integers(0, 5))
def test_no_value_crosses_a_border(n: int, distinct: int, seed: int) -> None:
    table = pairs(n, distinct, seed)
    splits = split_table(table, ["q", "a"], seed=seed)
    seen = dict(splits)
    assert sum(map(len, seen.values())) == n
    for name, part in seen.items():
        for other, rest in seen.items():
            if name != other:
                assert not set(part.texts("q")) & set(rest.texts("q"))
                assert not set(part.texts("a")) & set(rest.texts("a"))
                assert not len(leaked_rows(part, rest, ["q", "a"]))


def test_the_group_column_binds_too() -> None:
    table = Table.of({"q": [f"q{i}" for i in range(200)], "patient": [i // 4 for i in range(200)]})
    splits = split_table(table, ["q"], group="patient")
    patients = [set(part.ids("patient")) for _, part in splits]
    assert sum(map(len, patients)) == 50


def test_case_and_spaces_do_not_hide_a_leak() -> None:
    texts = [f"Text {i}" for i in range(50)] + [f"  text   {i} " for i in range(50)]
    splits = split_table(Table.of({"q": texts}), ["q"])
    for _, part in splits:
        assert len(part) % 2 == 0


def test_row_order_changes_nothing() -> None:
    table = pairs(300, 400)
    order = np.random.default_rng(1).permutation(300)
    plain = {name: set(part.ids("n")) for name, part in split_table(table, ["q", "a"], seed=3)}
    mixed = {name: set(part.ids("n")) for name, part in split_table(table.take(order), ["q", "a"], seed=3)}
    assert plain == mixed


def test_seeds_differ_and_repeat() -> None:
    keys = [list(range(200))]
    first, again, other = leak_free_parts(keys, 0), leak_free_parts(keys, 0), leak_free_parts(keys, 1)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("fractions", [(0.8, 0.05, 0.15), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1), (1.0, 0.0, 0.0)])
def test_fractions_are_met(fractions: tuple[float, float, float]) -> None:
    parts = leak_free_parts([list(range(2000))], 0, fractions)
    np.testing.assert_allclose([(parts == name).mean() for name in PARTS], fractions, atol=0.01)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_small_data_always_keep_training_rows(n: int) -> None:
    parts = leak_free_parts([list(range(n))])
    assert (parts == "train").any()
    assert (parts == "test").any() == (n > 1)


def test_a_giant_group_goes_to_train() -> None:
    keys = [["same"] * 80 + [f"own {i}" for i in range(20)]]
    parts = leak_free_parts(keys, 0, (0.8, 0.1, 0.1))
    assert set(parts[:80]) == {"train"}
    assert (parts == "test").sum() == 10


def test_rows_that_all_hang_together_cannot_be_split() -> None:
    table = Table.of({"q": ["same"] * 10})
    with pytest.raises(DataError, match=r"part 'test' has no rows.*add a column 'split'"):
        split_table(table, ["q"], require=("train", "test"))


def test_a_stated_split_is_obeyed_with_its_aliases() -> None:
    table = Table.of({"q": list("abcdef"), "split": ["train", "val", "Dev ", "validation", "TEST", "training"]})
    splits = split_table(table, ["q"])
    assert {name: part.texts("q") for name, part in splits} == {
        "train": ["a", "f"], "valid": ["b", "c", "d"], "test": ["e"],
    }  # fmt: skip


def test_stated_splits_with_faults() -> None:
    with pytest.raises(DataError, match=r"column 'split' holds 'holdout'.*use train, valid"):
        split_table(Table.of({"q": ["a"], "split": ["holdout"]}), ["q"])
    with pytest.raises(DataError, match=r"part 'test' has no rows \(train 1, valid 0, test 0\)"):
        split_table(Table.of({"q": ["a"], "split": ["train"]}), ["q"], require=("train", "test"))
    with pytest.raises(DataError, match="'split' has 1 empty cell"):
        split_table(Table.of({"q": ["a", "b"], "split": ["train", None]}), ["q"])
    with pytest.raises(DataError, match="part 'train' has no rows"):
        split_table(Table.of({"q": ["a"], "split": ["test"]}), ["q"], require=())


def test_leaks_in_a_stated_split_are_found() -> None:
    train, test = Table.of({"q": ["One two", "b"]}), Table.of({"q": ["c", "one  TWO"]})
    assert leaked_rows(train, test, ["q"]).tolist() == [1]


def test_vectors_can_be_keys() -> None:
    table = Table.of({"v": [[1, 2], [1, 2], [3, 4]]})
    assert connected_groups([[(1, 2), (1, 2), (3, 4)]]).tolist() == [0, 0, 1]
    assert len(split_table(table, ["v"]).train) >= 1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        leak_free_parts([[1]], 0, (0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="key 0 has 2 values and key 1 has 1"):
        connected_groups([[1, 2], [1]])


def test_splits_map_and_iterate() -> None:
    splits = Splits([1, 2], test=[3])
    assert dict(splits) == {"train": [1, 2], "test": [3]}
    assert splits.map(len) == Splits(2, None, 1)
