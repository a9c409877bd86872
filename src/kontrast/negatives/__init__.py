"""Where negatives come from: memories of earlier batches, mining, and what must be left out of both."""

from kontrast.negatives.exclusion import (
    Similarity,
    duplicate_ids,
    exclusions,
    paired_scores,
    suspected_positives,
    too_similar,
)
from kontrast.negatives.mining import (
    Mined,
    mine_band,
    mine_hardest,
    mine_semi_hard,
    positive_aware_limit,
    sample_mined,
)
from kontrast.negatives.momentum import MomentumEncoder, update_momentum
from kontrast.negatives.queue import FeatureQueue

__all__ = [
    "FeatureQueue",
    "Mined",
    "MomentumEncoder",
    "Similarity",
    "duplicate_ids",
    "exclusions",
    "mine_band",
    "mine_hardest",
    "mine_semi_hard",
    "paired_scores",
    "positive_aware_limit",
    "sample_mined",
    "suspected_positives",
    "too_similar",
    "update_momentum",
]
