"""HTML documents as elements in reading order: the blocks of text that a reader sees as one unit.

A document is simplified on the way in: attributes, comments, scripts, styles and tags that carry no structure go, tags
of blocks and of inline emphasis stay, entities are decoded. What is kept is a flat list of elements, each with the tags
of the containers that open before it and close after it, so that the tagged string, the plain text and a version with
some elements left out are all cheap to write.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kontrast.extras import require

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = ("p", "li", "dt", "dd", "tr", "pre", "blockquote", "figcaption", "caption", "summary", *HEADINGS)
"""Tags that an element can have besides those of containers with text of their own."""

TAG_CLASSES = ("none", *BLOCKS, "td", "th", "div", "section", "body", "other")
"""Classes of elements; "none" stands for an element whose tag was taken away."""

_CONTAINERS = (
    "html", "body", "div", "section", "article", "main", "header", "footer", "nav", "aside", "details", "figure", "ul",
    "ol", "dl", "menu", "table", "thead", "tbody", "tfoot", "td", "th", "form", "fieldset", "address", "center",
    "hgroup",
)  # fmt: skip
_INLINE = ("a", "b", "strong", "i", "em", "code", "kbd", "samp", "var", "tt", "u", "sub", "sup", "q", "cite", "mark",
           "span", "small", "del", "ins", "dfn", "abbr")  # fmt: skip
_GONE = ("script", "style", "template", "noscript", "head", "iframe", "object", "svg", "math", "canvas", "audio",
         "video", "select", "button", "textarea")  # fmt: skip
_BLOCK_TAGS = frozenset((*BLOCKS, *_CONTAINERS))
_DEEPEST = 100
_ANY_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Element:
    """One block of text.

    Attributes:
        tag: its tag, such as "p"; that of its container for text that stands in a container by itself.
        text: what a reader sees, entities decoded; lines are kept in "pre" alone.
        markup: the same with bare inline tags and entities encoded, without the element's own tags.
        before: tags of containers that open before it, such as "<section><ul>", and tags that close there.
        unit: elements of one unit belong together (a term and the beginning of what is said about it).
        own: whether the element has tags of its own; text of a container has not.
    """

    tag: str
    text: str
    markup: str
    before: str
    unit: int
    own: bool = True

    @property
    def tagged(self) -> str:
        """The element between its own tags."""
        return f"<{self.tag}>{self.markup}</{self.tag}>" if self.own else self.markup

    @property
    def tag_class(self) -> int:
        """Position of its tag in `TAG_CLASSES`."""
        return _CLASS.get(self.tag, _CLASS["other"])

    @property
    def is_heading(self) -> bool:
        """Whether it is one of h1 to h6."""
        return self.tag in HEADINGS


@dataclass(frozen=True)
class Document:
    """A document as its elements.

    Attributes:
        elements: in reading order.
        after: tags that close after the last one.
    """

    elements: tuple[Element, ...]
    after: str = ""

    def __len__(self) -> int:
        return len(self.elements)

    @cached_property
    def units(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the elements of each unit, in order."""
        found: dict[int, list[int]] = {}
        for place, element in enumerate(self.elements):
            found.setdefault(element.unit, []).append(place)
        return tuple(tuple(places) for places in found.values())

    @cached_property
    def unit_texts(self) -> tuple[str, ...]:
        """What a reader sees of each unit."""
        return tuple(" ".join(self.elements[place].text for place in unit) for unit in self.units)

    def tagged(self, without: Iterable[int] = ()) -> str:
        """The bare-tag HTML, without the elements at some positions."""
        gone = set(without)
        parts = []
        for place, element in enumerate(self.elements):
            parts.append(element.before)
            if place not in gone:
                parts.append(element.tagged)
        return "".join(parts) + self.after

    def plain(self) -> str:
        """The text without tags; one space between blocks, none where an inline tag stood."""
        return " ".join(element.text for element in self.elements)

    @cached_property
    def title(self) -> str:
        """The first heading's text, else the first words."""
        headings = (element.text for element in self.elements if element.is_heading)
        first = next(headings, self.elements[0].text if self.elements else "")
        return first if len(first) <= 80 else f"{first[:79]}…"


def parse_html(text: str) -> Document:
    """A document from the text of an HTML page or fragment, however broken.

    A text without any tag gives one element per paragraph (separated by empty lines).

    Raises:
        MissingExtraError: without lxml.
    """
    if "<" not in text or not _TAG.search(text):
        return plain_document(text)
    lxml = require("lxml.html", extra="documents", purpose="to read HTML")
    parser = lxml.HTMLParser(remove_comments=True, remove_pis=True, huge_tree=True, encoding="utf-8", no_network=True)
    try:
        root = lxml.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (ValueError, lxml.etree.ParserError):  # nothing but comments or blanks
        return Document(())
    return _Builder().build(root)


def plain_document(text: str) -> Document:
    """A document of paragraphs without tags of their own, from plain text, which is kept as it is."""
    paragraphs = [_ANY_SPACES.sub(" ", part).strip() for part in re.split(r"\n\s*\n", text)]
    found = [part for part in paragraphs if part]
    gaps = ["", *["\n\n"] * len(found)]
    return Document(
        tuple(Element("body", part, part, gap, n, own=False) for n, (part, gap) in enumerate(zip(found, gaps)))
    )


_TAG = re.compile(r"<[a-zA-Z!/][^<>]*>")
_CLASS = {name: place for place, name in enumerate(TAG_CLASSES)}


class _Builder:
    """Walks an lxml tree once, without recursion of Python's own depth per block of text."""

    def __init__(self) -> None:
        self.elements: list[Element] = []
        self.pending: list[str] = []
        self.unit = -1
        self.open_term = False

    def build(self, root: Any) -> Document:
        self.containers(root)
        return Document(tuple(self.elements), "".join(self.pending))

    def containers(self, root: Any) -> None:
        """A container's blocks and its own text, in order; by a stack, since pages nest deeper than Python may."""
        stack: list[tuple[str, Any]] = [("node", root)]
        while stack:
            kind, item = stack.pop()
            if kind == "close":
                self.pending.append(f"</{item}>")
            elif kind == "text":
                self.add(*item)
            else:
                stack.extend(reversed(list(self.visit(item))))

    def visit(self, node: Any) -> Iterator[tuple[str, Any]]:
        tag = _name(node)
        if tag in _GONE:
            return
        if not _has_blocks(node):
            text, markup = _inline(node, keep_lines=tag == "pre")
            shown = tag in BLOCKS or tag in ("td", "th")
            if text:
                yield "text", (tag if tag in _BLOCK_TAGS else "other", text, markup, shown or tag in _CONTAINERS)
            return
        shown = tag not in ("html", "body")
        if shown:
            self.pending.append(f"<{tag}>")
        yield from self.inside(node, tag)
        if shown:
            yield "close", tag

    def inside(self, node: Any, tag: str) -> Iterator[tuple[str, Any]]:
        """Blocks of a container, and runs of text and inline tags between them as elements without tags."""
        run: list[tuple[str, str]] = [_escaped(node.text)]
        for child in node:
            if not isinstance(child.tag, str):
                run.append(_escaped(child.tail))
                continue
            name = _name(child)
            if name in _GONE:
                run.append(_escaped(child.tail))
            elif name in _BLOCK_TAGS or _has_blocks(child):
                yield from self.run(run, tag)
                run = [_escaped(child.tail)]
                yield "node", child
            else:
                run.append((" ", " ") if name in ("br", "hr", "img") else _wrapped(child, keep_lines=False))
                run.append(_escaped(child.tail))
        yield from self.run(run, tag)

    def run(self, parts: list[tuple[str, str]], tag: str) -> Iterator[tuple[str, Any]]:
        text = _ANY_SPACES.sub(" ", "".join(part[0] for part in parts)).strip()
        if text:
            yield "text", (tag, text, _ANY_SPACES.sub(" ", "".join(part[1] for part in parts)).strip(), False)

    def add(self, tag: str, text: str, markup: str, own: bool) -> None:
        # A term opens a unit that the next element, the beginning of its description, closes.
        if not self.open_term:
            self.unit += 1
        self.open_term = tag == "dt"
        self.elements.append(Element(tag, text, markup, "".join(self.pending), self.unit, own))
        self.pending = []


def _name(node: Any) -> str:
    return str(node.tag).rpartition("}")[2].lower() if isinstance(node.tag, str) else ""


def _has_blocks(node: Any) -> bool:
    """Whether blocks stand inside; the cells of a table's row do not count unless they hold blocks themselves."""
    row = _name(node) == "tr"
    for child in node.iterdescendants():
        name = _name(child)
        if name in _BLOCK_TAGS and not (row and name in ("td", "th")):
            return True
    return False


def _inline(node: Any, *, keep_lines: bool) -> tuple[str, str]:
    """Text and markup inside a block that holds no other."""
    text, markup = _content(node, keep_lines=keep_lines)
    if keep_lines:
        return text.strip("\n").rstrip(), markup.strip("\n").rstrip()
    return _ANY_SPACES.sub(" ", text).strip(), _ANY_SPACES.sub(" ", markup).strip()


def _content(node: Any, *, keep_lines: bool, depth: int = 0) -> tuple[str, str]:
    """Text and markup of what stands inside a tag; tags nested deeper than any writer does are left out."""
    if depth > _DEEPEST:
        return _escaped("".join(node.itertext()))
    texts, marks = [node.text or ""], [entities.escape(node.text or "", quote=False)]
    for child in node:
        if isinstance(child.tag, str) and _name(child) not in _GONE:
            name = _name(child)
            if name in ("br", "hr", "img"):
                gap = "\n" if keep_lines and name == "br" else " "
                inner = (gap, gap)
            else:
                inner = _wrapped(child, keep_lines=keep_lines, depth=depth)
            texts.append(inner[0])
            marks.append(inner[1])
        tail = child.tail or ""
        texts.append(tail)
        marks.append(entities.escape(tail, quote=False))
    return "".join(texts), "".join(marks)


def _wrapped(node: Any, *, keep_lines: bool, depth: int = 0) -> tuple[str, str]:
    """An inline tag with its content; cells of a row are set apart by a blank."""
    name = _name(node)
    text, markup = _content(node, keep_lines=keep_lines, depth=depth + 1)
    if name in ("td", "th"):
        return f" {text} ", f"<{name}>{markup}</{name}>"
    return text, f"<{name}>{markup}</{name}>" if name in _INLINE and name not in ("span", "a") else markup


def _escaped(text: str | None) -> tuple[str, str]:
    return text or "", entities.escape(text or "", quote=False)
