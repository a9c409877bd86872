"""Reading: how documents and queries become prepared rows of an encoder, in each view."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kontrast.data.documents import Document
from kontrast.encoders import TextEncoder
from kontrast.encoders.cached_texts import CachedTexts
from kontrast.encoders.elements import ElementRows, ElementsEncoder, element_rows

Integers = npt.NDArray[np.int64]
Keep = Sequence[npt.NDArray[np.bool_]] | None
_TOKENS_PER_WORD = 1.5
_TOKENS_PER_TAG = 9


class DocumentRows(ABC):
    """Documents, ready to be read in each view."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def view(self, name: Literal["tag", "untag"], chosen: Integers, keep: Keep = None) -> Any:
        """Prepared rows of some documents, tagged or not; with `keep`, of the units that stay (per document)."""

    @abstractmethod
    def single_units(self, number: int) -> Any:
        """Prepared rows of the units of one document, each as a row of its own."""


class Reader(ABC):
    """Prepares documents and queries for one encoder."""

    @abstractmethod
    def documents(self, documents: Sequence[Document], describe: str | None = None) -> DocumentRows:
        """Rows of documents; the costly part is done here, once."""

    @abstractmethod
    def queries(self, texts: Sequence[str]) -> Any:
        """Prepared rows of queries."""


class ElementReader(Reader):
    """Reads whole documents for an `ElementsEncoder`.

    Args:
        encoder: tokenises.
        context: the frozen encoder of single elements, or None.
        units: so many units of a document get its vectors, the first ones.
    """

    def __init__(self, encoder: ElementsEncoder, context: CachedTexts | None, units: int) -> None:
        self.encoder, self.context, self.units = encoder, context, units

    def documents(self, documents: Sequence[Document], describe: str | None = None) -> ElementDocuments:
        texts = [list(document.unit_texts) for document in documents]
        tags = [[document.elements[unit[0]].tag_class for unit in document.units] for document in documents]
        return ElementDocuments(self._rows(texts, tags, describe))

    def queries(self, texts: Sequence[str]) -> ElementRows:
        return self._rows([[text] for text in texts], [[0]] * len(texts), None)

    def _rows(self, texts: list[list[str]], tags: list[list[int]], describe: str | None) -> ElementRows:
        flat = [text for row in texts for text in row]
        encoded = self.encoder.tokenizer.encode_batch_fast(flat, add_special_tokens=False)
        ids = iter([encoding.ids for encoding in encoded])
        tokens = [[next(ids) for _ in row] for row in texts]
        if self.context is None:
            context = [[-1] * len(row) for row in texts]
            vectors = np.empty((0, 0), dtype=np.float16)
        else:
            read = [row[: self.units] for row in texts]
            vectors = self.context.vectors([text for row in read for text in row], describe)
            starts = np.concatenate([[0], np.cumsum([len(row) for row in read])])
            context = [
                [int(start) + place if place < self.units else -1 for place in range(len(row))]
                for start, row in zip(starts, texts)
            ]
        return element_rows(tokens, tags, context, vectors)


class ElementDocuments(DocumentRows):
    """Documents as `ElementRows`."""

    def __init__(self, rows: ElementRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, name: Literal["tag", "untag"], chosen: Integers, keep: Keep = None) -> ElementRows:
        rows = self.rows[np.asarray(chosen)]
        if keep is not None:
            rows = rows.keep(np.concatenate([np.empty(0, bool), *keep]))
        return rows.untagged() if name == "untag" else rows

    def single_units(self, number: int) -> ElementRows:
        whole = self.rows[np.array([number])]
        units = np.arange(len(whole.tag) + 1, dtype=np.int64)
        return replace(whole, units=units, place=np.zeros_like(whole.place)).untagged()


class TextReader(Reader):
    """Writes documents out for a text encoder.

    Args:
        encoder: tokenises and cuts.
        budget: what is kept of a document that is too long.
    """

    def __init__(self, encoder: TextEncoder, budget: Literal["head", "skeleton"]) -> None:
        self.encoder, self.budget = encoder, budget

    def documents(self, documents: Sequence[Document], describe: str | None = None) -> TextDocuments:
        return TextDocuments(self, documents)

    def queries(self, texts: Sequence[str]) -> Any:
        return self.encoder.prepare(list(texts))

    def written(self, document: Document, name: Literal["tag", "untag"]) -> str:
        """What the encoder is given of a document."""
        tags = name == "tag"
        if self.budget == "skeleton":
            document = skeleton(document, self.encoder.max_tokens, tags=tags)
        return document.tagged() if tags else document.plain()


class TextDocuments(DocumentRows):
    """Documents as texts that are tokenised when they are asked for; a view is a new text each time."""

    def __init__(self, reader: TextReader, documents: Sequence[Document]) -> None:
        self.reader, self.held = reader, tuple(documents)

    def __len__(self) -> int:
        return len(self.held)

    def view(self, name: Literal["tag", "untag"], chosen: Integers, keep: Keep = None) -> Any:
        texts = []
        for place, number in enumerate(chosen):
            document = self.held[int(number)]
            if keep is not None:
                document = without_units(document, keep[place])
            texts.append(self.reader.written(document, name))
        return self.reader.encoder.prepare(texts)

    def single_units(self, number: int) -> Any:
        return self.reader.encoder.prepare(list(self.held[number].unit_texts))


def without_units(document: Document, keep: npt.NDArray[np.bool_]) -> Document:
    """The document without some of its units; tags of containers stay."""
    gone = {place for unit, stays in zip(document.units, keep) if not stays for place in unit}
    if not gone:
        return document
    elements, pending = [], ""
    for place, element in enumerate(document.elements):
        if place in gone:
            pending += element.before
        else:
            elements.append(replace(element, before=pending + element.before))
            pending = ""
    return Document(tuple(elements), pending + document.after)


def skeleton(document: Document, tokens: int, *, tags: bool) -> Document:
    """A document that is too long, with the first words of every element instead of the first elements.

    The number of words is the largest for which the whole fits, by an estimate of 1.5 tokens a word and 9 a pair of
    tags; headings and other short elements stay whole by themselves. Inline tags of a cut element are left out. Where
    one word each is too much, the document is left as it is and the encoder cuts it.
    """
    lengths = np.array([len(element.text.split()) for element in document.elements])
    overhead = _TOKENS_PER_TAG * len(lengths) if tags else 0
    room = int((tokens - 2 - overhead) / _TOKENS_PER_WORD)
    if lengths.sum() <= room:
        return document
    words = _level(lengths, room)
    if words < 1:
        return document
    elements = []
    for element, length in zip(document.elements, lengths):
        if length > words:
            text = " ".join(element.text.split()[:words])
            escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            element = replace(element, text=text, markup=escaped)
        elements.append(element)
    return Document(tuple(elements), document.after)


def _level(lengths: Integers, room: int) -> int:
    """The largest k for which the lengths, each cut at k, add up to at most `room`."""
    low, high = 0, int(lengths.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(lengths, middle).sum() <= room:
            low = middle
        else:
            high = middle - 1
    return low
