"""Objectives: pure functions and thin modules that own only what is learned or remembered."""

# Softmax-type and sigmoid objectives, built on the engine in `kontrast.ops`.
from kontrast.losses._hard import HardNegativeLoss, debiased_loss, hard_negative_loss
from kontrast.losses._infonce import ClipLoss, InfoNCE, clip_loss, info_nce
from kontrast.losses._ntxent import DCL, Grace, NTXent, dcl, grace, nt_xent
from kontrast.losses._queue import QueueLoss, queue_loss
from kontrast.losses._registry import Objective, objectives
from kontrast.losses._sigmoid import SigmoidLoss, sigmoid_loss
from kontrast.losses._supcon import (
    MultiPositive,
    PrototypeLoss,
    SupCon,
    multi_positive,
    prototype_loss,
    supcon,
)
from kontrast.losses._temperature import Temperature

# Margins, distances, moments.
from kontrast.losses._margin import (  # isort: skip
    InBatchHinge,
    Triplet,
    in_batch_hinge,
    quadruplet,
    ranking_hinge,
    triplet,
    triplet_from_distances,
)
from kontrast.losses._mmd import MMD, median_bandwidth, mmd  # isort: skip
from kontrast.losses._orthogonality import cosine_orthogonality, difference  # isort: skip
from kontrast.losses._rank import RankNContrast, rank_n_contrast, ranked_sets_contrast  # isort: skip
from kontrast.losses._regularisers import (  # isort: skip
    BarlowTwins,
    VICReg,
    barlow_twins,
    covariance_term,
    variance_term,
    vicreg,
)
from kontrast.losses._uniformity import AlignmentUniformity, alignment, uniformity  # isort: skip

__all__ = [
    "DCL", "ClipLoss", "Grace", "HardNegativeLoss", "InfoNCE", "MultiPositive", "NTXent", "Objective", "PrototypeLoss",
    "QueueLoss", "SigmoidLoss", "SupCon", "Temperature", "clip_loss", "dcl", "debiased_loss", "grace",
    "hard_negative_loss", "info_nce", "multi_positive", "nt_xent", "objectives", "prototype_loss", "queue_loss",
    "sigmoid_loss", "supcon",
    # Margins, distances, moments.
    "AlignmentUniformity", "BarlowTwins", "InBatchHinge", "MMD", "RankNContrast", "Triplet", "VICReg", "alignment",
    "barlow_twins", "cosine_orthogonality", "covariance_term", "difference", "in_batch_hinge", "median_bandwidth",
    "mmd", "quadruplet", "rank_n_contrast", "ranked_sets_contrast", "ranking_hinge", "triplet",
    "triplet_from_distances", "uniformity", "variance_term", "vicreg",
]  # fmt: skip
