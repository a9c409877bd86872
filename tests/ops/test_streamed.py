"""The streamed statistics: equal to plain formulas for every mask, tile and path; bits do not depend on threads."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kontrast.ops import Mask, engine_settings, logsumexp_streamed, softplus_streamed


def draw_mask(draw, g: torch.Generator, n: int, m: int, *, symmetric: bool = False) -> Mask:
    rows, columns = torch.randint(4, (n,), generator=g), torch.randint(4, (m,), generator=g)
    more = torch.randint(6, (n,), generator=g), torch.randint(6, (m,), generator=g)
    if symmetric:
        columns, more = rows, (more[0], more[0])
    kind = draw(st.integers(0, 3))
    pairs = None
    if not symmetric and draw(st.booleans()):
        where = torch.rand(n, m, generator=g) < 0.2
        pairs = tuple(where.nonzero(as_tuple=True))
    return Mask(
        diagonals=draw(st.sampled_from([(), (0,), (0, 2, -2) if symmetric else (0, 2)])),
        keys={0: (), 1: ((rows, columns),), 2: ((rows, columns), more), 3: ()}[kind],
        pairs=pairs,
        within=(rows, columns) if kind == 3 else None,
    )


def moved(mask: Mask, device: str) -> Mask:
    def put(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        return None if pair is None else (pair[0].to(device), pair[1].to(device))

    return Mask(mask.diagonals, tuple(put(pair) for pair in mask.keys), put(mask.pairs), put(mask.within))


def kept(mask: Mask, n: int, m: int) -> Tensor:
    """The mask again, entry by entry in Python."""
    out = torch.ones(n, m, dtype=torch.bool)
    pairs = set() if mask.pairs is None else set(zip(mask.pairs[0].tolist(), mask.pairs[1].tolist()))
    for i in range(n):
        for j in range(m):
            out[i, j] = not (
                j - i in mask.diagonals
                or (i, j) in pairs
                or any(int(r[i]) == int(c[j]) for r, c in mask.keys)
                or (mask.within is not None and int(mask.within[0][i]) != int(mask.within[1][j]))
            )
    return out


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.data())
def test_logsumexp_equals_the_plain_formula(data: st.DataObject) -> None:
    path, side = data.draw(st.sampled_from(["dense", "tiled"])), data.draw(st.integers(1, 13))
    check_logsumexp(data.draw, path, (side, side))


def check_logsumexp(draw, path: str, tile: tuple[int, int] | None, device: str = "cpu", most: int = 12) -> None:
    """Draws up to `most` rows and columns and a mask; the statistic and its gradients against float64."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    symmetric = draw(st.booleans())
    n, d = draw(st.integers(1, most)), draw(st.integers(1, 5))
    m = n if symmetric else draw(st.integers(1, most))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    q = torch.randn(n, d, generator=g, dtype=dtype) * draw(st.sampled_from([0.1, 1.0, 20.0]))
    k = q if symmetric else torch.randn(m, d, generator=g, dtype=dtype)
    mask = draw_mask(draw, g, n, m, symmetric=symmetric)
    multipliers = draw(st.sampled_from([(1.0,), (1.0, 0.5), (3.0, 2.0)]))
    columns = not symmetric and draw(st.booleans())
    left, right = torch.randn(len(multipliers), n, generator=g), torch.randn(len(multipliers), m, generator=g)

    def total(rows: Tensor, cols: Tensor | None) -> Tensor:
        out = (rows.where(rows > -math.inf, 0.0) * left).sum()
        return out if cols is None else out + (cols.where(cols > -math.inf, 0.0) * right).sum()

    with engine_settings(path=path, tile=tile, threads=2):
        x, y = q.clone().requires_grad_(), k.clone().requires_grad_()
        rows, cols = logsumexp_streamed(
            x.to(device),
            None if symmetric else y.to(device),
            mask=moved(mask, device),
            columns=columns,
            multipliers=multipliers,
        )
        rows, cols = rows.cpu(), None if cols is None else cols.cpu()
        total(rows, cols).backward()
    a = q.double().requires_grad_()
    b = a if symmetric else k.double().requires_grad_()
    s = torch.where(kept(mask, n, m), a @ b.t(), -1e300)
    want = torch.stack([torch.logsumexp(s * beta, 1) for beta in multipliers])
    want_columns = torch.stack([torch.logsumexp(s * beta, 0) for beta in multipliers]) if columns else None
    want, want_columns = (None if w is None else torch.where(w < -1e250, -math.inf, w) for w in (want, want_columns))
    total(want, want_columns).backward()
    # A float32 logit of size 100 has an error of 1e-5, which becomes a relative error of its exponential.
    size = max(1.0, float((q.norm(dim=1).max() * k.norm(dim=1).max()).detach()) * max(multipliers))
    tolerance = (1e-6 if dtype == torch.float32 else 1e-13) * size
    torch.testing.assert_close(rows.double(), want, rtol=tolerance, atol=tolerance)
    if columns:
        torch.testing.assert_close(cols.double(), want_columns, rtol=tolerance, atol=tolerance)
    for one, other in ((x.grad, a.grad), (None if symmetric else y.grad, None if symmetric else b.grad)):
        if one is not None and other is not None:
            assert float((one - other).norm()) <= 3 * tolerance * max(1.0, float(other.norm()))


@settings(deadline=None, max_examples=80, derandomize=True)
@given(data=st.data())
def test_softplus_equals_the_plain_formula(data: st.DataObject) -> None:
    path, side = data.draw(st.sampled_from(["dense", "tiled"])), data.draw(st.integers(1, 10))
    check_softplus(data.draw, path, (side, side))


def check_softplus(draw, path: str, tile: tuple[int, int] | None, device: str = "cpu", most: int = 9) -> None:
    """Draws up to `most` rows and columns, a mask and an offset; the sum and its gradients against float64."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, m, d = draw(st.integers(1, most)), draw(st.integers(1, most)), 3
    q, k = torch.randn(n, d, generator=g) * 5, torch.randn(m, d, generator=g)
    offset, left = torch.randn(n, generator=g) * 10, torch.randn(n, generator=g)
    mask = draw_mask(draw, g, n, m)
    with engine_settings(path=path, tile=tile):
        x, y, o = (v.clone().requires_grad_() for v in (q, k, offset))
        out = softplus_streamed(x.to(device), y.to(device), o.to(device), mask=moved(mask, device)).cpu()
        (out * left).sum().backward()
    a, b, c = (v.double().requires_grad_() for v in (q, k, offset))
    s = a @ b.t() + c[:, None]
    want = torch.where(kept(mask, n, m), torch.log1p(torch.exp(s)), 0.0).sum(1)
    (want * left).sum().backward()
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    for one, other in ((x, a), (y, b), (o, c)):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_same_bits_for_every_number_of_threads(products: str) -> None:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(301, 16, generator=g), torch.randn(157, 16, generator=g)
    found = []
    for threads in (1, 2, 5, 2):
        x, y = q.clone().requires_grad_(), k.clone().requires_grad_()
        with engine_settings(path="tiled", tile=(32, 16), threads=threads):
            rows, columns = logsumexp_streamed(x, y, columns=True, products=products)  # type: ignore[arg-type]
            (rows.sum() + columns.square().sum()).backward()
        found.append((rows.detach(), columns.detach(), x.grad, y.grad))
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other))


def test_an_empty_side_gives_minus_infinity_and_no_nan() -> None:
    q, k = torch.randn(3, 2, requires_grad=True), torch.zeros(0, 2, requires_grad=True)
    rows, columns = logsumexp_streamed(q, k, columns=True)
    assert rows.tolist() == [[-math.inf] * 3]
    assert columns.shape == (1, 0)
    assert softplus_streamed(q, k).tolist() == [0.0, 0.0, 0.0]


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        logsumexp_streamed(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="float32 or float64 matrix"):
        logsumexp_streamed(torch.zeros(3, 2).half())
    with pytest.raises(ValueError, match="tile"), engine_settings(tile=(0, 4)):
        pass
    with pytest.raises(ValueError, match="path"), engine_settings(path="fast"):  # type: ignore[arg-type]
        pass


MEMORY = """
import ctypes, resource, sys, torch
from kontrast.losses import {name}
torch.set_num_threads(1)
n, d = 8192, 32
a, b = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
labels = torch.arange(n) // 3
def call(rows):
    return {call}
call(slice(0, 1100)).backward()  # starts threads and loads kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
call(slice(None)).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("clip_loss", "clip_loss(a[rows], b[rows])"),
        ("clip_loss", "clip_loss(a[rows], b[rows], products='bf16', ids=labels[rows])"),
        ("supcon", "supcon(a[rows], labels[rows])"),
        ("supcon", "supcon(a[rows], labels[rows], denominator='own_positive')"),
        ("sigmoid_loss", "sigmoid_loss(a[rows], b[rows])"),
    ],
)
def test_no_matrix_of_all_logits_in_memory(name: str, call: str) -> None:
    script = MEMORY.format(name=name, call=call)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    all_logits_in_mib = 8192 * 8192 * 4 / 2**20
    assert float(run.stdout) < 0.25 * all_logits_in_mib
