"""Evaluation: metrics per item, intervals that hold what varies, leak checks, probes, search and maps.

Importing this package loads NumPy and torch only; scikit-learn, faiss, bm25s and UMAP are imported when first used.
"""

from kontrast.evaluation.calibration import (
    PlattScaling,
    Reliability,
    brier_score,
    expected_calibration_error,
    fit_platt,
    reliability,
)
from kontrast.evaluation.clustering import (
    cluster_agreement,
    cluster_indices,
    clustering_metrics,
    kmeans,
    silhouette,
    ward,
    ward_tree,
)
from kontrast.evaluation.comparison import RunDifference, compare_items, compare_values
from kontrast.evaluation.detection import (
    auroc,
    average_precision,
    detection_interval,
    detection_metrics,
    link_metrics,
    link_ranks,
    link_values,
)
from kontrast.evaluation.intervals import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    coverage,
    paired_difference,
    pseudo_values,
)
from kontrast.evaluation.leaks import Leak, LeakReport, check_leaks, check_retrieval_leaks
from kontrast.evaluation.lexical import BM25, bm25_values, tokenise
from kontrast.evaluation.probing import ProbeResult, knn_probe, linear_probe
from kontrast.evaluation.projection import Projection, project
from kontrast.evaluation.ranks import (
    PositiveRanks,
    rank_positives,
    rank_positives_from_run,
    rank_positives_from_scores,
    read_qrels,
    read_run,
)
from kontrast.evaluation.relevance import Relevance
from kontrast.evaluation.retrieval import (
    RetrievalValues,
    retrieval_metrics,
    retrieval_values,
    retrieval_values_from_run,
    retrieval_values_from_scores,
    values_of_ranks,
)
from kontrast.evaluation.search import SearchIndex, top_k

__all__ = [
    "BM25",
    "Interval",
    "Leak",
    "LeakReport",
    "PairedDifference",
    "PlattScaling",
    "PositiveRanks",
    "ProbeResult",
    "Projection",
    "Relevance",
    "Reliability",
    "RetrievalValues",
    "RunDifference",
    "SearchIndex",
    "auroc",
    "average_precision",
    "bm25_values",
    "bootstrap_interval",
    "brier_score",
    "check_leaks",
    "check_retrieval_leaks",
    "cluster_agreement",
    "cluster_indices",
    "clustering_metrics",
    "compare_items",
    "compare_values",
    "coverage",
    "detection_interval",
    "detection_metrics",
    "expected_calibration_error",
    "fit_platt",
    "kmeans",
    "knn_probe",
    "linear_probe",
    "link_metrics",
    "link_ranks",
    "link_values",
    "paired_difference",
    "project",
    "pseudo_values",
    "rank_positives",
    "rank_positives_from_run",
    "rank_positives_from_scores",
    "read_qrels",
    "read_run",
    "reliability",
    "retrieval_metrics",
    "retrieval_values",
    "retrieval_values_from_run",
    "retrieval_values_from_scores",
    "silhouette",
    "tokenise",
    "top_k",
    "values_of_ranks",
    "ward",
    "ward_tree",
]
