"""Public multimodal pickles: those of MMSA (one file with all parts) and of MISA (a list per part)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.restricted_pickle import read_pickle
from kontrast.data.utterances.assembling import make_utterances
from kontrast.data.utterances.tables import from_padded
from kontrast.data.utterances.utterances import Stream, Utterances, finite
from kontrast.errors import DataError

_PARTS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}


def read_pickled_utterances(path: Path) -> Utterances:
    """Utterances of MMSA's ``aligned_50.pkl`` or ``unaligned_50.pkl``, or of MISA's train.pkl, dev.pkl and test.pkl.

    Only plain values and arrays are read; a file that names anything else is refused. A folder may hold MISA's lists.

    MMSA: dictionary of parts, each with ``raw_text``, ``id``, ``audio``, ``vision``, ``regression_labels``, and
    optionally ``text`` (n, pieces, d) with ``text_bert`` (n, 3, pieces), ``audio_lengths``, ``vision_lengths``.
    MISA: list of ((word ids, visual (words, d), acoustic (words, d), words), label (1, 1), name).

    Raises:
        DataError: if it is damaged, unsafe or of another layout.
    """
    if path.is_dir():
        files = {part: path / f"{name}.pkl" for name, part in _PARTS.items() if (path / f"{name}.pkl").is_file()}
        if not files:
            held = sorted(path.glob("*.pkl"))
            if len(held) == 1:
                return read_pickled_utterances(held[0])
            came = ", ".join(file.name for file in held)
            raise DataError(
                f"holds {came}", file=path, mend="give one of the files, or train.pkl, dev.pkl and test.pkl"
            )
        parts = [_misa_list(read_pickle(file), file) for file in files.values()]
        names = [name for name, part in zip(files, parts) for _ in part]
        return _from_misa([item for part in parts for item in part], names, path)
    held = read_pickle(path)
    if isinstance(held, dict) and any(name in held for name in _PARTS):
        return _from_mmsa(held, path)
    return _from_misa(_misa_list(held, path), None, path)


# ---- MMSA ------------------------------------------------------------------------------------------------------------


def _from_mmsa(held: dict[str, Any], path: Path) -> Utterances:
    parts = [(part, held[name]) for name, part in _PARTS.items() if name in held]
    ids: list[str] = []
    tokens: list[list[str]] = []
    split: list[str] = []
    labels: list[npt.NDArray[Any]] = []
    streams: dict[str, list[Stream]] = {"text": [], "audio": [], "visual": []}
    for part, fields in parts:
        if not isinstance(fields, dict) or "raw_text" not in fields or "id" not in fields:
            came = ", ".join(map(str, fields))[:80] if isinstance(fields, dict) else type(fields).__name__
            raise DataError(
                f"its part '{part}' has no 'raw_text' and 'id' but {came}", file=path, mend="give a file of MMSA"
            )
        raw = [str(text) for text in np.asarray(fields["raw_text"], dtype=object).tolist()]
        n = len(raw)
        ids += [_mmsa_name(name) for name in np.asarray(fields["id"], dtype=object).tolist()]
        split += [part] * n
        if "regression_labels" in fields:
            labels.append(np.asarray(fields["regression_labels"], np.float32).reshape(-1))
        words = [text.split() for text in raw]
        if "text" in fields:
            stream = _pieces(fields, n, path)
            streams["text"].append(stream)
            # Vectors are of word pieces: they are the nodes, and have a word's name where the counts agree.
            words = [
                own if len(own) == length else [f"piece {place + 1}" for place in range(length)]
                for own, length in zip(words, stream.lengths.tolist())
            ]
        tokens += words
        for name, key in (("audio", "audio"), ("visual", "vision")):
            if key in fields:
                array = _cube(fields[key], key, n, path)
                streams[name].append(from_padded(array, _lengths(fields, key, array, path), key, path))
    found = {name: _joined(some, name, path) for name, some in streams.items() if len(some) == len(parts)}
    whole = np.concatenate(labels) if len(labels) == len(parts) else None
    if whole is not None and len(whole) != len(ids):
        raise DataError(f"has {len(whole)} labels for {len(ids)} utterances", file=path, mend="copy it again")
    videos = [name.split("$_$")[0] for name in ids]
    return make_utterances(
        ids, tokens, videos=videos, labels=whole, split=split, path=path, text=found.get("text"),
        audio=found.get("audio"), visual=found.get("visual"),
    )  # fmt: skip


def _mmsa_name(name: Any) -> str:
    return name if isinstance(name, str) else "$_$".join(map(str, np.asarray(name, dtype=object).ravel().tolist()))


def _cube(value: Any, name: str, n: int, path: Path) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.ndim != 3 or len(value) != n or value.dtype.kind not in "fiu":
        came = value.shape if isinstance(value, np.ndarray) else type(value).__name__
        what = f"'{name}' is {came} where numbers of shape ({n}, length, features) are needed"
        raise DataError(what, file=path, mend="copy it again from where it was published")
    return value


def _lengths(fields: dict[str, Any], name: str, array: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    n, longest = array.shape[:2]
    given = fields.get(f"{name}_lengths")
    if given is None:
        # Aligned files pad with rows of zeros.
        filled = np.asarray(np.abs(np.nan_to_num(array)).sum(2) > 0)
        return np.where(filled.any(1), longest - np.argmax(filled[:, ::-1], axis=1), 0).astype(np.int64)
    lengths = np.asarray(given)
    if lengths.shape != (n,) or lengths.dtype.kind not in "iu" or ((lengths < 0) | (lengths > longest)).any():
        raise DataError(
            f"'{name}_lengths' does not give {n} lengths of at most {longest}", file=path, mend="copy it again"
        )
    return lengths.astype(np.int64)


def _pieces(fields: dict[str, Any], n: int, path: Path) -> Stream:
    """Vectors of word pieces without the two special tokens, where ``text_bert`` says which are valid."""
    array = _cube(fields["text"], "text", n, path)
    masks = fields.get("text_bert")
    if (
        isinstance(masks, np.ndarray)
        and masks.ndim == 3
        and masks.shape[:2] == (n, 3)
        and masks.shape[2] == array.shape[1]
    ):
        valid = masks[:, 1] > 0
        lengths = np.maximum(valid.sum(1) - 2, 0).astype(np.int64)
        return from_padded(array[:, 1:], lengths, "text", path)
    return from_padded(array, _lengths(fields, "text", array, path), "text", path)


def _joined(streams: Sequence[Stream], name: str, path: Path) -> Stream:
    if len({stream.dim for stream in streams}) > 1:
        raise DataError(f"the parts have different numbers of '{name}' features", file=path, mend="copy it again")
    lengths = np.concatenate([stream.lengths for stream in streams])
    values = np.concatenate([stream.values for stream in streams])
    return Stream.of(values, np.concatenate([[0], np.cumsum(lengths)]))


# ---- MISA ------------------------------------------------------------------------------------------------------------


def _misa_list(held: Any, path: Path) -> list[Any]:
    sound = isinstance(held, list | tuple) and len(held) > 0
    if not sound or not all(isinstance(item, list | tuple) and len(item) == 3 and len(item[0]) == 4 for item in held):
        what = f"holds a {type(held).__name__} of another layout"
        mend = (
            "give a dictionary of parts (MMSA), or a list of ((word ids, visual, acoustic, words), label, name) (MISA)"
        )
        raise DataError(what, file=path, mend=mend)
    return list(held)


def _from_misa(items: list[Any], split: list[str] | None, path: Path) -> Utterances:
    ids: list[str] = []
    tokens: list[list[str]] = []
    labels: list[float] = []
    streams: dict[str, list[npt.NDArray[Any]]] = {"visual": [], "audio": []}
    for number, ((_, visual, acoustic, words), label, name) in enumerate(items, start=1):
        named = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in words]
        ids.append(_mmsa_name(name))
        tokens.append(named)
        value = np.asarray(label, np.float64).ravel()
        labels.append(float(value[0]) if value.size else float("nan"))
        for kind, array in (("visual", visual), ("audio", acoustic)):
            rows = np.asarray(array)
            if rows.ndim != 2 or len(rows) != len(named) or rows.dtype.kind not in "fiu":
                what = f"item {number} has {kind} features of shape {rows.shape} for {len(named)} words"
                raise DataError(what, file=path, mend="give one row per word")
            streams[kind].append(rows)
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in tokens])])
    found: dict[str, Stream] = {}
    for kind, arrays in streams.items():
        widths = {rows.shape[1] for rows in arrays if len(rows)}
        if len(widths) != 1:
            raise DataError(f"its items have {sorted(widths)} {kind} features", file=path, mend="give equally many")
        width = widths.pop()
        stacked = np.concatenate([rows.reshape(len(rows), width) for rows in arrays])
        found[kind] = Stream.of(finite(stacked, kind, path), offsets)
    parts = None if split is None else [_PARTS[name] for name in split]
    videos = [name.rsplit("[", 1)[0] for name in ids]
    return make_utterances(
        ids, tokens, videos=videos, labels=np.asarray(labels), split=parts, path=path, audio=found["audio"],
        visual=found["visual"],
    )  # fmt: skip
