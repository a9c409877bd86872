"""GradCache on the demo's text pairs: peak memory, time and gradient, whole batches beside batches in parts.

    kontrast data fetch pydocs
    python benchmarks/grad_cache.py                        # 32,768 pairs, 256 at a time; and 1,024 both ways
    python benchmarks/grad_cache.py --rows 8192 --micro-batch 512 --encoder bag
    python benchmarks/grad_cache.py --quick

The model, its batches and its objective are those of the system `pairs`: nothing in it knows of parts. One step is the
forward and the backward pass of one batch, each in a process of its own, whose peak resident memory is what is reported
(torch, transformers and the data alone take some 600 MiB of it: the row with 0 pairs). The data set has about 10,000
training pairs; larger batches repeat them, and repeated pairs are not each other's negatives. Dropout is off where
gradients are compared, since a batch at once draws its numbers in another order.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kontrast.contract import load_system
from kontrast.data.catalogue import path
from kontrast.training import Progress, encode_in_parts

CHECK_ROWS = 1024


@dataclass(frozen=True)
class Case:
    """One measurement: pairs in the batch, pairs encoded at a time (None: all)."""

    rows: int
    micro_batch: int | None


@dataclass
class Result:
    """What it took; `difference` is the length of the deviation from the gradient at once over the latter's."""

    rows: int
    micro_batch: int | None
    seconds: float
    peak_mib: float
    loss: float
    difference: float | None = None


def measure(case: Case, options: dict[str, object], data: Path, folder: Path) -> None:
    """Computes one step in this process and writes the result and the gradient."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    system = load_system("pairs")(**options)
    train = system.split(system.read(data)).train
    system.facts_ = system.learn_facts(train)
    system.initialise()
    model = system.model_.train()
    started, loss = time.perf_counter(), float("nan")
    if case.rows:
        (stage,) = system.stages(train, None)
        rows = np.resize(np.random.default_rng(0).permutation(system.size(train)), case.rows)
        batch = stage.batches.collate(rows, np.random.default_rng(0))
        torch.manual_seed(0)
        started = time.perf_counter()
        encoded = encode_in_parts(model, batch, case.micro_batch) if case.micro_batch else model.encode(batch)
        total = sum(model.losses(encoded, batch, Progress(0, 1, 0)).values())
        assert isinstance(total, Tensor)
        total.backward()
        loss = float(total.detach())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = Result(case.rows, case.micro_batch, time.perf_counter() - started, peak, loss)
    gradients = {name: one.grad.numpy() for name, one in model.named_parameters() if one.grad is not None}
    np.savez(folder / "gradients.npz", **gradients)
    (folder / "result.json").write_text(json.dumps(asdict(result)))


def run(case: Case, options: dict[str, object], data: Path, folder: Path) -> tuple[Result, dict[str, np.ndarray]]:
    """The same in a fresh process, so that its peak memory is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(case, options, data, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{case} ended with exit code {process.exitcode}")
    with np.load(folder / "gradients.npz") as stored:
        gradients = dict(stored)
    return Result(**json.loads((folder / "result.json").read_text())), gradients


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--micro-batch", type=int, default=256)
    parser.add_argument("--encoder", choices=("transformer", "bag"), default="transformer")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--quick", action="store_true", help="512 pairs, to see that it works")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-grad-cache"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data = path("pydocs") / "pydocs.parquet"
    text: dict[str, object] = {"name": given.encoder, "dim": given.dim}
    if given.encoder == "transformer":
        text |= {"layers": given.layers, "dropout": given.dropout}
    options: dict[str, object] = {"left": "query", "right": "target", "text": text}
    check = 512 if given.quick else CHECK_ROWS
    part = min(given.micro_batch, check // 4)
    cases = [Case(0, None), Case(check, None), Case(check, part)]
    if not given.quick:
        cases.append(Case(given.rows, given.micro_batch))
    results: list[Result] = []
    reference: dict[str, np.ndarray] = {}
    print(f"{'pairs':>8} {'at a time':>10} {'seconds':>9} {'peak MiB':>9} {'loss':>8} {'gradient apart by':>18}")
    for case in cases:
        result, gradients = run(case, options, data, given.folder)
        if case.rows == check and case.micro_batch is None:
            reference = gradients
        elif case.rows == check and given.dropout == 0:
            apart = sum(float(np.square(one - gradients[name]).sum()) for name, one in reference.items())
            result.difference = (apart / sum(float(np.square(one).sum()) for one in reference.values())) ** 0.5
        results.append(result)
        apart_text = "" if result.difference is None else f"{result.difference:.1e}"
        at_a_time = result.micro_batch or "all"
        print(
            f"{result.rows:>8,} {at_a_time:>10} {result.seconds:>9.1f} {result.peak_mib:>9,.0f} {result.loss:>8.4f} "
            f"{apart_text:>18}",
            flush=True,
        )
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
