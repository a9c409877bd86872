"""Candidates on a ring: every objective that allows it has on several ranks the joined batch's value and gradients."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent.parent / "losses"))

import test_softmax_ranks as softmax

from kontrast.errors import ConfigError
from kontrast.losses import in_batch_hinge, info_nce, objectives, triplet, uniformity
from kontrast.negatives import FeatureQueue
from kontrast.ops import engine_settings, group_in_force, joined_ranks

CASES = {name: case for name, case in softmax.CASES.items() if objectives()[case[0]].ring}
SIZES = {2: ([4, 3],), 3: ([3, 3, 1], [0, 5, 2])}


def _work(rank: int, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for number, sizes in enumerate(SIZES[world]):
        at = torch.arange(softmax.ROWS).split(sizes)[rank]
        for path in ("tiled",) if world == 2 else ("dense", "tiled"):
            for name, (_, objective) in CASES.items():
                settings = engine_settings(path=path, tile=(2, 3), threads=1, gather="ring")  # type: ignore[arg-type]
                # The group is not given to the objective: it is in force.
                with settings, joined_ranks("world"):
                    loss, *gradients = softmax._gradients(objective, at, None)
                for one in gradients:
                    dist.all_reduce(one)
                found[f"{name} | {path} | {number}"] = [loss, *(one / world for one in gradients)]
    torch.save(found, f"{folder}/ring-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_ring_equals_the_joined_batch(tmp_path: Path, world: int) -> None:
    mp.spawn(_work, args=(str(tmp_path), world), nprocs=world)
    joined = {name: softmax._gradients(case, torch.arange(softmax.ROWS), None) for name, (_, case) in CASES.items()}
    for rank in range(world):
        found = torch.load(tmp_path / f"ring-{rank}.pt", weights_only=True)
        assert len(found) == len(CASES) * {2: 1, 3: 4}[world]
        for name, values in found.items():
            for index, (one, other) in enumerate(zip(values, joined[name.split(" | ")[0]])):
                where = f"output {index} of {name} on rank {rank}: {one} and {other}"
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=where)


def _work_in_force(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x = torch.arange(6.0).reshape(3, 2)[: 3 - rank] + rank
    found = {"before": group_in_force() is None}
    alone = info_nce(x, x)
    with joined_ranks("world"):
        together = info_nce(x, x)
        found["in force"] = torch.equal(together, info_nce(x, x, group="world"))
        found["switched off"] = torch.equal(alone, info_nce(x, x, group="alone"))
        found["differ"] = not torch.equal(alone, together)
        queue, own = FeatureQueue(8, 2), FeatureQueue(8, 2, group="alone")
        queue.enqueue(x)
        own.enqueue(x)
        found["queue"] = len(queue) == 5 and len(own) == len(x)
        with engine_settings(gather="ring"):
            for objective in (lambda: uniformity(x), lambda: in_batch_hinge(x, x)):
                try:
                    objective()
                except ConfigError as error:
                    found[str(error)] = "use gather='all'" in str(error)
            triplet(x, x, x)
    found["after"] = group_in_force() is None
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_objectives_and_queues_join_the_ranks_in_force(tmp_path: Path) -> None:
    mp.spawn(_work_in_force, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == 8, found
        assert all(found.values()), found


def test_the_softmax_and_sigmoid_objectives_can_travel() -> None:
    known = objectives().items()
    able = {name for name, objective in known if objective.ring and objective.combine != "mean_of_locals"}
    assert able == {
        "info_nce", "clip_loss", "nt_xent", "grace", "dcl", "supcon", "multi_positive", "hard_negative_loss",
        "debiased_loss", "sigmoid_loss",
    }  # fmt: skip
