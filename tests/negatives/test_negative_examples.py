"""The examples in the docstrings print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
import torch

from kontrast.negatives import exclusions


@pytest.mark.parametrize("name", ["exclusion", "mining", "momentum", "queue"])
def test_examples(name: str) -> None:
    result = doctest.testmod(
        import_module(f"kontrast.negatives.{name}"), extraglobs={"torch": torch, "exclusions": exclusions}
    )
    assert result.attempted > 0
    assert result.failed == 0
