"""The public check suite over every registered system, and over a plug-in installed by entry point."""

from __future__ import annotations

import pytest

from kontrast.contract import load_system, system_names
from kontrast.errors import ConfigError
from kontrast.testing import CHECKS, Trial

NAMES = [*system_names(), "toy"]
_trials: dict[str, Trial] = {}


@pytest.fixture
def trial(request, plugin, tmp_path_factory):
    name = request.param
    if name not in _trials:
        _trials[name] = Trial(load_system(name), tmp_path_factory.mktemp(name))
    return _trials[name]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("trial", NAMES, indirect=True)
def test_contract(trial, check):
    check(trial)


def test_the_plugin_is_found_by_its_entry_point(plugin):
    assert "toy" in system_names()
    assert load_system("toy").card.title == "points in space by class"


def test_an_unknown_system_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'pairs'"):
        load_system("pair")
