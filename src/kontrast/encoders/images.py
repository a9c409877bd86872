"""Image encoders: a small convolutional network from scratch, or a vision model from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.config import BaseConfig, param
from kontrast.data.images import load_images
from kontrast.data.tables import ColumnKind
from kontrast.encoders.base import Batch, Encoder, seeded
from kontrast.errors import CheckpointError
from kontrast.extras import require
from kontrast.files import read_json

Images = npt.NDArray[np.uint8]
_PURPOSE = "to run a vision model"


class ImageEncoderConfig(BaseConfig):
    """Which image encoder, and its size where it is made from scratch."""

    name: str = param("conv", "conv (from scratch), lite0 (EfficientNet-Lite0), or a folder in Hugging Face layout")
    dim: int = param(256, "length of the vectors of an encoder from scratch", ge=1, le=4096)
    size: int = param(64, "side of the square that images are cut to", unit="pixels", ge=8, le=1024)
    width: int = param(32, "channels of the first stage; each further stage has twice as many", ge=8, le=512)
    stages: int = param(3, "stages, each halving the side of the map", ge=1, le=6)


class ImageEncoder(Encoder):
    """Base of image encoders: uint8 images (n, 3, size, size) to vectors (n, dim).

    Attributes:
        size: side of the images in pixels.
    """

    reads: ClassVar[ColumnKind] = "image"
    size: int

    def prepare(self, cells: Sequence[str | Path] | Images) -> Images:
        """Decoded images, uint8 (n, 3, size, size), from paths; such an array is returned as it is."""
        if not isinstance(cells, np.ndarray):
            return load_images(cells, self.size)
        if cells.dtype != np.uint8 or cells.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"images must be uint8 (n, 3, {self.size}, {self.size}), got {cells.dtype} {cells.shape}")
        return cells

    def collate(self, rows: Images) -> Batch:
        """images, uint8 (n, 3, size, size)."""
        return {"images": torch.from_numpy(np.ascontiguousarray(rows))}


class ConvEncoder(ImageEncoder):
    """A small residual network: a stem, `stages` residual blocks that halve the side, mean over places, a linear map.

    Group normalisation (arXiv 1803.08494) in place of batch normalisation: no image's vector depends on its batch.

    Args:
        config: sizes.
        seed: the weights depend on it alone.
    """

    def __init__(self, config: ImageEncoderConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config or ImageEncoderConfig()
        self.dim, self.size = self.config.dim, self.config.size
        width = self.config.width
        with seeded(seed, "image encoder"):
            blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), _norm(width), nn.GELU()]
            for _ in range(self.config.stages):
                blocks.append(_Residual(width, 2 * width))
                width *= 2
            self.network = nn.Sequential(*blocks)
            self.out = nn.Linear(width, self.dim)

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        maps = self.network(batch["images"].to(self.out.weight.dtype) / 127.5 - 1)
        result: Tensor = self.out(maps.mean((2, 3)))
        return result.float()

    def structure(self) -> dict[str, Any]:
        """Sizes, JSON-able."""
        return {"encoder": "conv", "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> ConvEncoder:
        """The inverse of `structure`; the weights are to be loaded."""
        return cls(ImageEncoderConfig(**structure["config"]))


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), _norm(after), nn.GELU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False), _norm(after),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        small = F.avg_pool2d(maps, 2, ceil_mode=True)
        return F.gelu(self.path(maps) + self.shortcut(small))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)


class VisionEncoder(ImageEncoder):
    """A vision model of transformers; its pooled output, or the mean over places if it has none, is the vector.

    Args:
        model: a model that maps pixel_values to last_hidden_state and perhaps pooler_output.
        size: side of its images in pixels.
        mean, std: per-channel statistics of pixel values in [0, 1] that it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, *, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.size = size
        config = model.config
        self.dim = int(config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    @classmethod
    def from_folder(cls, folder: str | Path) -> VisionEncoder:
        """A ready model from config.json, model.safetensors and preprocessor_config.json; never from the network.

        Raises:
            CheckpointError: if a file is missing or damaged, or the model is no vision model.
        """
        folder = Path(folder)
        transformers = require("transformers", extra="images", purpose=_PURPOSE)
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            if not (folder / name).is_file():
                mend = "save model and image processor with save_pretrained(folder)"
                raise CheckpointError(f"has no {name}", file=folder, mend=mend)
        facts = read_json(folder / "preprocessor_config.json")
        size = facts.get("crop_size") or facts.get("size") or 224
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge") or 224
        try:
            model = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
            mean, std = facts.get("image_mean", [0.5] * 3), facts.get("image_std", [0.5] * 3)
            return cls(getattr(model, "vision_model", model).float(), size=int(size), mean=mean, std=std)
        except Exception as error:  # transformers raises many kinds for a folder that it cannot use
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"cannot be loaded as a vision model ({reason})", file=folder) from None

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, dim)."""
        pixels = (batch["images"].to(self.mean.dtype) / 255 - self.mean) / self.std
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            states = output.last_hidden_state
            pooled = states.mean(1) if states.ndim == 3 else states.mean((2, 3))
        return pooled.flatten(1).float()  # type: ignore[no-any-return]

    def structure(self) -> dict[str, Any]:
        """Model configuration and image size, JSON-able."""
        return {"encoder": "vision", "model": self.model.config.to_dict(), "size": self.size}

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> VisionEncoder:
        """The inverse of `structure`; weights and statistics are to be loaded."""
        transformers = require("transformers", extra="images", purpose=_PURPOSE)
        settings = dict(structure["model"])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = transformers.AutoModel.from_config(config)
        return cls(getattr(model, "vision_model", model), size=structure["size"], mean=[0.0] * 3, std=[1.0] * 3)
