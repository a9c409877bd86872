"""Slow twins in float64, written from the papers with loops, and the comparison with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

BLOCKS = st.sampled_from([None, 1, 2, 3, 7])
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def rows(n: int, d: int, seed: int, *, duplicates: bool = False, zeros: bool = False) -> Tensor:
    """Seeded rows in float64; every third a copy of the first and every fourth zero, when asked for."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if duplicates:
        x[::3] = x[0].clone()
    if zeros:
        x[3::4] = 0
    return x


def check_twin(
    fast: Callable[..., Tensor],
    slow: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    gradients: bool = True,
    floor: float = 1e-2,
) -> Tensor:
    """Asserts that value and every gradient of `fast` agree with `slow` on the same rounded numbers.

    The error allowed is the tolerance of `dtype` times the largest entry, or times `floor` if that is larger. Numbers
    without a dimension (temperature, margin) stay in float32 when the rows are bfloat16.
    """
    scalar = torch.float32 if dtype == torch.bfloat16 else dtype
    narrow = [x.to(dtype if x.ndim else scalar).clone().requires_grad_() for x in tensors]
    wide = [x.detach().double().clone().requires_grad_() for x in narrow]
    got, wanted = fast(*narrow), slow(*wide)
    _close(got, wanted, TOLERANCE[dtype], floor, "value")
    if gradients:
        weights = torch.arange(1, wanted.numel() + 1, dtype=torch.float64).reshape(wanted.shape) / wanted.numel()
        (got * weights).sum().backward()
        (wanted * weights).sum().backward()
        for place, (one, two) in enumerate(zip(narrow, wide, strict=True)):
            other = torch.zeros_like(two) if two.grad is None else two.grad
            assert one.grad is not None
            _close(one.grad, other, TOLERANCE[dtype], floor, f"gradient {place}")
    return got.detach()


def _close(got: Tensor, wanted: Tensor, tolerance: float, floor: float, what: str) -> None:
    assert got.shape == wanted.shape, f"{what}: {got.shape} against {wanted.shape}"
    assert bool(torch.isfinite(got).all()), f"{what} is not finite: {got}"
    if wanted.numel():
        error = float((got.double() - wanted).detach().abs().max())
        allowed = tolerance * max(floor, float(wanted.detach().abs().max()))
        assert error <= allowed, f"{what}: error {error:.3g} is above {allowed:.3g}"


def slow_distance(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distance of two vectors; the cosine of a zero vector is 0."""
    if distance == "cosine":
        if not bool(a.detach().any()) or not bool(b.detach().any()):
            return 1 + 0 * (a.sum() + b.sum())
        return 1 - (a @ b) / (a.norm() * b.norm())
    squared = ((a - b) ** 2).sum()
    if distance == "squared":
        return squared
    return squared.sqrt() if float(squared.detach()) > 0 else 0 * squared


def slow_unit(a: Tensor) -> Tensor:
    """A vector of length 1; zero stays zero."""
    return a / a.norm() if bool(a.detach().any()) else 0 * a


def slow_rank_n_contrast(
    x: Tensor, labels: Tensor, temperature: Tensor, distance: str = "euclidean", norm: int = 1
) -> Tensor:
    n = len(x)
    y = labels.double().reshape(n, -1)
    total = x.sum() * 0
    for i in range(n):
        others = [k for k in range(n) if k != i]
        away = {k: ((y[i] - y[k]).abs() ** norm).sum() ** (1 / norm) for k in others}
        score = {k: -slow_distance(x[i], x[k], distance) / temperature for k in others}
        for j in others:
            among = torch.stack([score[k] for k in others if away[k] >= away[j]])
            total = total + torch.logsumexp(among, 0) - score[j]
    return total / (n * (n - 1))


def slow_ranked_sets(
    x: Tensor,
    away: Sequence[Tensor],
    classes: Sequence[int],
    temperature: Tensor,
    distance: str = "euclidean",
) -> Tensor:
    """`away` holds (n, n) matrices; a candidate is at least as far in each of them."""
    total, counted = x.sum() * 0 + temperature * 0, 0
    for one in sorted(set(classes)):
        members = [i for i in range(len(x)) if classes[i] == one]
        n = len(members)
        if n < 3:
            continue
        counted += 1
        for i in members:
            others = [k for k in members if k != i]
            score = {k: -slow_distance(x[i], x[k], distance) / temperature for k in others}
            for j in others:
                among = [score[k] for k in others if all(bool(d[i, k] >= d[i, j]) for d in away)]
                total = total + (torch.logsumexp(torch.stack(among), 0) - score[j]) / (n * (n - 1))
    return total / max(1, counted)


def slow_in_batch_hinge(
    x: Tensor,
    y: Tensor,
    margin: Tensor,
    *,
    negatives: str,
    distance: str,
    ids: Sequence[int] | None = None,
    reference: Tensor | None = None,
    symmetric: bool = True,
) -> Tensor:
    n = len(x)
    keys = list(range(n)) if ids is None else list(ids)
    total = x.sum() * 0
    for one, other in [(x, y), (y, x)][: 1 + symmetric]:
        for i in range(n):
            hinges = []
            for j in range(n):
                if keys[j] == keys[i]:
                    continue
                m = margin if margin.ndim == 0 else margin[i]
                if reference is not None:
                    m = m * slow_distance(reference[i], reference[j], "cosine") / 2
                near = slow_distance(one[i], other[i], distance)
                hinges.append(torch.relu(m + near - slow_distance(one[i], other[j], distance)))
            if hinges:
                stacked = torch.stack(hinges)
                total = total + (stacked.amax() if negatives == "hardest" else stacked.sum())
    return total / n


def slow_uniformity(x: Tensor, t: float, normalize: bool = True) -> Tensor:
    z = [slow_unit(row) if normalize else row for row in x]
    n = len(z)
    terms = [-t * ((z[i] - z[j]) ** 2).sum() for i in range(n) for j in range(i + 1, n)]
    return torch.logsumexp(torch.stack(terms), 0) - torch.log(torch.tensor(float(len(terms)), dtype=torch.float64))


def slow_alignment(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    total = 0 * (x.sum() + y.sum())
    for a, b in zip(x, y, strict=True):
        squared = ((slow_unit(a) - slow_unit(b)) ** 2).sum()
        total = total + (squared ** (alpha / 2) if float(squared.detach()) > 0 else 0)
    return total / len(x)


def slow_covariance(x: Tensor) -> Tensor:
    n = len(x)
    mean = sum(x) / n
    return sum(torch.outer(row - mean, row - mean) for row in x) / (n - 1)


def slow_variance_term(x: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    c = slow_covariance(x)
    return sum(torch.relu(target - torch.sqrt(c[j, j] + eps)) for j in range(len(c))) / len(c)


def slow_covariance_term(x: Tensor) -> Tensor:
    c = slow_covariance(x)
    total = 0 * x.sum()
    for i in range(len(c)):
        for j in range(len(c)):
            total = total + (c[i, j] ** 2 if i != j else 0)
    return total / len(c)


def slow_vicreg(x: Tensor, y: Tensor) -> Tensor:
    invariance = sum(((a - b) ** 2).sum() for a, b in zip(x, y, strict=True)) / len(x)
    variance = slow_variance_term(x) + slow_variance_term(y)
    return 25 * invariance + 25 * variance + slow_covariance_term(x) + slow_covariance_term(y)


def slow_barlow_twins(x: Tensor, y: Tensor, weight: float) -> Tensor:
    d = x.shape[1]
    a, b = x - x.mean(0), y - y.mean(0)
    total = 0 * (x.sum() + y.sum())
    for i in range(d):
        for j in range(d):
            length = a[:, i].norm() * b[:, j].norm()
            c = (a[:, i] @ b[:, j]) / length if float(length.detach()) > 0 else 0 * length
            total = total + ((1 - c) ** 2 if i == j else weight * c**2)
    return total


def slow_mmd(x: Tensor, y: Tensor, bandwidths: Tensor, biased: bool) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-((a - b) ** 2).sum() / (2 * bandwidths**2)).mean()

    n, m = len(x), len(y)
    total = -2 * sum(kernel(a, b) for a in x for b in y) / (n * m)
    for z, k in ((x, n), (y, m)):
        terms = [kernel(z[i], z[j]) for i in range(k) for j in range(k) if biased or i != j]
        total = total + sum(terms) / (k * k if biased else k * (k - 1))
    return total


def slow_difference(shared: Tensor, private: Tensor, center: bool, normalize: bool) -> Tensor:
    if center:
        shared, private = shared - shared.mean(0), private - private.mean(0)
    if normalize:
        shared = torch.stack([slow_unit(row) for row in shared])
        private = torch.stack([slow_unit(row) for row in private])
    total = 0 * (shared.sum() + private.sum())
    for i in range(shared.shape[1]):
        for j in range(private.shape[1]):
            total = total + (shared[:, i] @ private[:, j]) ** 2
    return total
