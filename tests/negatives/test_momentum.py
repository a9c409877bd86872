"""The twin follows its encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kontrast.negatives import MomentumEncoder, update_momentum
from kontrast.schedules import as_schedule


def _encoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_parameters_are_averaged_and_buffers_copied() -> None:
    online, twin = _encoder(0), MomentumEncoder(_encoder(1))
    online(torch.randn(5, 3))
    before = {name: value.clone() for name, value in twin.encoder.named_parameters()}
    twin.update(online, as_schedule("cosine(0.9, 1)")(0.0))
    for (name, new), (_, now) in zip(online.named_parameters(), twin.encoder.named_parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * before[name] + 0.1 * new)
    for (_, new), (_, now) in zip(online.named_buffers(), twin.encoder.named_buffers(), strict=True):
        assert torch.equal(new, now)
    assert int(dict(twin.encoder.named_buffers())["1.num_batches_tracked"]) == 1


def test_ends_of_the_range() -> None:
    online, twin = _encoder(0), _encoder(1)
    kept = twin[0].weight.clone()  # type: ignore[index]
    update_momentum(online, twin, 1.0)
    assert torch.equal(twin[0].weight, kept)  # type: ignore[index]
    update_momentum(online, twin, 0.0)
    assert torch.equal(twin[0].weight, online[0].weight)  # type: ignore[index]


def test_has_no_gradient_and_is_independent() -> None:
    online = _encoder(0)
    twin = MomentumEncoder(online)
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())
    assert not twin(torch.randn(4, 3)).requires_grad
    with torch.no_grad():
        online[0].weight.zero_()  # type: ignore[index]
    assert twin.encoder[0].weight.abs().sum() > 0  # type: ignore[index]


def test_state_round_trip() -> None:
    one, two = MomentumEncoder(_encoder(0)), MomentumEncoder(_encoder(1))
    two.load_state_dict(one.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(one.eval()(x), two.eval()(x))


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        update_momentum(_encoder(0), _encoder(0), 1.5)
    with pytest.raises(ValueError, match="2 tensors and its twin 1"):
        update_momentum(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)
    with pytest.raises(ValueError, match=r"'weight' has shape \(2, 2\) online and \(2, 3\)"):
        update_momentum(nn.Linear(2, 2), nn.Linear(3, 2), 0.5)
