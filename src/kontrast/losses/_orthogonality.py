"""Terms that keep two representations of the same samples apart, such as a shared and a private one."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kontrast.losses._combine import combines
from kontrast.losses._rows import as_pair, by_row_blocks, need_rows, unit_rows
from kontrast.ops import Group, all_gather_rows, joined_mean


@combines("gathered_candidates")
def difference(
    shared: Tensor,
    private: Tensor,
    *,
    center: bool = True,
    normalize: bool = True,
    reduction: Literal["sum", "mean"] = "sum",
    block: int | None = None,
    group: Group = None,
) -> Tensor:
    """Difference term of domain separation networks, ``‖H_cᵀ H_p‖_F²`` (arXiv 1608.06019, equation 5).

    0 when every feature of the shared representation is orthogonal, over the batch, to every feature of the private
    one. That is a statement about features; `cosine_orthogonality` is the one about the two vectors of a sample. With
    neither `center` nor `normalize` it is the bare norm, which shrinking the representation makes 0 too.

    Args:
        shared: H_c, (n, c).
        private: H_p, (n, p).
        center: whether the mean over the batch is taken off every feature.
        normalize: whether rows are then scaled to length 1, as in the paper.
        reduction: "sum" of the squares as in the equation, or their "mean" over the c · p entries.
        block: features of `shared` per tile; changes memory, not the value.
        group: ranks over which samples are gathered, see `kontrast.ops.gather`.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: if shapes or dtypes do not fit or there is no row.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> difference(h, h).item(), difference(h, h.flip(1), reduction="mean").item()
        (4.0, 1.0)
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"unknown reduction '{reduction}'; known: mean, sum")
    shared, private = as_pair(shared, private, "shared", "private", columns=False)
    shared, private = all_gather_rows(shared, group), all_gather_rows(private, group)
    need_rows(shared, 1, "shared")
    if center:
        shared, private = shared - shared.mean(dim=0), private - private.mean(dim=0)
    if normalize:
        shared, private = unit_rows(shared), unit_rows(private)

    def rows_of(first: int, last: int, features: Tensor, other: Tensor) -> Tensor:
        return (features[first:last] @ other).square().sum(dim=1)

    total = by_row_blocks(rows_of, shared.shape[1], private.shape[1], block, shared.T, private).sum()
    return total if reduction == "sum" else total / max(1, shared.shape[1] * private.shape[1])


@combines("mean_of_locals")
def cosine_orthogonality(x: Tensor, y: Tensor, *, group: Group = None) -> Tensor:
    """Squared cosine between paired rows, ``1/n Σ_i cos(x_i, y_i)²``.

    0 when the two vectors of every sample are orthogonal, 1 when they are parallel. Both must live in one space; for
    representations of different widths, or for statements about features, take `difference`.

    Args:
        x: (n, d).
        y: (n, d), paired with x by row.
        group: ranks over which the mean is taken.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: if shapes or dtypes do not fit or there is no row.

    Example:
        >>> round(cosine_orthogonality(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])).item(), 4)
        0.5
    """
    x, y = as_pair(x, y, "x", "y")
    if group is None:
        need_rows(x, 1, "x")
    cosines = (unit_rows(x) * unit_rows(y)).sum(dim=1)
    return joined_mean(cosines.square().sum(), len(x), group)
