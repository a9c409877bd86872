"""Worker threads for the tiled path: one thread per core, each running single-threaded kernels.

An intra-operation thread pool puts a barrier behind every small kernel, and on a machine that does other work besides,
a barrier waits for the slowest core every time. Here a thread takes a whole tile through all its kernels, and takes the
next one when it is ready. The tiles' results are folded in the order of their numbers, so that a sum of floats has the
same bits whatever the timing and whatever the number of threads.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

# How many tiles a thread may run ahead of the oldest unfolded one: enough to sit out a few time slices of a
# thread that lost its core, small enough that the waiting results stay a few tiles in memory.
_RUN_AHEAD = 4


class _Pool:
    """Daemon threads that live as long as the process and run what is put on their queue."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], None], copies: int) -> None:
        self._grow(copies)
        for _ in range(copies):
            self._work.put(job)

    def _grow(self, size: int) -> None:
        with self._lock:
            missing = size - len(self._threads)
            if missing <= 0:
                return
            # set_num_threads acts on the calling thread's OpenMP and MKL, but also leaves the number behind as the
            # default of threads started later. Setting the caller's own number again takes that back.
            own = torch.get_num_threads()
            ready = threading.Barrier(missing + 1)
            for _ in range(missing):
                name = f"kontrast-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, args=(ready,), name=name, daemon=True))
                self._threads[-1].start()
            ready.wait()
            torch.set_num_threads(own)

    def close(self) -> None:
        """Ends the threads; an interpreter that shuts down beneath a thread inside a kernel aborts the process."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _serve(self, ready: threading.Barrier) -> None:
        # torch initialises a thread when it is first asked for its number, and would then overwrite what was set.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()
        with torch.no_grad():
            while (job := self._work.get()) is not None:
                job()
                del job  # and with it the last call's tensors


_pool = _Pool()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()  # a forked child inherits none of the threads


def _close_pool() -> None:
    _pool.close()


atexit.register(_close_pool)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


class _Fold:
    """One call of `ordered_fold`, shared by the threads that take part in it."""

    def __init__(
        self,
        count: int,
        worker: Callable[[], Callable[[int], Result]],
        fold: Callable[[int, Result], None],
        threads: int,
    ) -> None:
        self.count, self.worker, self.fold = count, worker, fold
        self.window = _RUN_AHEAD * threads
        self.changed = threading.Condition()
        self.claimed = self.folded = self.left = 0
        self.folding = False
        self.waiting: dict[int, Any] = {}
        self.error: BaseException | None = None
        self.running = threads
        self.done = threading.Event()
        self.inference = torch.is_inference_mode_enabled()  # such tensors may be written to under that mode alone

    def take_part(self) -> None:
        with torch.inference_mode() if self.inference else nullcontext():
            self._take_part()

    def _take_part(self) -> None:
        try:
            compute = self.worker()
            while (index := self._claim()) is not None:
                result = compute(index)
                with self.changed:
                    self.waiting[index] = result
                self._fold_what_is_due()
        except BaseException as error:  # handed to the caller, who raises it
            self._stop(error)
        finally:
            with self.changed:
                self.running -= 1
                if not self.running:
                    self.done.set()

    def _claim(self) -> int | None:
        with self.changed:
            while self.error is None and self.claimed < self.count and self.claimed - self.folded >= self.window:
                self.changed.wait()
            if self.error is not None or self.claimed >= self.count:
                return None
            self.claimed += 1
            return self.claimed - 1

    def _fold_what_is_due(self) -> None:
        with self.changed:
            if self.folding:
                return
            self.folding = True
        while True:
            with self.changed:
                index = self.folded
                if index not in self.waiting:
                    self.folding = False
                    self.changed.notify_all()
                    return
                result = self.waiting.pop(index)
            self.fold(index, result)
            with self.changed:
                self.folded += 1

    def _stop(self, error: BaseException) -> None:
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()


def ordered_fold(
    count: int,
    worker: Callable[[], Callable[[int], Result]],
    fold: Callable[[int, Result], None],
    *,
    threads: int,
) -> None:
    """Computes `count` tasks on worker threads and folds their results one at a time, in order.

    Args:
        count: number of tasks.
        worker: called once in each thread that takes part; makes the thread's scratch memory and returns the function
            that computes task ``i``. It runs under ``torch.no_grad`` with single-threaded kernels.
        fold: called as ``fold(i, result)`` for i = 0, 1, 2, ..., never twice at once, so it may add to shared memory.
        threads: how many threads take part.

    Raises:
        BaseException: the first error of a task; the others are given up.
    """
    if count == 0:
        return
    run = _Fold(count, worker, fold, min(threads, count))
    _pool.submit(run.take_part, run.running)
    try:
        run.done.wait()
    except BaseException as error:  # a keyboard interrupt: let the threads finish their tile and stop
        run._stop(error)
        raise
    if run.error is not None:
        raise run.error
