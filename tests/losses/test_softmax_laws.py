"""Softmax-type objectives: published values, closed forms, symmetries, and how they behave inside a training loop."""

from __future__ import annotations

import doctest
import math
from importlib import import_module

import pytest
import torch
from torch import Tensor

from kontrast import losses
from kontrast.losses import clip_loss, info_nce, nt_xent, sigmoid_loss, supcon
from kontrast.ops import Labels, Paired, Pairs, Rule, contrast, engine_settings, record_diagnostics

PATHS = pytest.mark.parametrize("path", ["dense", "tiled"])


def rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


PUBLISHED = [(-1.9540, 1.0780), (0.2380, -0.5703), (1.8745, -0.0195), (-0.6719, -1.9210)]


@PATHS
@pytest.mark.parametrize(
    ("labels", "first_is_zero", "value"),
    [([0, 0, 1, 1], False, 14.010320), ([0, 0, 0, 1], False, 8.968544), ([0, 0, 1, 1], True, 9.288927)],
)
def test_published_nt_xent_values(path: str, labels: list[int], first_is_zero: bool, value: float) -> None:
    z = torch.tensor(PUBLISHED)
    if first_is_zero:
        z[0] = 0
    with engine_settings(path=path, tile=(3, 3)):
        assert nt_xent(z, labels=torch.tensor(labels), temperature=0.07).item() == pytest.approx(value, abs=2e-6)


@PATHS
@pytest.mark.parametrize("t", [0.01, 0.07, 1.0, 10.0])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_closed_forms(path: str, n: int, t: float) -> None:
    close = 2e-5 + 1e-6 / t  # the logits are 1/T, each with an error of its own
    with engine_settings(path=path, tile=(16, 8)):
        same = rows(1, 5).expand(n, 5)
        assert clip_loss(same, same, temperature=t).item() == pytest.approx(math.log(n), abs=close)
        assert losses.grace(same, same, temperature=t).item() == pytest.approx(math.log(2 * n - 1), abs=close)
        if n > 1:
            one_class = torch.zeros(n, dtype=torch.long)
            assert supcon(same, one_class, temperature=t).item() == pytest.approx(math.log(n - 1), abs=close)
        basis = torch.eye(n)
        want = math.log1p((n - 1) * math.exp(-1 / t))
        assert clip_loss(basis, basis, temperature=t).item() == pytest.approx(want, rel=1e-5, abs=1e-12)
        assert info_nce(basis, basis, temperature=t).item() == pytest.approx(want, rel=1e-5, abs=1e-12)


@PATHS
def test_order_of_rows_and_length_of_rows_change_nothing(path: str) -> None:
    a, b, labels = rows(30, 6), rows(30, 6, seed=1), torch.arange(30) % 4
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    scale = torch.rand(30, 1, generator=torch.Generator().manual_seed(3)) + 0.1
    with engine_settings(path=path, tile=(8, 8)):
        for loss in (
            lambda i, s: clip_loss(a[i] * s, b[i] * s),
            lambda i, s: supcon(a[i] * s, labels[i]),
            lambda i, s: nt_xent(a[i] * s, labels=labels[i]),
            lambda i, s: sigmoid_loss(a[i] * s, b[i] * s),
        ):
            want = loss(torch.arange(30), 1.0).item()
            assert loss(order, 1.0).item() == pytest.approx(want, rel=1e-5)
            assert loss(torch.arange(30), scale).item() == pytest.approx(want, rel=1e-5)


@PATHS
def test_temperature_is_a_scale_of_the_logits(path: str) -> None:
    a, b = rows(20, 6), rows(20, 6, seed=1)
    with engine_settings(path=path, tile=(8, 8)):
        one = info_nce(a, b, temperature=0.5, normalize=False)
        other = info_nce(a * 2, b, temperature=1.0, normalize=False)
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


@PATHS
def test_gradient_scales_with_the_upstream_gradient(path: str) -> None:
    x = rows(20, 6).requires_grad_()
    with engine_settings(path=path, tile=(8, 8)):
        (one,) = torch.autograd.grad(clip_loss(x, rows(20, 6, seed=1)), x)
        (many,) = torch.autograd.grad(clip_loss(x, rows(20, 6, seed=1)) * 128.0, x)
    torch.testing.assert_close(many, one * 128.0, rtol=1e-5, atol=1e-6)


@PATHS
def test_two_forwards_before_one_backward_and_a_graph_used_twice(path: str) -> None:
    x, y = rows(20, 6).requires_grad_(), rows(20, 6, seed=1)
    with engine_settings(path=path, tile=(8, 8)):
        (want_one,) = torch.autograd.grad(clip_loss(x, y), x)
        (want_two,) = torch.autograd.grad(clip_loss(x * 2, y, temperature=0.5), x)
        one, two = clip_loss(x, y), clip_loss(x * 2, y, temperature=0.5)
    (both,) = torch.autograd.grad(one + two, x, retain_graph=True)
    (again,) = torch.autograd.grad(one + two, x)
    torch.testing.assert_close(both, want_one + want_two)
    assert torch.equal(both, again)


@PATHS
def test_only_one_side_needs_a_gradient(path: str) -> None:
    a, b = rows(20, 6), rows(20, 6, seed=1)
    with engine_settings(path=path, tile=(8, 8)):
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        clip_loss(x, y).backward()
        for one, other, want in ((a.clone().requires_grad_(), b, x.grad), (a, b.clone().requires_grad_(), y.grad)):
            clip_loss(one, other).backward()
            leaf = one if one.requires_grad else other
            torch.testing.assert_close(leaf.grad, want)
        t = torch.tensor(0.07, requires_grad=True)
        clip_loss(a, b, temperature=t).backward()
        assert t.grad is not None
        assert torch.isfinite(t.grad)


@PATHS
def test_no_grad_autocast_half_inputs_and_strides(path: str) -> None:
    a, b = rows(20, 6), rows(20, 6, seed=1)
    with engine_settings(path=path, tile=(8, 8)):
        want = clip_loss(a, b)
        with torch.no_grad():
            assert not clip_loss(a.clone().requires_grad_(), b).requires_grad
        with torch.inference_mode():
            assert clip_loss(a, b).item() == want.item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert clip_loss(a, b).item() == want.item()
        strided = rows(6, 20).t().contiguous().t().t()
        x = strided.clone().requires_grad_()
        loss = clip_loss(x, torch.cat([b, b], 1)[:, ::2][:, :6])
        loss.backward()
        dense = strided.contiguous().requires_grad_()
        clip_loss(dense, torch.cat([b, b], 1)[:, ::2][:, :6].contiguous()).backward()
        torch.testing.assert_close(x.grad, dense.grad)
        half = a.bfloat16().requires_grad_()
        loss = clip_loss(half, b.bfloat16())
        loss.backward()
        assert loss.dtype == torch.float32
        assert half.grad.dtype == torch.bfloat16


@PATHS
def test_gradients_are_those_of_finite_differences(path: str) -> None:
    x, y = rows(5, 3, dtype=torch.float64).requires_grad_(), rows(5, 3, seed=1, dtype=torch.float64).requires_grad_()
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 2])
    with engine_settings(path=path, tile=(2, 3)):
        assert torch.autograd.gradcheck(lambda x, y, t: clip_loss(x, y, temperature=t), (x, y, t))
        assert torch.autograd.gradcheck(lambda x, t: supcon(x, labels, temperature=t), (x, t))
        assert torch.autograd.gradcheck(
            lambda x, t: supcon(x, labels, temperature=t, denominator="own_positive"), (x, t)
        )


@PATHS
def test_anchors_without_positive_are_counted_never_hidden(path: str) -> None:
    z, labels = rows(6, 4), torch.tensor([0, 0, 1, 2, 2, 3])
    with engine_settings(path=path, tile=(4, 4)), record_diagnostics() as log:
        mean = supcon(z, labels)
        each = supcon(z, labels, reduction="none")
        over_all = supcon(z, labels, reduction="anchors")
    assert [(one.anchors, one.skipped, one.pairs) for one in log] == [(6, 2, 4)] * 3
    assert torch.isnan(each).tolist() == [False, False, True, False, False, True]
    assert mean.item() == pytest.approx(each.nanmean().item(), rel=1e-6)
    assert over_all.item() == pytest.approx(each.nansum().item() / 6, rel=1e-6)
    with pytest.raises(ValueError, match="2 of 6 anchors have no positive"):
        supcon(z, labels, no_positive="error")
    x = z.clone().requires_grad_()
    with pytest.warns(RuntimeWarning, match="none of 6 anchors"):
        loss = supcon(x, torch.arange(6))
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


def test_a_zero_row_gets_no_gradient_and_breaks_nothing() -> None:
    x = rows(5, 3)
    x[2] = 0
    x.requires_grad_()
    clip_loss(x, rows(5, 3, seed=1), temperature=0.01).backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[2].any()


def test_tiny_temperatures_do_not_overflow() -> None:
    x, y = rows(6, 4).requires_grad_(), rows(6, 4, seed=1).requires_grad_()
    for function in (losses.hard_negative_loss, losses.debiased_loss, losses.dcl, losses.grace, losses.sigmoid_loss):
        loss = function(x, y, temperature=0.001)
        grads = torch.autograd.grad(loss, (x, y))
        assert torch.isfinite(loss)
        assert all(torch.isfinite(one).all() for one in grads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_loss(rows(4, 3), rows(5, 3)), "4 anchors and 5 candidates"),
        (lambda: clip_loss(rows(4, 3), rows(4, 2)), "width 2, anchors of width 3"),
        (lambda: clip_loss(rows(4, 3).long(), rows(4, 3)), "floating tensor of 2 dimensions, got torch.int64"),
        (lambda: clip_loss(rows(4), rows(4)), "2 dimensions"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), temperature=0.0), "temperature must be one positive number"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), temperature=torch.ones(2)), "temperature must be one positive"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), ids=torch.arange(3)), r"ids have shape \(3,\)"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), ids=torch.rand(4)), "ids must be integers"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), products="fp8"), "'fp32' or 'bf16'"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), reduction="none"), "one direction"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), reduction="max"), "reduction is one of"),
        (lambda: info_nce(rows(4, 3), rows(3, 3)), "at least as many paired candidates, got 3"),
        (lambda: info_nce(rows(4, 3), rows(4, 3), hard_negatives=rows(3, 2, 3)), "3 rows and anchors 4"),
        (lambda: info_nce(rows(4, 3), rows(4, 3), weights=rows(3)), r"anchors need \(4,\)"),
        (lambda: info_nce(rows(4, 3), rows(4, 3), log_weights=rows(3)), r"candidates need \(4,\)"),
        (lambda: supcon(rows(4, 3), torch.zeros(3).long()), r"labels have shape \(3,\)"),
        (lambda: supcon(rows(4, 3), torch.zeros(4)), "labels must be integers"),
        (lambda: supcon(rows(4, 3), torch.zeros(4).long(), placement="mid"), "'out' or 'in'"),
        (lambda: supcon(rows(4, 3), torch.zeros(4).long(), placement="in", denominator="own_positive"), "one pair"),
        (lambda: nt_xent(rows(4, 3)), "either a second view or labels"),
        (lambda: losses.multi_positive(rows(2, 3), rows(4, 3), [[0], [4]]), r"0\.\.4, allowed is 0\.\.3"),
        (lambda: losses.multi_positive(rows(2, 3), rows(4, 3), [[0]]), "1 lists of positives for 2 anchors"),
        (lambda: losses.queue_loss(rows(2, 3), rows(3, 3), rows(4, 3)), "2 queries and 3 keys"),
        (lambda: losses.sigmoid_loss(rows(2, 3), rows(3, 3)), r"\(2, 3\) and \(3, 3\)"),
        (lambda: losses.hard_negative_loss(rows(2, 3), rows(2, 3), debias=1.0), "debias"),
        (lambda: losses.hard_negative_loss(rows(2, 3), rows(2, 3), hardness=-1.0), "hardness"),
        (lambda: contrast(rows(2, 3), None, Rule(Paired())), "give the second view"),
        (lambda: contrast(rows(2, 3), rows(2, 3), Rule(Labels(torch.arange(2)))), "candidates' labels"),
        (lambda: Rule(Pairs(torch.arange(2), torch.arange(2)), partition="joint"), "two paired views"),
        (lambda: losses.Temperature(-1.0), "positive"),
    ],
)
def test_wrong_inputs_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


MODULES = {
    "InfoNCE": (losses.InfoNCE(), lambda m, a, b: m(a, b)),
    "ClipLoss": (losses.ClipLoss(), lambda m, a, b: m(a, b)),
    "NTXent": (losses.NTXent(learnable=True), lambda m, a, b: m(a, b)),
    "Grace": (losses.Grace(), lambda m, a, b: m(a, b)),
    "DCL": (losses.DCL(), lambda m, a, b: m(a, b)),
    "SupCon": (losses.SupCon(), lambda m, a, b: m(a, torch.arange(8) // 2)),
    "MultiPositive": (losses.MultiPositive(), lambda m, a, b: m(a, b, [[i] for i in range(8)])),
    "PrototypeLoss": (
        losses.PrototypeLoss(4, 5, per_class=2, generator=torch.Generator().manual_seed(0)),
        lambda m, a, b: m(a, torch.arange(8) // 2),
    ),
    "HardNegativeLoss": (losses.HardNegativeLoss(), lambda m, a, b: m(a, b)),
    "QueueLoss": (losses.QueueLoss(), lambda m, a, b: m(a, b, b.flip(0))),
    "SigmoidLoss": (losses.SigmoidLoss(), lambda m, a, b: m(a, b)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_owns_what_it_learns_and_its_checkpoint_holds_it(name: str) -> None:
    module, call = MODULES[name]
    a, b = rows(8, 5).requires_grad_(), rows(8, 5, seed=1)
    loss = call(module, a, b)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert "temperature.log_scale" in module.state_dict()
    assert module.temperature().item() == pytest.approx(math.exp(-module.state_dict()["temperature.log_scale"]))


def test_every_softmax_module_is_tested() -> None:
    own = {"_hard", "_infonce", "_ntxent", "_queue", "_sigmoid", "_supcon"}
    modules = {
        objective.module.__name__
        for objective in losses.objectives().values()
        if objective.module is not None and objective.function.__module__.rpartition(".")[2] in own
    }
    assert modules == set(MODULES)


@pytest.mark.parametrize("name", ["_hard", "_infonce", "_ntxent", "_queue", "_sigmoid", "_supcon", "_registry"])
def test_examples_print_what_they_say(name: str) -> None:
    module = import_module(f"kontrast.losses.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0
