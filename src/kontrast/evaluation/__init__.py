"""Evaluation: metrics per item, intervals that hold what varies, leak checks, probes, search and maps.

Importing this package loads NumPy, SciPy and torch only; scikit-learn, faiss, bm25s and UMAP are imported when first
used.
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
    leiden,
    neighbour_graph,
    number_of_clusters,
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
from kontrast.evaluation.matching import matching_metrics, neighbour_lists, neighbour_overlap
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
from kontrast.evaluation.sentiment import sentiment_metrics, seven_classes
from kontrast.evaluation.trajectory import backbone, edge_f1, order_correlation, path_edges, pseudotime, type_graph

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
    "backbone",
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
    "edge_f1",
    "expected_calibration_error",
    "fit_platt",
    "kmeans",
    "knn_probe",
    "leiden",
    "linear_probe",
    "link_metrics",
    "link_ranks",
    "link_values",
    "matching_metrics",
    "neighbour_graph",
    "neighbour_lists",
    "neighbour_overlap",
    "number_of_clusters",
    "order_correlation",
    "paired_difference",
    "path_edges",
    "project",
    "pseudo_values",
    "pseudotime",
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
    "sentiment_metrics",
    "seven_classes",
    "type_graph",
    "values_of_ranks",
    "ward",
    "ward_tree",
]
