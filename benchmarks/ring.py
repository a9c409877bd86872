"""Candidates of other processes gathered at once beside candidates on a ring: memory, time and gradient.

    python benchmarks/ring.py                              # 2 and 4 gloo processes on this machine
    python benchmarks/ring.py --world 2 --rows 4096 --dim 1024

Every process holds the same number of pairs, so the joined batch grows with the processes. One step is CLIP's symmetric
loss with a learned temperature, forward and backward; memory is the peak of resident memory in one process above what
was there before the step, the largest of all processes, and time that of the slowest. The gradient of the ring is
compared with that of gathering.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kontrast.losses import clip_loss
from kontrast.ops import engine_settings, joined_ranks


def peak_kib(reset: bool = False) -> int:
    """Peak resident memory of this process since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def work(rank: int, world: int, gather: Any, rows: int, dim: int, folder: str) -> None:
    """One process: a small step to warm up, then the one that counts."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{gather}-{world}", rank=rank, world_size=world)
    draws = torch.Generator().manual_seed(rank)
    for size in (64, rows):
        a, b = torch.randn(2, size, dim, generator=draws).requires_grad_().unbind()
        temperature = torch.tensor(0.07, requires_grad=True)
        dist.barrier()
        before, started = peak_kib(reset=True), time.perf_counter()
        with joined_ranks("world"), engine_settings(gather=gather, path="tiled"):
            loss = clip_loss(a, b, temperature=temperature)
        gradient, warmth = torch.autograd.grad(loss, (a, temperature))
        taken = time.perf_counter() - started
    facts = torch.tensor([peak_kib() - before, taken], dtype=torch.float64)
    dist.all_reduce(facts, op=dist.ReduceOp.MAX)
    torch.save({"gradient": gradient, "warmth": warmth, "facts": facts}, f"{folder}/{gather}-{world}-{rank}.pt")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rows", type=int, default=1024, help="pairs in each process")
    parser.add_argument("--dim", type=int, default=2048)
    given = parser.parse_args()
    unit = given.rows * given.dim * 4 / 2**20
    print(f"{given.rows:,} pairs of width {given.dim:,} in each process: one side of them is {unit:.0f} MiB")
    print(f"{'processes':>9} {'gather':>7} {'seconds':>8} {'peak MiB':>9} {'gradient apart by':>18}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for world in given.world:
            found = {}
            for gather in ("all", "ring"):
                arguments = (world, gather, given.rows, given.dim, folder)
                processes = [context.Process(target=work, args=(rank, *arguments)) for rank in range(world)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                if any(process.exitcode for process in processes):
                    raise SystemExit(f"a process of {world} with gather='{gather}' failed")
                found[gather] = torch.load(f"{folder}/{gather}-{world}-0.pt", weights_only=True)
                peak, seconds = found[gather]["facts"].tolist()
                apart = ""
                if gather == "ring":
                    one, other = found["all"]["gradient"], found["ring"]["gradient"]
                    apart = f"{float((one - other).norm() / one.norm()):.1e}"
                print(f"{world:>9} {gather:>7} {seconds:>8.1f} {peak / 1024:>9.0f} {apart:>18}", flush=True)


if __name__ == "__main__":
    main()
