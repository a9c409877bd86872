"""HTML that is escaped by construction, and one way to write numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

MISSING = "–"
_VOID = frozenset({"br", "img", "input", "meta"})


class Html(str):
    """Markup that is safe as it stands; every other text is escaped on its way into a page."""

    __slots__ = ()


def tag(name: str, /, *children: str | Iterable[str] | None, **attributes: Any) -> Html:
    """One element.

    Args:
        name: element name.
        children: texts (escaped), `Html` (as it is), sequences of either, or None (left out).
        attributes: ``class_`` is written class and ``aria_label`` aria-label; True gives a bare attribute, None none.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Html(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*children: str | Iterable[str] | None) -> Html:
    """Elements and texts one after another, texts escaped."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Html("".join(parts))


def clipped(text: str, width: int = 80) -> Html:
    """The text, or its beginning with the whole of it as the title."""
    if len(text) <= width:
        return Html(escape(text))
    return tag("span", f"{text[: width - 1].rstrip()}…", title=text[:2000])


def shorten(text: str, width: int) -> str:
    """The text on one line, at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def hover_text(text: str, *, width: int = 56, lines: int = 5) -> str:
    """A text for plotly's hover box: escaped, because plotly reads some tags, and wrapped."""
    wrapped = textwrap.wrap(" ".join(text[: width * (lines + 1)].split()), width)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], f"{wrapped[lines - 1][: width - 1]}…"]
    return "<br>".join(escape(line) for line in wrapped)


def format_number(value: Any) -> str:
    """A number for a reader: 0.612, 45.3, 1,204; missing or not finite gives a dash, another value its text."""
    if value is None or value is np.ma.masked:
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return _minus(f"{int(value):,}")
    if not isinstance(value, (float, np.floating)):
        return str(value)
    size = abs(float(value))
    if not math.isfinite(size):
        return MISSING
    if size == 0:
        return "0"
    if size.is_integer() and 1 < size < 1e15:
        return _minus(f"{int(value):,}")
    if size >= 1000:
        return _minus(f"{value:,.0f}")
    if size < 0.001:
        return _minus(f"{value:.1e}".replace("e-0", "e-"))
    return _minus(f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}")


def format_difference(value: float) -> str:
    """A signed number: +0.028, −0.004."""
    text = format_number(float(value))
    return f"+{text}" if value > 0 else text


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
