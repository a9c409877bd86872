"""GradCache: a contrastive batch of any size from parts that fit in memory, with the gradient of the whole.

A contrastive loss needs the encodings of all rows at once, but only the encodings: what fills memory are the encoder's
activations. So all parts are encoded without keeping any, the loss is computed from the joined encodings, and when the
backward pass reaches them each part is encoded once more, now with its activations, and takes the gradient on from
there (arXiv 2101.06983, section 3). The price is one more forward pass of the encoder. Both passes over a part draw the
same random numbers, so dropout and its kin drop the same.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kontrast.errors import ConfigError
from kontrast.training.model import TrainableModel
from kontrast.training.slices import joined, row_count, same_rows

# How far a row's encoding may move with the rows beside it, relative to the largest value: rounding, and no more.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def encode_in_parts(model: TrainableModel, batch: Any, rows: int) -> Mapping[str, Tensor]:
    """What ``model.encode(batch)`` returns, computed `rows` rows at a time.

    Its backward pass adds to the ``grad`` of the model's parameters exactly what that of ``model.encode`` does, in the
    memory of one part. Go through ``loss.backward()``: `torch.autograd.grad` does not see the parameters behind it.

    Args:
        model: its `encode` works row by row and changes no buffer.
        batch: of any kind that ``model.split`` can split.
        rows: most rows of a part.

    Returns:
        Named tensors, one row of each per row of the batch.

    Raises:
        ConfigError: if the batch cannot be split, or `encode` returns other numbers of rows or changes a buffer.
    """
    parts = list(model.split(batch, rows))
    if len(parts) == 1:
        return model.encode(batch)
    job = _Parts(model, parts)
    # What needs a gradient are the parameters, which the function is not given; this stands for them.
    trigger = torch.zeros((), requires_grad=True)
    tensors = _Encode.apply(trigger, job)  # type: ignore[no-untyped-call]
    return dict(zip(job.names, tensors))


def check_rows_alone(model: TrainableModel, batch: Any, rows: int) -> bool:
    """Checks on one batch that a row's encoding does not depend on the rows beside it.

    The first part and the first half of it are encoded in evaluation mode; an encoding that differs from call to call
    even there is not judged.

    Returns:
        Whether there was something to check: a batch of one part is encoded as it is.

    Raises:
        ConfigError: if it does depend on them, or batch norm makes it so in training.
    """
    parts = model.split(batch, rows)
    if len(parts) == 1:
        return False
    part = parts[0]
    few = model.split(part, max(1, rows // 2))[0]
    met: list[str] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                handle = module.register_forward_pre_hook(lambda *_, name=name: met.append(name))
                stack.callback(handle.remove)
        stack.enter_context(_evaluating(model))
        # Weights that autocast rounds without a gradient must not be there when one is wanted.
        stack.enter_context(_Autocast(model, cache=False).again())
        whole, again, half = (dict(model.encode(one)) for one in (part, part, few))
    if met:
        raise ConfigError(
            f"option 'micro_batch' does not go with batch norm, whose statistics are those of the part and not of the "
            f"batch ('{met[0]}' is one); use layer or group norm, freeze it, or train without micro_batch."
        )
    same_rows(whole, row_count_of(model, part))
    for name, tensor in half.items():
        one, other = whole[name][: len(tensor)], again[name][: len(tensor)]
        if not tensor.is_floating_point() or tensor.numel() == 0 or not torch.equal(one, other):
            continue
        apart = float((one - tensor).abs().max())
        coarse = torch.get_autocast_dtype(tensor.device.type) if _autocast_on(tensor.device.type) else tensor.dtype
        if apart > max(_ROUNDING[tensor.dtype], _ROUNDING.get(coarse, 0.0)) * max(1e-6, float(one.abs().max())):
            raise ConfigError(
                f"option 'micro_batch' needs a model that encodes each row by itself; in '{name}' of "
                f"{type(model).__name__} a row changes by {apart:.2g} with the rows beside it; train without "
                "micro_batch."
            )
    return True


def row_count_of(model: TrainableModel, part: Any) -> int:
    """The rows of a part, also where the model splits batches in its own way (then by splitting it into rows)."""
    return row_count(part) if type(model).split is TrainableModel.split else len(model.split(part, 1))


class _Parts:
    """The parts of one batch: how each was encoded, so that it can be encoded so again."""

    def __init__(self, model: TrainableModel, parts: Sequence[Any]) -> None:
        self.model, self.parts = model, parts
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.autocast = _Autocast(model, cache=False)
        self.draws: list[_Draws] = []
        self.sizes: list[int] = []
        self.names: list[str] = []
        self.learns: dict[str, bool] = {}

    def encode(self) -> dict[str, Tensor]:
        """The encodings of all parts, without what a backward pass would need."""
        buffers = {name: buffer._version for name, buffer in self.model.named_buffers()}
        encoded: list[dict[str, Tensor]] = []
        for part in self.parts:
            self.draws.append(_Draws(self.device))
            # The first part tells which encodings have a gradient; a momentum encoder's have none.
            with torch.set_grad_enabled(not encoded), self.autocast.again():
                found = dict(self.model.encode(part))
            if not encoded:
                self.names = list(found)
                self.learns = {name: tensor.requires_grad for name, tensor in found.items()}
            rows = len(next(iter(found.values()))) if found else 0
            same_rows(found, rows)
            self.sizes.append(rows)
            encoded.append({name: tensor.detach() for name, tensor in found.items()})
        for name, buffer in self.model.named_buffers():
            if buffer._version != buffers.get(name):
                raise ConfigError(
                    f"option 'micro_batch' encodes everything twice, and 'encode' changes '{name}' each time; "
                    "change it in 'losses' or 'after_step', or train without micro_batch."
                )
        return joined(encoded)

    def backward(self, grads: Mapping[str, Tensor | None]) -> None:
        """Encodes each part again and adds to the parameters' gradients."""
        wanted = {name: grad for name, grad in grads.items() if grad is not None}
        before, first = _Draws(self.device), 0
        try:
            for part, draws, rows in zip(self.parts, self.draws, self.sizes, strict=True):
                draws.restore()
                with torch.enable_grad(), self.autocast.again():
                    encoded = self.model.encode(part)
                pairs = [(encoded[name], grad[first : first + rows]) for name, grad in wanted.items()]
                pairs = [(tensor, grad) for tensor, grad in pairs if tensor.requires_grad]
                if pairs:
                    torch.autograd.backward([tensor for tensor, _ in pairs], [grad for _, grad in pairs])
                first += rows
        finally:
            before.restore()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trigger: Tensor, job: _Parts) -> tuple[Tensor, ...]:
        encoded = job.encode()
        ctx.job = job
        ctx.mark_non_differentiable(*(tensor for name, tensor in encoded.items() if not job.learns[name]))
        ctx.set_materialize_grads(False)
        return tuple(encoded.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, None]:
        ctx.job.backward(dict(zip(ctx.job.names, grads)))
        return None, None


class _Draws:
    """The state of every global generator that an encoder may draw from."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._python, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the global one
        self._cpu = torch.get_rng_state()
        self._there = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        """Puts the generators back into this state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._cpu)
        if self._there is not None:
            torch.get_device_module(self._device).set_rng_state(self._there, self._device)


class _Autocast:
    """The precision in force, for use at another time: backward passes run outside of it."""

    def __init__(self, model: nn.Module, *, cache: bool) -> None:
        device = next((parameter.device.type for parameter in model.parameters()), "cpu")
        self._cache = cache
        self._kinds = [
            (kind, torch.get_autocast_dtype(kind), _autocast_on(kind)) for kind in dict.fromkeys(("cpu", device))
        ]

    @contextmanager
    def again(self) -> Generator[None]:
        with ExitStack() as stack:
            for kind, dtype, enabled in self._kinds:
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=self._cache))
            yield


def _autocast_on(kind: str) -> bool:
    return bool(torch.is_autocast_enabled(kind))


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode without gradients; modes and generators are afterwards as they were."""
    modes = [(module, module.training) for module in model.modules()]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    draws = _Draws(device)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        draws.restore()
        for module, training in modes:
            module.training = training
