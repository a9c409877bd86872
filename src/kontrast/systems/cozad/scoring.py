"""Scoring: how maps of an image become an anomaly map and a score, and how that is chosen on the sources.

Every image has several maps: in-image distances of frozen features at several depths, and three of the net. What they
are worth on an unseen domain cannot be seen there; it can be seen on the source domains, each of which has normal and
anomalous images of its own. So maps, pooling and weights are chosen on the sources and on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.detection import auroc

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]
POOLINGS = ("top", "mean", "median")
SMOOTHED = ", smoothed"
LEARNED = ("discriminator", "compactness", "learned distance")
"""Names of the maps that the net makes of an image, in their order."""
TOP_SHARE, TOP_LEAST = 0.01, 4
_PICKS = 6


@dataclass(frozen=True)
class Scoring:
    """A weighted sum of standardised maps, and one of standardised pooled maps.

    Attributes:
        pixel: weight of each map in the anomaly map, by name.
        image: weight of each pooled map in the image score, by "name: pooling".
        pixel_scale, image_scale: mean and deviation of each of these on normal source images.
        chosen_on: what the weights were chosen on, in words.
    """

    pixel: Mapping[str, float]
    image: Mapping[str, float]
    pixel_scale: Mapping[str, tuple[float, float]]
    image_scale: Mapping[str, tuple[float, float]]
    chosen_on: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, exact."""
        return {
            "pixel": dict(self.pixel), "image": dict(self.image), "chosen_on": self.chosen_on,
            "pixel_scale": {name: list(value) for name, value in self.pixel_scale.items()},
            "image_scale": {name: list(value) for name, value in self.image_scale.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Scoring:
        """The inverse of `to_json`."""
        pixel, image = (
            {name: (value[0], value[1]) for name, value in facts[kind].items()}
            for kind in ("pixel_scale", "image_scale")
        )
        return cls(facts["pixel"], facts["image"], pixel, image, facts["chosen_on"])

    def anomaly_map(self, maps: Mapping[str, Maps]) -> Maps:
        """(side, side) map of an image from its maps by name."""
        total = sum(
            weight * (maps[name].astype(np.float64) - self.pixel_scale[name][0]) / self.pixel_scale[name][1]
            for name, weight in self.pixel.items()
        )
        return np.asarray(total, dtype=np.float32)

    def image_score(self, pooled: Mapping[str, float]) -> float:
        """The score of an image from its pooled maps by "name: pooling"."""
        return float(
            sum(
                weight * (pooled[name] - self.image_scale[name][0]) / self.image_scale[name][1]
                for name, weight in self.image.items()
            )
        )


def pooled_maps(maps: Mapping[str, Maps]) -> dict[str, float]:
    """Every map of an image pooled in every way: the mean of its top hundredth (four cells at least), mean, median."""
    flat = np.sort(np.stack([values.ravel() for values in maps.values()]).astype(np.float64), axis=1)
    cells = flat.shape[1]
    count = min(cells, max(TOP_LEAST, int(TOP_SHARE * cells)))
    medians = (flat[:, (cells - 1) // 2] + flat[:, cells // 2]) / 2
    pooled = zip(maps, flat[:, -count:].mean(1), flat.mean(1), medians)
    return {f"{name}: {pooling}": float(value) for name, *row in pooled for pooling, value in zip(POOLINGS, row)}


@dataclass(frozen=True)
class Evidence:
    """What the choice is made on: images of source domains with their pooled maps, and cells with their maps.

    Attributes:
        domain: (n,) name of each image's domain.
        label: (n,) 0 or 1.
        pooled: by "name: pooling", (n,) values.
        cells: per domain with masks: the cells' maps by name, (cells,), and whether each is anomalous.
    """

    domain: Sequence[str]
    label: npt.NDArray[np.int64]
    pooled: Mapping[str, Floats]
    cells: Mapping[str, tuple[Mapping[str, Floats], npt.NDArray[np.bool_]]]


def fixed_weights(names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of the anomaly map and of the image score that are not chosen: the finest and the deepest in-image
    distance and the net's three maps, pooled by their mean."""
    depths = [name for name in names if name.endswith(SMOOTHED)]
    used = [depths[0].removesuffix(SMOOTHED), depths[-1], *LEARNED]
    return {name: 1 / len(used) for name in used}, {f"{name}: mean": 1 / len(used) for name in used}


def choose_scoring(evidence: Evidence, words: str, *, free: bool = True) -> Scoring:
    """Weights of greedy ensemble selection (Caruana et al., ICML 2004) on the source domains.

    Starting from nothing, the map is added that raises the mean AUROC over the source domains most, the same one again
    if need be, for six rounds; the round with the best mean counts.

    Args:
        evidence: images and cells of the sources.
        words: what the evidence is.
        free: False keeps the weights of `fixed_weights` and takes only the scales from the evidence.

    Raises:
        DataError: if no source domain has both normal and anomalous images.
    """
    domains = np.asarray(evidence.domain)
    whole = [
        np.flatnonzero(domains == name)
        for name in dict.fromkeys(evidence.domain)
        if len(set(evidence.label[domains == name].tolist())) == 2
    ]
    if not whole:
        raise DataError("no source domain has both normal and anomalous images to choose scores on")
    normal = evidence.label == 0
    image_scale = {name: _scale(values[normal]) for name, values in evidence.pooled.items()}
    groups = [
        (
            {name: _standard(values[rows], image_scale[name]) for name, values in evidence.pooled.items()},
            evidence.label[rows],
        )
        for rows in whole
    ]
    names = list(dict.fromkeys(key.rpartition(": ")[0] for key in evidence.pooled))
    pixel, image = fixed_weights(names)
    if free:
        image = _select(groups)
    # Without masks the anomaly map has fixed weights; its scale is of no matter to a ranking of pixels.
    pixel_scale = {name: image_scale[f"{name}: mean"] for name in names}
    if evidence.cells:
        cells = list(evidence.cells.values())
        pixel_scale = {name: _scale(np.concatenate([maps[name][~inside] for maps, inside in cells])) for name in names}
        if free:
            pixel = _select(
                [
                    ({name: _standard(maps[name], pixel_scale[name]) for name in names}, inside.astype(np.int64))
                    for maps, inside in cells
                ]
            )
    return Scoring(
        pixel, image, {name: pixel_scale[name] for name in pixel}, {name: image_scale[name] for name in image}, words
    )  # fmt: skip


def _select(groups: Sequence[tuple[Mapping[str, Floats], npt.NDArray[np.int64]]]) -> dict[str, float]:
    """Weights by name that add up to 1; each group is a domain's values by name, and its labels."""
    names = list(groups[0][0])
    sums = [np.zeros(len(labels)) for _, labels in groups]
    picks: list[str] = []
    best: tuple[float, list[str]] = (-1.0, [])
    for _ in range(_PICKS):
        tried = {
            name: float(np.mean([auroc(total + values[name], labels) for total, (values, labels) in zip(sums, groups)]))
            for name in names
        }
        name = max(tried, key=lambda key: tried[key])
        picks.append(name)
        sums = [total + values[name] for total, (values, _) in zip(sums, groups)]
        # A further map must earn its place: differences in the third digit are noise.
        if tried[name] > best[0] + 1e-3:
            best = (tried[name], list(picks))
    return {name: best[1].count(name) / len(best[1]) for name in dict.fromkeys(best[1])}


def _scale(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(max(values.std(), 1e-9))


def _standard(values: Floats, scale: tuple[float, float]) -> Floats:
    return (values - scale[0]) / scale[1]
