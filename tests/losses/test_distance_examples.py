"""The examples in the docstrings print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
import torch


@pytest.mark.parametrize("name", ["_margin", "_mmd", "_orthogonality", "_rank", "_regularisers", "_uniformity"])
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(f"kontrast.losses.{name}"), extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0
