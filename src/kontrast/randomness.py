"""Random numbers as functions of names and counters, never of call order."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed from any mix of integers and names; stable across processes and Python versions."""
    digest = hashlib.blake2b("\x1f".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(*keys: int | str) -> np.random.Generator:
    """A NumPy generator that depends on `keys` alone, such as ``numpy_rng(seed, "order", epoch)``."""
    return np.random.Generator(np.random.PCG64(derive_seed(*keys)))


def torch_rng(*keys: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator that depends on `keys` alone."""
    return torch.Generator(device=device).manual_seed(derive_seed(*keys))
