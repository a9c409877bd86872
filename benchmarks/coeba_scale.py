"""Memory and time of coeba on a large random graph: it trains, measures and predicts without an n × n matrix.

python benchmarks/coeba_scale.py [--nodes 100000] [--edges 1000000] [--epochs 2] [--steps 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

from kontrast.data.graphs import make_graph
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba import CoEBA, LinkData


def random_graph(n: int, m: int, groups: int) -> np.ndarray:
    """(about m, 2) edges, three in four inside one of `groups` groups, with a few popular nodes."""
    rng = numpy_rng(0, "large graph")
    popular = np.minimum((n * rng.random(2 * m) ** 2).astype(np.int64), n - 1)
    left = rng.permutation(n)[popular[:m]]
    size = n // groups
    inside = rng.random(m) < 0.75
    right = np.where(inside, left // size * size + rng.integers(size, size=m), rng.integers(n, size=m))
    return np.stack([left, np.minimum(right, n - 1)], axis=1)


def peak() -> float:
    """GiB of memory that the process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    """Prints a line for each phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("nodes", 100_000), ("edges", 1_000_000), ("epochs", 2), ("steps", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--preset", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    def say(phase: str, started: float) -> None:
        print(f"{phase:<28} {time.perf_counter() - started:7.1f} s   peak {peak():5.2f} GiB", flush=True)

    start = time.perf_counter()
    # The balanced graph is made after the first epoch, so that its cost is in the numbers.
    balancing = {"warmup": given.steps, "refresh": given.steps}
    system = CoEBA(preset=given.preset, epochs=given.epochs, steps=given.steps, balancing=balancing)
    graph = make_graph(random_graph(given.nodes, given.edges, 500), n=given.nodes)
    parts = system.split(LinkData(graph, graph.edges, "edge", graph.edges, whole=True))
    say(f"graph of {graph.n:,} / {len(graph.edges):,}", start)
    start = time.perf_counter()
    system.fit(parts.train, parts.valid)
    say(f"training, {given.epochs * given.steps} steps", start)
    start = time.perf_counter()
    found = system.evaluate(parts.test)
    say("evaluation", start)
    print({name: round(value, 4) for name, value in found.items()})
    start = time.perf_counter()
    frame = system.predict(LinkData(graph, parts.train.context, "node", np.arange(2_000), known=graph.edges))
    say("neighbours for 2,000 nodes", start)
    assert len(frame) == 2_000 * system.config.top_k


if __name__ == "__main__":
    main()
