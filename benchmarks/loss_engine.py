"""The similarity engine beside dense PyTorch and two libraries: time, ratio and peak memory, all from one run.

    python benchmarks/loss_engine.py                       # CLIP-symmetric and SupCon at 1,024, 8,192 and 16,384 rows
    python benchmarks/loss_engine.py --sizes 131072        # one step is minutes on two cores
    python benchmarks/loss_engine.py --device cuda --dim 512 --sizes 8192 32768 131072 262144
    python benchmarks/loss_engine.py --busy                # while another process keeps one core busy
    python benchmarks/loss_engine.py --quick --json out.json

Every competitor computes the same loss of the same rows, forward and backward, and its value is compared with the dense
one, or with the first that was not skipped. Repetitions are interleaved and the medians compared, so that a noisy
machine is noisy for all. "floor" is the time of the matrix products alone that a method with O((n + m) d) memory needs,
at the same shapes: the logits twice, and one product for each gradient; half of that for a symmetric matrix. Memory is
the peak above the inputs in a run of its own: the process's resident memory, or what torch allocated on the GPU. On a
GPU time is that between two events on its stream, and the products of the floor are cuBLAS's. A competitor that would
need more than the memory limit is skipped.

"Inf-CL tiles" is the published algorithm (arXiv 2410.17243) in plain torch: each direction streams over tiles, with one
log-sum-exp per row kept for the backward pass.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
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
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast.losses import clip_loss, supcon
from kontrast.ops import engine_settings
from kontrast.ops.triton_tiles import missing

TEMPERATURE = 0.07
MIB = 2**20
INF_CL_TILE = {"cpu": 1024, "cuda": 8192}
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


class _InfCL(torch.autograd.Function):
    """Mean of −s(i, i) + log Σⱼ exp s(i, j) over rows, tile by tile."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        side = INF_CL_TILE[q.device.type]
        log = torch.cat([
            functools.reduce(torch.logaddexp, [torch.logsumexp(x @ y.t(), 1) for y in k.split(side)])
            for x in q.split(side)
        ])  # fmt: skip
        ctx.save_for_backward(q, k, log)
        return (log - (q * k).sum(1)).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, k, log = ctx.saved_tensors
        side = INF_CL_TILE[q.device.type]
        dq, dk = -k, -q  # of the positive logits
        for i in range(0, len(q), side):
            x = q[i : i + side]
            for j in range(0, len(k), side):
                y = k[j : j + side]
                p = (x @ y.t()).sub_(log[i : i + side, None]).exp_()
                dq[i : i + side] += p @ y
                dk[j : j + side] += p.t() @ x
        return dq.mul_(grad / len(q)), dk.mul_(grad / len(q))


def inf_cl(a: Tensor, b: Tensor, _: Tensor) -> Tensor:
    a, b = F.normalize(a), F.normalize(b)
    scaled_a, scaled_b = a / TEMPERATURE, b / TEMPERATURE
    return (_InfCL.apply(scaled_a, b) + _InfCL.apply(scaled_b, a)) / 2  # type: ignore[no-untyped-call]


def engine_methods(objective: Callable[..., Tensor], symmetric: bool, device: str) -> list[Method]:
    """The engine with each kind of products; on a GPU float32 logits on tensor cores, too."""

    def method(name: str, products: str, float32: str) -> Method:
        def step(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
            with engine_settings(float32=float32):  # type: ignore[arg-type]
                other = labels if symmetric else b
                return objective(a, other, temperature=TEMPERATURE, products=products)

        return Method(f"kontrast {name}", step, lambda n: 10 * 4 * n * 256)

    kinds = [("fp32", "fp32", "ieee"), ("bf16", "bf16", "ieee")]
    if device == "cuda":
        kinds[1:1] = [("fp32 by tf32x3", "fp32", "tf32x3")]
    return [method(*kind) for kind in kinds]


def clip_methods(device: str, libraries: bool) -> list[Method]:
    tile = INF_CL_TILE[device]
    return [
        Method("dense torch", dense_clip, lambda n: 7 * 4 * n * n),
        *(clip_of_libraries() if libraries else []),
        Method("Inf-CL tiles", inf_cl, lambda n: 10 * 4 * n * 256 + 3 * 4 * min(n, tile) ** 2),
        *engine_methods(clip_loss, False, device),
    ]


def clip_of_libraries() -> list[Method]:
    methods: list[Method] = []
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
    return methods


def supcon_methods(device: str, libraries: bool) -> list[Method]:
    return [
        Method("dense torch", dense_supcon, lambda n: 8 * 4 * n * n),
        *(supcon_of_libraries() if libraries else []),
        *engine_methods(supcon, True, device),
    ]


def supcon_of_libraries() -> list[Method]:
    methods: list[Method] = []
    try:
        from pytorch_metric_learning.losses import SupConLoss

        loss = SupConLoss(temperature=TEMPERATURE)
        methods.append(
            Method("pytorch-metric-learning SupCon", lambda a, _, labels: loss(a, labels), lambda n: 14 * 4 * n * n)
        )
    except ImportError:
        print("pytorch-metric-learning is not installed: left out", file=sys.stderr)
    return methods


def floor_seconds(n: int, d: int, dtype: torch.dtype, device: str, *, symmetric: bool) -> float:
    """Time of the products alone: (2 logits + 2 gradients), or for a symmetric matrix (2 halves + 1) of n × n × d.

    Of a large matrix a part is timed and the time scaled up; products of blocks are what any such method is made of.
    """
    block, width = (min(n, 1024), min(n, 4096)) if device == "cpu" else (min(n, 8192),) * 2
    q = torch.randn(block, d, device=device).to(dtype)
    k = torch.randn(width, d, device=device).to(dtype)
    s = torch.empty(block, width, dtype=dtype, device=device)
    dq, dk = torch.empty_like(q), torch.empty_like(k)
    blocks = n / block * (n / width)
    spent = []
    for _ in range(max(3, min(int(blocks), 40))):
        with Clock(device) as clock:
            torch.mm(q, k.t(), out=s)
            torch.mm(q, k.t(), out=s)
            torch.mm(s, k, out=dq)
            torch.mm(s.t(), q, out=dk)
        spent.append(clock.seconds)
    return statistics.median(spent) * blocks * (0.5 if symmetric else 1.0)


class Clock:
    """Seconds spent inside: by the wall, or on a GPU between two events of its stream, after all that was before."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.seconds = 0.0

    def __enter__(self) -> Clock:
        if self.cuda:
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            self.events[0].record()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.events[1].record()
            torch.cuda.synchronize()
            self.seconds = self.events[0].elapsed_time(self.events[1]) / 1000
        else:
            self.seconds = time.perf_counter() - self.start


def one_step(method: Method, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Seconds and value of one forward and backward pass."""
    for x in inputs[:2]:
        x.grad = None
    with Clock(inputs[0].device.type) as clock:
        loss = method.step(*inputs)
        loss.backward()
    return clock.seconds, loss.item()


def resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def first_step(method: Method, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float | None, float, float]:
    """Peak memory of one step above what was there before, gradients of the inputs included; its seconds and value."""
    for x in inputs[:2]:
        x.grad = None
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step = one_step(method, inputs)
        return torch.cuda.max_memory_allocated() - before, *step
    if not Path("/proc/self/statm").exists():
        return None, *one_step(method, inputs)
    ctypes.CDLL(None).malloc_trim(0)
    before, top, stop = resident(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            top[0] = max(top[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step = one_step(method, inputs)
    stop.set()
    watcher.join()
    return max(top[0], resident()) - before, *step


def measure(
    objective: str,
    n: int,
    d: int,
    repeats: int,
    device: str,
    memory_limit: float,
    libraries: bool = True,
    methods_like: tuple[str, ...] = ("",),
) -> list[Row]:
    """All competitors whose name contains one of `methods_like`, other libraries' too or not, at one size."""
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
    times: dict[str, list[float]] = {}
    values: dict[str, float] = {}
    for method in (supcon_methods if symmetric else clip_methods)(device, libraries):
        if not any(part in method.name for part in methods_like):
            continue
        row = Row(objective, n, method.name)
        rows.append(row)
        if (need := method.bytes_needed(n)) > memory_limit:
            row.note = f"skipped: needs about {need / 2**30:.1f} GiB"
            continue
        methods.append((method, row))
        if device == "cuda":
            one_step(method, inputs)  # kernels are built and loaded outside the clock
        peak, seconds, values[method.name] = first_step(method, inputs)
        row.peak_mib = None if peak is None else peak / MIB
        times[method.name] = [seconds] if repeats == 1 else []  # one step of minutes tells both
    floors: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(repeats):
        for method, _row in methods if repeats > 1 else []:
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
        row.relative_error = abs(values[method.name] / next(iter(values.values())) - 1)
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
    parser.add_argument("--methods", nargs="+", default=[""], help="parts of names: only these competitors")
    parser.add_argument("--repeats", type=int, help="by default 15 up to 2,048 rows, 5 up to 16,384, 1 above")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads, of torch and of the engine")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--busy", action="store_true", help="keep one core busy with another process")
    parser.add_argument(
        "--memory", type=float, help="GiB; a competitor that needs more is skipped (16, or what is free on the GPU)"
    )
    parser.add_argument("--path", choices=["auto", "tiled", "triton"], default="auto", help="the engine's path")
    parser.add_argument("--quick", action="store_true", help="small sizes, for continuous integration")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    torch.set_num_threads(options.threads)
    if options.memory is None:
        options.memory = 16.0 if options.device == "cpu" else 0.9 * torch.cuda.mem_get_info()[0] / 2**30
    if options.device == "cuda" and (reason := missing()):
        print(f"the engine runs without kernels: {reason}", file=sys.stderr)
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
                with engine_settings(path=options.path):
                    limit = options.memory * 2**30
                    rows += measure(
                        objective, n, options.dim, repeats, options.device, limit, methods_like=tuple(options.methods)
                    )
    finally:
        stop.set()
        if busy:
            busy.join()
    processor = f"{platform.processor() or platform.machine()}, {options.threads} threads"
    name = torch.cuda.get_device_name() if options.device == "cuda" else processor
    machine = f"{name}, torch {torch.__version__}"
    busy_text = ", one core kept busy by another process" if options.busy else ""
    print(f"d = {options.dim}, T = {TEMPERATURE}, forward + backward, medians; {options.device}: {machine}{busy_text}")
    print()
    print(table(rows))
    if options.json:
        from kontrast.files import write_json

        write_json(options.json, {"machine": machine, "busy": options.busy, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
