"""Hinges against their slow twins, and their laws."""

from __future__ import annotations

import pytest
import torch
from distance_twins import BLOCKS, check_twin, rows, slow_distance, slow_in_batch_hinge
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kontrast.losses._margin import (
    InBatchHinge,
    Triplet,
    in_batch_hinge,
    quadruplet,
    ranking_hinge,
    triplet,
    triplet_from_distances,
)

DISTANCES = st.sampled_from(["cosine", "euclidean", "squared"])
DTYPES = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])


def slow_triplet(
    a: Tensor, p: Tensor, n: Tensor, margin: Tensor, distance: str, soft: bool, reduction: str, mask: Tensor | None
) -> Tensor:
    many = n if n.ndim == 3 else n[:, None]
    values = []
    for i in range(len(a)):
        for j in range(many.shape[1]):
            m = margin if margin.ndim == 0 else margin[i]
            z = m + slow_distance(a[i], p[i], distance) - slow_distance(a[i], many[i, j], distance)
            value = torch.log1p(torch.exp(z)) if soft else torch.relu(z)
            keep = mask is None or bool(mask.reshape(len(a), -1)[i, j])
            values.append((value if keep else 0 * value, keep))
    stacked = torch.stack([value for value, _ in values])
    if reduction == "none":
        return stacked.reshape(n.shape[:-1])
    count = {
        "sum": 1,
        "mean": sum(keep for _, keep in values),
        "active": int((stacked > 0).sum()),
    }[reduction]
    return stacked.sum() / max(1, count)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(1, 6),
    k=st.integers(0, 3),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    distance=DISTANCES,
    soft=st.booleans(),
    reduction=st.sampled_from(["mean", "active", "sum", "none"]),
    per_row=st.booleans(),
    masked=st.booleans(),
    zeros=st.booleans(),
    dtype=DTYPES,
)
def test_triplet_equals_its_twin(
    n: int, k: int, d: int, seed: int, distance: str, soft: bool, reduction: str, per_row: bool, masked: bool,
    zeros: bool, dtype: torch.dtype,
) -> None:  # fmt: skip
    a, p = rows(n, d, seed, zeros=zeros), rows(n, d, seed + 1)
    negative = rows(n * max(1, k), d, seed + 2, zeros=zeros).reshape((n, k, d) if k else (n, d))
    margin = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    mask = torch.rand(negative.shape[:-1], generator=torch.Generator().manual_seed(seed)) > 0.3 if masked else None
    check_twin(
        lambda *z: triplet(*z, distance=distance, mask=mask, soft=soft, reduction=reduction),
        lambda *z: slow_triplet(*z, distance, soft, reduction, mask),
        [a, p, negative, margin if per_row else margin[0].clone()],
        dtype=dtype,
        # Squared distances and their gradients are several units large; a hinge may be a small difference of them.
        floor=1.0,
    )


@settings(deadline=None, max_examples=30, derandomize=True)
@given(n=st.integers(1, 5), d=st.integers(1, 4), seed=st.integers(0, 999), distance=DISTANCES, soft=st.booleans())
def test_quadruplet_equals_its_twin(n: int, d: int, seed: int, distance: str, soft: bool) -> None:
    def slow(a: Tensor, p: Tensor, b: Tensor, c: Tensor, one: Tensor, two: Tensor) -> Tensor:
        total = 0 * a.sum()
        hinge = torch.nn.functional.softplus if soft else torch.relu
        for i in range(n):
            near = slow_distance(a[i], p[i], distance)
            total = total + hinge(one + near - slow_distance(a[i], b[i], distance))
            total = total + hinge(two + near - slow_distance(b[i], c[i], distance))
        return total / n

    tensors = [rows(n, d, seed + i) for i in range(4)]
    margins = [torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)]
    check_twin(lambda *z: quadruplet(*z, distance=distance, soft=soft), slow, tensors + margins, floor=1.0)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(1, 7),
    d=st.integers(1, 5),
    seed=st.integers(0, 999),
    distance=DISTANCES,
    negatives=st.sampled_from(["hardest", "sum"]),
    per_row=st.booleans(),
    with_ids=st.booleans(),
    with_reference=st.booleans(),
    symmetric=st.booleans(),
    block=BLOCKS,
    dtype=DTYPES,
)
def test_in_batch_hinge_equals_its_twin(
    n: int, d: int, seed: int, distance: str, negatives: str, per_row: bool, with_ids: bool, with_reference: bool,
    symmetric: bool, block: int | None, dtype: torch.dtype,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, (n,), generator=generator) if with_ids else None
    reference = rows(n, 3, seed + 5, zeros=True) if with_reference else None
    margin = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    options = {"negatives": negatives, "distance": distance, "symmetric": symmetric}
    check_twin(
        lambda x, y, m: in_batch_hinge(
            x, y, m, ids=ids, block=block, reference=None if reference is None else reference.float(), **options
        ),
        lambda x, y, m: slow_in_batch_hinge(
            x, y, m, ids=None if ids is None else ids.tolist(), reference=reference, **options
        ),
        [rows(n, d, seed), rows(n, d, seed + 1, zeros=True), margin if per_row else margin[0].clone()],
        dtype=dtype,
        # With rows of one column all cosines are 1 or -1, so that many hinges tie for the hardest.
        gradients=d > 1 or distance != "cosine" or negatives == "sum",
        floor=1.0,
    )


def test_duplicates_share_the_gradient_of_the_hardest() -> None:
    x = rows(3, 4, 0).requires_grad_()
    y = torch.stack([x[0], x[1], x[1]]).detach().requires_grad_()
    in_batch_hinge(x, y, 5.0, symmetric=False).backward()
    assert y.grad is not None
    check_twin(
        lambda a, b: in_batch_hinge(a, b, 5.0, ids=torch.tensor([0, 1, 1])),
        lambda a, b: slow_in_batch_hinge(
            a, b, torch.tensor(5.0), negatives="hardest", distance="cosine", ids=[0, 1, 1]
        ),
        [x.detach(), y.detach()],
        gradients=False,
    )


def test_a_row_without_negatives_costs_nothing() -> None:
    x = torch.randn(1, 3, requires_grad=True)
    loss = in_batch_hinge(x, torch.randn(1, 3))
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert not x.grad.any()
    assert in_batch_hinge(torch.randn(4, 3), torch.randn(4, 3), ids=torch.zeros(4, dtype=torch.long)).item() == 0.0


def test_orthonormal_rows() -> None:
    x = torch.eye(4)
    assert in_batch_hinge(x, x, 1.25).item() == pytest.approx(0.5)
    assert in_batch_hinge(x, x, 1.25, negatives="sum").item() == pytest.approx(1.5)
    assert in_batch_hinge(x, x, 1.0).item() == 0.0


def test_permutation_and_pairing() -> None:
    x, y = rows(6, 3, 0), rows(6, 3, 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    one, two = in_batch_hinge(x, y, negatives="sum"), in_batch_hinge(x[order], y[order], negatives="sum")
    assert one.item() == pytest.approx(two.item(), rel=1e-12)
    assert in_batch_hinge(x, y).item() == pytest.approx(in_batch_hinge(y, x).item(), rel=1e-12)


def test_scores_and_distances_are_opposite() -> None:
    p, n = torch.rand(5), torch.rand(5, 3)
    assert ranking_hinge(p, n).item() == triplet_from_distances(-p, -n).item()
    margins = torch.rand(5, 3)
    wanted = (margins - p[:, None] + n).clamp(min=0).mean()
    assert ranking_hinge(p, n, margins).item() == pytest.approx(wanted.item())


def test_no_pair_at_all_is_zero_with_a_graph() -> None:
    p = torch.rand(3, requires_grad=True)
    loss = ranking_hinge(p, torch.rand(3, 2), mask=torch.zeros(3, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert p.grad is not None
    assert not p.grad.any()


def test_equal_points_have_finite_gradients() -> None:
    for distance in ("cosine", "euclidean", "squared"):
        x = torch.zeros(3, 2, requires_grad=True)
        triplet(x, x, x, distance=distance).backward()
        in_batch_hinge(x, x, distance=distance, negatives="sum").backward()
        assert x.grad is not None
        assert bool(torch.isfinite(x.grad).all())


def test_modules_equal_their_functions() -> None:
    x, y, z = rows(4, 3, 0), rows(4, 3, 1), rows(4, 3, 2)
    mask, ids = torch.tensor([True, False, True, True]), torch.tensor([0, 1, 1, 2])
    one = Triplet(0.5, distance="squared", soft=True, reduction="sum")
    assert (
        one(x, y, z, mask).item()
        == triplet(x, y, z, 0.5, distance="squared", soft=True, reduction="sum", mask=mask).item()
    )
    two = InBatchHinge(0.5, negatives="sum", distance="euclidean", symmetric=False, block=2)
    assert (
        two(x, y, ids, z).item()
        == in_batch_hinge(
            x, y, 0.5, negatives="sum", distance="euclidean", symmetric=False, block=2, ids=ids, reference=z
        ).item()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triplet(torch.ones(3, 2), torch.ones(4, 2), torch.ones(3, 2)), "3 rows and 'positive' has 4"),
        (lambda: triplet(torch.ones(3, 2), torch.ones(3, 5), torch.ones(3, 2)), "2 columns and 'positive' has 5"),
        (lambda: triplet(torch.ones(3, 2), torch.ones(3, 2), torch.ones(4, 2)), r"\(3, 2\) of.*got \(4, 2\)"),
        (lambda: triplet(torch.ones(3, 2), torch.ones(3, 2).double(), torch.ones(3, 2)), "float32 and 'positive'"),
        (lambda: triplet(torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 2).double()), "one precision"),
        (lambda: triplet(*[torch.ones(3, 2)] * 3, margin=torch.ones(2)), r"shapes \[\(\), \(3,\)\], got \(2,\)"),
        (lambda: triplet(*[torch.ones(3, 2)] * 3, mask=torch.ones(2) > 0), r"bool of shape \(3,\).*\(2,\)"),
        (lambda: triplet(*[torch.ones(3, 2)] * 3, distance="cos"), "known: cosine, euclidean, squared"),
        (lambda: triplet(*[torch.ones(3, 2)] * 3, reduction="max"), "known: mean, active, sum, none"),
        (lambda: quadruplet(*[torch.ones(3, 2)] * 3, torch.ones(2, 2)), "3 rows and 'second_negative' has 2"),
        (lambda: quadruplet(*[torch.ones(3, 2)] * 4, reduction="active"), "known: mean, sum, none"),
        (lambda: ranking_hinge(torch.ones(3), torch.ones(4)), r"\(3,\) and \(4,\)"),
        (lambda: ranking_hinge(torch.ones(3), torch.ones(3).long()), "floating point"),
        (lambda: in_batch_hinge(torch.ones(3, 2), torch.ones(4, 2)), "3 rows and 'y' has 4"),
        (lambda: in_batch_hinge(*[torch.ones(3, 2)] * 2, ids=torch.ones(2).long()), r"shape \(3,\), got .* of \(2,\)"),
        (lambda: in_batch_hinge(*[torch.ones(3, 2)] * 2, reference=torch.ones(2, 2)), "3 rows and 'reference' has 2"),
        (lambda: in_batch_hinge(*[torch.ones(3, 2)] * 2, negatives="all"), "known: hardest, sum"),
        (lambda: in_batch_hinge(*[torch.ones(3, 2)] * 2, block=0), "at least 1"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
