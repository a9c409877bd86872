"""Three ranks, and two of them as a group, with uneven batches have the value and the gradients of the joined batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from distance_twins import rows
from torch import Tensor
from torch import multiprocessing as mp

from kontrast.losses._margin import in_batch_hinge, quadruplet, ranking_hinge, triplet, triplet_from_distances
from kontrast.losses._mmd import mmd
from kontrast.losses._orthogonality import cosine_orthogonality, difference
from kontrast.losses._rank import rank_n_contrast, ranked_sets_contrast
from kontrast.losses._regularisers import barlow_twins, covariance_term, variance_term, vicreg
from kontrast.losses._uniformity import alignment, uniformity
from kontrast.ops import Group

LABELS = torch.tensor([0.0, 2.0, 1.0, 1.0, 5.0, 2.0, 0.5])
POSES = torch.tensor([[0.0, 3.0], [2.0, 1.0], [1.0, 1.0], [1.0, 4.0], [5.0, 0.0], [2.0, 2.0], [0.5, 7.0]])
CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 2])
IDS = torch.tensor([0, 1, 1, 2, 3, 4, 0])
MASK = torch.tensor(
    [[True, False], [True, True], [False, False], [True, True], [False, True], [True, True], [True, False]]
)


def _both_ways(a: Tensor, b: Tensor) -> list[Tensor]:
    """Distances of labels (b, 2), one for each column."""
    return [(a[:, None, i] - b[None, :, i]).abs() for i in (0, 1)]


# Each takes embeddings x, y (n, d), the places of these rows in the joined batch, and the group.
OBJECTIVES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "rank_n_contrast": (rank_n_contrast, lambda x, y, at, g: rank_n_contrast(x, LABELS[at], 0.5, block=2, group=g)),
    "ranked_sets_contrast": (
        ranked_sets_contrast,
        lambda x, y, at, g: ranked_sets_contrast(x, POSES[at], _both_ways, 0.5, classes=CLASSES[at], block=2, group=g),
    ),
    "ranking_hinge": (ranking_hinge, lambda x, y, at, g: ranking_hinge(x[:, 0], y[:, :2], mask=MASK[at], group=g)),
    "triplet_from_distances": (
        triplet_from_distances,
        lambda x, y, at, g: triplet_from_distances(x[:, 0], y[:, 0], reduction="sum", group=g),
    ),
    "triplet": (triplet, lambda x, y, at, g: triplet(x, y, y.flip(1), 1.0, reduction="active", group=g)),
    "quadruplet": (quadruplet, lambda x, y, at, g: quadruplet(x, y, y.flip(1), x.flip(1), group=g)),
    "in_batch_hinge": (in_batch_hinge, lambda x, y, at, g: in_batch_hinge(x, y, 0.5, group=g)),
    "in_batch_hinge with ids": (
        in_batch_hinge,
        lambda x, y, at, g: in_batch_hinge(
            x, y, 0.5, ids=IDS[at], reference=x.detach().flip(1), negatives="sum", block=2, group=g
        ),
    ),
    "alignment": (alignment, lambda x, y, at, g: alignment(x, y, group=g)),
    "uniformity": (uniformity, lambda x, y, at, g: uniformity(x, block=2, group=g)),
    "variance_term": (variance_term, lambda x, y, at, g: variance_term(x, 2.0, group=g)),
    "covariance_term": (covariance_term, lambda x, y, at, g: covariance_term(x, block=2, group=g)),
    "vicreg": (vicreg, lambda x, y, at, g: vicreg(x, y, block=1, group=g)),
    "barlow_twins": (barlow_twins, lambda x, y, at, g: barlow_twins(x, y, 0.1, group=g)),
    "mmd": (mmd, lambda x, y, at, g: mmd(x, y[1:] if int(at[0]) == 0 else y, block=2, group=g)),
    "mmd unbiased": (mmd, lambda x, y, at, g: mmd(x, y, [0.5, 2.0], biased=False, group=g)),
    "difference": (difference, lambda x, y, at, g: difference(x, y[:, :2], block=2, group=g)),
    "cosine_orthogonality": (cosine_orthogonality, lambda x, y, at, g: cosine_orthogonality(x, y, group=g)),
}


def _gradients(objective: Callable[..., Tensor], at: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    weight = rows(4, 3, 9).requires_grad_()
    x, y = rows(7, 4, 0)[at] @ weight, rows(7, 4, 1)[at] @ weight
    loss = objective(x, y, at, group)
    (gradient,) = torch.autograd.grad(loss, weight)
    return loss.detach(), gradient


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    first_two = dist.new_group([0, 1])
    assert first_two is not None
    for case, (sizes, group) in {"world": ([3, 3, 1], "world"), "group": ([4, 3], first_two)}.items():
        if rank >= len(sizes):
            continue
        at = torch.arange(7).split(sizes)[rank]
        found = {}
        for name, (_, objective) in OBJECTIVES.items():
            loss, gradient = _gradients(objective, at, group)
            dist.all_reduce(gradient, group=None if group == "world" else group)
            found[name] = (loss, gradient / len(sizes))
        torch.save(found, f"{folder}/{case}-{rank}.pt")
    dist.destroy_process_group()


def test_ranks_equal_the_joined_batch(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=3)
    files = sorted(tmp_path.glob("*.pt"))
    assert [file.stem for file in files] == ["group-0", "group-1", "world-0", "world-1", "world-2"]
    for file in files:
        found = torch.load(file, weights_only=True)
        for name, (_, objective) in OBJECTIVES.items():
            loss, gradient = _gradients(objective, torch.arange(7), None)
            where = f"{name} in {file.stem}"
            torch.testing.assert_close(found[name][0], loss, rtol=1e-9, atol=1e-12, msg=f"value of {where}")
            torch.testing.assert_close(found[name][1], gradient, rtol=1e-9, atol=1e-12, msg=f"gradient of {where}")


def test_every_objective_declares_how_ranks_combine() -> None:
    for function, _ in OBJECTIVES.values():
        assert function.combine in ("gathered_candidates", "reduced_statistics", "mean_of_locals")  # type: ignore[attr-defined]
