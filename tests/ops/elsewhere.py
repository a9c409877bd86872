"""A pretended GPU: tensors that say they are on one and refuse the company of tensors that are not.

It computes on the CPU, so its numbers can be compared. What it finds is code that makes a tensor on the wrong device,
mixes two, or reads another device's memory without asking: the mistakes that only a GPU would show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

GPU = torch.device("cuda", 0)


class Elsewhere(Tensor):
    """A CPU tensor that says it is on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        out = Tensor._make_wrapper_subclass(cls, inner.size(), strides=inner.stride(), dtype=inner.dtype)
        out.inner = inner
        return out

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, spec = tree_flatten((args, kwargs or {}))
        wrappers: dict[int, Elsewhere] = {}
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, Elsewhere):
                wrappers[id(leaf.inner)] = leaf
                leaves[index] = leaf.inner
            elif isinstance(leaf, Tensor) and leaf.dim():
                raise RuntimeError(f"{func} mixes a GPU's tensor with one of shape {tuple(leaf.shape)} on the CPU")
            elif isinstance(leaf, torch.device):
                leaves[index] = torch.device("cpu")
        args, kwargs = tree_unflatten(leaves, spec)
        out = func(*args, **kwargs)
        # What was written to in place is the tensor that was given.
        return tree_map_only(Tensor, lambda x: wrappers[id(x)] if id(x) in wrappers else Elsewhere(x), out)


class PretendedGPU(TorchFunctionMode):
    """Inside, `device="cuda"` makes `Elsewhere` tensors; ``.cpu()`` and ``.tolist()`` bring their values back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        target = next((x for x in (*args[1:], kwargs.get("device")) if isinstance(x, torch.device)), None)
        first = args[0] if args else None
        if func is Tensor.backward and isinstance(first, Elsewhere):
            # A handler runs outside its own mode; what a backward pass calls must find it again.
            with self:
                one = Elsewhere(torch.ones((), dtype=first.dtype))
                return _engine_run_backward((first,), (one,), False, False, (), True, accumulate_grad=True)
        if func is Tensor.new_tensor and isinstance(first, Elsewhere):
            return Elsewhere(first.inner.new_tensor(*args[1:], **kwargs))
        if func is Tensor.tolist and isinstance(first, Elsewhere):
            return first.inner.tolist()
        if isinstance(first, Elsewhere) and (func is Tensor.cpu or (target is not None and target.type == "cpu")):
            return first.inner.clone()
        if target == GPU:
            swap = torch.device("cpu")
            args = tuple(swap if isinstance(x, torch.device) else x for x in args)
            kwargs = {key: swap if key == "device" else value for key, value in kwargs.items()}
            out = func(*args, **kwargs)
            return out if isinstance(out, Elsewhere) else Elsewhere(out)
        return func(*args, **kwargs)
