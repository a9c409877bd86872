"""The optimiser: what decays, at which learning rate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import training_toy as toy

from kontrast.errors import ConfigError
from kontrast.training import OptimiserConfig
from kontrast.training.optimiser import build_optimiser, set_learning_rate


def test_biases_norms_and_scalars_do_not_decay() -> None:
    model = toy.Toy()
    optimiser = build_optimiser(model, OptimiserConfig(weight_decay=0.1))
    decayed = {
        id(parameter) for group in optimiser.param_groups if group["weight_decay"] > 0 for parameter in group["params"]
    }
    named = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert named == {"encoder.0.weight", "encoder.4.weight"}
    held = sum(len(group["params"]) for group in optimiser.param_groups)
    assert held == sum(parameter.requires_grad for parameter in model.parameters())


def test_learning_rate_scales_make_groups() -> None:
    class Scaled(toy.Toy):
        def learning_rate_scale(self, name: str) -> float:
            return 0.1 if name.startswith("encoder.0") else 1.0

    optimiser = build_optimiser(Scaled(), OptimiserConfig(learning_rate=0.5))
    assert set_learning_rate(optimiser, 0.5) == 0.25
    assert sorted({group["lr"] for group in optimiser.param_groups}) == [0.025, 0.25]


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="no parameter that asks for gradients"):
        build_optimiser(toy.Toy().requires_grad_(False), OptimiserConfig())


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_each_rule_is_torchs(name: str, kind: type) -> None:
    assert type(build_optimiser(toy.Toy(), OptimiserConfig(name=name))) is kind


def test_course_of_the_learning_rate() -> None:
    cosine = OptimiserConfig(schedule="cosine", warmup=0.1, final=0.2)
    course = [cosine.factor(step, 100) for step in range(100)]
    assert course[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert course[10] == 1.0
    assert course[55] == pytest.approx(0.6)
    assert course[99] == pytest.approx(0.2, abs=0.001)
    assert all(later <= earlier for earlier, later in pairwise(course[10:]))
    linear = OptimiserConfig(schedule="linear")
    assert [linear.factor(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert {OptimiserConfig(schedule="constant").factor(step, 4) for step in range(4)} == {1.0}
    assert OptimiserConfig(warmup=0.5).factor(0, 1) > 0


def test_options_out_of_range_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"betas.*\[0, 1\)"):
        OptimiserConfig(betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match="nesterov"):
        OptimiserConfig(nesterov=True)
    assert build_optimiser(toy.Toy(), OptimiserConfig(name="sgd", nesterov=True)).param_groups[0]["nesterov"]
