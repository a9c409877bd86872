"""Objectives under bf16 autocast: encoders compute in bf16, losses are computed and summed in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kontrast import losses
from kontrast.ops import engine_settings

N = 48
LABELS = torch.arange(N) // 3
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "info_nce": lambda a, b, y: losses.info_nce(a, b, temperature=0.1),
    "clip": lambda a, b, y: losses.clip_loss(a, b, temperature=0.1),
    "nt_xent": lambda a, b, y: losses.nt_xent(a, b, temperature=0.1),
    "grace": lambda a, b, y: losses.grace(a, b, temperature=0.1),
    "dcl": lambda a, b, y: losses.dcl(a, b, temperature=0.1),
    "supcon": lambda a, b, y: losses.supcon(a, y, temperature=0.1),
    "prototypes": lambda a, b, y: losses.prototype_loss(a, y, b, prototype_labels=y, temperature=0.1),
    "hard": lambda a, b, y: losses.hard_negative_loss(a, b, temperature=0.1, hardness=0.5),
    "debiased": lambda a, b, y: losses.debiased_loss(a, b, temperature=0.1, debias=0.1),
    "queue": lambda a, b, y: losses.queue_loss(a, b, b.detach().roll(1, 0).float(), temperature=0.1),
    "sigmoid": lambda a, b, y: losses.sigmoid_loss(a, b, temperature=0.1, bias=-3.0),
}


def encoder(device: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24)).to(device)


def views(device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 20, generator=g)
    return x.to(device), (x + 0.5 * torch.randn(N, 20, generator=g)).to(device)


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["dense", "tiled"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_float32_under_bf16_autocast(name: str, path: str, device: str) -> None:
    objective, labels = OBJECTIVES[name], LABELS.to(device)
    found = []
    with engine_settings(path=path, tile=(32, 32), threads=1):  # type: ignore[arg-type]
        for enabled in (False, True):
            model = encoder(device)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
                a, b = (model(x) for x in views(device))
                loss = objective(a, b, labels)
            assert a.dtype == (torch.bfloat16 if enabled else torch.float32)
            assert loss.dtype == torch.float32
            with torch.no_grad():
                wanted = objective(a.float(), b.float(), labels)
            # The rows are bf16, what is made of them is not: exactly the loss of the same rows in float32.
            assert torch.equal(loss.detach(), wanted)
            found.append((loss.detach(), gradients(model, loss)))
    for one, other in zip(found[1], found[0]):
        assert float((one - other).norm()) <= 2e-2 * float(other.norm()) + 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["dense", "tiled"])
def test_a_sum_over_thousands_of_anchors_keeps_its_digits(path: str, device: str) -> None:
    # A bf16 sum of ones stops growing at 256: log(3000) summed over 3000 anchors would come out ten times too small.
    x = torch.zeros(3000, 2, device=device, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast(device, dtype=torch.bfloat16), engine_settings(path=path, threads=1):  # type: ignore[arg-type]
        mean = losses.clip_loss(x, x.detach(), temperature=1.0, normalize=False)
    assert mean.item() == pytest.approx(torch.tensor(3000.0).log().item(), rel=1e-6)


@pytest.mark.parametrize("path", ["dense", "tiled"])
def test_a_backward_pass_inside_autocast_stays_within_its_tolerance(path: str) -> None:
    g = torch.Generator().manual_seed(2)
    rows = torch.randn(2, 40, 64, generator=g)
    found = []
    for inside in (False, True):
        a, b = (x.clone().requires_grad_() for x in rows)
        with engine_settings(path=path, tile=(16, 16), threads=1):  # type: ignore[arg-type]
            loss = losses.clip_loss(a, b, temperature=0.1, products="bf16")
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
                loss.backward()
        assert a.grad is not None
        assert b.grad is not None
        found.append((a.grad, b.grad))
    for one, other in zip(*found):
        assert float((one - other).norm()) <= 2e-2 * float(other.norm())
