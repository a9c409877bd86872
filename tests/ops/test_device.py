"""The streamed statistics and the objectives on a device that is not the CPU, without one: see `elsewhere`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from elsewhere import GPU, Elsewhere, PretendedGPU
from torch import Tensor

from kontrast import losses
from kontrast.ops import Mask, Pairs, engine_settings, streamed
from kontrast.ops.streamed import path_for

N, D = 23, 6
LABELS = torch.arange(N) // 4
IDS = torch.arange(N) // 2
ROWS, COLUMNS = torch.arange(N).repeat_interleave(2), (torch.arange(2 * N) * 7) % N

# Each takes two sets of rows and a function that brings integers to their device.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]] = {
    "clip": lambda a, b, put: losses.clip_loss(a, b, temperature=0.1),
    "clip_ids": lambda a, b, put: losses.clip_loss(a, b, temperature=0.1, ids=put(IDS)),
    "clip_bf16": lambda a, b, put: losses.clip_loss(a, b, temperature=1.0, products="bf16"),
    "sharp": lambda a, b, put: losses.clip_loss(a, b, temperature=0.001),
    "nt_xent": lambda a, b, put: losses.nt_xent(a, b, temperature=0.1),
    "supcon": lambda a, b, put: losses.supcon(a, put(LABELS), temperature=0.1) + 0 * b.sum(),
    "supcon_own": lambda a, b, put: (
        losses.supcon(a, put(LABELS), temperature=0.1, denominator="own_positive") + 0 * b.sum()
    ),
    "multi": lambda a, b, put: losses.multi_positive(a, b, Pairs(put(ROWS), put(COLUMNS)), temperature=0.1),
    "prototypes": lambda a, b, put: losses.prototype_loss(
        a, put(LABELS), b, prototype_labels=put(LABELS), temperature=0.1
    ),
    "hard": lambda a, b, put: losses.hard_negative_loss(a, b, temperature=0.1, hardness=0.5, debias=0.1),
    "queue": lambda a, b, put: losses.queue_loss(a, b, b.detach().flip(0) + 1, temperature=0.1),
    "sigmoid": lambda a, b, put: losses.sigmoid_loss(a, b, temperature=0.1, bias=-2.0, ids=put(IDS)),
}


def one_step(name: str, put: Callable[[Tensor], Tensor]) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    a, b = (put(torch.randn(N, D, generator=g)).requires_grad_() for _ in range(2))
    loss = OBJECTIVES[name](a, b, put)
    loss.backward()
    assert a.grad is not None
    assert b.grad is not None
    return [loss.detach(), a.grad, b.grad]


@pytest.mark.parametrize("path", ["tiled", "dense"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_stay_on_their_device(name: str, path: str) -> None:
    with engine_settings(path=path, tile=(8, 8), threads=1):  # type: ignore[arg-type]
        here = one_step(name, lambda x: x.clone())
        with PretendedGPU():
            there = one_step(name, Elsewhere)
    for one, other in zip(there, here):
        assert isinstance(one, Elsewhere)
        torch.testing.assert_close(one.inner, other, rtol=1e-5, atol=1e-6)


def test_a_large_batch_never_becomes_a_matrix_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    q = Elsewhere(torch.zeros(8, 2))
    assert path_for(q, q, Mask()) == "dense"
    monkeypatch.setattr(streamed, "DENSE_BELOW_ON_GPU", 63)
    assert path_for(q, q, Mask()) == "tiled"
    monkeypatch.setattr(streamed, "runs_on", lambda device: device == GPU)
    assert path_for(q, q, Mask()) == "triton"
    many = Mask(pairs=(torch.zeros(9, dtype=torch.long), torch.arange(9)))
    assert path_for(q, q, many) == "tiled"


def test_the_pretended_gpu_notices_a_tensor_on_the_cpu() -> None:
    with PretendedGPU(), pytest.raises(RuntimeError, match="mixes"):
        Elsewhere(torch.ones(3)) + torch.ones(3)
