"""The declaration of how an objective's ranks combine, which one test over all objectives reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kontrast.ops import Combine

F = TypeVar("F", bound=Callable[..., Any])


def combines(how: Combine) -> Callable[[F], F]:
    """Declares as attribute ``combine`` how a function's ranks combine (see `kontrast.ops.Combine`)."""

    def mark(function: F) -> F:
        function.combine = how  # type: ignore[attr-defined]
        return function

    return mark
