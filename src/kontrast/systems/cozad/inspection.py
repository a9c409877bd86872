"""Inspection: an image's maps, pooled values and vector, from kept features and the net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from kontrast.data.surfaces import NORMAL, SurfaceSet, load_masks
from kontrast.randomness import numpy_rng
from kontrast.systems.cozad.features import Described, Describer, distance_names
from kontrast.systems.cozad.model import CoZADModel
from kontrast.systems.cozad.pool import Drawn, centred, digests_of, loader, partners_of
from kontrast.systems.cozad.scoring import LEARNED, Evidence, Maps, pooled_maps

_CELLS = 20_000


@dataclass(frozen=True)
class Inspection:
    """What is known of one image before it gets a score.

    Attributes:
        maps: (side / 8, side / 8) maps by name.
        vector: (d,) mean of its contrasted vectors.
    """

    maps: dict[str, Maps]
    vector: npt.NDArray[np.float32]


class Inspector:
    """Looks at images, one by one.

    Args:
        describer: gives frozen features.
        model: the net.
    """

    def __init__(self, describer: Describer, model: CoZADModel) -> None:
        self.describer, self.model = describer, model
        self.names = (*distance_names(describer.backbone), *LEARNED)

    def __call__(self, data: SurfaceSet) -> Iterator[Inspection]:
        """Inspections of the images, in order."""
        side = self.describer.side
        for features in self.describer(digests_of(data), loader(data, side), what="features"):
            yield self.inspect(features)

    @torch.no_grad()
    def inspect(self, features: Described) -> Inspection:
        """One image, from its features."""
        grid = features.patches.shape[0]
        device = self.model.scale.device
        patches = torch.from_numpy(centred(features)).view(grid, grid, -1).to(device)
        learned, vector = self.model.learned_maps(patches)
        fine = F.interpolate(learned[None], features.distances.shape[1:], mode="bilinear", align_corners=False)[0]
        every = np.concatenate([features.distances.astype(np.float32), fine.cpu().numpy()])
        return Inspection(dict(zip(self.names, every)), vector.float().cpu().numpy())

    def evidence(self, data: SurfaceSet) -> Evidence:
        """Labelled images of source domains, to choose scores on."""
        cells = self.describer.side // 8
        masks = load_masks(data, cells)
        return _collected(
            [row.domain for row in data.rows], data.labels, self(data),
            [mask if row.domain in data.masked else None for row, mask in zip(data.rows, masks)],
        )  # fmt: skip

    def drawn_evidence(self, data: SurfaceSet, split_seed: int) -> Evidence:
        """Normal images of source domains and one drawn version of each, to choose scores on without any label."""
        data = data.take(data.labels <= NORMAL)
        side = self.describer.side
        digests = digests_of(data)
        drawn = Drawn(data, partners_of(data, digests), digests, side, f"{split_seed}-choose")
        odd = self.describer(drawn.keys, drawn.images, what="features of drawn anomalies")
        masks = list(drawn.shares(self.describer, side // 8) > 0)
        domains = [row.domain for row in data.rows]
        plain: list[npt.NDArray[np.bool_] | None] = [np.zeros_like(mask) for mask in masks]
        return _collected(
            domains * 2,
            np.repeat([0, 1], len(data)),
            _joined(self(data), (self.inspect(features) for features in odd)),
            [*plain, *masks],
        )


def _some(odd: npt.NDArray[np.bool_], domain: str) -> npt.NDArray[np.int64]:
    """All anomalous cells and a sample of the others: more would cost time and change no choice."""
    others = np.flatnonzero(~odd)
    kept = numpy_rng("cells", domain, len(odd)).permutation(others)[:_CELLS]
    return np.sort(np.concatenate([np.flatnonzero(odd), kept]))


def _joined(*streams: Iterator[Inspection]) -> Iterator[Inspection]:
    for stream in streams:
        yield from stream


def _collected(
    domains: Sequence[str],
    labels: npt.NDArray[np.int64],
    inspections: Iterator[Inspection],
    masks: Sequence[npt.NDArray[np.bool_] | None],
) -> Evidence:
    pooled: list[dict[str, float]] = []
    maps: dict[str, list[dict[str, Maps]]] = {}
    inside: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for domain, found, mask in zip(domains, inspections, masks):
        pooled.append(pooled_maps(found.maps))
        if mask is not None:
            maps.setdefault(domain, []).append(found.maps)
            inside.setdefault(domain, []).append(mask)
    cells = {}
    for domain, rows in maps.items():
        odd = np.stack(inside[domain]).ravel()
        if odd.any():
            chosen = _some(odd, domain)
            cells[domain] = (
                {name: np.stack([each[name] for each in rows]).ravel()[chosen].astype(np.float64) for name in rows[0]},
                odd[chosen],
            )
    values = {name: np.array([each[name] for each in pooled]) for name in pooled[0]} if pooled else {}
    return Evidence(domains, labels, values, cells)
