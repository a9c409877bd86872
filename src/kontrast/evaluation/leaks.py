"""Leak checks: what the test data share with the training data.

A test item that was trained on measures memory. Duplicates are found by hash, exactly and after normalisation (case,
width, punctuation and blanks for text; rounding for vectors), and groups (patient, document, author) that stand on both
sides are counted.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Kind = Literal["exact", "normalised", "group"]

_NOT_WORD = re.compile(r"[\W_]+")
_EXAMPLES = 5


@dataclass(frozen=True)
class Example:
    """One pair of rows: `test_row` repeats `train_row`."""

    test_row: int
    train_row: int
    value: str


@dataclass(frozen=True)
class Leak:
    """Test rows that repeat training rows in one field.

    Args:
        field: name of the field ("text", "patient").
        kind: "exact", "normalised" (exact ones included) or "group".
        n_test: number of test rows looked at.
        n_leaked: how many of them occur in the training data.
        examples: the first few.
    """

    field: str
    kind: Kind
    n_test: int
    n_leaked: int
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        """`n_leaked` / `n_test`."""
        return self.n_leaked / self.n_test if self.n_test else 0.0


@dataclass(frozen=True)
class LeakReport:
    """What test and training data share, field by field."""

    leaks: tuple[Leak, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return not any(leak.n_leaked for leak in self.leaks)

    def __getitem__(self, key: tuple[str, Kind]) -> Leak:
        return next(leak for leak in self.leaks if (leak.field, leak.kind) == key)

    @property
    def sentence(self) -> str:
        """One plain sentence."""
        fields = list(dict.fromkeys(leak.field for leak in self.leaks))
        if self.clean:
            return f"No test row repeats a training row (compared by {_listed(fields)})."
        parts = []
        for field in fields:
            found = {leak.kind: leak for leak in self.leaks if leak.field == field}
            if (group := found.get("group")) is not None and group.n_leaked:
                parts.append(f"{_share(group)} belong to a '{field}' that was trained on")
            loose = found.get("normalised") or found.get("exact")
            if loose is not None and loose.n_leaked:
                exact = found["exact"].n_leaked
                beyond = f" ({exact} exactly)" if exact != loose.n_leaked else ""
                parts.append(f"{_share(loose)} repeat a training row in '{field}'{beyond}")
        return f"Leak: {'; '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        leaks = [{**asdict(leak), "share": leak.share} for leak in self.leaks]
        return {"clean": self.clean, "sentence": self.sentence, "leaks": leaks}


Column = Sequence[Any] | npt.NDArray[Any] | Tensor
"""Texts, ids (any hashable values) or vectors (n, d)."""


def check_leaks(train: Mapping[str, Column], test: Mapping[str, Column], *, groups: Iterable[str] = ()) -> LeakReport:
    """Compares test rows with training rows, field by field.

    Args:
        train: field name → (n_train, ...) column: texts, ids, or vectors as an array or tensor (n, d).
        test: the same fields of the test data.
        groups: fields that name a group which must stand on one side only; None and NaN mean "no group".

    Raises:
        ValueError: if the two sides do not have the same fields.
    """
    if set(train) != set(test):
        raise ValueError(f"train and test must have the same fields, got {sorted(train)} and {sorted(test)}.")
    names = set(groups)
    if unknown := names - set(train):
        raise ValueError(f"groups names unknown fields {sorted(unknown)}; known: {sorted(train)}.")
    leaks: list[Leak] = []
    for field in train:
        if field in names:
            leaks.append(_compare(field, "group", train[field], test[field], _plain))
            continue
        kinds: list[tuple[Kind, Callable[[Any], Hashable]]] = [("exact", _plain)]
        if _is_vectors(train[field]):
            kinds = [("exact", _bytes), ("normalised", _rounded)]
        elif any(isinstance(value, str) for value in _values(test[field])):
            kinds.append(("normalised", _text_key))
        leaks.extend(_compare(field, kind, train[field], test[field], key) for kind, key in kinds)
    return LeakReport(tuple(leaks))


def check_retrieval_leaks(
    train_queries: Column, train_targets: Column, test_queries: Column, test_targets: Column
) -> LeakReport:
    """Shares of test queries, test targets and whole test pairs that were seen in training.

    Targets seen in training are normal where the corpus is shared; seen queries or pairs are leaks. Texts are compared
    exactly and normalised; the field of whole pairs is "pair".
    """
    report = check_leaks(
        {"query": train_queries, "target": train_targets}, {"query": test_queries, "target": test_targets}
    )
    keys = [_pair_keys(left, right) for left, right in ((train_queries, train_targets), (test_queries, test_targets))]
    pairs = _compare("pair", "normalised", keys[0], keys[1], _plain)
    exact = _compare(
        "pair",
        "exact",
        list(zip(_values(train_queries), _values(train_targets), strict=True)),
        list(zip(_values(test_queries), _values(test_targets), strict=True)),
        lambda pair: tuple(_bytes(part) if isinstance(part, np.ndarray) else _plain(part) for part in pair),
    )
    return LeakReport((*report.leaks, exact, pairs))


def _compare(field: str, kind: Kind, train: Column, test: Column, key: Callable[[Any], Hashable]) -> Leak:
    seen: dict[bytes, int] = {}
    for row, value in enumerate(_values(train)):
        digest = _digest(key(value))
        if digest is not None:
            seen.setdefault(digest, row)
    examples: list[Example] = []
    leaked = looked = 0
    for row, value in enumerate(_values(test)):
        digest = _digest(key(value))
        if digest is None:
            continue
        looked += 1
        if digest in seen:
            leaked += 1
            if len(examples) < _EXAMPLES:
                examples.append(Example(row, seen[digest], _shown(value)))
    return Leak(field, kind, looked, leaked, tuple(examples))


def _digest(key: Hashable) -> bytes | None:
    """A short hash, so that long texts are not kept; None for an empty value, which repeats nothing."""
    if key is None or key == "" or key != key:
        return None
    data = key if isinstance(key, bytes) else repr(key).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def _plain(value: Any) -> Hashable:
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


def _text_key(value: Any) -> Hashable:
    """Text without differences of case, width, accents' coding, punctuation and blanks; other values as they are."""
    if not isinstance(value, str):
        return _plain(value)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    # Texts of signs only, such as "???" and "!", would all become empty and equal: there the signs count.
    return _NOT_WORD.sub(" ", folded).strip() or folded.strip()


def _bytes(value: npt.NDArray[Any]) -> Hashable:
    return bytes(np.ascontiguousarray(value + 0.0, dtype=np.float64).tobytes())


def _rounded(value: npt.NDArray[Any]) -> Hashable:
    """A vector up to its length and the fifth digit of its largest entry."""
    row = np.asarray(value, np.float64).ravel()
    largest = np.abs(row).max(initial=0.0)
    return bytes((np.round(row / largest, 5) + 0.0).tobytes()) if largest > 0 else None


def _pair_keys(queries: Column, targets: Column) -> list[Hashable]:
    def key(value: Any) -> Hashable:
        return _rounded(value) if isinstance(value, np.ndarray) else _text_key(value)

    return [(key(left), key(right)) for left, right in zip(_values(queries), _values(targets), strict=True)]


def _is_vectors(column: Column) -> bool:
    return isinstance(column, (np.ndarray, Tensor)) and column.ndim > 1


def _values(column: Column) -> Sequence[Any] | npt.NDArray[Any]:
    return torch.as_tensor(column).detach().cpu().numpy() if isinstance(column, Tensor) else column


def _shown(value: Any) -> str:
    text = "a vector" if isinstance(value, np.ndarray) else " ".join(str(_plain(value)).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _share(leak: Leak) -> str:
    return f"{leak.n_leaked} of {leak.n_test} test rows ({leak.share:.1%})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
