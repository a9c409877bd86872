"""Structured documents and the queries they answer: HTML, Markdown and Word, BEIR folders, JSON lines of pairs."""

from kontrast.data.documents.collection import Collection, Query
from kontrast.data.documents.elements import (
    HEADINGS,
    TAG_CLASSES,
    Document,
    Element,
    parse_html,
    plain_document,
)
from kontrast.data.documents.read import read_collection
from kontrast.data.documents.sources import SOURCES, parse_markdown, read_source

__all__ = [
    "HEADINGS",
    "SOURCES",
    "TAG_CLASSES",
    "Collection",
    "Document",
    "Element",
    "Query",
    "parse_html",
    "parse_markdown",
    "plain_document",
    "read_collection",
    "read_source",
]
