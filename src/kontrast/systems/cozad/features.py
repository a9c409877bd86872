"""Features of an image from the frozen backbone, computed once for each image and kept by its content.

Of an image two things are kept. **Patches** are the maps of several depths on one grid, one vector for each cell of 16
pixels: what the net learns on. **Distances** say how far each cell of 8 pixels is from the most similar cells of the
same image, at several depths: the in-image reference, which needs no training and no other image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast import progress
from kontrast.data.catalogue import cache_folder
from kontrast.encoders.kept import RecentlyUsed
from kontrast.encoders.lite0 import PACKAGE, Lite0, packaged_weights
from kontrast.extras import installed
from kontrast.files import content_hash, replacing
from kontrast.systems.cozad.scoring import SMOOTHED

VERSION = 1
"""Part of every key of the cache; another one wherever the numbers would be others."""
BLOCKS = (2, 4, 7, 10)
_BATCH = 4
_SHOWN = 200
"""Fewer new images than this take seconds, and nobody needs to be told."""
_MEMORY = 600_000_000

Halves = npt.NDArray[np.float16]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Described:
    """Features of one image.

    Attributes:
        patches: float16 (side / 16, side / 16, channels).
        distances: float16 (kinds, side / 8, side / 8), the in-image distances; see `distance_names`.
    """

    patches: Halves
    distances: Halves


class Backbone(Protocol):
    """A frozen network with maps at several depths.

    Attributes:
        key: text that is equal for equal weights.
        channels: channels of the maps.
        names: a short name of each map.
    """

    key: str

    @property
    def channels(self) -> tuple[int, ...]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Maps (n, channels, side / 4, 8 or 16 ...) of images (n, 3, side, side), 0 to 255."""
        ...


class PretrainedBackbone:
    """Four blocks of EfficientNet-Lite0 with the packaged ImageNet weights."""

    CHANNELS = (24, 40, 80, 112)
    names = tuple(f"block {block}" for block in BLOCKS)
    channels = CHANNELS

    def __init__(self) -> None:
        network = Lite0.pretrained().requires_grad_(False)
        # Channels last: about a quarter faster on a CPU.
        self.network: Lite0 = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key = f"lite0-{content_hash(packaged_weights())[:16]}"

    @staticmethod
    @cache
    def shared() -> PretrainedBackbone:
        """The one of this process: it is frozen, and reading it takes a moment."""
        return PretrainedBackbone()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Maps of the blocks, outputs of linear projections: no activation behind them."""
        device = next(self.network.parameters()).device
        return self.network.maps(pixels.to(device, memory_format=torch.channels_last), BLOCKS)


class FilterBackbone:
    """Filters learned from images: principal components of small patches at three scales, whitened.

    The fall-back without pretrained weights. It is learned in closed form from the source images alone.

    Args:
        filters: (scales, components, 3, width, width).
    """

    SCALES, COMPONENTS, WIDTH = 3, 16, 5

    def __init__(self, filters: Tensor) -> None:
        self.filters = filters
        self.names = tuple(f"scale {1 << scale}" for scale in range(self.SCALES))
        self.channels = (self.COMPONENTS,) * self.SCALES
        self.key = f"filters-{hashlib.sha256(filters.numpy().tobytes()).hexdigest()[:16]}"

    @classmethod
    def learn(cls, images: Iterable[Pixels], rng: np.random.Generator, *, patches: int = 200) -> Tensor:
        """Filters from images (side, side, 3); `patches` random ones of each image and scale."""
        width = cls.WIDTH
        drawn: list[list[Tensor]] = [[] for _ in range(cls.SCALES)]
        for image in images:
            level = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 255
            for scale in range(cls.SCALES):
                columns = F.unfold(level, width)[0].T
                drawn[scale].append(columns[torch.from_numpy(rng.integers(len(columns), size=patches))])
                level = F.avg_pool2d(level, 2)
        banks = []
        for rows in drawn:
            matrix = torch.cat(rows).double()
            matrix = matrix - matrix.mean(0)
            values, vectors = torch.linalg.eigh(matrix.T @ matrix / len(matrix))
            # Grey images have two thirds of their directions empty; a floor keeps whitening finite.
            order = values.argsort(descending=True)[: cls.COMPONENTS]
            scaled = vectors[:, order] / (values[order] + 1e-4).sqrt()
            # A component's sign is arbitrary; the largest entry decides it.
            sign = scaled.gather(0, scaled.abs().argmax(0, keepdim=True)).sign()
            banks.append((scaled * sign).T.reshape(cls.COMPONENTS, 3, width, width))
        return torch.stack(banks).float()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Mean absolute responses of each scale's filters, on a grid of 8 pixels."""
        level = pixels.float() / 255
        found = []
        for scale in range(self.SCALES):
            pad = self.WIDTH // 2
            responses = F.conv2d(F.pad(level, (pad,) * 4, mode="reflect"), self.filters[scale])
            found.append(F.adaptive_avg_pool2d(responses.abs(), pixels.shape[-1] // 8))
            level = F.avg_pool2d(level, 2)
        return found


def backbone_name(asked: str) -> str:
    """ "lite0" or "filters": what is asked for, or for "auto" the first that is installed."""
    return ("lite0" if installed(PACKAGE) else "filters") if asked == "auto" else asked


def distance_names(backbone: Backbone) -> tuple[str, ...]:
    """Names of the in-image distances, in their order."""
    return tuple(f"{name}{smoothed}" for name in backbone.names for smoothed in ("", SMOOTHED))


class Describer:
    """Features of images, from the cache where they are there.

    Args:
        backbone: frozen.
        side: side of the images in pixels.
        nearest: share of the image's own cells that a cell is compared with.
        cache: "disk" (and memory), "memory" or "off".
    """

    def __init__(self, backbone: Backbone, *, side: int, nearest: float, cache: str) -> None:
        self.backbone, self.side, self.nearest, self.cache = backbone, side, nearest, cache
        facts = f"{VERSION}|{backbone.key}|{side}|{nearest}"
        self.key = hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()

    def __call__(
        self, digests: Sequence[str], draw: Callable[[Sequence[int]], Iterable[Pixels]], *, what: str = "features"
    ) -> Iterator[Described]:
        """Features of n images, in order.

        Args:
            digests: what tells the images apart, such as hashes of their bytes.
            draw: gives the images (side, side, 3) of some positions, in order; asked for those that are new only.
            what: words for the progress display.
        """
        missing = [place for place, digest in enumerate(digests) if self._kept(digest) is None]
        fresh: dict[int, Described] = {}
        with progress.task(what, len(missing)) if len(missing) >= _SHOWN else nullcontext() as work:
            for start in range(0, len(missing), 64):
                chosen = missing[start : start + 64]
                for place, features in zip(chosen, self._compute(draw(chosen))):
                    # With the cache switched off, or full, they are kept here.
                    fresh[place] = features
                    self._keep(digests[place], features)
                    if work is not None:
                        work.advance()
        for place, digest in enumerate(digests):
            found = fresh.pop(place, None) or self._kept(digest)
            # The memory may have let it go since.
            yield found if found is not None else next(self._compute(draw([place])))

    @torch.inference_mode()
    def _compute(self, images: Iterable[Pixels]) -> Iterator[Described]:
        batch: list[Pixels] = []
        for image in images:
            batch.append(image)
            if len(batch) == _BATCH:
                yield from self._describe(batch)
                batch = []
        if batch:
            yield from self._describe(batch)

    def _describe(self, batch: list[Pixels]) -> Iterator[Described]:
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()
        # One by one: how a product of several images is blocked depends on their number, and with it the last digit.
        for one in pixels:
            maps = self.backbone.maps(one[None])
            grid = self.side // 16
            patches = torch.cat([F.adaptive_avg_pool2d(level, grid) for level in maps], 1)
            found = []
            for level in maps:
                fine = F.adaptive_avg_pool2d(level, min(level.shape[-1], self.side // 8))
                smooth = F.avg_pool2d(fine, 3, 1, 1, count_include_pad=False)
                found += [in_image_distance(values, self.nearest) for values in (fine, smooth)]
            wide = [
                F.interpolate(values[:, None], (self.side // 8,) * 2, mode="bilinear", align_corners=False)[0, 0]
                for values in found
            ]
            yield Described(
                patches[0].permute(1, 2, 0).cpu().numpy().astype(np.float16),
                torch.stack(wide).cpu().numpy().astype(np.float16),
            )

    # ---- cache ---------------------------------------------------------------------------------------------------

    def remembered(self, keys: Sequence[str], make: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """An array that is a pure function of `keys`, from the disk where it is there, else made and kept."""
        if self.cache != "disk":
            return make()
        digest = hashlib.blake2b("\n".join([str(VERSION), *keys]).encode(), digest_size=16).hexdigest()
        place = cache_folder() / "surfaces" / "arrays" / f"{digest}.npy"
        try:
            found: npt.NDArray[np.float32] = np.load(place, allow_pickle=False)
            return found
        except (OSError, ValueError, EOFError):
            made = make()
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary:
            np.save(temporary, made)
        return made

    def _place(self, digest: str) -> Path:
        return cache_folder() / "surfaces" / self.key / digest[:2] / f"{digest}.npy"

    def _kept(self, digest: str) -> Described | None:
        if self.cache == "off":
            return None
        held = _memory.get(f"{self.key}/{digest}")
        if held is None and self.cache == "disk":
            held = _load(self._place(digest))
            if held is not None:
                _memory.put(f"{self.key}/{digest}", held)
        return held

    def _keep(self, digest: str, features: Described) -> None:
        if self.cache == "off":
            return
        _memory.put(f"{self.key}/{digest}", features)
        if self.cache == "disk":
            place = self._place(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as temporary, temporary.open("wb") as file:
                for array in (features.patches, features.distances):
                    np.save(file, array)


def in_image_distance(maps: Tensor, nearest: float) -> Tensor:
    """How far each cell is from the cells of its own image that are most like it.

    The mean distance to the nearest share of a reference: the image's own cells, every second in either direction where
    there are more than 16 x 16. A cell far from all others is odd *here*, whatever the domain.

    Args:
        maps: (n, channels, height, width).
        nearest: share of the reference, in (0, 1].

    Returns:
        (n, height, width).
    """
    n, _, height, width = maps.shape
    step = 2 if min(height, width) > 16 else 1
    cells = maps.flatten(2).transpose(1, 2)
    reference = maps[:, :, step // 2 :: step, step // 2 :: step].flatten(2).transpose(1, 2)
    count = max(2, round(nearest * reference.shape[1]))
    gaps = torch.cdist(cells, reference)
    return (
        gaps.topk(min(count, gaps.shape[2]), dim=2, largest=False, sorted=False).values.mean(2).view(n, height, width)
    )


_memory: RecentlyUsed[Described] = RecentlyUsed(_MEMORY, lambda held: held.patches.nbytes + held.distances.nbytes)


def _load(path: Path) -> Described | None:
    """What the cache holds there; a damaged file is as good as none."""
    try:
        with path.open("rb") as file:
            return Described(np.load(file, allow_pickle=False), np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
