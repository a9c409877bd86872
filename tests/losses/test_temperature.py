"""The learned temperature."""

import pytest
import torch

from kontrast.losses import Temperature


def test_a_temperature_that_fell_below_its_bound_comes_back():
    temperature = Temperature(0.02, learnable=True, smallest=0.01)
    with torch.no_grad():
        temperature.log_scale.fill_(6.0)  # T = 0.0025, below the bound
    assert temperature().item() == pytest.approx(0.01)
    optimiser = torch.optim.Adam(temperature.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (temperature() - 0.05).square().backward()
        optimiser.step()
    assert temperature().item() == pytest.approx(0.05, rel=0.1)


def test_a_fixed_temperature_has_no_parameter_and_is_in_the_state():
    temperature = Temperature(0.5)
    assert list(temperature.parameters()) == []
    assert temperature().item() == pytest.approx(0.5)
    assert "log_scale" in temperature.state_dict()
    with pytest.raises(ValueError, match="positive"):
        Temperature(0.0)
