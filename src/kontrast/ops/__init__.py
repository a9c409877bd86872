"""The similarity engine: streamed statistics of logits, the rule of an objective, and gathering across ranks."""

from kontrast.ops.contrast import contrast
from kontrast.ops.diagnostics import Diagnostics, record_diagnostics
from kontrast.ops.gather import (
    Combine,
    Group,
    all_gather_rows,
    gather_rows,
    group_in_force,
    joined_mean,
    joined_ranks,
    joined_sum,
    rank_count,
    sum_over_ranks,
)
from kontrast.ops.masks import Mask
from kontrast.ops.rule import Labels, Paired, Pairs, Rule
from kontrast.ops.settings import EngineSettings, Products, current_settings, engine_settings
from kontrast.ops.streamed import logsumexp_streamed, softplus_streamed

__all__ = [
    "Combine", "Diagnostics", "EngineSettings", "Group", "Labels", "Mask", "Paired", "Pairs", "Products", "Rule",
    "all_gather_rows", "contrast", "current_settings", "engine_settings", "gather_rows", "group_in_force",
    "joined_mean", "joined_ranks", "joined_sum", "logsumexp_streamed", "rank_count", "record_diagnostics",
    "softplus_streamed", "sum_over_ranks",
]  # fmt: skip
