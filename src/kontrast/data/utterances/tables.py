"""Utterances as a table of words and labels (JSONL above all) with an npz file of features beside it."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.formats import parse_table
from kontrast.data.utterances.assembling import make_utterances
from kontrast.data.utterances.utterances import Floats, Ints, Stream, Utterances, finite, surroundings
from kontrast.errors import DataError
from kontrast.files import replacing

FEATURES = "features.npz"
TABLE = "utterances.jsonl"
REACH = 4
"""Utterances before and after whose vectors surround an utterance that has one vector alone."""

_COLUMNS = ("id", "video", "text", "tokens", "head", "label", "split", "start", "end", "has_audio", "has_visual")
_PARTS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
          "dev": "valid", "test": "test", "testing": "test"}  # fmt: skip


def is_table(path: Path) -> bool:
    """Whether a file is a table of utterances by its name."""
    name = path.name.removesuffix(".gz")
    return name.endswith((".jsonl", ".csv", ".tsv", ".parquet"))


def read_table_of_utterances(path: Path, *, reach: int = REACH) -> Utterances:
    """Utterances of a table: a row has ``tokens`` (list of words) or ``text``, and optionally the rest.

    Columns: ``id``; ``video`` (recording or speaker: never divided among parts); ``head`` (list, position of each
    word's syntactic head, a root points to itself); ``label`` in [-3, 3]; ``split``; ``start`` and ``end`` in seconds;
    ``has_audio`` and ``has_visual``. Features stand beside it in ``features.npz`` or ``<name of the table>.npz``:

    - ``text_word`` with ``text_word_offsets`` (n + 1,): one vector per word; ``text_sentence`` (n, s);
    - ``audio``, ``visual``: (total, d) with ``audio_offsets`` (n + 1,) or common ``offsets``; or (n, length, d) with
      ``audio_lengths``; or (n, d), one vector per utterance, which is then surrounded by those of its video;
    - ``has_audio``, ``has_visual`` (n,): false where an utterance lacks it; ``ids`` (n,), to check the order.

    Args:
        path: the table.
        reach: neighbours before and after that surround an utterance with one vector.

    Raises:
        DataError: naming file, row, column or array, what came and the mend.
    """
    table = parse_table(path, lambda names: [name for name in names if name in _COLUMNS])
    frame, where = table.frame, [f"{table.counted} {number}" for number in table.frame.index]
    columns = {name: _nones(frame[name].tolist()) for name in frame.columns}
    tokens = _words(columns, where, path)
    ids = [
        f"row {row + 1}" if name is None else str(name)
        for row, name in enumerate(columns.get("id", [None] * len(frame)))
    ]
    videos = None
    if "video" in columns:
        videos = [name if video is None else str(video) for name, video in zip(ids, columns["video"])]
    split = None
    if any(value is not None for value in columns.get("split", [])):
        split = _splits(columns["split"], where, path)
    times = {name: _numbers(columns[name], name, where, path) for name in ("start", "end") if name in columns}
    start, end = (times["start"], times["end"]) if len(times) == 2 else (None, None)
    if start is not None and end is not None and not (np.isfinite(start).all() and np.isfinite(end).all()):
        start = end = None
    labels = _numbers(columns["label"], "label", where, path) if "label" in columns else None
    arrays = _load(_beside(path))
    n = len(ids)
    source = _beside(path)
    if "ids" in arrays and [str(name) for name in arrays["ids"].tolist()] != ids:
        what = f"'ids' differs from the {n} ids of {path.name}"
        raise DataError(what, file=source, mend="write the features in the order of the table")
    streams: dict[str, Stream | None] = {}
    for name in ("audio", "visual"):
        flag = f"has_{name}"
        stated = arrays.get(flag)
        if stated is None and flag in columns:
            stated = np.array([value in (None, True, 1, "true", "True") for value in columns[flag]])
        present = np.ones(n, bool) if stated is None else _flags(stated, flag, n, source)
        streams[name] = _stream(arrays, name, present, videos or ids, start, end, reach, source)
    text = None
    if "text_word" in arrays:
        offsets = arrays.get("text_word_offsets", arrays.get("offsets"))
        values = finite(arrays["text_word"], "text_word", source)
        text = Stream.of(values, _offsets(offsets, "text_word", n, len(values), source), aligned=True)
    sentence = None
    if "text_sentence" in arrays:
        sentence = finite(arrays["text_sentence"], "text_sentence", source)
        if len(sentence) != n:
            raise DataError(
                f"'text_sentence' has {len(sentence)} rows for {n} utterances", file=source, mend="give one each"
            )
    return make_utterances(
        ids, tokens, videos=videos, heads=_heads(columns, tokens, where, path), labels=labels, text=text,
        sentence=sentence, split=split, start=start, end=end, path=path, **streams,
    )  # fmt: skip


def write_utterances(data: Utterances, folder: Path) -> Path:
    """Writes the table and its features into a folder that `read_utterances` reads; returns the folder.

    Surroundings of single vectors are written as the sequences that they are.
    """
    offsets = data.word_offsets
    lines = []
    for row, name in enumerate(data.ids):
        record: dict[str, Any] = {"id": name, "video": data.videos[row], "tokens": list(data.tokens[row])}
        heads = data.heads[offsets[row] : offsets[row + 1]]
        if (heads >= 0).all():
            record["head"] = heads.tolist()
        if np.isfinite(data.labels[row]):
            record["label"] = round(float(data.labels[row]), 6)
        if data.split is not None:
            record["split"] = data.split[row]
        if data.start is not None and data.end is not None:
            record |= {"start": float(data.start[row]), "end": float(data.end[row])}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    arrays: dict[str, npt.NDArray[Any]] = {"ids": np.asarray(data.ids)}
    if data.text is not None:
        arrays |= {"text_word": data.text.values[data.text.rows], "text_word_offsets": data.text.offsets}
    if data.sentence is not None:
        arrays["text_sentence"] = data.sentence
    for kind, stream in data.streams.items():
        arrays |= {kind: stream.values[stream.rows], f"{kind}_offsets": stream.offsets}
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / TABLE).write_text("".join(lines), encoding="utf-8")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        (temporary / FEATURES).write_bytes(buffer.getvalue())
    return Path(folder)


# ---- columns ---------------------------------------------------------------------------------------------------------


def _nones(cells: list[Any]) -> list[Any]:
    return [None if cell is None or (isinstance(cell, float) and cell != cell) else cell for cell in cells]


def _words(columns: dict[str, list[Any]], where: Sequence[str], path: Path) -> list[list[str]]:
    if "tokens" in columns:
        tokens: list[list[str]] = []
        for place, cell in zip(where, columns["tokens"]):
            words = list(cell) if isinstance(cell, list | tuple | np.ndarray) else None
            if words is None or not all(isinstance(word, str) for word in words):
                raise DataError(f"{place}: 'tokens' is {str(cell)[:40]!r}", file=path, mend="give a list of words")
            tokens.append(words)
        return tokens
    if "text" not in columns:
        raise DataError(
            "has neither 'tokens' nor 'text'", file=path, mend="add a column with the words of each utterance"
        )
    for place, cell in zip(where, columns["text"]):
        if cell is not None and not isinstance(cell, str):
            raise DataError(f"{place}: 'text' is {str(cell)[:40]!r}", file=path, mend="give the words as text")
    return [(cell or "").split() for cell in columns["text"]]


def _heads(columns: dict[str, list[Any]], tokens: list[list[str]], where: Sequence[str], path: Path) -> Ints | None:
    if "head" not in columns:
        return None
    found: list[int] = []
    for place, cell, words in zip(where, columns["head"], tokens):
        if cell is None:
            found += [-1] * len(words)
            continue
        heads = list(cell) if isinstance(cell, list | tuple | np.ndarray) else None
        if heads is None or len(heads) != len(words) or not all(isinstance(head, int | np.integer) for head in heads):
            what = f"{place}: 'head' is {str(cell)[:40]!r} for {len(words)} words"
            raise DataError(what, file=path, mend="give one whole number per word")
        found += [int(head) for head in heads]
    return np.asarray(found, np.int64)


def _numbers(cells: list[Any], name: str, where: Sequence[str], path: Path) -> npt.NDArray[np.float64]:
    found = np.full(len(cells), np.nan)
    for row, (place, cell) in enumerate(zip(where, cells)):
        if cell is None or cell == "":
            continue
        try:
            found[row] = float(cell) if not isinstance(cell, bool | list) else np.inf
        except (TypeError, ValueError):
            found[row] = np.inf
        if not np.isfinite(found[row]):
            raise DataError(
                f"{place}: '{name}' is {str(cell)[:40]!r}", file=path, mend="give a number, or leave it out"
            )
    return found


def _splits(cells: list[Any], where: Sequence[str], path: Path) -> list[str]:
    found = []
    for place, cell in zip(where, cells):
        part = _PARTS.get(str(cell).strip().lower())
        if part is None:
            raise DataError(f"{place}: 'split' is {str(cell)[:40]!r}", file=path, mend="use train, valid and test")
        found.append(part)
    return found


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _beside(path: Path) -> Path | None:
    name = path.name.removesuffix(".gz")
    own = path.with_name(name.rsplit(".", 1)[0] + ".npz")
    return next((file for file in (own, path.with_name(FEATURES)) if file.is_file()), None)


def _load(path: Path | None) -> dict[str, npt.NDArray[Any]]:
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole npz file of numbers ({reason})", file=path, mend="write it again") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError, gzip.BadGzipFile) as error:
        raise DataError(f"is not a whole npz file ({type(error).__name__})", file=path, mend="write it again") from None


def _flags(values: npt.NDArray[Any], name: str, n: int, path: Path | None) -> npt.NDArray[np.bool_]:
    if values.shape != (n,) or values.dtype.kind not in "biu":
        raise DataError(f"'{name}' has the shape {values.shape}", file=path, mend=f"give true or false {n} times")
    return values.astype(bool)


def _offsets(values: npt.NDArray[Any] | None, name: str, n: int, total: int, path: Path | None) -> Ints:
    if values is None:
        raise DataError(f"'{name}' has no offsets", file=path, mend=f"add '{name}_offsets' with {n + 1} whole numbers")
    sound = values.shape == (n + 1,) and values.dtype.kind in "iu"
    if not sound or values[0] != 0 or (np.diff(values.astype(np.int64)) < 0).any() or int(values[-1]) != total:
        what = f"the offsets of '{name}' do not divide its {total} rows among {n} utterances"
        raise DataError(what, file=path, mend=f"give {n + 1} rising whole numbers from 0 to {total}")
    return values.astype(np.int64)


def _stream(
    arrays: dict[str, npt.NDArray[Any]],
    name: str,
    present: npt.NDArray[np.bool_],
    videos: Sequence[str],
    start: npt.NDArray[np.float64] | None,
    end: npt.NDArray[np.float64] | None,
    reach: int,
    path: Path | None,
) -> Stream | None:
    if name not in arrays:
        return None
    raw, n = arrays[name], len(present)
    if raw.ndim == 3:
        return _padded(raw, arrays.get(f"{name}_lengths"), name, present, path)
    values: Floats = finite(raw, name, path)
    offsets = arrays.get(f"{name}_offsets")
    common = arrays.get("offsets")
    if offsets is None and common is not None and common.shape == (n + 1,) and int(common[-1]) == len(values):
        offsets = common
    if offsets is not None:
        return without(Stream.of(values, _offsets(offsets, name, n, len(values), path)), present)
    if len(values) != n:
        what = f"'{name}' has {len(values)} rows for {n} utterances and no '{name}_offsets'"
        raise DataError(what, file=path, mend="say with offsets which rows belong to which utterance")
    return surroundings(values, present, videos, start, end, reach)


def _padded(
    raw: npt.NDArray[Any],
    lengths: npt.NDArray[Any] | None,
    name: str,
    present: npt.NDArray[np.bool_],
    path: Path | None,
) -> Stream:
    n, longest = raw.shape[:2]
    if n != len(present):
        raise DataError(f"'{name}' has {n} sequences for {len(present)} utterances", file=path, mend="give one each")
    if lengths is None:
        lengths = np.full(n, longest)
    if lengths.shape != (n,) or lengths.dtype.kind not in "iu" or ((lengths < 0) | (lengths > longest)).any():
        what = f"'{name}_lengths' does not give {n} lengths of at most {longest}"
        raise DataError(what, file=path, mend="count the rows of each sequence")
    return without(from_padded(raw, lengths, name, path), present)


def from_padded(raw: npt.NDArray[Any], lengths: npt.NDArray[Any], name: str, path: Path | None) -> Stream:
    """The first lengths[k] rows of each sequence of (n, longest, d)."""
    values = finite(raw.reshape(-1, raw.shape[-1]), name, path)
    inside = np.arange(raw.shape[1]) < lengths[:, None]
    return Stream.of(values[inside.ravel()], np.concatenate([[0], np.cumsum(lengths)]))


def without(stream: Stream, present: npt.NDArray[np.bool_]) -> Stream:
    """The stream with no entries where an utterance lacks the modality."""
    if present.all():
        return stream
    kept = np.repeat(present, stream.lengths)
    offsets = np.concatenate([[0], np.cumsum(np.where(present, stream.lengths, 0))]).astype(np.int64)
    centre = None if stream.centre is None else stream.centre[kept]
    return Stream(stream.values, stream.rows[kept], offsets, stream.position[kept], centre, stream.aligned)
