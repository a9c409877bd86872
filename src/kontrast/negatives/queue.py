"""A first-in, first-out memory of features, as the negatives of MoCo (arXiv 1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kontrast.ops import Group, all_gather_rows, group_in_force


class FeatureQueue(nn.Module):
    """The last `size` features, with their ids; the oldest make room for the newest.

    Everything it knows is in its buffers and so in the checkpoint, the pointer and the fill count too: a resumed run
    sees the negatives that an uninterrupted one sees. Nothing here has a gradient.

    In training with several processes every rank enqueues the keys of all ranks, in order of rank, so that all hold
    the same rows in the same order.

    Args:
        size: how many rows it holds, at least 1.
        dim: width of a row.
        group: ranks whose keys are gathered; None means the group in force, see `kontrast.ops.gather`.

    Raises:
        ValueError: if `size` or `dim` is below 1.

    Example:
        >>> queue = FeatureQueue(size=3, dim=1)
        >>> queue.enqueue(torch.tensor([[1.0], [2.0]]))
        >>> queue.enqueue(torch.tensor([[3.0], [4.0]]))
        >>> queue.features().flatten().tolist()
        [2.0, 3.0, 4.0]
    """

    rows: Tensor
    row_ids: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, *, group: Group = None) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue needs a size and a dim of at least 1, got size={size} and dim={dim}")
        self.size = size
        self.dim = dim
        self.group = group
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("row_ids", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(0))

    def __len__(self) -> int:
        """How many rows it holds now."""
        return int(self.filled)

    @property
    def full(self) -> bool:
        """Whether new rows push out old ones."""
        return len(self) == self.size

    @torch.no_grad()
    def enqueue(self, keys: Tensor, ids: Tensor | None = None) -> None:
        """Adds rows, the last one as the newest; of more than `size` rows only the last remain.

        Args:
            keys: (n, dim); stored in the dtype of the queue.
            ids: integers (n,) that are not below 0, such as labels or document numbers; -1 is stored without them.

        Raises:
            ValueError: if shapes or dtypes do not fit.
        """
        if keys.ndim != 2 or keys.shape[1] != self.dim or not keys.is_floating_point():
            raise ValueError(f"'keys' must be floating point (n, {self.dim}), got {keys.dtype} of {tuple(keys.shape)}")
        if ids is not None and (ids.shape != keys.shape[:1] or ids.is_floating_point()):
            raise ValueError(f"'ids' must be integers ({len(keys)},), got {ids.dtype} of {tuple(ids.shape)}")
        keys = keys.detach().to(self.rows)
        numbers = self.row_ids.new_full((len(keys),), -1) if ids is None else ids.to(self.row_ids)
        group = group_in_force(self.group)
        keys, numbers = all_gather_rows(keys, group), all_gather_rows(numbers, group)
        n, place = len(keys), int(self.pointer)
        kept = min(n, self.size)
        # Rows that later rows of the same batch would push out are never written; the pointer counts them all the same.
        places = (place + torch.arange(n - kept, n, device=self.rows.device)) % self.size
        self.rows[places] = keys[n - kept :]
        self.row_ids[places] = numbers[n - kept :]
        self.pointer.fill_((place + n) % self.size)
        self.filled.fill_(min(len(self) + n, self.size))

    def features(self) -> Tensor:
        """The rows held, (len, dim), oldest first. A copy, so that a later enqueue leaves a pending backward alone."""
        return self.rows[self._order()]

    def ids(self) -> Tensor:
        """The ids of `features`, (len,); -1 where none was given."""
        return self.row_ids[self._order()]

    def clear(self) -> None:
        """Forgets everything."""
        self.rows.zero_()
        self.row_ids.fill_(-1)
        self.pointer.zero_()
        self.filled.zero_()

    def _order(self) -> Tensor:
        held = len(self)
        return (int(self.pointer) - held + torch.arange(held, device=self.rows.device)) % self.size

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self.dim}"
