"""Values that change during training: loss weights, margins, temperatures, the hardness of negatives.

A schedule is a pure function of progress, the fraction of training that is done. It owns no counter, so a resumed run
needs no state of it: the trainer asks ``schedule(step / total_steps)``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, PlainSerializer

Kind = Literal["constant", "linear", "cosine", "exponential", "step"]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*")


@dataclass(frozen=True)
class Schedule:
    """A value that goes from `start` to `end` while progress goes from `begin` to `finish`, and holds outside.

    ========== =========================================================================
    constant   ``start`` throughout (``end`` must be the same number)
    linear     a straight line; with ``begin=0, finish=0.1`` it is a warm-up
    cosine     half a cosine: flat at both ends, steepest in the middle
    exponential constant ratio per unit of progress; for temperatures; both values above 0
    step       ``start`` before ``begin``, ``end`` from there on
    ========== =========================================================================

    Inside a configuration write the field as `ScheduleField`, which takes a number, a string or a schedule.

    Args:
        kind: the shape, see above.
        start: value at and before `begin`.
        end: value at and after `finish` (for "step": at and after `begin`).
        begin: fraction of training at which the change begins, in [0, 1].
        finish: fraction of training at which it is over, in [begin, 1].

    Raises:
        ValueError: for an unknown kind, a value that is not finite or fractions out of order.

    Example:
        >>> Schedule("linear", 0.0, 1.0, finish=0.5)(0.25)
        0.5
        >>> str(Schedule("cosine", 1.0, 0.1, begin=0.2))
        'cosine(1.0, 0.1, begin=0.2)'
    """

    kind: Kind
    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown schedule '{self.kind}'; known: {', '.join(_KINDS)}")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"'{field.name}' of a schedule must be a finite number, got {value!r}")
        if not 0 <= self.begin <= self.finish <= 1:
            raise ValueError(
                f"a schedule needs 0 <= begin <= finish <= 1, got begin={self.begin} and finish={self.finish}"
            )
        if self.kind == "constant" and self.start != self.end:
            raise ValueError(f"a constant schedule has one value, got start={self.start} and end={self.end}")
        if self.kind == "exponential" and not min(self.start, self.end) > 0:
            raise ValueError(f"an exponential schedule needs values above 0, got start={self.start} and end={self.end}")

    @classmethod
    def constant(cls, value: float) -> Self:
        """The same `value` throughout."""
        return cls("constant", value, value)

    @classmethod
    def warm_up(cls, value: float, fraction: float) -> Self:
        """From 0 to `value` in a straight line over the first `fraction` of training, then `value`."""
        return cls("linear", 0.0, value, finish=fraction)

    def __call__(self, progress: float) -> float:
        """The value when the fraction `progress` of training is done; outside [0, 1] the nearest end holds.

        Raises:
            ValueError: if `progress` is not a number.
        """
        if math.isnan(progress):
            raise ValueError("progress of a schedule is nan")
        if self.kind == "constant":
            return self.start
        if self.kind == "step":
            return self.end if progress >= self.begin else self.start
        # The ends are returned as given, so that rounding never leaves a weight at 1e-17 instead of 0.
        if progress >= self.finish:
            return self.end
        if progress <= self.begin:
            return self.start
        done = (progress - self.begin) / (self.finish - self.begin)
        if self.kind == "exponential":
            return float(self.start * (self.end / self.start) ** done)
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done

    def __str__(self) -> str:
        """Text that `as_schedule` reads back to an equal schedule."""
        if self.kind == "constant":
            return repr(self.start)
        parts = [repr(self.start), repr(self.end)]
        parts += [f"begin={self.begin!r}"] if self.begin != 0 else []
        parts += [f"finish={self.finish!r}"] if self.finish != 1 else []
        return f"{self.kind}({', '.join(parts)})"


def as_schedule(value: float | str | Schedule) -> Schedule:
    """A schedule from a plain number, from text or from itself.

    Args:
        value: a number (held throughout), a `Schedule`, or text as in ``"linear(0, 1, finish=0.1)"``,
            ``"constant(0.5)"`` or ``"0.5"``.

    Raises:
        ValueError: if the text cannot be read or the schedule it describes is not allowed.

    Example:
        >>> as_schedule("linear(0, 2, begin=0.5)")(0.75)
        1.0
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Schedule.constant(float(value))
    if isinstance(value, str):
        return _parse(value)
    raise ValueError(f"a schedule is a number or text as in 'linear(0, 1, finish=0.1)', got {value!r}")


def _parse(text: str) -> Schedule:
    unreadable = ValueError(
        f"cannot read the schedule '{text}'; write a number or kind(start, end, begin=..., finish=...) "
        f"with a kind of {', '.join(_KINDS)}"
    )
    try:
        return Schedule.constant(float(text))
    except ValueError:
        call = _CALL.fullmatch(text)
    if call is None or call[1] not in _KINDS:
        raise unreadable
    names = [field.name for field in fields(Schedule)][1:]
    given: dict[str, Any] = {}
    for place, part in enumerate(call[2].split(",")):
        name, sign, number = part.rpartition("=")
        key = name.strip() if sign else names[place] if place < len(names) else ""
        if key not in names or key in given:
            raise unreadable
        try:
            given[key] = float(number)
        except ValueError:
            raise unreadable from None
    if call[1] == "constant":
        given.setdefault("end", given.get("start"))
    if not {"start", "end"} <= given.keys():
        raise unreadable
    return Schedule(kind=call[1], **given)


ScheduleField = Annotated[
    Schedule,
    BeforeValidator(as_schedule),
    PlainSerializer(str, return_type=str),
]
"""A configuration field that takes a number, text or a `Schedule` and is written to YAML as text.

Give the default as a number or as text: ``weight: ScheduleField = param("linear(0, 1, finish=0.1)", "...")``.
"""
