"""Texts with their language and, where they are known, their label and the id that translations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError

Strings = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class LanguageTexts:
    """n rows. A row is one text, or several that belong together, such as premise and hypothesis.

    Attributes:
        fields: the texts by name, each (n,) strings: "text"; "premise" and "hypothesis"; "text", "e1" and "e2".
        language: (n,) codes, as the files write them.
        ids: (n,) names of the rows; no two rows share language, part and id.
        label: (n,) strings, None where unknown.
        pair: (n,) what translations of one another share, None where there are none.
        part: (n,) "train", "valid", "test", or None where the data name no part.
        path: where they were read from.
    """

    fields: Mapping[str, Strings]
    language: Strings
    ids: Strings
    label: Strings
    pair: Strings
    part: Strings
    path: Path | None = None

    def __post_init__(self) -> None:
        n = len(self.language)
        columns = {"ids": self.ids, "label": self.label, "pair": self.pair, "part": self.part, **self.fields}
        for name, values in columns.items():
            if len(values) != n:
                raise ValueError(f"'{name}' has {len(values)} values for {n} rows")

    def __len__(self) -> int:
        return len(self.language)

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Sequence[str]],
        language: Sequence[str] | str,
        *,
        ids: Sequence[str] | None = None,
        label: Sequence[str | None] | None = None,
        pair: Sequence[str | None] | None = None,
        part: Sequence[str | None] | str | None = None,
        path: Path | None = None,
    ) -> LanguageTexts:
        """From columns; one language or part stands for all rows, missing ids are numbers from 1."""
        n = len(next(iter(fields.values())))

        def column(values: Sequence[Any] | str | None) -> Strings:
            if values is None or isinstance(values, str):
                values = [values] * n
            found = np.empty(len(values), dtype=object)
            found[:] = list(values)
            return found

        names = column([str(row + 1) for row in range(n)] if ids is None else ids)
        texts = {name: column(values) for name, values in fields.items()}
        return cls(texts, column(language), names, column(label), column(pair), column(part), path)

    @classmethod
    def joined(cls, parts: Sequence[LanguageTexts], path: Path | None = None) -> LanguageTexts:
        """The rows of all parts, one part after another.

        Raises:
            DataError: if the parts do not have the same fields.
        """
        names = list(parts[0].fields)
        for part in parts:
            if sorted(part.fields) != sorted(names):
                what = f"holds the fields {', '.join(part.fields)}, and {parts[0].path} holds {', '.join(names)}"
                raise DataError(what, file=part.path, mend="give files of one task")

        def column(name: str) -> Strings:
            values: Strings = np.concatenate([getattr(part, name) for part in parts])
            return values

        fields = {name: np.concatenate([part.fields[name] for part in parts]) for name in names}
        columns = [column(name) for name in ("language", "ids", "label", "pair", "part")]
        return cls(fields, columns[0], columns[1], columns[2], columns[3], columns[4], path)

    def take(self, rows: npt.ArrayLike) -> LanguageTexts:
        """The rows at these places (or where a mask is true), in this order."""
        chosen = np.asarray(rows)
        if chosen.dtype != bool:
            chosen = chosen.astype(np.int64)
        columns = {name: getattr(self, name)[chosen] for name in ("language", "ids", "label", "pair", "part")}
        return replace(self, fields={name: values[chosen] for name, values in self.fields.items()}, **columns)

    @property
    def languages(self) -> list[str]:
        """Codes, sorted."""
        return sorted(set(self.language))

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the label is known."""
        return np.asarray([label is not None for label in self.label], dtype=bool)

    def keys(self) -> list[str]:
        """(n,) names that are unique within a part: language and id."""
        return [f"{language}/{name}" for language, name in zip(self.language, self.ids)]

    def whole_texts(self) -> list[str]:
        """(n,) the fields of a row in one string."""
        return ["\n".join(row) for row in zip(*self.fields.values())]
