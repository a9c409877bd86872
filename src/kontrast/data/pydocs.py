"""A retrieval data set made from the Python installation at hand: what a function does, and which function does it.

One row per public function, class or method with a docstring:

- ``query``: the first sentence of the docstring as plain text, with the answer's name blanked out: the name itself
  and each of its parts of three letters or more ("matrix" and "rank" of ``matrix_rank``), where they stand as words of
  their own, become ``___``. Inflected forms ("sorted" for ``sort``) stay.
- ``sentence``: the same sentence unmasked.
- ``target``: qualified name and signature, ``numpy.sort(a, axis=-1, kind=None)``.
- ``module``, ``package``: where it is defined; whole modules are in one part of ``split`` (a hash of the module's
  name), and no query and no target stands twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from kontrast import progress
from kontrast.data.python_sources import Definition, compiled_definitions, source_definitions
from kontrast.data.tables import write_table
from kontrast.errors import DataError
from kontrast.extras import installed

PACKAGES = (
    "stdlib", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "torch", "lightning", "torchmetrics", "transformers",
    "sentence_transformers", "networkx", "matplotlib", "statsmodels", "torch_geometric", "anndata", "skimage",
    "requests", "joblib", "fsspec",
)  # fmt: skip
"""Looked for by default; those that are not installed are left out."""

MASK = "___"
_MIN_WORDS, _MAX_CHARACTERS, _MAX_SIGNATURE = 3, 300, 160
_TEST, _VALID = 0.15, 0.05

_ROLE = re.compile(r":[\w:+-]+:`([^`]*)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^>]*>`_{0,2}")
_MARKDOWN = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_BRACKETED = re.compile(r"\[(`[^`]*`)\](?:\[[^\]]*\])?")
_TICKS = re.compile(r"`{1,2}([^`]*)`{1,2}_{0,2}")
_STARS = re.compile(r"(?<!\w)\*{1,2}([A-Za-z][\w .-]*?)\*{1,2}(?!\w)")
_SIGNATURE = re.compile(r"^[\w.\[\], ]*\w\(.*\)?(\s*->.*)?$")
_PARAMETER = re.compile(r"^[\w`*, ]+(\([^)]*\))?\s*:\s")
_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!cf\.)(?<!vs\.)\s+(?=[A-Z`\"'(\[:])")
_UNWANTED = re.compile(
    r"^(see\b|deprecated|alias\b|same as\b|refer to|internal\b|private\b|undocumented|todo\b|note[:\s]|warning|"
    r"please\b|this (function|method|class|module) is (deprecated|private|internal)|do not (call|use)|for internal|"
    r"inherited|overrid|override|not implemented|helper\b|dummy|placeholder|usage:|equivalent (to|of)|"
    r"\(?(experimental|legacy|prototype)\b|in-place version|out-of-place|calls? |implements? |similar to |like \w+\()|"
    r"deprecated|private (api|use)|for internal use|docstring|\bcopied from\b",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|_")
_WORD = re.compile(r"(\w+)(?:\(\))?")
_MASKS = re.compile(rf"{MASK}(?:[ -]*{MASK})+")
_SAY_LITTLE = frozenset({
    "an", "and", "are", "as", "at", "be", "been", "by", "for", "from", "given", "if", "in", "is", "it", "its", "not",
    "of", "on", "or", "return", "returns", "that", "the", "this", "to", "with",
})  # fmt: skip
_COMMON_PARTS = _SAY_LITTLE | {"all", "any", "get", "into", "non", "out", "per", "set"}


def build_pydocs(path: str | Path, packages: Sequence[str] | None = None) -> Path:
    """Writes the data set as parquet; well under a minute.

    Args:
        path: the .parquet file to write.
        packages: import names of packages, "stdlib" for the standard library; None takes all of `PACKAGES` that are
            installed.

    Raises:
        DataError: if none of the packages holds documented functions.
    """
    rows = []
    if packages is None:
        chosen = [package for package in PACKAGES if package == "stdlib" or installed(package)]
    else:
        chosen = list(packages)
    with progress.task("reading docstrings", len(chosen)) as work:
        for package in chosen:
            found = {definition.path: definition for definition in compiled_definitions(package)}
            found |= {definition.path: definition for definition in source_definitions(package)}
            rows += [row for definition in found.values() if (row := _row(definition, package)) is not None]
            work.advance(note=package)
    if not rows:
        raise DataError(f"no documented functions in {', '.join(chosen)}", mend="name installed packages")
    return write_table(_unique(pd.DataFrame(rows)), path)


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring as plain text; empty if it has none that can stand alone.

    Lines that repeat the signature are passed over; reStructuredText and Markdown marks are removed.
    """
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        while lines and (_SIGNATURE.match(lines[0]) or lines[0].startswith((".. ", ":", "@")) or not lines[0]):
            lines.pop(0)
        if not lines:
            continue
        if len(lines) > 1 and re.fullmatch(r"([=\-~^#*])\1{2,}", lines[1]):
            return ""
        text = " ".join(lines)
        sentence = _END.split(text, maxsplit=1)[0]
        return "" if sentence.endswith(":") or _PARAMETER.match(sentence) else plain_text(sentence)
    return ""


def plain_text(text: str) -> str:
    """A sentence without the marks of reStructuredText and Markdown, spaces joined."""
    text = _BRACKETED.sub(r"\1", text)
    text = _ROLE.sub(lambda match: match[1].split("<")[0].strip().removeprefix("~").rsplit(".", 1)[-1], text)
    text = _LINK.sub(r"\1", text)
    text = _MARKDOWN.sub(r"\1", text)
    text = _TICKS.sub(lambda match: match[1].removeprefix("~"), text)
    text = _STARS.sub(r"\1", text)
    text = re.sub(r"\|(\w+)\||(\w)_(?=\s|[.,]|$)", r"\1\2", text)
    return " ".join(text.replace("\\", "").split()).rstrip(":;, ")


def mask_name(sentence: str, path: str) -> str:
    """The sentence with the last name of `path` and its parts blanked out where they are words of their own."""
    name = path.rsplit(".", 1)[-1]
    parts = {part.lower() for part in _CAMEL.split(name) if len(part) >= 3}
    hidden = {name.lower(), name.replace("_", "").lower(), *(parts - _COMMON_PARTS)}
    masked = _WORD.sub(lambda match: MASK if match[1].lower() in hidden else match[0], sentence)
    return _MASKS.sub(MASK, masked)


def part_of(module: str) -> str:
    """ "train", "valid" or "test", from a hash of the module's name."""
    share = int.from_bytes(hashlib.blake2b(module.encode(), digest_size=8).digest(), "little") / 2**64
    return "test" if share < _TEST else "valid" if share < _TEST + _VALID else "train"


def _row(definition: Definition, package: str) -> dict[str, str] | None:
    # SciPy's distributions are instances; their classes ("norm_gen") carry the text and are called by nobody.
    if package == "scipy" and "_gen." in f"{definition.path}.":
        return None
    sentence = first_sentence(definition.doc)
    if len(sentence) > _MAX_CHARACTERS or not _is_english(sentence) or _UNWANTED.search(sentence):
        return None
    query = mask_name(sentence, definition.path)
    if len(set(re.findall(r"[a-z]{2,}", query.lower())) - _SAY_LITTLE) < _MIN_WORDS:
        return None
    signature = definition.signature
    if len(signature) > _MAX_SIGNATURE:
        signature = signature[:_MAX_SIGNATURE].rsplit(", ", 1)[0] + ", ...)"
    return {
        "query": query,
        "target": definition.path + signature,
        "sentence": sentence,
        "module": definition.module,
        "package": package,
        "split": part_of(definition.module),
    }


def _is_english(sentence: str) -> bool:
    letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in sentence)
    begins = bool(sentence) and (sentence[0].isalpha() or sentence[0] in "`'\"(")
    return begins and letters >= 0.8 * len(sentence) and len(sentence.split()) >= _MIN_WORDS


def _unique(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per query and per target; of several, the one with the shortest path."""
    path = frame["target"].str.partition("(")[0]
    order: Iterable[str] = ["_parts", "_length", "target"]
    # "Return the mean" and "return the mean." are one query: neither may stand in another part than the other.
    key = frame["query"].str.casefold().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    frame = frame.assign(_parts=path.str.count(r"\."), _length=path.str.len(), _key=key)
    frame = frame.sort_values(list(order), kind="stable").drop_duplicates("_key").drop_duplicates("target")
    kept = ["query", "target", "sentence", "module", "package", "split"]
    return frame.sort_values("target", kind="stable")[kept].reset_index(drop=True)
