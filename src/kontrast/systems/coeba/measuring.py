"""What is measured of scores: ranks of true edges among non-edges, by hard negatives and by degrees of the ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.calibration import PlattScaling, expected_calibration_error
from kontrast.evaluation.detection import link_metrics, link_ranks, link_values
from kontrast.systems.coeba.views import LinkData

Nodes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Score = Callable[[Nodes], npt.NDArray[np.floating]]
KS = (10, 50, 100)
SLICES = ((0, 0), (1, 2), (3, 5), (6, 10), (11, None))
"""Smallest and largest degree, in the seen edges, of an edge's end of lower degree."""


def link_measurement(
    score: Score, data: LinkData, platt: PlattScaling | None = None
) -> tuple[dict[str, float], Floats]:
    """Metrics of the scores of the rows against the negatives, and each row's share of the AUROC.

    "auroc", "ap", "hits@K" and "mrr" against the shared negatives; "hard mrr" and "hard hits@10" against a row's own;
    "ece" is the calibration error of probabilities, where there are any, among the edges and the shared negatives.
    "auroc degree A-B" is the AUROC of the edges whose end of lower degree has A to B seen edges, against all negatives.

    Args:
        score: logits (k,) of pairs (k, 2).
        data: rows of true edges, with negatives.
        platt: from logits to probabilities.

    Returns:
        The metrics, and (n,) the share of negatives that each row beats, a tie counting ½: their mean is the AUROC.

    Raises:
        DataError: if the data hold no true edges or no negatives.
    """
    if data.kind != "edge" or not len(data.rows) or not len(data.negatives):
        raise DataError(
            f"metrics need true edges and pairs that are no edges, and there are {len(data.rows)} rows of kind "
            f"'{data.kind}' and {len(data.negatives)} negatives",
            file=data.graph.path,
            mend="give a graph",
        )
    positives, negatives = score(data.rows), score(data.negatives)
    metrics = link_metrics(positives, negatives, KS)
    beaten = beaten_shares(positives, negatives)
    if platt is not None:
        labels = np.repeat([1, 0], [len(positives), len(negatives)])
        metrics["ece"] = expected_calibration_error(platt.probabilities(np.concatenate([positives, negatives])), labels)
    if data.hard is not None:
        values = link_values(positives, score(data.hard.reshape(-1, 2)).reshape(data.hard.shape[:2]), (10,))
        metrics |= {f"hard {name}": float(values[name].mean()) for name in ("mrr", "hits@10")}
    metrics |= {f"auroc degree {name}": float(beaten[rows].mean()) for name, rows in degree_slices(data)}
    return metrics, beaten


def beaten_shares(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> Floats:
    """(n,) share of the negatives that score below each positive, a tie counting ½."""
    higher, same = link_ranks(positives, negatives)
    count = np.asarray(negatives).shape[-1]
    return np.asarray((count - higher - same / 2) / count)


def degree_slices(data: LinkData) -> Iterator[tuple[str, Nodes]]:
    """Names and rows of the slices that have any rows."""
    lower = data.degrees()[data.rows].min(1)
    for least, most in SLICES:
        rows = np.flatnonzero((lower >= least) & (lower <= (most if most is not None else lower.max(initial=0))))
        if len(rows):
            yield f"{least}" if least == most else f"{least}-{most}" if most is not None else f"{least}+", rows
