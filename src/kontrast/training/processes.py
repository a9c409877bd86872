"""Several processes that train together: their gradients and buffers, and what happens when one of them is gone."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kontrast.errors import KontrastError
from kontrast.progress import first_process

# Gradients are averaged this many values at a time, so that the copy which travels stays small.
_BUCKET = 1 << 23

_turns = itertools.count()

# Processes that this one has started; they serve every stage that it trains.
_started: list[subprocess.Popen[bytes]] = []

_LOST = re.compile(r"gloo|connection (closed|reset|refused|was)|nccl|socket|broken pipe|unhandled system error", re.I)


def launched_together() -> tuple[int, int] | None:
    """(processes on this machine, machines) if a launcher such as torchrun started several at once; else none."""
    here, everywhere = (int(os.environ.get(name) or "1") for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if "TORCHELASTIC_RUN_ID" not in os.environ or everywhere == 1:
        return None
    return here, everywhere // here


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over all processes, in a few large messages.

    A parameter without a gradient on any process keeps none; where only some have none, theirs counts as zero.
    """
    asked = [parameter for parameter in parameters if parameter.requires_grad]
    if not asked:
        return
    there = torch.tensor([parameter.grad is not None for parameter in asked], dtype=torch.int32, device=asked[0].device)
    dist.all_reduce(there, op=dist.ReduceOp.MAX)
    gradients: list[Tensor] = []
    for parameter, present in zip(asked, there.tolist()):
        if present:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(bucket, torch.split(flat, [gradient.numel() for gradient in bucket])):
            gradient.copy_(mean.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, up to `_BUCKET` values together."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket


@torch.no_grad()
def share_tensors(tensors: Iterable[Tensor]) -> None:
    """Gives every process the first one's values."""
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, src=0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(whole)


class FirstGoesFirst:
    """Lets the first of processes that were started together do something alone, such as making a folder.

    Only a launcher that starts all of them at once, as torchrun does, makes this necessary: Lightning starts the others
    when the first one is ready to train.
    """

    def __init__(self) -> None:
        self._store: Any = None  # torch does not export the type
        # The launcher's own store, which is there before and after any process group.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(hours=1))  # type: ignore[attr-defined]
        self._key = f"kontrast/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_turns)}"

    def wait(self) -> None:
        """Waits for the first process to be done, if this is another one."""
        if self._store is not None and not first_process():
            self._store.wait([self._key])

    def done(self) -> None:
        """Lets the others go on, if this is the first process."""
        if self._store is not None and first_process():
            self._store.set(self._key, "done")


class Companions:
    """The other processes of a training, watched so that one that is gone is named instead of waited for.

    gloo notices by itself and breaks off; others would wait for minutes. So a thread looks after the processes that
    this one started, or after the one that started it.

    Args:
        launched: gives the processes that were started for this training, none before that and none in themselves.
        resumable: whether there are checkpoints to go on from.
    """

    def __init__(self, launched: Callable[[], Sequence[subprocess.Popen[bytes]]], *, resumable: bool) -> None:
        self._launched, self._parent, self._resumable = launched, os.getppid(), resumable
        self._said, self._done = threading.Lock(), threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches while a step may wait for the others; breaks this process off if one is gone.

        Raises:
            KontrastError: if a message to another process failed because it is gone.
        """
        threading.Thread(target=self._watch, name="companions", daemon=True).start()
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, KontrastError) or not is_lost(error):
                raise
            sentence = self._sentence(wait=1.0)
            if not self._said.acquire(blocking=False):
                raise SystemExit(1) from None
            raise KontrastError(sentence) from None
        finally:
            self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            if self._end() is None:
                continue
            # The main thread may be about to say it, with the step in view.
            if self._done.wait(1.5) or not self._said.acquire(blocking=False):
                return
            print(f"error: {self._sentence()}", file=sys.stderr, flush=True)
            for process in _started:
                process.kill()
            os._exit(1)

    def _end(self) -> str | None:
        """How another process ended, in words; none if all that can be seen are there."""
        _started.extend(process for process in self._launched() if process not in _started)
        for number, process in enumerate(_started, start=2):
            code = process.poll()
            if code:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"process {number} of {len(_started) + 1} {how}"
        if not _started and sys.platform != "win32" and os.getppid() != self._parent:
            return "the process that started this one is gone"
        return None

    def _sentence(self, wait: float = 0.0) -> str:
        until = time.monotonic() + wait
        while (end := self._end()) is None and time.monotonic() < until:
            time.sleep(0.1)
        mend = "start the same command again with --resume to go on from the last checkpoint"
        what = end or "another process of this training is gone"
        return f"{what}, and this one cannot train without it; {mend if self._resumable else 'train again'}."


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process could not be reached."""
    return isinstance(error, dist.DistError) or bool(_LOST.search(str(error)))
