"""Which elements the masked view leaves out: by the document's tree, or by a regular expression for comparison."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from kontrast.data.documents import Document

_PAIR = re.compile(r"<(\w+)[^<>]*>.*?</\1>", re.DOTALL)
MOST = 0.5
"""The tree's mask never takes more than this share of a document's text."""


class Masking:
    """Groups of units that are left out together.

    With "tree" each unit is a group of its own: a paragraph, a list item, a table's row, a term with the beginning of
    its description. With "regex" a group is what one match of ``<tag ...> ... </tag>`` covers, the body as short as
    can be, in one pass over the tagged string, as in the released code of the paper: on a page inside one outer tag
    that is the whole page.

    Args:
        documents: in the order of their numbers.
        kind: "tree" or "regex".
    """

    def __init__(self, documents: Sequence[Document], kind: Literal["tree", "regex"]) -> None:
        self.kind = kind
        self.groups = [
            _matches(document) if kind == "regex" else np.arange(len(document.units)) for document in documents
        ]
        self.sizes = [np.array([len(text) for text in document.unit_texts], np.float64) for document in documents]

    def draw(
        self, documents: npt.NDArray[np.int64], ratio: float, rng: np.random.Generator
    ) -> list[npt.NDArray[np.bool_]]:
        """For each document, which units stay: each group is left out with probability `ratio`."""
        return [self._of(int(number), ratio, rng) for number in documents]

    def _of(self, number: int, ratio: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        groups, sizes = self.groups[number], self.sizes[number]
        count = int(groups.max(initial=-1)) + 1
        out = rng.random(count) < ratio
        if self.kind == "tree" and count:
            lost = np.bincount(groups[groups >= 0], weights=sizes[groups >= 0], minlength=count) * out
            # Groups come back in random order until half of the text is there.
            for back in rng.permutation(np.flatnonzero(out)):
                if lost.sum() <= MOST * sizes.sum() and out.sum() < count:
                    break
                out[back], lost[back] = False, 0.0
        keep: npt.NDArray[np.bool_] = ~np.append(out, False)[groups]
        return keep


def _matches(document: Document) -> npt.NDArray[np.int64]:
    """Per unit the number of the match that holds its first element's beginning, -1 for none."""
    spans = [match.span() for match in _PAIR.finditer(document.tagged())]
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    place, begins = 0, []
    for element in document.elements:
        place += len(element.before)
        begins.append(place)
        place += len(element.tagged)
    found = np.full(len(document.units), -1, dtype=np.int64)
    for number, unit in enumerate(document.units):
        match = int(np.searchsorted(starts, begins[unit[0]], side="right")) - 1
        if match >= 0 and begins[unit[0]] < spans[match][1]:
            found[number] = match
    return found
