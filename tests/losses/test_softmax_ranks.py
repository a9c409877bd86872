"""Every softmax-type objective has on several ranks, with uneven batches, the joined batch's value and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import test_distance_ranks
import torch
import torch.distributed as dist
from torch import Tensor
from torch import multiprocessing as mp

from kontrast.losses import (
    clip_loss,
    dcl,
    debiased_loss,
    grace,
    hard_negative_loss,
    info_nce,
    multi_positive,
    nt_xent,
    objectives,
    prototype_loss,
    queue_loss,
    sigmoid_loss,
    supcon,
)
from kontrast.ops import Group, engine_settings

ROWS = 7
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 5])  # row 6 has no positive
IDS = torch.tensor([0, 1, 1, 2, 3, 4, 0])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.1, 3.0, 1.0], dtype=torch.float64)


def _rows(n: int, seed: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Each takes embeddings x, y (n, 3), a temperature, prototypes (5, 3), the rows' places in the joined batch, the group.
CASES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "info_nce": ("info_nce", lambda x, y, t, p, at, g: info_nce(x, y, temperature=t, group=g)),
    "info_nce options": (
        "info_nce",
        lambda x, y, t, p, at, g: info_nce(
            x,
            y,
            temperature=t,
            ids=IDS[at],
            weights=WEIGHTS[at],
            hard_negatives=torch.stack([x + y, y - x], 1),
            log_weights=y.sum(1),
            group=g,
        ),
    ),
    "info_nce sum": ("info_nce", lambda x, y, t, p, at, g: info_nce(x, y, temperature=t, reduction="sum", group=g)),
    "clip_loss": ("clip_loss", lambda x, y, t, p, at, g: clip_loss(x, y, temperature=t, group=g)),
    "clip_loss options": (
        "clip_loss",
        lambda x, y, t, p, at, g: clip_loss(x, y, temperature=t, ids=IDS[at], weights=WEIGHTS[at], group=g),
    ),
    "nt_xent views": ("nt_xent", lambda x, y, t, p, at, g: nt_xent(x, y, temperature=t, group=g)),
    "nt_xent labels": ("nt_xent", lambda x, y, t, p, at, g: nt_xent(x, labels=LABELS[at], temperature=t, group=g)),
    "grace": ("grace", lambda x, y, t, p, at, g: grace(x, y, temperature=t, ids=IDS[at], group=g)),
    "dcl joint": ("dcl", lambda x, y, t, p, at, g: dcl(x, y, temperature=t, group=g)),
    "dcl separate": ("dcl", lambda x, y, t, p, at, g: dcl(x, y, temperature=t, partition="separate", group=g)),
    "supcon": ("supcon", lambda x, y, t, p, at, g: supcon(x, LABELS[at], temperature=t, group=g)),
    "supcon in": (
        "supcon",
        lambda x, y, t, p, at, g: supcon(
            x, LABELS[at], temperature=t, placement="in", ids=IDS[at], weights=WEIGHTS[at], group=g
        ),
    ),
    "hard_negative_loss": (
        "hard_negative_loss",
        lambda x, y, t, p, at, g: hard_negative_loss(x, y, temperature=t, debias=0.1, group=g),
    ),
    "hard separate": (
        "hard_negative_loss",
        lambda x, y, t, p, at, g: hard_negative_loss(x, y, temperature=t, partition="separate", group=g),
    ),
    "debiased_loss": ("debiased_loss", lambda x, y, t, p, at, g: debiased_loss(x, y, temperature=t, group=g)),
    "multi_positive": (
        "multi_positive",
        lambda x, y, t, p, at, g: multi_positive(x, y, [[i] for i in range(len(x))], temperature=t, group=g),
    ),
    "prototype_loss": (
        "prototype_loss",
        lambda x, y, t, p, at, g: prototype_loss(
            x, LABELS[at], p, prototype_labels=torch.tensor([0, 1, 2, 2, 3]), temperature=t, group=g
        ),
    ),
    "queue_loss": ("queue_loss", lambda x, y, t, p, at, g: queue_loss(x, y, p, temperature=t, group=g)),
    "sigmoid_loss": (
        "sigmoid_loss",
        lambda x, y, t, p, at, g: sigmoid_loss(x, y, temperature=t, bias=p.sum(), ids=IDS[at], group=g),
    ),
}


def _gradients(objective: Callable[..., Tensor], at: Tensor, group: Group) -> list[Tensor]:
    """The value, and the gradients of what ranks share: a layer, the temperature, the prototypes."""
    layer = _rows(3, 9).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    prototypes = _rows(5, 3)[:, :3].clone().requires_grad_()
    x, y = _rows(ROWS, 0)[at] @ layer.t(), _rows(ROWS, 1)[at] @ layer.t()
    loss = objective(x, y, temperature, prototypes, at, group)
    gradients = torch.autograd.grad(loss, (layer, temperature, prototypes), allow_unused=True)
    return [loss.detach(), *(torch.zeros(()) if one is None else one.contiguous() for one in gradients)]


def _work(rank: int, folder: str, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    first_two = dist.new_group([0, 1])
    assert first_two is not None
    for case, (sizes, group) in {"world": ([3, 3, 1], "world"), "group": ([4, 3], first_two)}.items():
        if rank >= len(sizes):
            continue
        at = torch.arange(ROWS).split(sizes)[rank]
        found = {}
        for name, (_, objective) in CASES.items():
            with engine_settings(path=path, tile=(2, 3), threads=1):  # type: ignore[arg-type]
                loss, *gradients = _gradients(objective, at, group)
            for one in gradients:
                dist.all_reduce(one, group=None if group == "world" else group)
            found[name] = [loss, *(one / len(sizes) for one in gradients)]
        torch.save(found, f"{folder}/{case}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("path", ["dense", "tiled"])
def test_ranks_equal_the_joined_batch(tmp_path: Path, path: str) -> None:
    mp.spawn(_work, args=(str(tmp_path), path), nprocs=3)
    files = sorted(tmp_path.glob("*.pt"))
    assert [file.stem for file in files] == ["group-0", "group-1", "world-0", "world-1", "world-2"]
    joined = {name: _gradients(objective, torch.arange(ROWS), None) for name, (_, objective) in CASES.items()}
    for file in files:
        found = torch.load(file, weights_only=True)
        for name in CASES:
            for index, (one, other) in enumerate(zip(found[name], joined[name])):
                where = f"output {index} of {name} in {file.stem}: {one} and {other}"
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=where)


def test_every_objective_is_tested_on_ranks() -> None:
    here = {objectives()[function].function for function, _ in CASES.values()}
    there = {function for function, _ in test_distance_ranks.OBJECTIVES.values()}
    assert {objective.function for objective in objectives().values()} == here | there
    for objective in objectives().values():
        assert objective.combine in ("gathered_candidates", "reduced_statistics", "mean_of_locals")
