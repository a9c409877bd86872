"""sci2cl and principal components on every data set of the catalogue, on held-out cells and on all cells.

    python benchmarks/sci2cl_clustering.py [--sets a549 cellmix ...] [--seeds 0 1 2] [--out table.md]

Both rows of a set are measured alike: the model and the components are learned from the training cells, k-means has as
many clusters as there are types, three k-means seeds, types with fewer than ten cells and cells without a label are
left out. "all cells" holds the training cells too; no label was used for them either.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from kontrast.data import catalogue
from kontrast.systems.sci2cl import Sci2CL

SETS = {
    "cellmix": ("sci2cl_cellmix", "cellmix.h5mu", "cell_type"),
    "bmmc": ("sci2cl_bmmc_cite", "bmmc_cite.h5mu", "cell_type"),
    "a549": ("sci2cl_a549", "a549_scicar.h5mu", "time_h"),
    "pbmc l1": ("sci2cl_pbmc_cite", "pbmc10k_cite.h5mu", "cell_type_l1"),
    "pbmc l2": ("sci2cl_pbmc_cite", "pbmc10k_cite.h5mu", "cell_type_l2"),
}
METRICS = ("nmi", "ari", "acc")


def measure(name: str, seeds: list[int]) -> list[str]:
    """Lines of the table for one set."""
    folder, file, label = SETS[name]
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in seeds:
        system = Sci2CL(label=label, seed=seed)
        data = system.read(catalogue.path(folder) / file)
        parts = system.split(data)
        system.fit(parts.train)
        for where, cells in (("held-out", parts.test), ("all", data)):
            rows = {"sci2cl": system.evaluate(cells)}
            if seed == seeds[0]:
                rows |= system.baselines(parts.train, cells)
            for method, metrics in rows.items():
                if method != "chance":
                    found.setdefault((where, method), []).append([metrics[metric] for metric in METRICS])
    lines = []
    for (where, method), values in sorted(found.items(), key=lambda item: item[0][0]):
        means, spread = np.mean(values, axis=0), np.std(values, axis=0)
        cells = [f"{mean:.3f}" + (f" ± {sd:.3f}" if len(values) > 1 else "") for mean, sd in zip(means, spread)]
        lines.append(f"| {name} | {where} | {method} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| data | cells | method | NMI | ARI | ACC |", "| --- | --- | --- | --- | --- | --- |"]
    for name in arguments.sets:
        lines += measure(name, arguments.seeds)
        print("\n".join(lines[-8:]), flush=True)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
