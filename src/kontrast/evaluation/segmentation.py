"""How well score maps find marked regions: pixel metrics pooled over images, and per-region overlap.

All metrics are exact. Each of them depends on the negatives (pixels outside every mask) only through how many of them
lie above and at each score that a positive pixel has. So the positives, which are few, are sorted once, and the
negatives of one image after another are counted into the gaps between them: time O(pixels · log positives), memory
O(positives + the largest image).

**Ties** count half, as in `kontrast.evaluation.detection`: a constant map has AUROC ½.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
_EVERY_NEIGHBOUR = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class PixelCounts:
    """What the metrics need of all pixels; made by `count_pixels`.

    Attributes:
        scores: (u,) distinct scores of positive pixels, rising.
        positives: (u,) positive pixels with that score.
        coverage: (u,) the same, each pixel counting 1 / (its region's pixels · number of regions); adds up to 1.
        above: (u,) negative pixels with a higher score.
        ties: (u,) negative pixels with that score.
        negatives: number of negative pixels.
    """

    scores: Floats
    positives: Counts
    coverage: Floats
    above: Counts
    ties: Counts
    negatives: int

    def auroc(self) -> float:
        """Area under the ROC curve of all pixels pooled."""
        beaten = self.negatives - self.above - self.ties / 2
        return float((self.positives * beaten).sum() / (self.positives.sum() * self.negatives))

    def average_precision(self) -> float:
        """Σ (recall step · precision) over thresholds; tied pixels pass a threshold together."""
        precision, _ = self._curve()
        return float((precision * self.positives).sum() / self.positives.sum())

    def f1_max(self) -> float:
        """The best F1 over all thresholds: an upper bound, since the threshold is chosen on the same pixels."""
        precision, recall = self._curve()
        return float((2 * precision * recall / (precision + recall)).max())

    def pro(self, limit: float = 0.3) -> float:
        """Area under the per-region overlap up to a false positive rate, divided by that rate.

        At each threshold the overlap is the mean over regions (connected components of the masks, 8-neighbourhood) of
        the share of the region that is found, so that small regions count as much as large ones (Bergmann et al., IJCV
        2021, section 5.1). A positive pixel adds its coverage from the false positive rate of its own score on, hence
        the area is a plain sum over positive pixels. A perfect map has 1, a constant one limit / 2.

        Args:
            limit: largest false positive rate, in (0, 1].
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit must lie in (0, 1], got {limit}")
        start = self.above / self.negatives
        width = self.ties / self.negatives
        # Over tied negatives the overlap rises linearly, from `start` over `width`.
        reached = np.clip(limit - start, 0.0, width)
        ramp = np.divide(np.square(reached), 2 * width, out=np.zeros_like(width), where=width > 0)
        area = ramp + np.maximum(limit - start - width, 0.0)
        return float((self.coverage * area).sum() / limit)

    def _curve(self) -> tuple[Floats, Floats]:
        """Precision and recall with each positive score as the threshold."""
        found = np.cumsum(self.positives[::-1])[::-1]
        false = self.above + self.ties
        return found / (found + false), found / found[0]


def count_pixels(maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike]) -> PixelCounts:
    """Counts the pixels of all images.

    Args:
        maps: n score maps (h, w), finite, higher means more anomalous; sizes may differ.
        masks: n masks (h, w) of the same sizes, 0 or False outside regions.

    Raises:
        DataError: if no pixel is positive, or none is negative.
        ValueError: if shapes disagree or a score is not finite.
    """
    from scipy.ndimage import label

    if len(maps) != len(masks):
        raise ValueError(f"got {len(maps)} maps and {len(masks)} masks")
    found: list[Floats] = []
    sizes: list[Floats] = []
    regions = outside = 0
    for values, inside in map(_checked, maps, masks):
        numbers, count = label(inside, structure=_EVERY_NEIGHBOUR)
        found.append(values[inside])
        sizes.append(np.bincount(numbers.ravel(), minlength=count + 1)[numbers[inside]].astype(np.float64))
        regions += count
        outside += int((~inside).sum())
    if not regions or not outside:
        held = "outside regions" if outside else "inside regions"
        raise DataError(f"pixel metrics need pixels inside and outside of marked regions, but all are {held}")
    scores, place = np.unique(np.concatenate(found), return_inverse=True)
    coverage = np.bincount(place, weights=1 / np.concatenate(sizes), minlength=len(scores)) / regions
    # Slot 2k holds the negatives between scores k - 1 and k, slot 2k + 1 those at score k.
    slots = np.zeros(2 * len(scores) + 1, dtype=np.int64)
    for values, inside in map(_checked, maps, masks):
        # Sorted, neighbouring searches end in neighbouring places, which is several times faster.
        others = np.sort(values[~inside])
        left = np.searchsorted(scores, others, "left")
        tied = scores[np.minimum(left, len(scores) - 1)] == others
        slots += np.bincount(2 * left + tied, minlength=len(slots))
    from_above = np.cumsum(slots[::-1])[::-1]
    return PixelCounts(
        scores, np.bincount(place, minlength=len(scores)).astype(np.int64), coverage,
        from_above[2::2], slots[1::2], outside,
    )  # fmt: skip


def segmentation_metrics(
    maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], *, limit: float = 0.3
) -> dict[str, float]:
    """ "pixel auroc", "pixel ap" and "pixel f1_max" of all pixels pooled, and "pro"; arguments as `count_pixels`."""
    counts = count_pixels(maps, masks)
    return {
        "pixel auroc": counts.auroc(),
        "pixel ap": counts.average_precision(),
        "pixel f1_max": counts.f1_max(),
        "pro": counts.pro(limit),
    }


def _checked(scores: npt.ArrayLike, mask: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, inside = np.asarray(scores), np.asarray(mask) != 0
    if values.ndim != 2 or values.shape != inside.shape:
        raise ValueError(f"a map and its mask must have one shape (h, w), got {values.shape} and {inside.shape}")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values.astype(np.float64, copy=False), inside
