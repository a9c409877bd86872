"""The similarity engine beside dense PyTorch and two libraries: time, ratio and peak memory, all from one run.

    python benchmarks/loss_engine.py                       # CLIP-symmetric and SupCon at 1,024, 8,192 and 16,384 rows
    python benchmarks/loss_engine.py --sizes 131072        # one step is minutes on two cores
    python benchmarks/loss_engine.py --busy                # while another process keeps one core busy
    python benchmarks/loss_engine.py --quick --json out.json

Every competitor computes the same loss of the same rows, forward and backward, and its value is compared with the dense
one. Repetitions are interleaved and the medians compared, so that a noisy machine is noisy for all. "floor" is the time
of the matrix products alone that a method with O((n + m) d) memory needs, at the same shapes: the logits twice, and one
product for each gradient; half of that for a symmetric matrix. Memory is the peak of the process's resident memory
above the inputs, sampled in a run of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast.losses import clip_loss, supcon

TEMPERATURE = 0.07
MIB = 2**20
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Row:
    """One line of the table."""

    objective: str
    rows: int
    method: str
    seconds: float | None = None
    times_dense: float | None = None
    times_floor: float | None = None
    peak_mib: float | None = None
    relative_error: float | None = None
    note: str = ""


@dataclass
class Method:
    """A competitor: how to compute the loss, and an estimate of the bytes it needs above its inputs."""

    name: str
    step: Step
    bytes_needed: Callable[[int], float]


def dense_clip(a: Tensor, b: Tensor, _: Tensor) -> Tensor:
    logits = F.normalize(a) @ F.normalize(b).t() / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def dense_supcon(a: Tensor, _: Tensor, labels: Tensor) -> Tensor:
    z = F.normalize(a)
    own = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = (z @ z.t() / TEMPERATURE).masked_fill(own, -torch.inf)
    positive = (labels[:, None] == labels[None, :]) & ~own
    log_p = F.log_softmax(logits, dim=1).masked_fill(~positive, 0.0)
    return (-log_p.sum(1) / positive.sum(1)).mean()


def clip_methods() -> list[Method]:
    methods = [Method("dense torch", dense_clip, lambda n: 7 * 4 * n * n)]
    try:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        ranking = MultipleNegativesRankingLoss(
            None, scale=1 / TEMPERATURE, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        )
        methods.append(
            Method(
                "sentence-transformers",
                lambda a, b, labels: ranking.compute_loss_from_embeddings([a, b], labels),
                lambda n: 8 * 4 * n * n,
            )
        )
    except ImportError:
        print("sentence-transformers is not installed: left out", file=sys.stderr)
    try:
        from pytorch_metric_learning.losses import NTXentLoss

        ntxent = NTXentLoss(temperature=TEMPERATURE)

        def both(a: Tensor, b: Tensor, _: Tensor) -> Tensor:
            i = torch.arange(len(a), device=a.device)  # two tensors, or the diagonal would be taken for self-pairs
            return (ntxent(a, i, ref_emb=b, ref_labels=i.clone()) + ntxent(b, i, ref_emb=a, ref_labels=i.clone())) / 2

        # It compares every positive pair with every negative pair: n × n (n − 1) entries, several times.
        methods.append(Method("pytorch-metric-learning NTXent", both, lambda n: 2 * 17.0 * n**3))
    except ImportError:
        print("pytorch-metric-learning is not installed: left out", file=sys.stderr)
    return methods + [
        Method(
            f"kontrast {products}",
            lambda a, b, _, products=products: clip_loss(a, b, temperature=TEMPERATURE, products=products),
            lambda n: 10 * 4 * n * 256,
        )
        for products in ("fp32", "bf16")
    ]


def supcon_methods() -> list[Method]:
    methods = [Method("dense torch", dense_supcon, lambda n: 8 * 4 * n * n)]
    try:
        from pytorch_metric_learning.losses import SupConLoss

        loss = SupConLoss(temperature=TEMPERATURE)
        methods.append(
            Method("pytorch-metric-learning SupCon", lambda a, _, labels: loss(a, labels), lambda n: 14 * 4 * n * n)
        )
    except ImportError:
        print("pytorch-metric-learning is not installed: left out", file=sys.stderr)
    return methods + [
        Method(
            f"kontrast {products}",
            lambda a, _, labels, products=products: supcon(a, labels, temperature=TEMPERATURE, products=products),
            lambda n: 10 * 4 * n * 256,
        )
        for products in ("fp32", "bf16")
    ]


def floor_seconds(n: int, d: int, dtype: torch.dtype, device: str, *, symmetric: bool) -> float:
    """Time of the products alone: (2 logits + 2 gradients), or for a symmetric matrix (2 halves + 1) of n × n × d.

    Of a large matrix a part is timed and the time scaled up; products of blocks are what any such method is made of.
    """
    block, width = min(n, 1024), min(n, 4096)
    q = torch.randn(block, d, device=device).to(dtype)
    k = torch.randn(width, d, device=device).to(dtype)
    s = torch.empty(block, width, dtype=dtype, device=device)
    dq, dk = torch.empty_like(q), torch.empty_like(k)
    blocks = n / block * (n / width)
    spent = []
    for _ in range(max(3, min(int(blocks), 40))):
        start = time.perf_counter()
        torch.mm(q, k.t(), out=s)
        torch.mm(q, k.t(), out=s)
        torch.mm(s, k, out=dq)
        torch.mm(s.t(), q, out=dk)
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * blocks * (0.5 if symmetric else 1.0)


def one_step(method: Method, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Seconds and value of one forward and backward pass."""
    for x in inputs[:2]:
        x.grad = None
    start = time.perf_counter()
    loss = method.step(*inputs)
    loss.backward()
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, loss.item()


def resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(method: Method, inputs: tuple[Tensor, Tensor, Tensor]) -> float | None:
    """Peak memory of one step above what was there before, gradients of the inputs included."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one_step(method, inputs)
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/statm").exists():
        return None
    for x in inputs[:2]:
        x.grad = None
    ctypes.CDLL(None).malloc_trim(0)
    before, top, stop = resident(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            top[0] = max(top[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    one_step(method, inputs)
    stop.set()
    watcher.join()
    return max(top[0], resident()) - before


def measure(objective: str, n: int, d: int, repeats: int, device: str, memory_limit: float) -> list[Row]:
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(n, d, generator=generator)
    b = a + torch.randn(n, d, generator=generator)
    labels = torch.randint(max(2, n // 8), (n,), generator=generator)
    labels[: n // 2] = torch.arange(n // 2)
    labels[n // 2 : n // 2 * 2] = torch.arange(n // 2)  # nobody is without a positive
    inputs = (a.to(device).requires_grad_(), b.to(device).requires_grad_(), labels.to(device))
    symmetric = objective == "supcon"
    rows: list[Row] = []
    methods: list[tuple[Method, Row]] = []
    for method in supcon_methods() if symmetric else clip_methods():
        row = Row(objective, n, method.name)
        rows.append(row)
        if (need := method.bytes_needed(n)) > memory_limit:
            row.note = f"skipped: needs about {need / 2**30:.1f} GiB"
            continue
        methods.append((method, row))
        peak = peak_bytes(method, inputs)
        row.peak_mib = None if peak is None else peak / MIB
    times: dict[str, list[float]] = {method.name: [] for method, _ in methods}
    floors: dict[str, list[float]] = {"fp32": [], "bf16": []}
    values: dict[str, float] = {}
    for _ in range(repeats):
        for method, _row in methods:
            seconds, values[method.name] = one_step(method, inputs)
            times[method.name].append(seconds)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            floors[name].append(floor_seconds(n, d, dtype, device, symmetric=symmetric))
    dense = statistics.median(times["dense torch"]) if "dense torch" in times else None
    for method, row in methods:
        row.seconds = statistics.median(times[method.name])
        row.times_dense = None if dense is None else dense / row.seconds
        if method.name.startswith("kontrast"):
            row.times_floor = row.seconds / statistics.median(floors[method.name.split()[1]])
        if dense is not None:
            row.relative_error = abs(values[method.name] / values["dense torch"] - 1)
    rows += [Row(objective, n, f"floor {name}", statistics.median(spent)) for name, spent in floors.items()]
    return rows


def spin(stop: multiprocessing.synchronize.Event) -> None:
    while not stop.is_set():
        sum(range(10000))


def table(rows: list[Row]) -> str:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = [
        "| objective | rows | method | seconds | dense ÷ it | it ÷ floor | peak MiB | rel. error | |",
        "|---|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.objective} | {row.rows:,} | {row.method} | {cell(row.seconds, '.4g')} | "
            f"{cell(row.times_dense, '.2f')} | {cell(row.times_floor, '.2f')} | {cell(row.peak_mib, ',.0f')} | "
            f"{cell(row.relative_error, '.0e')} | {row.note} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 8192, 16384], help="rows of a batch")
    parser.add_argument("--objectives", nargs="+", choices=["clip", "supcon"], default=["clip", "supcon"])
    parser.add_argument("--dim", type=int, default=256, help="width of a row")
    parser.add_argument("--repeats", type=int, help="by default 15 up to 2,048 rows, 5 up to 16,384, 1 above")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads, of torch and of the engine")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--busy", action="store_true", help="keep one core busy with another process")
    parser.add_argument("--memory", type=float, default=16.0, help="GiB; a competitor that needs more is skipped")
    parser.add_argument("--quick", action="store_true", help="small sizes, for continuous integration")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    torch.set_num_threads(options.threads)
    sizes = [256, 1024] if options.quick else options.sizes
    stop = multiprocessing.Event()
    busy = multiprocessing.Process(target=spin, args=(stop,), daemon=True) if options.busy else None
    if busy:
        busy.start()
    rows: list[Row] = []
    try:
        for objective in options.objectives:
            for n in sizes:
                repeats = options.repeats or (15 if n <= 2048 else 5 if n <= 16384 else 1)
                rows += measure(objective, n, options.dim, repeats, options.device, options.memory * 2**30)
    finally:
        stop.set()
        if busy:
            busy.join()
    machine = f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}"
    busy_text = ", one core kept busy by another process" if options.busy else ""
    print(f"d = {options.dim}, T = {TEMPERATURE}, forward + backward, medians; {options.device}: {machine}{busy_text}")
    print()
    print(table(rows))
    if options.json:
        from kontrast.files import write_json

        write_json(options.json, {"machine": machine, "busy": options.busy, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
