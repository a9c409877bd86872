"""sci2cl and principal components on every data set of the catalogue, on held-out cells and on all cells.

    python benchmarks/sci2cl_clustering.py [--sets a549 cellmix ...] [--seeds 0 1 2] [--out table.md]

All rows of a set are measured alike: the model and the components are learned from the training cells, k-means has as
many clusters as there are types, ten k-means seeds; types with fewer than ten cells and cells without a label are left
out. ± is the deviation over the seeds of training. "all" holds the training cells too; training did not see their
labels.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kontrast.data import catalogue
from kontrast.systems.sci2cl import Sci2CL
from kontrast.systems.sci2cl.baselines import component_spaces
from kontrast.systems.sci2cl.measuring import cluster_metrics
from kontrast.systems.sci2cl.views import with_labels

SETS = {
    "cellmix": ("sci2cl_cellmix", "cellmix.h5mu", ["cell_type"]),
    "bmmc": ("sci2cl_bmmc_cite", "bmmc_cite.h5mu", ["cell_type"]),
    "a549": ("sci2cl_a549", "a549_scicar.h5mu", ["time_h"]),
    "pbmc": ("sci2cl_pbmc_cite", "pbmc10k_cite.h5mu", ["cell_type_l1", "cell_type_l2"]),
}
METRICS = ("nmi", "ari", "acc")


def measure(name: str, seeds: list[int]) -> list[str]:
    """Lines of the table for one set; a model is learned once and measured by every column of labels."""
    folder, file, columns = SETS[name]
    found: dict[tuple[str, str, str], list[list[float]]] = {}
    for seed in seeds:
        system = Sci2CL(label=columns[0], seed=seed)
        data = system.read(catalogue.path(folder) / file)
        parts = system.split(data)
        begun = time.process_time()
        system.fit(parts.train)
        print(f"{name}, seed {seed}: {time.process_time() - begun:.0f} s of one core to train", flush=True)
        spaces = {"sci2cl": system.vectors(data)}
        if seed == seeds[0]:
            known, asked = (list(system.parts(cells).values()) for cells in (parts.train, data))
            spaces |= component_spaces(known, asked)
        held_out = pd.Index(data.cells.ids).get_indexer(parts.test.cells.ids)
        for column in columns:
            labelled = with_labels(data.cells, system.config.changed(label=column))
            for where, rows in (("held-out", held_out), ("all", np.arange(len(data)))):
                for method, space in spaces.items():
                    metrics = cluster_metrics(space[rows], labelled.take(rows))
                    values = [metrics[metric] for metric in METRICS]
                    found.setdefault((column, where, method), []).append(values)
    lines = []
    for (column, where, method), values in found.items():
        means, spread = np.mean(values, axis=0), np.std(values, axis=0)
        cells = [f"{mean:.3f}" + (f" ± {sd:.3f}" if len(values) > 1 else "") for mean, sd in zip(means, spread)]
        lines.append(f"| {name} {column} | {where} | {method} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| labels | cells | method | NMI | ARI | ACC |", "| --- | --- | --- | --- | --- | --- |"]
    for name in arguments.sets:
        lines += measure(name, arguments.seeds)
        print("\n".join(lines), flush=True)
        if arguments.out is not None:
            arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
