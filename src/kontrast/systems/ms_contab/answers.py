"""What predict answers: relatives, clusters, classes, what mattered, substitutions of clusters, counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.mutations import CHROMOSOMES, PYRIMIDINE, SUBSTITUTIONS, collapse_matrix
from kontrast.data.tables import write_table
from kontrast.encoders.tabnet import TabNetEncoder
from kontrast.errors import ConfigError, DataError
from kontrast.systems.ms_contab.clusters import clusters_of, unit
from kontrast.systems.ms_contab.views import VIEWS, Entities, thinned_samples

if TYPE_CHECKING:
    from kontrast.systems.ms_contab.system import MSConTab

Vectors = npt.NDArray[np.float32]
DRAWS = 8


def answer(system: MSConTab, data: Entities) -> pd.DataFrame:
    """The answer to the question that the option ``ask`` names."""
    if system.config.ask == "profile":
        return data.counts.take(data.samples()).to_frame()
    questions = {
        "neighbours": nearest_cohorts,
        "clusters": clustered,
        "class": voted_classes,
        "explain": explained,
        "enrichment": enriched,
    }
    return questions[system.config.ask](system, data)


def nearest_cohorts(system: MSConTab, data: Entities) -> pd.DataFrame:
    """The `top_k` nearest known cohorts of each entity: id, rank, cohort, cosine, spread.

    A cohort that is itself among the known ones is not its own neighbour. `spread` is one minus the mean cosine between
    an entity's vector and those of copies that keep half of its mutations: large where there are few to go by.
    """
    names = system.known_.names
    _some_known(system)
    vectors = system.vectors(data)
    scores = unit(vectors) @ unit(system.known_.cohorts).T
    if data.level == "cohort":
        own = system.known_.places(data.names)
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    kept = min(system.config.top_k, len(names))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.array(data.names, dtype=object), kept),
            "rank": np.tile(np.arange(1, kept + 1), len(data)),
            "cohort": np.array(names, dtype=object)[best.ravel()],
            "cosine": np.take_along_axis(scores, best, 1).ravel(),
            "spread": np.repeat(spread(system, data, vectors), kept),
        }
    )
    finite: pd.DataFrame = frame[np.isfinite(frame["cosine"])]
    return finite.reset_index(drop=True)


def spread(system: MSConTab, data: Entities, vectors: Vectors) -> npt.NDArray[np.float64]:
    """(n,) one minus the mean cosine between vectors and those of copies with half of the mutations."""
    total = np.zeros(len(data))
    rows = data.samples()
    members = tuple(np.searchsorted(rows, some) for some in data.members)
    own = replace(data, counts=data.counts.take(rows), members=members)
    for draw in range(DRAWS):
        half = replace(own, counts=thinned_samples(own.counts, 0.5, ("spread", draw)))
        total += (unit(system.vectors(half)) * unit(vectors)).sum(1)
    return np.asarray(np.clip(1 - total / DRAWS, 0, 2))


def clustered(system: MSConTab, data: Entities) -> pd.DataFrame:
    """Clusters of the given entities among themselves: id, cluster, silhouette, prototype, mutations.

    `prototype` marks the entity nearest to its cluster's mean.
    """
    from sklearn.metrics import silhouette_samples

    vectors = unit(system.vectors(data))
    clusters = clusters_of(system, data, vectors)
    prototype = np.zeros(len(data), dtype=bool)
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        mean = vectors[rows].mean(0)
        prototype[rows[np.argmin(np.linalg.norm(vectors[rows] - mean, axis=1))]] = True
    frame = {
        "id": list(data.names),
        "cluster": clusters,
        "silhouette": silhouette_samples(vectors, clusters),
        "prototype": prototype,
        "mutations": data.totals(),
    }
    if data.level == "patient" and data.truth is not None:
        frame["cohort"] = list(data.truth)
    return pd.DataFrame(frame)


def voted_classes(system: MSConTab, data: Entities) -> pd.DataFrame:
    """The cohort of each entity by vote of its nearest known patients: id, cohort, share, second, second_share.

    A model of whole cohorts knows no patients; then the nearest cohort is the answer and its cosine stands in `share`.
    """
    _some_known(system)
    known, vectors = system.known_, unit(system.vectors(data))
    names = np.array(known.names, dtype=object)
    if len(known.patients):
        kept = min(system.config.neighbours, len(known.patients))
        scores = vectors @ unit(known.patients).T
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
        shares = np.zeros((len(data), len(names)))
        np.add.at(shares, (np.repeat(np.arange(len(data)), kept), known.classes[nearest.ravel()]), 1 / kept)
    else:
        shares = (vectors @ unit(known.cohorts).T).astype(np.float64)
    order = np.argsort(-shares, axis=1, kind="stable")
    places = np.arange(len(data))
    second = order[:, min(1, len(names) - 1)]
    return pd.DataFrame(
        {
            "id": list(data.names),
            "cohort": names[order[:, 0]],
            "share": shares[places, order[:, 0]],
            "second": names[second],
            "second_share": shares[places, second],
            "mutations": data.totals(),
        }
    )


def importances(system: MSConTab, data: Entities) -> dict[str, npt.NDArray[np.float64]]:
    """For each view (n, names, classes) how much each count mattered; each row adds up to 1.

    Of TabNet the masks, weighted by what their steps contributed (arXiv 1908.07442, section 3.6), times the absolute
    value of the input, since a mask over groups says nothing about their columns; of other encoders the absolute value
    of input times gradient of the vector's squared length.
    """
    classes = system.config.profile.classes
    if system.config.profile.gene_view == "ranked":
        raise ConfigError("option 'ask': explain needs gene_view=aligned; a column of ranks is no gene.")
    found = {}
    for view in VIEWS:
        tower = system.model_.tower(view)
        rows = tower.scaling(torch.from_numpy(system.view_counts(data, view))).requires_grad_()
        if isinstance(tower.encoder, TabNetEncoder):
            weights = tower.encoder.decide(rows).importance()
            if tower.encoder.groups is not None:
                weights = weights[:, tower.encoder.groups]
        else:
            vectors = tower.head(tower.encoder({"vectors": rows}))
            (weights,) = torch.autograd.grad(vectors.square().sum(), rows)
        weights = (weights * rows).abs().detach()
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        found[view] = weights.double().numpy().reshape(len(data), -1, classes)
    return found


def explained(system: MSConTab, data: Entities) -> pd.DataFrame:
    """The `top_k` genes, chromosomes and substitutions that mattered most: id, kind, rank, name, importance."""
    weights = importances(system, data)
    classes = SUBSTITUTIONS if system.config.profile.classes == 12 else PYRIMIDINE
    scores = {
        "gene": (weights["gene"].sum(2), tuple(system.facts_["genes"])),
        "chromosome": (weights["chromosome"].sum(2), CHROMOSOMES),
        "substitution": ((weights["gene"].sum(1) + weights["chromosome"].sum(1)) / 2, classes),
    }
    parts = []
    for kind, (table, names) in scores.items():
        kept = min(system.config.top_k, len(names))
        best = np.argsort(-table, axis=1, kind="stable")[:, :kept]
        parts.append(
            pd.DataFrame(
                {
                    "id": np.repeat(np.array(data.names, dtype=object), kept),
                    "kind": kind,
                    "rank": np.tile(np.arange(1, kept + 1), len(data)),
                    "name": np.array(names, dtype=object)[best.ravel()],
                    "importance": np.take_along_axis(table, best, 1).ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def substitution_shares(data: Entities, classes: int) -> npt.NDArray[np.float64]:
    """(n, 12) or (n, 6) shares of the substitutions of each entity, over all chromosomes."""
    counts = data.summed(data.counts.by_chromosome).reshape(len(data), len(CHROMOSOMES), -1).sum(1).astype(np.float64)
    if classes == len(PYRIMIDINE):
        counts = counts @ collapse_matrix()
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def enriched(system: MSConTab, data: Entities) -> pd.DataFrame:
    """Substitutions that a cluster has more or less of than the others: cluster, substitution, inside, outside, p, q.

    Two-sided Mann-Whitney test of the entities' shares inside and outside; q controls the false discovery rate
    (Benjamini and Hochberg 1995). The clusters come from the same mutations, so p tells how large a difference is, not
    whether it would be found again.
    """
    from scipy.stats import false_discovery_control, mannwhitneyu

    classes = system.config.profile.classes
    clusters = clusters_of(system, data, system.vectors(data))
    shares = substitution_shares(data, classes)
    rows = []
    for cluster in np.unique(clusters):
        inside = clusters == cluster
        for place, name in enumerate(SUBSTITUTIONS if classes == 12 else PYRIMIDINE):
            ours, others = shares[inside, place], shares[~inside, place]
            p = 1.0 if np.ptp(shares[:, place]) == 0 else float(mannwhitneyu(ours, others).pvalue)
            rows.append((int(cluster), name, ours.mean(), others.mean(), p))
    frame = pd.DataFrame(rows, columns=["cluster", "substitution", "inside", "outside", "p"])
    return frame.assign(q=false_discovery_control(frame["p"].to_numpy()))


def write_folder(system: MSConTab, data: Entities, answers: pd.DataFrame, folder: Path) -> None:
    """Writes answers.csv, embeddings.parquet (per view), clusters.csv, neighbours.csv and prints nothing."""
    folder.mkdir()
    write_table(answers, folder / "answers.csv")
    vectors = {"joint": system.vectors(data)} | {view: system.view_vectors(data, view) for view in VIEWS}
    frames = [
        pd.DataFrame({"id": list(data.names), "view": view, "vector": list(rows)}) for view, rows in vectors.items()
    ]
    write_table(pd.concat(frames, ignore_index=True), folder / "embeddings.parquet")
    if system.known_.names:
        write_table(nearest_cohorts(system, data), folder / "neighbours.csv")
    if len(data) >= 3:
        write_table(clustered(system, data), folder / "clusters.csv")


def _some_known(system: MSConTab) -> None:
    if not system.known_.names:
        mend = "train on data that name cohorts, or ask for clusters, explain or profile"
        raise DataError("the training data named no cohorts that could be neighbours", mend=mend)
