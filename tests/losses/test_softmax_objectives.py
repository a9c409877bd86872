"""Every softmax-type objective against its float64 slow twin: its value and every gradient, the temperature's too."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
import torch
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kontrast import losses
from kontrast.ops import Pairs, engine_settings
from kontrast.ops.inputs import working_inputs

TEMPERATURES = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0)


@dataclass
class Case:
    """One objective on drawn inputs: the library's call and its twin's, both functions of (inputs, temperature)."""

    inputs: list[Tensor]
    ours: Callable[..., Tensor]
    twin: Callable[..., Tensor]
    temperature: float = 1.0


def rows(draw: Any, generator: torch.Generator, n: int, d: int) -> Tensor:
    """Random rows, some of them zero, some equal to an earlier one."""
    x = torch.randn(n, d, generator=generator)
    x = x * draw(st.sampled_from([0.1, 1.0, 30.0]))
    for i in range(n):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            x[i] = 0
        elif kind == 1 and i:
            x[i] = x[int(torch.randint(i, (1,), generator=generator))]
    return x


def integers(generator: torch.Generator, n: int, high: int) -> Tensor:
    return torch.randint(high, (n,), generator=generator)


NAMES = (
    "info_nce", "info_nce_ids", "info_nce_hard", "info_nce_weights", "clip", "clip_ids", "clip_weights",
    "nt_xent_views", "nt_xent_all", "nt_xent_own_positive", "nt_xent_negatives", "supcon_out", "supcon_in",
    "supcon_own_positive", "supcon_ids", "supcon_weights", "grace", "dcl_joint", "dcl_separate", "hard", "debiased",
    "multi_in", "multi_out", "multi_own_positive", "multi_negatives", "multi_known", "multi_weights",
    "prototypes_in", "prototypes_out", "queue", "queue_ids", "sigmoid", "sigmoid_ids",
)  # fmt: skip


def make(name: str, draw: Any, d: int | None = None, sizes: tuple[int, int] = (1, 9), device: str = "cpu") -> Case:
    """A drawn case; the device is that of its integers and weights, to which `evaluate` brings the inputs, too."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    d = d or draw(st.integers(1, 8))
    n = draw(st.integers(*sizes))
    m = n + draw(st.integers(0, 5))
    a, b, c = rows(draw, g, n, d), rows(draw, g, n, d), rows(draw, g, m, d)
    labels = integers(g, n, draw(st.integers(1, 5))).to(device)
    ids = integers(g, n, 2 * n).to(device)
    more_ids = torch.cat([ids, integers(g, m - n, 2 * n).to(device)])
    weights = (torch.rand(n, generator=g) + 0.1).to(device)
    kind, _, option = name.partition("_")
    if name == "info_nce":
        return Case([a, c], lambda a, c, t: losses.info_nce(a, c, temperature=t), twins.info_nce)
    if name == "info_nce_ids":
        return Case(
            [a, c],
            lambda a, c, t: losses.info_nce(a, c, temperature=t, ids=ids, candidate_ids=more_ids),
            lambda a, c, t: twins.info_nce(a, c, t, ids=ids, candidate_ids=more_ids),
        )
    if name == "info_nce_hard":
        hard = torch.randn(n, 3, d, generator=g)
        log_weights = torch.randn(m, generator=g)
        return Case(
            [a, c, hard, log_weights],
            lambda a, c, h, w, t: losses.info_nce(a, c, temperature=t, hard_negatives=h, log_weights=w),
            lambda a, c, h, w, t: twins.info_nce(a, c, t, hard=h, log_weights=w),
        )
    if name == "info_nce_weights":
        return Case(
            [a, c],
            lambda a, c, t: losses.info_nce(a, c, temperature=t, weights=weights),
            lambda a, c, t: twins.info_nce(a, c, t, weights=weights),
        )
    if kind == "clip":
        options = {"": {}, "ids": {"ids": ids}, "weights": {"weights": weights}}[option]
        return Case(
            [a, b],
            lambda a, b, t: losses.clip_loss(a, b, temperature=t, **options),
            lambda a, b, t: twins.clip(a, b, t, **options),
        )
    if name in ("nt_xent_views", "grace"):
        function = losses.grace if name == "grace" else losses.nt_xent
        return Case([a, b], lambda a, b, t: function(a, b, temperature=t), twins.nt_xent_views)
    if name.startswith("nt_xent"):
        denominator = name.removeprefix("nt_xent_")
        return Case(
            [a],
            lambda a, t: losses.nt_xent(a, labels=labels, temperature=t, denominator=denominator),
            lambda a, t: twins.labelled(a, labels, t, denominator=denominator, by="pairs"),
        )
    if kind == "supcon":
        options = {
            "out": {}, "in": {"placement": "in"}, "own_positive": {"denominator": "own_positive"},
            "ids": {"ids": ids}, "weights": {"weights": weights},
        }[option]  # fmt: skip
        return Case(
            [a],
            lambda a, t: losses.supcon(a, labels, temperature=t, **options),
            lambda a, t: twins.labelled(a, labels, t, **options),
        )
    if kind == "dcl":
        twin = twins.dcl_joint if option == "joint" else twins.dcl_separate
        return Case([a, b], lambda a, b, t: losses.dcl(a, b, temperature=t, partition=option), twin)
    if name == "hard":
        beta, tau = draw(st.sampled_from([0.0, 0.5, 2.0])), draw(st.sampled_from([0.0, 0.1, 0.5]))
        return Case(
            [a, b],
            lambda a, b, t: losses.hard_negative_loss(a, b, temperature=t, hardness=beta, debias=tau),
            lambda a, b, t: twins.hard_negatives(a, b, t, beta=beta, tau=tau),
        )
    if name == "debiased":
        return Case(
            [a, b],
            lambda a, b, t: losses.debiased_loss(a, b, temperature=t, debias=0.2),
            lambda a, b, t: twins.hard_negatives(a, b, t, beta=0.0, tau=0.2),
        )
    if kind == "multi":
        chosen = (torch.rand(n, m, generator=g) < 0.3).to(device)
        lists = [row.nonzero().flatten().tolist() for row in chosen]
        positives: Any = lists
        options, twin_options = {}, {}
        if option == "out":
            options = twin_options = {"placement": "out"}
        elif option == "own_positive":
            options = twin_options = {"placement": "out", "denominator": "own_positive"}
        elif option == "negatives":
            options = twin_options = {"denominator": "negatives"}
        elif option == "known":
            extra = (torch.rand(n, m, generator=g) < 0.2).to(device) & ~chosen
            i, j = extra.nonzero(as_tuple=True)
            options, twin_options = {"known": Pairs(i, j)}, {"known": set(zip(i.tolist(), j.tolist()))}
        elif option == "weights":
            i, j = chosen.nonzero(as_tuple=True)
            shuffled = torch.randperm(len(i), generator=g).to(device)
            w = (torch.rand(len(i), generator=g) + 0.1).to(device)
            positives = Pairs(i[shuffled], j[shuffled], w[shuffled])
            placement = draw(st.sampled_from(["in", "out"]))
            table = {(int(x), int(y)): float(z) for x, y, z in zip(i, j, w)}
            options, twin_options = {"placement": placement}, {"placement": placement, "pair_weights": table}
        return Case(
            [a, c],
            lambda a, c, t: losses.multi_positive(a, c, positives, temperature=t, **options),
            lambda a, c, t: twins.listed(a, c, lists, t, **twin_options),
        )
    if kind == "prototypes":
        c_labels = integers(g, m, 4).to(device)
        return Case(
            [a, c],
            lambda a, c, t: losses.prototype_loss(
                a, labels, c, prototype_labels=c_labels, temperature=t, placement=option
            ),
            lambda a, c, t: twins.prototypes(a, labels, c, c_labels, t, placement=option),
        )
    if kind == "queue":
        past = c[n:]
        options, twin_options = {}, {}
        if option == "ids":
            options = {"ids": ids, "queue_ids": more_ids[n:]}
            twin_options = {"ids": ids, "past_ids": more_ids[n:]}
        return Case(
            [a, b, past],
            lambda a, b, p, t: losses.queue_loss(a, b, p, temperature=t, **options),
            lambda a, b, p, t: twins.queue(a, b, p, t, **twin_options),
        )
    assert kind == "sigmoid"
    options = {"ids": ids} if option == "ids" else {}
    bias = torch.randn((), generator=g) * 5
    return Case(
        [a, b, bias],
        lambda a, b, s, t: losses.sigmoid_loss(a, b, temperature=t, bias=s, **options),
        lambda a, b, s, t: twins.sigmoid(a, b, t, s, **options),
    )


def evaluate(
    function: Callable[..., Tensor], inputs: list[Tensor], t: float, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """Value, the gradients of all inputs, the gradient of the temperature, in float64 on the CPU."""
    leaves = [x.detach().to(device, dtype, copy=True).requires_grad_() for x in inputs]
    temperature = torch.tensor(t, dtype=torch.float32).to(device, dtype).requires_grad_()
    loss = function(*leaves, temperature)
    assert loss.dtype == dtype
    loss.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in (*leaves, temperature)]
    return [x.detach().double().cpu() for x in (loss, *grads)]


def compare(case: Case, t: float, tolerance: float, device: str = "cpu") -> None:
    """Relative error on norms; where an exact value nearly cancels, relative to a tenth of the size of what cancels.

    A loss below 1 is the difference of logits above it. A logit's gradient is up to 1/T per unit row, and as 1/‖x‖ of
    that reaches x through the normalisation; the temperature's is up to 1/T².
    """
    ours = evaluate(case.ours, case.inputs, t, torch.float32, device)
    with torch.device(device):  # twins make their tensors wherever they are
        twin = evaluate(case.twin, case.inputs, t, torch.float64, device)
    sizes = [10.0]
    for x in case.inputs:
        if x.dim() < 2:
            sizes.append(1.0)
            continue
        lengths = x.double().norm(dim=-1)
        some = lengths[lengths > 0]
        sizes.append(1 / t / (float(some.min()) if some.numel() else 1e-12) / math.sqrt(max(len(x), 1)))
    sizes.append(1 / t**2)
    for index, (one, other, size) in enumerate(zip(ours, twin, sizes)):
        assert torch.isfinite(one).all(), f"output {index}: {one}"
        error = float((one - other).norm())
        allowed = tolerance * max(float(other.norm()), 0.1 * size)
        assert error <= allowed, f"output {index}: error {error:.2e}, allowed {allowed:.2e}, ours {one}, twin {other}"


@pytest.mark.filterwarnings("ignore:none of:RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(data=st.data())
def test_equals_slow_twin(name: str, data: st.DataObject) -> None:
    case = make(name, data.draw)
    path = data.draw(st.sampled_from(["dense", "tiled"]))
    tile = (data.draw(st.integers(1, 10)), data.draw(st.integers(1, 10)))
    # The twins of these two are written in plain exponentials, which float64 holds for 1/T up to about 100.
    t = data.draw(st.sampled_from([x for x in TEMPERATURES if x >= 0.01 or name not in ("hard", "debiased")]))
    with engine_settings(path=path, tile=tile, threads=2):
        # Float32 holds a logit of size 1/T to about 1e-7/T; from 1/T = 256 on the engine computes in float64.
        compare(case, t, 1e-5 if t != 0.01 else 2.5e-5)


@pytest.mark.filterwarnings("ignore:none of:RuntimeWarning")
@pytest.mark.parametrize(
    ("path", "device"),
    [
        pytest.param("triton", "cpu", marks=pytest.mark.interpreted),
        *(pytest.param(path, "cuda", marks=pytest.mark.gpu) for path in ("triton", "tiled", "dense")),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_equals_slow_twin_on_every_engine(name: str, path: str, device: str) -> None:
    # The interpreter takes its time; on a GPU as many examples as on the CPU.
    @settings(deadline=None, max_examples=2 if device == "cpu" else 25, derandomize=True)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        case = make(name, data.draw, sizes=(7, 9) if device == "cpu" else (1, 70), device=device)
        t = data.draw(st.sampled_from([0.05, 0.1, 1.0]))
        with engine_settings(path=path, tile=(16, 16) if device == "cpu" else (256, 192)):  # type: ignore[arg-type]
            compare(case, t, 1e-5, device)

    check()


@pytest.mark.filterwarnings("ignore:none of:RuntimeWarning")
@pytest.mark.parametrize(
    "name", ["info_nce", "clip_ids", "nt_xent_views", "supcon_out", "multi_in", "queue", "sigmoid"]
)
@settings(deadline=None, max_examples=10, derandomize=True)
@given(data=st.data())
def test_bf16_products_equal_slow_twin(name: str, data: st.DataObject) -> None:
    case = make(name, data.draw, d=128, sizes=(2, 24))
    ours = case.ours
    t = data.draw(st.sampled_from([0.02, 0.05, 0.1, 0.5, 10.0]))
    with engine_settings(path="tiled", tile=(8, 8), threads=2), bf16_products():
        compare(Case(case.inputs, ours, case.twin), t, 2e-2)


@contextlib.contextmanager
def bf16_products() -> Iterator[None]:
    """All objectives with products="bf16", whatever their call says."""

    def half(*args: Any, **kwargs: Any) -> Any:
        return working_inputs(*args, **{**kwargs, "products": "bf16"})

    engine, sigmoid = sys.modules["kontrast.ops.contrast"], sys.modules["kontrast.losses._sigmoid"]
    with patch.object(engine, "working_inputs", half), patch.object(sigmoid, "working_inputs", half):
        yield
