"""Memory and time of coeba on a large random graph: it trains, measures and predicts without an n × n matrix.

The graph goes through the public estimator from a file on: read, split, fit, evaluate, predict.

python benchmarks/coeba_scale.py [--nodes 100000] [--edges 1000000] [--epochs 1] [--threads 1]
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from kontrast.data.graphs import canonical
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba import CoEBA


def random_graph(n: int, m: int, groups: int) -> np.ndarray:
    """(m, 2) different edges, three in four inside one of `groups` groups, with a few popular nodes."""
    rng = numpy_rng(0, "large graph")
    names, size = rng.permutation(n), n // groups
    found = np.zeros((0, 2), np.int64)
    while len(found) < m:
        # Some come twice or are loops, so a few more are drawn, and what is too much is left out again.
        draws = m + m // 8
        left = names[np.minimum((n * rng.random(draws) ** 2).astype(np.int64), n - 1)]
        inside = rng.random(draws) < 0.75
        near = np.minimum(left // size * size + rng.integers(size, size=draws), n - 1)
        right = np.where(inside, near, rng.integers(n, size=draws))
        found = canonical(np.concatenate([found, np.stack([left, right], axis=1)]), n)
    return found[np.sort(rng.permutation(len(found))[:m])]


def peak() -> float:
    """GiB of memory that the process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    """Prints a line for each phase, and fails above 8 GiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("nodes", 100_000), ("edges", 1_000_000), ("epochs", 1), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--preset", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def say(phase: str, started: tuple[float, float]) -> None:
        took = [end - start for start, end in zip(started, now())]
        print(f"{phase:<34} {took[0]:7.1f} s, {took[1]:7.1f} s of it computing   peak {peak():5.2f} GiB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        np.savez(path, edges=random_graph(given.nodes, given.edges, 500), num_nodes=given.nodes)
        start = now()
        data = CoEBA().read(path)
        parts = CoEBA().split(data)
        say(f"read and split {data.graph.n:,} / {len(data.graph.edges):,}", start)
        # So many steps that an epoch draws as many training edges as there are, and balancing has its turn in it.
        steps = math.ceil(len(parts.train) / CoEBA().config.link_batch)
        balancing = {"warmup": steps // 2}
        system = CoEBA(preset=given.preset, epochs=given.epochs, steps=steps, balancing=balancing)
        start = now()
        system.fit(parts.train, parts.valid)
        say(f"training, {given.epochs} epoch(s) of {steps} steps", start)
        assert bool(system.model_.balanced)
        start = now()
        found = system.evaluate(parts.test)
        say("evaluation", start)
        print({name: round(value, 4) for name, value in found.items()})
        start = now()
        asked = system.read(path, purpose="predict").take(np.arange(2_000))
        frame = system.predict(asked)
        say("new neighbours of 2,000 nodes", start)
        assert len(frame) == 2_000 * system.config.top_k
    if peak() > 8:
        sys.exit(f"{peak():.2f} GiB, and 8 are allowed")


if __name__ == "__main__":
    main()
