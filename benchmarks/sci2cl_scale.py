"""Peak memory of sci2cl on many cells: a synthetic h5mu of 100,000 cells by 10,000 genes and 100 proteins.

    python benchmarks/sci2cl_scale.py [--cells 100000] [--genes 10000] [--steps 50] [--folder DIR]

The file is written a block of cells at a time. Then, in a process of its own, the training part is read, the features
are chosen, both stages run for `--steps` steps each and all cells are embedded. Printed are seconds and the largest
resident memory of that process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import sparse

BLOCK = 2000


def write(path: Path, cells: int, genes: int, density: float) -> None:
    """Cells of ten types; three in ten counts of a cell fall on the features of its type."""
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    rng = np.random.default_rng(0)
    types = rng.integers(0, 10, cells)
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical([f"type-{number}" for number in types])},
        index=[f"cell-{number}" for number in range(cells)],
    )
    with h5py.File(path, "w") as stream:
        stream.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0"})
        write_elem(stream, "obs", obs)
        for name, width in (("rna", genes), ("prot", 100)):
            group = stream.create_group(f"mod/{name}")
            group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(group, "obs", obs[[]])
            write_elem(group, "var", pd.DataFrame(index=[f"{name}-{number}" for number in range(width)]))
            x = group.create_group("X")
            x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, width)})
            each = max(1, round(density * width)) if name == "rna" else 300
            own = np.stack([rng.choice(width, max(2, width // 50), replace=False) for _ in range(10)])
            sizes = {"data": np.float32, "indices": np.int32}
            parts = {key: x.create_dataset(key, (0,), kind, maxshape=(None,), chunks=(1 << 18,), compression="lzf")
                     for key, kind in sizes.items()}  # fmt: skip
            starts = [np.zeros(1, np.int64)]
            for start in range(0, cells, BLOCK):
                rows = types[start : start + BLOCK]
                drawn = rng.integers(0, width, (len(rows), each))
                favoured = rng.random(drawn.shape, np.float32) < 0.3
                picked = own[rows[:, None], rng.integers(0, own.shape[1], drawn.shape)]
                columns = np.where(favoured, picked, drawn).ravel()
                places = (np.repeat(np.arange(len(rows)), each), columns)
                block = sparse.csr_array((np.ones(len(columns), np.float32), places), shape=(len(rows), width))
                block.sum_duplicates()
                for key in sizes:
                    values = getattr(block, key)
                    size = parts[key].shape[0]
                    parts[key].resize((size + len(values),))
                    parts[key][size:] = values
                starts.append(block.indptr[1:].astype(np.int64) + starts[-1][-1])
            x["indptr"] = np.concatenate(starts)
        stream["mod"].attrs["mod-order"] = ["rna", "prot"]


def learn(path: Path, steps: int) -> dict[str, float]:
    """Trains and embeds; seconds of each part and the peak of memory in GiB."""
    import torch

    from kontrast.systems.sci2cl import Sci2CL
    from kontrast.training import TrainerConfig

    torch.set_num_threads(1)
    found, begun = {}, time.perf_counter()
    found["imported GiB"] = _peak()
    system = Sci2CL(epochs=3, warm_up=1)
    data = system.read(path)
    found["read s"] = time.perf_counter() - begun
    parts = system.split(data)
    begun = time.perf_counter()
    system.fit(parts.train, trainer=TrainerConfig(progress="off", loggers=[], max_steps=steps))
    found["fit s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    vectors = system.embed(data).vectors
    found["embed s"] = time.perf_counter() - begun
    found["vectors"] = float(len(vectors))
    found["peak GiB"] = _peak()
    return found


def _peak() -> float:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--learn", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learn is not None:
        print(json.dumps(learn(arguments.learn, arguments.steps)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "many.h5mu"
        write(path, arguments.cells, arguments.genes, arguments.density)
        print(f"{arguments.cells:,} cells, {arguments.genes:,} genes: {path.stat().st_size / 2**20:.0f} MiB on disk")
        words = [sys.executable, __file__, "--learn", str(path), "--steps", str(arguments.steps)]
        answer = subprocess.run(words, check=True, capture_output=True, text=True)
        for name, value in json.loads(answer.stdout.splitlines()[-1]).items():
            print(f"  {name:14} {value:10.2f}")


if __name__ == "__main__":
    main()
