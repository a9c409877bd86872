"""Schedules are pure functions of progress."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.config import BaseConfig, param
from kontrast.errors import ConfigError
from kontrast.schedules import Schedule, ScheduleField, as_schedule

unit = st.floats(0, 1)
value = st.floats(1e-6, 1e6)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    kind = draw(st.sampled_from(["constant", "linear", "cosine", "exponential", "step"]))
    start = draw(value)
    end = start if kind == "constant" else draw(value)
    begin, finish = sorted([draw(unit), draw(unit)])
    return Schedule(kind, start, end, begin, finish)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(schedules())
def test_text_round_trip(schedule: Schedule) -> None:
    back = as_schedule(str(schedule))
    assert [back(i / 7) for i in range(8)] == [schedule(i / 7) for i in range(8)]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(schedules(), unit, unit)
def test_stays_between_its_ends_and_moves_one_way(schedule: Schedule, one: float, two: float) -> None:
    low, high = sorted([schedule.start, schedule.end])
    first, second = schedule(min(one, two)), schedule(max(one, two))
    slack = 1e-12 * high
    assert low - slack <= first <= high + slack
    sign = 1 if schedule.end >= schedule.start else -1
    assert sign * (second - first) >= -slack
    if schedule.kind != "step":
        assert schedule(schedule.finish) == schedule.end
        assert schedule(schedule.begin) in (schedule.start, schedule.end)


def test_known_values() -> None:
    assert Schedule("linear", 1.0, 3.0, begin=0.5)(0.75) == 2.0
    assert Schedule("cosine", 0.0, 1.0)(0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert Schedule("exponential", 1.0, 0.01)(0.5) == pytest.approx(0.1)
    step = Schedule("step", 0.0, 1.0, begin=0.5)
    assert (step(0.49), step(0.5), step(1.0)) == (0.0, 1.0, 1.0)
    warm = Schedule.warm_up(2.0, 0.1)
    assert (warm(0.0), warm(0.05), warm(0.1), warm(1.0)) == (0.0, 1.0, 2.0, 2.0)
    assert as_schedule(0.3)(0.9) == 0.3
    assert as_schedule("linear(0, 1)")(-1.0) == 0.0
    assert as_schedule("linear(0, 1)")(2.0) == 1.0
    assert as_schedule("linear(start=1, end=2, finish=0.5)") == Schedule("linear", 1.0, 2.0, finish=0.5)


@pytest.mark.parametrize(
    "text",
    ["linear(0", "linear(0)", "linear(0, inf)", "wave(0, 1)", "linear(0, 1, begin=2)", "linear(0, 1, end=2)", "",
     "linear(0, 1, 0, 1, 2)", "linear(0, x)", "constant(1, 2)", "exponential(0, 1)", "nan", None, True, "constant()"],
)  # fmt: skip
def test_bad_schedules_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="schedule"):
        as_schedule(text)  # type: ignore[arg-type]


def test_unknown_kind_and_progress() -> None:
    with pytest.raises(ValueError, match="known: constant, linear"):
        Schedule("wave", 0.0, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nan"):
        as_schedule(1.0)(math.nan)


def test_as_a_configuration_field() -> None:
    class Config(BaseConfig):
        weight: ScheduleField = param("linear(0, 1, finish=0.1)", "weight of the term")

    assert Config().weight == Schedule("linear", 0.0, 1.0, finish=0.1)
    assert Config(weight=2).weight(0.5) == 2.0
    assert Config().changed().weight == Config().weight
    assert Config().to_yaml() == "weight: linear(0.0, 1.0, finish=0.1)\n"
    with pytest.raises(ConfigError, match="option 'weight'"):
        Config(weight="linear(0, 1, begin=3)")
