"""Prompt: the template with its slot, the word of each class, and the columns of the data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kontrast.config import read_yaml
from kontrast.encoders.layered import SlotRows
from kontrast.encoders.tokens import TokenIds
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import ConfigError, DataError, suggest

SLOT = "mask"
Strings = npt.NDArray[np.object_]
Side = Literal["left", "right"]
_PLACE = re.compile(r"\{([^{}]*)\}")
_KEYS = ("template", "words", "columns", "cut")
_COLUMNS = ("label", "language", "pair", "id", "split")

TEMPLATES: dict[tuple[str, ...], str] = {
    ("text",): "{text} Topic: {mask}",
    ("premise", "hypothesis"): "{premise} {mask}, {hypothesis}",
    ("text", "e1", "e2"): "{text} {e1} {mask} {e2}",
}
"""By the fields of a row; the second and third are those of the released code."""
WORDS = {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No", "science/technology": "science"}
"""Words of labels whose own name would not do."""


@dataclass(frozen=True)
class Prompt:
    """What is asked about a row.

    Attributes:
        template: fields of a row in braces, and ``{mask}`` once: the slot.
        words: label to the word that stands for it; labels with one word are one class. Empty: the labels' names.
        columns: field, or label, language, pair, id, split, to the column that holds it.
        cut: the side on which a text that is too long loses its tokens.
    """

    template: str
    words: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    cut: Side = "left"

    def checked(self) -> Prompt:
        """The prompt itself.

        Raises:
            ConfigError: if the template has no slot, or several, or no field of the data.
        """
        slots = _PLACE.findall(self.template).count(SLOT)
        if slots != 1:
            raise ConfigError(f"the template '{self.template}' has {slots} slots {{mask}}, and needs exactly one.")
        if not self.fields:
            raise ConfigError(f"the template '{self.template}' names no field of the data, such as {{text}}.")
        return self

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in the order of the template."""
        return [name for name in _PLACE.findall(self.template) if name != SLOT]

    def word(self, label: str) -> str:
        """The word that stands for a label: the one that is given, else the label's name in plain words.

        Raises:
            ConfigError: if words are given, and none for this label.
        """
        if not self.words:
            return WORDS.get(label) or " ".join(re.split(r"[\W_]+", label)).strip() or label
        if label not in self.words:
            raise ConfigError(f"the prompt has no word for the label '{label}'; {suggest(label, self.words)}.")
        return self.words[label]

    def segments(self) -> list[str | None]:
        """The template in pieces: literal text, "{field}", and None for the slot."""
        pieces = re.split(r"(\{[^{}]*\})", self.template)
        return [None if piece == f"{{{SLOT}}}" else piece for piece in pieces if piece.strip()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the keys of a prompt file."""
        return {
            "template": self.template, "words": dict(self.words), "columns": dict(self.columns), "cut": self.cut
        }  # fmt: skip


def read_prompt(path: str | Path) -> Prompt:
    """A prompt from a YAML file with ``template``, and optionally ``words``, ``columns`` and ``cut``.

    Raises:
        ConfigError: naming the file and what is wrong in it.
    """
    values = read_yaml(path)
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key '{key}'; {suggest(str(key), _KEYS)}.")
    template = values.get("template")
    if not isinstance(template, str):
        raise ConfigError(f'{path}: needs a template, such as "{{text}} Topic: {{mask}}", got {template!r}.')
    words = _texts(path, "words", values.get("words"))
    columns = _texts(path, "columns", values.get("columns"))
    cut = values.get("cut", "left")
    if cut not in ("left", "right"):
        raise ConfigError(f"{path}: cut is left or right, got {cut!r}.")
    try:
        prompt = Prompt(template, words, columns, cut).checked()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for name in columns:
        if name not in (*prompt.fields, *_COLUMNS):
            known = suggest(name, (*prompt.fields, *_COLUMNS))
            raise ConfigError(f"{path}: columns names '{name}', which is no field of the template; {known}.")
    return prompt


def _texts(path: str | Path, key: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must be 'name: word' lines, got {type(value).__name__}.")
    found = {}
    for name, word in value.items():
        # YAML reads a bare Yes or No as a truth value.
        plain = {True: "Yes", False: "No"}[word] if isinstance(word, bool) else word
        if not isinstance(plain, str | int | float) or not str(plain).strip():
            raise ConfigError(f"{path}: {key} gives '{name}' no word, but {word!r}.")
        found[str(name)] = str(plain).strip()
    return found


def built_in(fields: Sequence[str]) -> Prompt:
    """The prompt for rows with these fields.

    Raises:
        DataError: if none is known.
    """
    template = TEMPLATES.get(tuple(fields))
    if template is None:
        what = f"the data have the fields {', '.join(fields)}, for which no template is built in"
        raise DataError(what, mend="give a prompt file with --prompt")
    return Prompt(template)


def without_slot(fields: Sequence[str]) -> Prompt:
    """The bare texts, for sentence vectors."""
    return Prompt(" ".join(f"{{{name}}}" for name in fields))


def classes_of(prompt: Prompt, labels: Sequence[str]) -> dict[str, str]:
    """Each label's class: the label itself, or the word that it shares with other labels."""
    words = {label: prompt.word(label) for label in labels}
    shared = list(words.values())
    return {label: word if shared.count(word) > 1 else label for label, word in words.items()}


def slot_rows(prompt: Prompt, fields: Mapping[str, Sequence[str] | Strings], encoder: TransformerEncoder) -> SlotRows:
    """The filled templates of n rows as ids, special tokens included, each with its slot.

    A row that is too long loses tokens of its longest field on the side `prompt.cut`, never of the template.

    Args:
        prompt: the template.
        fields: (n,) texts of each field.
        encoder: tokenizer, longest input and prefix.

    Raises:
        ConfigError: if the tokenizer has no mask token, or the template alone is too long.
    """
    tokenizer = encoder.tokenizer
    mask = mask_token(encoder)

    def pieces(texts: Sequence[str] | Strings) -> list[list[int]]:
        return [list(found.ids) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    segments = prompt.segments()
    literal = {piece: pieces([piece])[0] for piece in segments if piece is not None and not piece.startswith("{")}
    prefix = pieces([encoder.prefix])[0] if encoder.prefix else []
    texts = {name: pieces(fields[name]) for name in dict.fromkeys(prompt.fields)}
    before, after = list(encoder._before), list(encoder._after)
    fixed = len(before) + len(after) + len(prefix) + sum(map(len, literal.values())) + 1
    room = encoder.max_tokens - fixed
    if room < len(prompt.fields):
        raise ConfigError(
            f"the template '{prompt.template}' has {fixed} tokens without its fields, and inputs have "
            f"{encoder.max_tokens} at most."
        )
    n = len(next(iter(fields.values())))
    rows, slots = [], np.zeros(n, dtype=np.int64)
    for number in range(n):
        own = _shortened({name: texts[name][number] for name in texts}, prompt.fields, room, prompt.cut)
        row = [*before, *prefix]
        for piece in segments:
            if piece is None:
                slots[number] = len(row)
                row += [] if mask is None else [mask]
            else:
                row += literal[piece] if piece in literal else own[piece[1:-1]]
        if mask is None:
            slots[number] = max(0, slots[number] - 1)
        rows.append([*row, *after])
    return SlotRows(TokenIds.of(rows), slots)


def mask_token(encoder: TransformerEncoder) -> int | None:
    """Id of the mask token, None for a tokenizer without one."""
    names = [encoder.names.get("mask_token"), "<mask>", "[MASK]"]
    found = (encoder.tokenizer.token_to_id(name) for name in names if name)
    token: int | None = next((token for token in found if token is not None), None)
    return token


def _shortened(own: dict[str, list[int]], order: Sequence[str], room: int, cut: Side) -> dict[str, list[int]]:
    """Fields that together fit; `order` names a field as often as the template does."""
    while (excess := sum(len(own[name]) for name in order) - room) > 0:
        longest = max(own, key=lambda name: len(own[name]))
        times = order.count(longest)
        kept = max(1, len(own[longest]) - -(-excess // times))
        own = {**own, longest: own[longest][-kept:] if cut == "left" else own[longest][:kept]}
    return own


def word_pieces(word: str, encoder: TransformerEncoder) -> npt.NDArray[np.int64]:
    """Ids of the pieces of a class word.

    Raises:
        ConfigError: if the vocabulary does not know it.
    """
    tokenizer = encoder.tokenizer
    ids = list(tokenizer.encode(word, add_special_tokens=False).ids)
    unknown = [tokenizer.token_to_id(name) for name in (encoder.names.get("unk_token"), "<unk>", "[UNK]") if name]
    if not ids or any(piece in unknown for piece in ids):
        raise ConfigError(f"the class word '{word}' is not in the encoder's vocabulary; choose another in the prompt.")
    return np.asarray(ids, dtype=np.int64)
