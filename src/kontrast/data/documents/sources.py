"""Single files as documents: HTML, Markdown and Word."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kontrast.data.documents.elements import Document, parse_html, plain_document
from kontrast.data.documents.records import read_text
from kontrast.errors import DataError
from kontrast.extras import require

HTML = (".html", ".htm", ".xhtml")
MARKDOWN = (".md", ".markdown")
WORD = (".docx",)
SOURCES = (*HTML, *MARKDOWN, *WORD)
_LARGEST = 500_000_000


def read_source(path: Path) -> Document:
    """The document of an HTML, Markdown or docx file.

    Raises:
        DataError: if it cannot be read, is damaged or holds no text.
        MissingExtraError: without the libraries of the extra ``documents``.
    """
    ending = path.suffix.lower()
    if ending in HTML:
        document = parse_html(read_text(path))
    elif ending in MARKDOWN:
        document = parse_markdown(read_text(path))
    elif ending in WORD:
        document = _word(path)
    else:
        what = f"has the extension '{path.suffix}', which is no document's"
        raise DataError(what, file=path, mend=f"use one of {', '.join(SOURCES)}")
    if not document.elements:
        raise DataError("holds no text", file=path, mend="leave the file out")
    return document


def parse_markdown(text: str) -> Document:
    """A document from Markdown (CommonMark with tables)."""
    markdown = require("markdown_it", extra="documents", purpose="to read Markdown")
    rendered = markdown.MarkdownIt("commonmark").enable("table").render(text)
    return parse_html(rendered) if "<" in rendered else plain_document(text)


def _word(path: Path) -> Document:
    mammoth = require("mammoth", extra="documents", purpose="to read .docx files")
    try:
        with zipfile.ZipFile(path) as archive:
            # A small file that unpacks to gigabytes is an attack, not a document.
            if sum(member.file_size for member in archive.infolist()) > _LARGEST:
                raise DataError("unpacks to more than 500 MB", file=path, mend="leave the file out")
        with path.open("rb") as stream:
            converted = mammoth.convert_to_html(stream, convert_image=mammoth.images.img_element(lambda image: {}))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None
    except Exception as error:  # mammoth passes on whatever zip and XML parsers raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole .docx file ({reason})", file=path, mend="save it again") from None
    return parse_html(converted.value)
