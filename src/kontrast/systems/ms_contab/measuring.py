"""What is measured: do replicates find each other, do the views, do patients find their cohort; clusters; burden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kontrast.evaluation.clustering import cluster_agreement, kmeans
from kontrast.evaluation.probing import knn_probe
from kontrast.evaluation.relevance import Relevance
from kontrast.evaluation.retrieval import RetrievalValues, retrieval_values

Floats = npt.NDArray[np.floating]
KS = (1, 5)
REPORTED = ("mrr", "recall@1", "recall@5")


def found_cohorts(queries: Floats, candidates: Floats, places: npt.NDArray[np.int64]) -> RetrievalValues:
    """Ranks of each query's own cohort among the candidates by cosine; a query of an unknown cohort has no value."""
    relevant = [[place] if place >= 0 else [] for place in places.tolist()]
    return retrieval_values(queries, candidates, Relevance.from_lists(relevant), ks=KS)


def reported(values: RetrievalValues) -> dict[str, float]:
    """Means over queries, and the median rank."""
    means = values.means()
    return {**{name: means[name] for name in REPORTED}, "median rank": float(np.nanmedian(values.rank))}


def patient_metrics(
    known: Floats, classes: Sequence[str], patients: Floats, truth: Sequence[str], neighbours: int
) -> dict[str, float]:
    """Accuracy of the nearest known patients' vote on new patients, and agreement of k-means with the cohorts.

    "accuracy" and "macro_f1" by `neighbours` equal votes, "majority_accuracy" of the largest class; "nmi" and "ari" of
    k-means with as many clusters as there are cohorts.
    """
    votes = knn_probe(known, classes, patients, truth, k=neighbours, temperature=float("inf"))
    found = {"accuracy": votes.accuracy, "macro_f1": votes.macro_f1, "majority_accuracy": votes.majority_accuracy}
    labels = sorted(set(truth))
    if 1 < len(labels) < len(truth):
        clusters = kmeans(patients, len(labels), restarts=2)
        agreement = cluster_agreement(truth, clusters)
        found |= {"nmi": agreement["nmi"], "ari": agreement["ari"]}
    return found


def burden_correlation(vectors: Floats, totals: npt.NDArray[np.int64]) -> float:
    """|Spearman| of the vectors' first principal axis with the number of mutations: 0 if it plays no part."""
    from scipy.stats import spearmanr

    centred = vectors - vectors.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    projected = np.round(centred @ axis, 6)
    if len(vectors) < 3 or not np.ptp(projected) or not np.ptp(totals):
        return 0.0
    return abs(float(spearmanr(projected, totals).statistic))
