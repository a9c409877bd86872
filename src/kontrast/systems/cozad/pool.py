"""What training draws from: patches of source images, of versions with drawn anomalies, and batches of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.data.surfaces import SurfaceSet, contents, decode
from kontrast.randomness import numpy_rng
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.features import Described, Describer
from kontrast.systems.cozad.views import Pixels, cell_shares, draw_anomaly, normal_view
from kontrast.training.batches import Shard

ANOMALOUS_SHARE = 0.25
"""A cell is anomalous where more of it is drawn on; cells that touch an anomaly less are left out."""


_WHOLE = Shard()


@dataclass(frozen=True)
class Pool:
    """Patches of the training images, each less the median of its own image.

    Attributes:
        images: float16 (n, cells, channels), of the images as they are.
        copies: float16 (n, copies, cells, channels), of versions with drawn anomalies.
        anomalous: (n, copies, cells) cells that are drawn on.
        clean: (n, copies, cells) cells that neither are nor touch one that is.
        domain: (n,) number of each image's domain.
        ids: names of the images.
        domains: names of the domains.
    """

    images: Tensor
    copies: Tensor
    anomalous: Tensor
    clean: Tensor
    domain: Tensor
    ids: tuple[str, ...]
    domains: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def centred(features: Described) -> npt.NDArray[np.float32]:
    """(cells, channels) patches of an image less their own median: what an image is like on the whole is taken out."""
    patches = features.patches.reshape(-1, features.patches.shape[-1]).astype(np.float32)
    # The median of each channel; along rows of contiguous memory it is found several times faster than down columns.
    columns = np.sort(patches.T.copy(), axis=1)
    median = (columns[:, (len(patches) - 1) // 2] + columns[:, len(patches) // 2]) / 2
    return np.asarray(patches - median, dtype=np.float32)


def _halves(features: Described) -> Tensor:
    return torch.from_numpy(centred(features)).half()


_last: tuple[list[str], Pool] | None = None
"""What the last pool was made of, and the pool."""


def make_pool(data: SurfaceSet, describer: Describer, config: CoZADConfig) -> Pool:
    """Features of training images and of their drawn versions.

    What is drawn on an image depends on `split_seed`, the image and its number, not on the seed of the run, so that
    runs share features. The pool of the last call is kept, so that arms and seeds in one process share it.
    """
    global _last
    digests = digests_of(data)
    facts = [describer.key, str(config.copies), str(config.split_seed), fingerprint(data, digests)]
    if _last is not None and _last[0] == facts:
        return _last[1]
    pool = _made_pool(data, digests, describer, config)
    if describer.cache != "off":
        _last = (facts, pool)
    return pool


def _made_pool(data: SurfaceSet, digests: Sequence[str], describer: Describer, config: CoZADConfig) -> Pool:
    images = [_halves(found) for found in describer(digests, loader(data, describer.side), what="features of sources")]
    partners = partners_of(data, digests)
    copies, shares = [], []
    for number in range(config.copies):
        drawn = Drawn(data, partners, digests, describer.side, f"{config.split_seed}-{number}")
        found = describer(drawn.keys, drawn.images, what="features of drawn anomalies")
        copies.append([_halves(each) for each in found])
        shares.append(drawn.shares(describer, describer.side // 16))
    share = torch.from_numpy(np.stack(shares, 1))
    anomalous, touched = share > ANOMALOUS_SHARE, share > 0
    near = torch.nn.functional.max_pool2d(touched.flatten(0, 1)[:, None].float(), 3, 1, 1)[:, 0] > 0
    domains = tuple(sorted(data.domains))
    return Pool(
        images=torch.stack(images),
        copies=torch.stack([torch.stack(rows) for rows in copies], 1),
        anomalous=anomalous.flatten(2),
        clean=~near.view_as(anomalous).flatten(2),
        domain=torch.tensor([domains.index(row.domain) for row in data.rows]),
        ids=tuple(row.id for row in data.rows),
        domains=domains,
    )


def digests_of(data: SurfaceSet) -> list[str]:
    """Hashes of the images' bytes."""
    files = contents([row.file for row in data.rows])
    return [hashlib.blake2b(content, digest_size=16).hexdigest() for content in files]


def fingerprint(data: SurfaceSet, digests: Sequence[str] | None = None) -> str:
    """A hash that is equal for equal images, masks, names and labels in the same order.

    Args:
        data: images.
        digests: hashes of the images' bytes, where they are known already.
    """
    state = hashlib.blake2b(digest_size=16)
    for row, digest in zip(data.rows, digests if digests is not None else digests_of(data)):
        state.update(repr((row.id, row.domain, row.label, row.kind, row.mask is not None, digest)).encode())
    for content in contents([row.mask for row in data.rows if row.mask is not None]):
        state.update(hashlib.blake2b(content).digest())
    return state.hexdigest()


def loader(data: SurfaceSet, side: int) -> Callable[[Sequence[int]], Iterator[Pixels]]:
    """A function from positions in `data` to decoded images."""

    def load(places: Sequence[int]) -> Iterator[Pixels]:
        for found in decode([data.rows[place].file for place in places], side):
            yield found.pixels

    return load


def partners_of(data: SurfaceSet, digests: Sequence[str]) -> list[int]:
    """For each image one of another domain, whose texture may be blended in.

    The choice is the highest of random numbers that depend on the two images alone, so another set of sources changes
    few of them. With one domain the partner is another image of it.
    """
    candidates = {domain: np.flatnonzero(data.of(domain))[:8] for domain in data.domains}
    found = []
    for row, surface in enumerate(data.rows):
        others = [
            int(place)
            for domain, places in candidates.items()
            for place in places
            if domain != surface.domain or (len(candidates) == 1 and place != row)
        ]
        draws = [numpy_rng("partner", digests[row], digests[other]).random() for other in others]
        found.append(others[int(np.argmax(draws))] if others else row)
    return found


class Drawn:
    """One drawn version of each image, a pure function of the image, its partner and a name.

    Args:
        data: the images.
        partners: position of the image whose texture may be blended in.
        digests: hashes of the images.
        side: side of the images in pixels.
        name: tells versions apart.

    Attributes:
        keys: what tells the versions apart from all others.
    """

    def __init__(self, data: SurfaceSet, partners: Sequence[int], digests: Sequence[str], side: int, name: str) -> None:
        self.data, self.partners, self.side = data, partners, side
        self.keys = [f"{digests[row]}-{digests[partner]}-{name}" for row, partner in enumerate(partners)]

    def draw(self, places: Sequence[int]) -> Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]:
        """Versions of some images with their masks (side, side)."""
        rows = self.data.rows
        wanted = sorted({self.partners[place] for place in places})
        others = dict(zip(wanted, decode([rows[place].file for place in wanted], self.side)))
        for place, image in zip(places, decode([rows[place].file for place in places], self.side)):
            rng = numpy_rng("drawn", self.keys[place])
            yield draw_anomaly(normal_view(image.pixels, rng), others[self.partners[place]].pixels, rng)

    def images(self, places: Sequence[int]) -> Iterator[Pixels]:
        """Versions of some images."""
        for image, _ in self.draw(places):
            yield image

    def shares(self, describer: Describer, cells: int) -> npt.NDArray[np.float32]:
        """(n, cells, cells) share of each cell that is drawn on, of all images; remembered by the describer."""

        def make() -> npt.NDArray[np.float32]:
            masks = (mask for _, mask in self.draw(range(len(self.keys))))
            return np.array([cell_shares(mask, cells) for mask in masks], dtype=np.float32)

        return describer.remembered(["shares", str(self.side), str(cells), *self.keys], make)


class TaskBatches:
    """Batches of random numbers from which the model draws its tasks.

    Which images a task has depends on the confidence in them at that moment, which only the model knows. So a batch
    brings the dice, a pure function of (seed, epoch, index), and the model reads them.

    Args:
        pool: what is drawn from.
        config: tasks and their sizes.
    """

    def __init__(self, pool: Pool, config: CoZADConfig) -> None:
        self.pool, self.config = pool, config

    def count(self, epoch: int) -> int:
        """Meta-iterations of an epoch."""
        return self.config.iterations

    def get(self, epoch: int, index: int, shard: Shard = _WHOLE) -> dict[str, Tensor]:
        """Dice of one meta-iteration: domains (tasks,), and uniform numbers for images, versions and patches."""
        meta, rng = self.config.meta, numpy_rng(self.config.seed, "tasks", epoch, index, shard.rank)
        there = len(self.pool.domains)
        order = np.concatenate([rng.permutation(there) for _ in range(-(-meta.tasks // there))])[: meta.tasks]
        images, cells = meta.support + meta.query, self.pool.images.shape[1]
        return {
            "domains": torch.from_numpy(order),
            "images": torch.from_numpy(rng.random((meta.tasks, len(self.pool)), dtype=np.float32)),
            "versions": torch.from_numpy(rng.random((meta.tasks, images), dtype=np.float32)),
            "cells": torch.from_numpy(rng.random((meta.tasks, images, 3, cells), dtype=np.float32)),
            "foreign": torch.from_numpy(rng.random((meta.tasks, images, 2), dtype=np.float32)),
            "shuffle": torch.from_numpy(rng.random((meta.tasks, 2, 4096), dtype=np.float32)),
        }

    def fingerprint(self) -> str:
        """Names and number of the images, and the sizes of tasks."""
        return f"tasks of {len(self.pool)} images of {', '.join(self.pool.domains)}: {self.config.meta}"
