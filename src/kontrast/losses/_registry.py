"""The list of objectives, which tests and tables run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kontrast.losses import (
    _hard,
    _infonce,
    _margin,
    _mmd,
    _ntxent,
    _orthogonality,
    _queue,
    _rank,
    _regularisers,
    _sigmoid,
    _supcon,
    _uniformity,
)
from kontrast.ops import Combine


@dataclass(frozen=True)
class Objective:
    """An objective: the pure function, the module that owns what it learns (if it has one), and how ranks combine."""

    name: str
    function: Callable[..., Tensor]
    module: type[nn.Module] | None

    @property
    def combine(self) -> Combine:
        """How the ranks of this objective combine."""
        kind: Combine = self.function.combine  # type: ignore[attr-defined]
        return kind

    @property
    def ring(self) -> bool:
        """Whether its ranks need no more than their own rows and two travelling blocks (``gather="ring"``)."""
        able: bool = self.function.ring  # type: ignore[attr-defined]
        return able


# Softmax-type and sigmoid objectives, on the engine in `kontrast.ops`.
_SOFTMAX: tuple[tuple[Any, type[nn.Module] | None], ...] = (
    (_infonce.info_nce, _infonce.InfoNCE),
    (_infonce.clip_loss, _infonce.ClipLoss),
    (_ntxent.nt_xent, _ntxent.NTXent),
    (_ntxent.grace, _ntxent.Grace),
    (_ntxent.dcl, _ntxent.DCL),
    (_supcon.supcon, _supcon.SupCon),
    (_supcon.multi_positive, _supcon.MultiPositive),
    (_supcon.prototype_loss, _supcon.PrototypeLoss),
    (_hard.hard_negative_loss, _hard.HardNegativeLoss),
    (_hard.debiased_loss, _hard.HardNegativeLoss),
    (_queue.queue_loss, _queue.QueueLoss),
    (_sigmoid.sigmoid_loss, _sigmoid.SigmoidLoss),
)

# Margins, distances, moments.
_OTHERS: tuple[tuple[Any, type[nn.Module] | None], ...] = (
    (_margin.ranking_hinge, None),
    (_margin.triplet_from_distances, None),
    (_margin.triplet, _margin.Triplet),
    (_margin.quadruplet, None),
    (_margin.in_batch_hinge, _margin.InBatchHinge),
    (_mmd.mmd, _mmd.MMD),
    (_orthogonality.difference, None),
    (_orthogonality.cosine_orthogonality, None),
    (_rank.rank_n_contrast, _rank.RankNContrast),
    (_rank.ranked_sets_contrast, None),
    (_regularisers.variance_term, None),
    (_regularisers.covariance_term, None),
    (_regularisers.vicreg, _regularisers.VICReg),
    (_regularisers.barlow_twins, _regularisers.BarlowTwins),
    (_uniformity.alignment, None),
    (_uniformity.uniformity, _uniformity.AlignmentUniformity),
)


def objectives() -> dict[str, Objective]:
    """Every objective by name.

    Example:
        >>> objectives()["clip_loss"].combine
        'gathered_candidates'
    """
    return {
        function.__name__: Objective(function.__name__, function, module) for function, module in (*_SOFTMAX, *_OTHERS)
    }
