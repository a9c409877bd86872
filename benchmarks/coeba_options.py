"""What the options of coeba are worth: each against the preset, paired over the splits of one graph.

Results are kept in a file of lines and not measured twice, so that it may be stopped and started again.

python benchmarks/coeba_options.py citeseer.npz [--splits 5] [--part valid] [--out options.jsonl] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kontrast.evaluation.intervals import paired_difference
from kontrast.systems.coeba import CoEBA

BASE = "preset"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "no contrast": {"contrast": "off"},
    "first view: random drop": {"first_view": "drop"},
    "positives: self": {"positives": "self"},
    "first view: features masked only": {"first_view": "none"},
    "plain: random drop, self": {"first_view": "drop", "positives": "self"},
    "first view: EBA, additions only": {"first_view": "eba-add"},
    "first view: EBA, drops only": {"first_view": "eba-drop"},
    "first view: by degree (GCA)": {"first_view": "gca"},
    "first view: mixed neighbours (GRADE)": {"first_view": "grade"},
    "terms: inter": {"terms": "inter"},
    "terms: intra": {"terms": "intra"},
    "low 1": {"balancing.low": 1},
    "low twice the mean": {"balancing.low": 6},
    "weight 0.1": {"weight": 0.1},
    "weight 2": {"weight": 2.0},
    "VGAE": {"encoder.kind": "vgae"},
    "decoder: network": {"encoder.decoder": "mlp"},
}


def measured(data: str, split: int, part: str, options: dict[str, Any]) -> dict[str, float]:
    """Metrics of one run on one of the data's own splits; the split's number is the seed, too."""
    system = CoEBA(fold=split, seed=split, **options)
    parts = system.split(system.read(data))
    return system.fit(parts.train, parts.valid).evaluate(getattr(parts, part))


def main() -> None:
    """Measures what is missing, and prints a row of the table for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--part", choices=("valid", "test"), default="valid")
    parser.add_argument("--out", type=Path, default=Path("options.jsonl"))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    found = {(row["variant"], row["split"], row["part"]): row["metrics"] for row in map(json.loads, lines)}
    names = [BASE, *(name for name in VARIANTS if name in given.only and name != BASE)]
    for split, name in itertools.product(range(given.splits), names):
        if (name, split, given.part) not in found:
            metrics = measured(given.data, split, given.part, VARIANTS[name])
            found[name, split, given.part] = metrics
            row = {"variant": name, "split": split, "part": given.part, "metrics": metrics}
            with given.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
    for name in names:
        rows = {}
        for metric in ("auroc", "ap"):
            own, base = (
                np.array([found[variant, split, given.part][metric] for split in range(given.splits)])
                for variant in (name, BASE)
            )
            against = paired_difference(own, base, direction="max")
            rows[metric] = (
                f"{100 * own.mean():.2f} ({100 * against.difference:+.2f}, "
                f"{100 * against.low:+.2f} to {100 * against.high:+.2f})"
            )
        print(f"| {name} | {rows['auroc']} | {rows['ap']} |", flush=True)


if __name__ == "__main__":
    main()
