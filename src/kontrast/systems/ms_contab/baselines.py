"""What a reader would try first: profiles compared as they are, their principal axes, factorisation, no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kontrast.systems.ms_contab.answers import substitution_shares
from kontrast.systems.ms_contab.clusters import unit
from kontrast.systems.ms_contab.measuring import found_cohorts, patient_metrics, reported
from kontrast.systems.ms_contab.views import VIEWS, Entities, cohort_entities, single_patients, view_table

if TYPE_CHECKING:
    from kontrast.systems.ms_contab.system import MSConTab

Floats = npt.NDArray[np.floating]
PARTS = 32


def profile_baselines(system: MSConTab, train: Entities, test: Entities) -> dict[str, dict[str, float]]:
    """Retrieval by square roots of shares (gene, chromosome, both, 12 classes) and by NMF; patients by PCA and SVD."""
    if train.level == "cohort" and train.truth is not None and test.truth is not None:
        found = _cohorts(system, train, test)
    else:
        found = {}
    single = [single_patients(part, system.config.min_mutations) for part in (train, test)]
    if single[0] is not None and single[1] is not None:
        found["principal axes of both views"] = _patients(system, single[0], single[1], test)
    return found


def _cohorts(system: MSConTab, train: Entities, test: Entities) -> dict[str, dict[str, float]]:
    known = cohort_entities(train.counts.take(train.samples()))
    places = np.array([known.names.index(name) if name in known.names else -1 for name in test.truth or ()])
    genes, plain = system.facts_["genes"], system.config.profile.changed(pool="counts")
    sides = [
        {view: _shares(part.summed(view_table(part.counts, view, genes, plain))) for view in VIEWS}
        for part in (known, test)
    ]
    for side in sides:
        side["both"] = np.concatenate([side[view] for view in VIEWS], axis=1)
        part = known if side is sides[0] else test
        side["averaged"] = np.concatenate([_shares(system.view_counts(part, view)) for view in VIEWS], axis=1)
        side["substitutions"] = np.sqrt(substitution_shares(part, 12)).astype(np.float32)
    found = {}
    for name, title in (
        ("gene", "gene profile"),
        ("chromosome", "chromosome profile"),
        ("both", "both profiles"),
        ("averaged", "both profiles, pooled as the model's"),
        ("substitutions", "shares of the 12 substitutions"),
    ):
        mean = sides[0][name].mean(0)
        found[title] = reported(found_cohorts(sides[1][name] - mean, sides[0][name] - mean, places))
    rows = [_factors(*(side["both"] for side in sides))[number] for number in (0, 1)]
    found["NMF of both profiles"] = reported(found_cohorts(rows[1], rows[0], places))
    return found


def _factors(known: Floats, asked: Floats) -> tuple[Floats, Floats]:
    """Weights of non-negative factors of the known profiles, in either set of profiles."""
    from sklearn.decomposition import NMF

    parts = max(2, min(12, len(known) - 1))
    model = NMF(parts, init="nndsvda", max_iter=400, tol=1e-3, random_state=0).fit(known.astype(np.float64))
    return model.transform(known.astype(np.float64)), model.transform(asked.astype(np.float64))


def _patients(system: MSConTab, train: Entities, test: Entities, asked: Entities) -> dict[str, float]:
    """PCA of square roots of the chromosome view beside SVD of logarithms of the gene view, unit length each."""
    from sklearn.decomposition import PCA, TruncatedSVD

    sides: list[Any] = [[], []]
    makers = (("chromosome", PCA(min(PARTS, len(train) - 1), random_state=0), _shares),
              ("gene", TruncatedSVD(2 * PARTS, random_state=0), np.log1p))  # fmt: skip
    for view, maker, scale in makers:
        rows = [scale(system.view_counts(part, view)) for part in (train, test)]
        if isinstance(maker, TruncatedSVD):
            maker.n_components = min(maker.n_components, rows[0].shape[1] - 1, len(train) - 1)
        maker.fit(rows[0])
        for side, part in zip(sides, rows):
            side.append(unit(maker.transform(part).astype(np.float32)))
    known, vectors = (np.concatenate(side, axis=1) for side in sides)
    metrics = patient_metrics(known, list(train.truth or ()), vectors, list(test.truth or ()), system.config.neighbours)
    found = {f"patient {name}": value for name, value in metrics.items()}
    names = sorted(set(train.truth or ()))
    means = np.stack([known[np.array(train.truth) == name].mean(0) for name in names])
    if asked.level == "patient":
        places = [names.index(name) if name in names else -1 for name in test.truth or ()]
        found = reported(found_cohorts(vectors, means, np.array(places))) | found
    else:
        found |= _summed(vectors, test, means, names)
    return found


def _summed(vectors: Floats, test: Entities, means: Floats, names: list[str]) -> dict[str, float]:
    """Cohorts as means of their patients' vectors, looked for among those of the training patients."""
    cohorts = np.array(test.truth)
    asked = sorted(set(test.truth or ()))
    rows = np.stack([vectors[cohorts == name].mean(0) for name in asked])
    places = np.array([names.index(name) if name in names else -1 for name in asked])
    centre = means.mean(0)
    return reported(found_cohorts(rows - centre, means - centre, places))


def _shares(counts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1)), dtype=np.float32)
