"""How an objective's ranks combine: declared with it, and acted upon at each call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kontrast.errors import ConfigError
from kontrast.ops import Combine, Group, current_settings, group_in_force, joined_ranks, rank_count

F = TypeVar("F", bound=Callable[..., Any])


def combines(how: Combine, *, ring: bool = False) -> Callable[[F], F]:
    """Declares as attributes ``combine`` and ``ring`` how a function's ranks combine, and gives it the group in force.

    Args:
        how: see `kontrast.ops.Combine`.
        ring: whether the candidates of other ranks can travel instead of being gathered at once; needless where
            locals are averaged.

    Returns:
        A decorator of functions with a keyword `group`. Called without one they join the group in force.
    """
    anywhere = ring or how == "mean_of_locals"

    def mark(function: F) -> F:
        @functools.wraps(function)
        def joined(*args: Any, group: Group = None, **kwargs: Any) -> Any:
            ranks = group_in_force(group)
            if not anywhere and current_settings().gather == "ring" and rank_count(ranks) > 1:
                raise ConfigError(
                    f"the objective '{function.__name__}' needs the rows of all processes at once and cannot have them "
                    "one after another on a ring; use gather='all'."
                )
            # An objective says itself which of its parts join ranks: some have rows that are gathered already.
            with joined_ranks(None):
                return function(*args, group=ranks, **kwargs)

        joined.combine = how  # type: ignore[attr-defined]
        joined.ring = anywhere  # type: ignore[attr-defined]
        return cast(F, joined)

    return mark
