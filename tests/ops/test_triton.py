"""Triton kernels: the streamed statistics' own tests, interpreted on the CPU or on a GPU where there is one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_streamed import check_logsumexp, check_softplus

from kontrast.losses import clip_loss, nt_xent, sigmoid_loss, supcon
from kontrast.ops import Mask, engine_settings, logsumexp_streamed
from kontrast.ops.streamed import path_for

INTERPRETED = pytest.param("cpu", marks=pytest.mark.interpreted)
ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = [INTERPRETED, ON_GPU]

# Interpreted blocks are 16 × 16: several blocks in a tile, several tiles, tails of both.
TILES = st.sampled_from([(64, 64), (32, 16), (16, 32), (20, 33)])


@pytest.mark.parametrize("device", DEVICES)
def test_logsumexp_equals_the_plain_formula(device: str) -> None:
    @settings(deadline=None, max_examples=14 if device == "cpu" else 150, derandomize=True)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_logsumexp(data.draw, "triton", data.draw(TILES), device, most=40)

    check()


@pytest.mark.parametrize("device", DEVICES)
def test_softplus_equals_the_plain_formula(device: str) -> None:
    @settings(deadline=None, max_examples=8 if device == "cpu" else 80, derandomize=True)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_softplus(data.draw, "triton", data.draw(TILES), device, most=40)

    check()


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_tiled_path_equals_the_plain_formula_on_every_device(device: str) -> None:
    @settings(deadline=None, max_examples=10 if device == "cpu" else 100, derandomize=True)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_logsumexp(data.draw, "tiled", data.draw(TILES), device, most=40)
        check_softplus(data.draw, "tiled", data.draw(TILES), device, most=40)

    check()


def steps(device: str, n: int, d: int) -> list[tuple[torch.Tensor, ...]]:
    """Loss and gradients of four objectives, the temperature's among them."""
    g = torch.Generator().manual_seed(n + d)
    labels = (torch.arange(n) // 3).to(device)
    out = []
    for step in (
        lambda a, b, t: clip_loss(a, b, temperature=t),
        lambda a, b, t: nt_xent(a, b, temperature=t),
        lambda a, b, t: supcon(a, labels, temperature=t, ids=torch.arange(n, device=device)) + 0 * b.sum(),
        lambda a, b, t: sigmoid_loss(a, b, temperature=t, bias=-3.0),
    ):
        a, b = (torch.randn(n, d, generator=g).to(device).requires_grad_() for _ in range(2))
        t = torch.tensor(0.1, device=device, requires_grad=True)
        loss = step(a, b, t)
        loss.backward()
        out.append(tuple(x.detach().clone() for x in (loss, a.grad, b.grad, t.grad)))
    return out


@pytest.mark.parametrize(("device", "n", "d"), [pytest.param(*INTERPRETED.values, 21, 20, marks=INTERPRETED.marks), *(
    pytest.param("cuda", n, d, marks=pytest.mark.gpu) for n, d in ((37, 70), (1000, 1024), (4099, 512))
)])  # fmt: skip
def test_kernels_give_the_dense_path_s_numbers(device: str, n: int, d: int) -> None:
    with engine_settings(path="dense"):
        dense = steps(device, n, d)
    with engine_settings(path="triton"):
        kernels = steps(device, n, d)
        again = steps(device, n, d)
    for want, got, repeated in zip(dense, kernels, again):
        for one, other, same in zip(got, want, repeated):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.norm()))
            assert torch.equal(one, same), "the same inputs must give the same bits"


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_products_stay_within_their_tolerance(device: str) -> None:
    g = torch.Generator().manual_seed(3)
    found = {}
    rows = torch.randn(2, 45, 128, generator=g)
    for products in ("fp32", "bf16"):
        a, b = (x.to(device).requires_grad_() for x in rows)
        with engine_settings(path="triton"):
            loss = clip_loss(a, b, temperature=0.07, products=products)  # type: ignore[arg-type]
        loss.backward()
        found[products] = (loss, a.grad, b.grad)
    assert found["bf16"][0].dtype == torch.float32
    assert not torch.equal(found["bf16"][1], found["fp32"][1]), "bf16 products were not taken"
    for one, other in zip(found["bf16"], found["fp32"]):
        assert float((one - other).detach().norm()) <= 2e-2 * float(other.detach().norm())


@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_nan_in_a_row_reaches_the_loss(device: str) -> None:
    q = torch.ones(20, 4, device=device)
    q[18, 1] = math.nan
    with engine_settings(path="triton"):
        rows, columns = logsumexp_streamed(q, torch.ones(20, 4, device=device), columns=True)
    assert rows is not None
    assert columns is not None
    assert rows.isnan().nonzero().tolist() == [[0, 18]]
    assert columns.isnan().all()


@pytest.mark.interpreted
def test_what_has_no_kernel_is_tiled() -> None:
    q = torch.randn(12, 3)
    long_list = Mask(pairs=(torch.zeros(9, dtype=torch.long), torch.arange(9)))
    with engine_settings(path="triton"):
        assert path_for(q, q, Mask()) == "triton"
        assert path_for(q, q, long_list) == "tiled"
        assert path_for(q.double(), q.double(), Mask()) == "tiled"
        assert path_for(q, q, Mask(), (1.0, 2.0, 3.0)) == "tiled"
        assert path_for(q[:0], q, Mask()) == "dense"


def test_kernels_that_cannot_run_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontrast.ops.streamed.runs_on", lambda device: False)
    monkeypatch.setattr("kontrast.ops.streamed.missing", lambda: "Triton is not installed")
    with (
        engine_settings(path="triton"),
        pytest.raises(ValueError, match="path='triton' cannot run here: Triton is not installed"),
    ):
        logsumexp_streamed(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="float32"), engine_settings(float32="half"):  # type: ignore[arg-type]
        pass
