"""The queue is a list from which the oldest fall out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import multiprocessing as mp

from kontrast.negatives import FeatureQueue

batches = st.lists(st.integers(0, 9), min_size=0, max_size=8)


def _fill(queue: FeatureQueue, sizes: list[int], start: int = 0) -> int:
    for size in sizes:
        values = torch.arange(start, start + size)
        queue.enqueue(torch.stack([values, -values], dim=1).float(), values + 100)
        start += size
    return start


@settings(deadline=None, max_examples=100, derandomize=True)
@given(size=st.integers(1, 7), sizes=batches)
def test_is_a_list_from_which_the_oldest_fall_out(size: int, sizes: list[int]) -> None:
    queue = FeatureQueue(size, 2)
    total = _fill(queue, sizes)
    kept = list(range(total))[-size:]
    assert queue.features()[:, 0].tolist() == kept
    assert queue.features()[:, 1].tolist() == [-x for x in kept]
    assert queue.ids().tolist() == [x + 100 for x in kept]
    assert len(queue) == len(kept)
    assert queue.full == (total >= size)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(size=st.integers(1, 7), before=batches, after=batches)
def test_a_resumed_queue_remembers_everything(size: int, before: list[int], after: list[int]) -> None:
    one, two = FeatureQueue(size, 2), FeatureQueue(size, 2)
    total = _fill(one, before)
    two.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
    for queue in (one, two):
        _fill(queue, after, total)
    assert torch.equal(one.features(), two.features())
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key])


def test_state_names_everything_it_owns() -> None:
    assert set(FeatureQueue(3, 2).state_dict()) == {"rows", "row_ids", "pointer", "filled"}


def test_in_one_batch_or_many_is_the_same() -> None:
    one, two = FeatureQueue(4, 2), FeatureQueue(4, 2)
    _fill(one, [11])
    _fill(two, [1] * 11)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key])


def test_a_later_enqueue_leaves_a_pending_backward_alone() -> None:
    queue = FeatureQueue(2, 2)
    _fill(queue, [2])
    x = torch.ones(1, 2, requires_grad=True)
    loss = (x @ queue.features().T).square().sum()
    _fill(queue, [2], 5)
    loss.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 0.0]]


def test_half_precision_keys_and_no_ids() -> None:
    queue = FeatureQueue(3, 2)
    queue.enqueue(torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True))
    assert queue.features().dtype == torch.float32
    assert not queue.features().requires_grad
    assert queue.ids().tolist() == [-1, -1]
    queue.clear()
    assert queue.features().shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FeatureQueue(0, 2), "size=0"),
        (lambda: FeatureQueue(2, 2).enqueue(torch.ones(3, 4)), r"\(n, 2\), got .* \(3, 4\)"),
        (lambda: FeatureQueue(2, 2).enqueue(torch.ones(3, 2).long()), "floating point"),
        (lambda: FeatureQueue(2, 2).enqueue(torch.ones(3, 2), torch.ones(2).long()), r"\(3,\), got .* \(2,\)"),
        (lambda: FeatureQueue(2, 2).enqueue(torch.ones(3, 2), torch.ones(3)), "integers"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    queue = FeatureQueue(5, 2, group="world")
    # Uneven ranks, wrapping round, and in the last step more rows than the queue holds.
    for step, sizes in enumerate([(2, 1), (1, 2), (0, 1), (4, 3)]):
        values = torch.arange(sizes[rank]) + 100 * step + 10 * rank
        queue.enqueue(torch.stack([values, -values], dim=1).float(), values)
        torch.save(queue.state_dict(), f"{folder}/{rank}-{step}.pt")
    dist.destroy_process_group()


def test_all_ranks_hold_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    alone = FeatureQueue(5, 2)
    for step, sizes in enumerate([(2, 1), (1, 2), (0, 1), (4, 3)]):
        values = torch.cat([torch.arange(size) + 100 * step + 10 * rank for rank, size in enumerate(sizes)])
        alone.enqueue(torch.stack([values, -values], dim=1).float(), values)
        for rank in range(2):
            state = torch.load(tmp_path / f"{rank}-{step}.pt", weights_only=True)
            for key, value in alone.state_dict().items():
                assert torch.equal(state[key], value), (rank, step, key)
