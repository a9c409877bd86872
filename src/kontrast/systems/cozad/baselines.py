"""Baselines: what one would try first, from the same frozen features, and an upper reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.data.surfaces import ANOMALOUS, NORMAL, SurfaceSet, load_masks
from kontrast.randomness import numpy_rng
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.features import Describer, distance_names
from kontrast.systems.cozad.measuring import surface_metrics
from kontrast.systems.cozad.pool import centred, digests_of, fingerprint, loader
from kontrast.systems.cozad.scoring import SMOOTHED, Maps, pooled_maps

_MEMORY = 3000
_WIDTH = 64
_FITTED = 20_000


_last: tuple[list[str], dict[str, dict[str, float]]] | None = None
"""What was measured last, on what."""


def surface_baselines(
    describer: Describer, train: SurfaceSet, test: SurfaceSet, config: CoZADConfig
) -> dict[str, dict[str, float]]:
    """Metrics by name of the method.

    Zero-shot without training: the in-image distance at the deepest level, with the mean of the top hundredth or the
    median as the image score. From the sources' normal images: distance to the nearest of their patches. From the
    sources' labelled masks: logistic regression on what a patch differs from its image's median. Not zero-shot: the
    nearest patch of the tested domain's own normal images (patch memory), which is an upper reference.

    None of them knows the net or the seed of the run, so the numbers of the last call are kept for further runs of the
    process on the same images.
    """
    global _last
    facts = [describer.key, str(config.map_side), str(config.smoothing)]
    parts = (train, train.beside, test, test.beside)
    facts += ["" if part is None else fingerprint(part) for part in parts]
    if _last is None or _last[0] != facts:
        _last = (facts, _measured_baselines(describer, train, test, config))
    return {name: dict(metrics) for name, metrics in _last[1].items()}


def _measured_baselines(
    describer: Describer, train: SurfaceSet, test: SurfaceSet, config: CoZADConfig
) -> dict[str, dict[str, float]]:
    deepest = distance_names(describer.backbone)[-1]
    assert deepest.endswith(SMOOTHED)
    features = list(describer(digests_of(test), loader(test, describer.side)))
    maps = [found.distances[-1].astype(np.float32) for found in features]
    masks = load_masks(test, config.map_side)
    pooled = [pooled_maps({deepest: each}) for each in maps]

    def measured(scores: npt.ArrayLike, these: list[Maps]) -> dict[str, float]:
        return surface_metrics(
            np.asarray(scores, np.float64), these, test, side=config.map_side, smoothing=config.smoothing, masks=masks
        )

    found = {
        "in-image distance, top": measured([each[f"{deepest}: top"] for each in pooled], maps),
        "in-image distance, median": measured([each[f"{deepest}: median"] for each in pooled], maps),
    }
    patches = _patches(describer, test)
    scale = torch.from_numpy(np.concatenate(_patches(describer, train)[::8])).std(0).clamp_min(1e-4)
    own, others = test.beside, train
    for name, source in (
        ("nearest normal patch of the sources", others),
        ("in-domain patch memory (not zero-shot)", own),
    ):
        if source is not None and len(source):
            judge = _nearest(_patches(describer, source, whole=True), scale)
            these = _judged(judge, _patches(describer, test, whole=True))
            found[name] = measured([pooled_maps({"": each})[": top"] for each in these], these)
    fitted = _logistic(describer, train, scale)
    if fitted is not None:
        these = _judged(fitted, patches)
        found["logistic regression on labelled sources"] = measured(
            [pooled_maps({"": each})[": top"] for each in these], these
        )
    found["chance"] = {"auroc": 0.5}
    return found


Judge = Callable[[Tensor], Tensor]


def _patches(describer: Describer, data: SurfaceSet, *, whole: bool = False) -> list[npt.NDArray[np.float32]]:
    """(cells, channels) patches of each image, less the image's median unless `whole`."""
    features = describer(digests_of(data), loader(data, describer.side))
    if whole:
        return [found.patches.reshape(-1, found.patches.shape[-1]).astype(np.float32) for found in features]
    return [centred(found) for found in features]


def _judged(judge: Judge, patches: list[npt.NDArray[np.float32]]) -> list[Maps]:
    side = round(len(patches[0]) ** 0.5)
    return [judge(torch.from_numpy(each)).numpy().reshape(side, side).astype(np.float32) for each in patches]


def _nearest(patches: list[npt.NDArray[np.float32]], scale: Tensor) -> Judge:
    """Distance to the nearest of some thousand patches, in a random projection that keeps distances."""
    rows = np.concatenate(patches)
    rng = numpy_rng(0, "patch memory")
    chosen = torch.from_numpy(rows[rng.permutation(len(rows))[:_MEMORY]]) / scale
    width = min(_WIDTH, chosen.shape[1])
    projection = torch.from_numpy(rng.standard_normal((chosen.shape[1], width)).astype(np.float32)) / width**0.5
    memory = chosen @ projection
    return lambda rows: torch.cdist((rows / scale) @ projection, memory).min(1).values


def _logistic(describer: Describer, train: SurfaceSet, scale: Tensor) -> Judge | None:
    """Logistic regression on |patch - median|, from the sources' test images with masks; None without any."""
    from sklearn.linear_model import LogisticRegression

    labelled = train.beside
    if labelled is None:
        return None
    labelled = labelled.take(np.array([row.domain in labelled.masked for row in labelled.rows], dtype=bool))
    if not {NORMAL, ANOMALOUS} <= set(labelled.labels.tolist()):
        return None
    rows = np.abs(np.concatenate(_patches(describer, labelled))) / scale.numpy()
    cells = round((len(rows) / len(labelled)) ** 0.5)
    inside = np.concatenate([mask.ravel() for mask in load_masks(labelled, cells)])
    rng = numpy_rng(0, "logistic regression")
    chosen = np.concatenate([rng.permutation(np.flatnonzero(inside == odd))[: _FITTED // 2] for odd in (False, True)])
    fitted = LogisticRegression(C=0.1, max_iter=200, class_weight="balanced").fit(rows[chosen], inside[chosen])
    weights = torch.from_numpy(fitted.coef_[0].astype(np.float32))
    return lambda patches: (patches.abs() / scale) @ weights
