"""Answers to be read: one HTML page without scripts or links outside, with the matching element marked."""

from __future__ import annotations

import pandas as pd

from kontrast.data.documents import Document
from kontrast.pipeline.markup import Html, join, tag
from kontrast.systems.seal.corpus import Corpus

MOST_QUERIES = 200
AROUND = 3
"""Elements shown before and after the one that matches."""

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2.2rem;border-top:1px solid #8886;padding-top:1rem}
article{margin:1rem 0;padding:.7rem 1rem;border:1px solid #8885;border-radius:6px;overflow-wrap:anywhere}
header{display:flex;gap:.8rem;align-items:baseline;flex-wrap:wrap}
header small{color:GrayText}
mark{background:#ffe58a;color:#111;padding:.05rem .2rem;border-radius:3px}
pre{overflow-x:auto;white-space:pre-wrap}summary{cursor:pointer;color:GrayText}
td,th{border:1px solid #8884;padding:.2rem .5rem}table{border-collapse:collapse}
.near{font-size:.92rem}.near h1,.near h2,.near h3{all:revert;font-size:1rem;border:0;margin:.4rem 0}
dt{font-weight:600}
"""


def answer_page(answers: pd.DataFrame, corpus: Corpus, title: str) -> str:
    """The page of a table of answers, for the first queries."""
    places = {name: number for number, name in enumerate(corpus.ids)}
    documents: dict[str, Document] = {}
    sections = []
    groups = list(answers.groupby("query_id", sort=False))
    for _, rows in groups[:MOST_QUERIES]:
        found = []
        for row in rows.itertuples():
            name = str(row.doc_id)
            if name not in documents:
                documents[name] = corpus.document(places[name])
            found.append(_result(row, documents[name]))
        sections.append(tag("section", tag("h2", str(rows["query"].iloc[0])), found))
    left = len(groups) - MOST_QUERIES
    note = tag("p", f"{left} further queries are not shown; a table (.csv, .jsonl) holds all.") if left > 0 else None
    head = tag("head", tag("meta", charset="utf-8"), tag("title", "Answers"), tag("style", Html(_STYLE)))
    body = tag("body", tag("h1", f"Answers: {title}"), sections, note)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _result(row: object, document: Document) -> Html:
    unit = int(getattr(row, "element_number"))  # noqa: B009 - a row of a table has no static fields
    score, match = float(getattr(row, "score")), float(getattr(row, "element_score"))  # noqa: B009
    facts = f"{document.title} · score {score:.3f} · element {unit + 1} of {len(document.units)}, {match:.3f}"
    name = f"{getattr(row, 'rank')}. {getattr(row, 'doc_id')}"  # noqa: B009
    header = tag("header", tag("strong", name), tag("small", facts))
    first, last = document.units[unit][0], document.units[unit][-1]
    marked = [_shown(document, place, marked=True) for place in range(first, last + 1)]
    before = [_shown(document, place) for place in range(max(0, first - AROUND), first)]
    after = [_shown(document, place) for place in range(last + 1, min(len(document), last + 1 + AROUND))]
    near = tag("details", tag("summary", "around it"), tag("div", before, marked, after, class_="near"))
    return tag("article", header, marked, near)


def _shown(document: Document, place: int, *, marked: bool = False) -> Html:
    """One element as a block of its own; its markup holds bare inline tags only."""
    element = document.elements[place]
    inner = Html(element.markup) if element.own or element.before.strip() else join(element.text)
    inner = tag("mark", inner) if marked else inner
    name = {"pre": "pre", "blockquote": "blockquote"}.get(element.tag, "p")
    if element.is_heading or element.tag == "dt":
        inner = tag("strong", inner)
    if element.tag == "tr":
        return tag("table", tag("tr", inner if not marked else tag("td", tag("mark", element.text))))
    return tag(name, inner)
