"""The worker threads: order, errors, and nothing left behind in torch's settings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from kontrast.ops.threads import ordered_fold


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_folded_in_order_whatever_the_timing(threads: int) -> None:
    seen: list[int] = []

    def worker():
        def compute(index: int) -> int:
            time.sleep(0.002 if index % 3 == 0 else 0)
            return index * index

        return compute

    ordered_fold(40, worker, lambda index, result: seen.append(result), threads=threads)
    assert seen == [index * index for index in range(40)]


def test_no_thread_runs_far_ahead_of_the_slowest() -> None:
    started: list[int] = []
    release = threading.Event()

    def worker():
        def compute(index: int) -> int:
            started.append(index)
            if index == 0:
                release.wait(5)
            return index

        return compute

    runner = threading.Thread(target=ordered_fold, args=(500, worker, lambda i, r: None), kwargs={"threads": 2})
    runner.start()
    time.sleep(0.2)
    ahead = max(started)
    release.set()
    runner.join(10)
    assert not runner.is_alive()
    assert ahead < 20
    assert len(started) == 500


def test_a_task_s_error_reaches_the_caller_and_the_threads_live_on() -> None:
    def worker():
        def compute(index: int) -> int:
            if index == 3:
                raise ValueError("tile 3")
            return index

        return compute

    with pytest.raises(ValueError, match="tile 3"):
        ordered_fold(100, worker, lambda i, r: None, threads=2)
    seen: list[int] = []
    ordered_fold(3, lambda: lambda i: i, lambda i, r: seen.append(r), threads=2)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("own", [1, 2])
def test_kernels_are_single_threaded_there_and_the_caller_s_setting_stays(own: int) -> None:
    # In a process of its own: the pool is made anew, under the number of threads that its user has.
    script = (
        "import threading, torch\n"
        "from kontrast.ops.threads import ordered_fold\n"
        "counts, later = [], []\n"
        "ordered_fold(4, lambda: lambda i: torch.get_num_threads(), lambda i, r: counts.append(r), threads=2)\n"
        "thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))\n"
        "thread.start(); thread.join()\n"
        "print(*counts, '/', torch.get_num_threads(), *later)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(own)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split() == ["1"] * 4 + ["/", str(own), str(own)]


def test_the_process_ends_cleanly_right_after_a_call() -> None:
    script = (
        "import torch; from kontrast.ops import *\n"
        "with engine_settings(path='tiled', tile=(16, 16), threads=4):\n"
        "    logsumexp_streamed(torch.randn(200, 64, requires_grad=True), columns=False)[0].sum().backward()\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_two_callers_at_once() -> None:
    results: dict[int, list[int]] = {0: [], 1: []}

    def call(name: int) -> None:
        ordered_fold(50, lambda: lambda i: i, lambda i, r: results[name].append(r), threads=2)

    callers = [threading.Thread(target=call, args=(name,)) for name in results]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert all(result == list(range(50)) for result in results.values())
