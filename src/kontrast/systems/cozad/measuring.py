"""Metrics of scores and maps, by domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kontrast.data.surfaces import ANOMALOUS, NORMAL, SurfaceSet, load_masks
from kontrast.errors import DataError
from kontrast.evaluation.detection import detection_metrics, link_ranks
from kontrast.evaluation.segmentation import segmentation_metrics
from kontrast.systems.cozad.scoring import Maps

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_OF_MASKS = 128
"""Side of the maps that `smoothing` speaks of."""


def enlarged(maps: Sequence[Maps], side: int, smoothing: float) -> list[Maps]:
    """Maps scaled bilinearly to (side, side) and smoothed by a Gaussian, whose deviation is meant for 128 pixels."""
    import torch
    from scipy.ndimage import gaussian_filter
    from torch.nn import functional as F

    found = []
    for each in maps:
        wide = F.interpolate(torch.from_numpy(each)[None, None], (side, side), mode="bilinear", align_corners=False)
        found.append(gaussian_filter(wide[0, 0].numpy(), smoothing * side / _OF_MASKS))
    return found


def beaten_shares(scores: Floats, data: SurfaceSet) -> tuple[Floats, npt.NDArray[np.int64]]:
    """For each anomalous image the share of its domain's normal images that it outscores, ties counting half.

    Their mean is the AUROC (with several domains the mean of theirs, by number of anomalous images).

    Returns:
        (k,) shares, and the (k,) rows of the anomalous images.

    Raises:
        DataError: if a domain has images of one class only.
    """
    labels = data.labels
    shares = np.full(len(data), np.nan)
    for domain in data.domains:
        here = data.of(domain)
        odd, good = np.flatnonzero(here & (labels == ANOMALOUS)), np.flatnonzero(here & (labels == NORMAL))
        if not len(odd) or not len(good):
            held = "normal" if len(good) else "anomalous" if len(odd) else "unlabelled"
            raise DataError(
                f"has {held} images of '{domain}' only", file=data.path, mend="give both kinds to measure on"
            )
        higher, same = link_ranks(scores[odd], scores[good])
        shares[odd] = 1 - (higher + same / 2) / len(good)
    rows = np.flatnonzero(~np.isnan(shares))
    return shares[rows], rows


def surface_metrics(
    scores: Floats,
    maps: Sequence[Maps] | None,
    data: SurfaceSet,
    *,
    side: int,
    smoothing: float,
    masks: Sequence[Mask] | None = None,
) -> dict[str, float]:
    """ "auroc", "ap" and "f1_max" of image scores; where masks are there the pixel metrics and "pro" as well.

    With several domains "ap", "f1_max" and the pixel metrics are means over domains. Types of defect have an "auroc
    <type>" each.

    Args:
        scores: (n,) image scores, higher is odder.
        maps: n maps, or None for metrics of images alone.
        data: the n images with their labels.
        side: side of the maps when they are compared with masks.
        smoothing: as in `enlarged`.
        masks: what `load_masks` gives for `data` and `side`, where that is known already.
    """
    shares, rows = beaten_shares(scores, data)
    found = {"auroc": float(shares.mean())}
    labels = data.labels
    tables: list[dict[str, float]] = []
    for domain in data.domains:
        here = np.flatnonzero(data.of(domain) & (labels >= 0))
        single = detection_metrics(scores[here], labels[here])
        if len(data.domains) > 1:
            found[f"auroc {domain}"] = single["auroc"]
        table = {"ap": single["ap"], "f1_max": single["f1_max"]}
        if maps is not None and domain in data.masked:
            inside = load_masks(data.take(here), side) if masks is None else [masks[int(row)] for row in here]
            wide = enlarged([maps[int(row)] for row in here], side, smoothing)
            table |= segmentation_metrics(wide, inside)
        tables.append(table)
    for name in dict.fromkeys(name for table in tables for name in table):
        found[name] = float(np.mean([table[name] for table in tables if name in table]))
    kinds = [data.rows[row].kind for row in rows]
    if len(set(kinds)) > 1:
        for kind in sorted(set(kinds)):
            found[f"auroc {kind}"] = float(shares[[each == kind for each in kinds]].mean())
    return found
