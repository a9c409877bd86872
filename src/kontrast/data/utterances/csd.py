"""Computational sequences of the CMU multimodal SDK: HDF5 files ``.csd`` with features and the times they cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.utterances.assembling import make_utterances
from kontrast.data.utterances.utterances import Stream, Utterances, finite
from kontrast.errors import DataError
from kontrast.extras import require

PAUSE = "sp"
"""How the transcripts write a pause between words."""

_NAMES = {
    "label": ("label",),
    "words": ("words", "word_level", "transcript"),
    "text": ("glove", "bert", "wordvector", "word_vector"),
    "audio": ("covarep", "opensmile", "acoustic", "audio", "mfcc"),
    "visual": ("facet", "openface", "visual", "vision", "facial", "video"),
}


@dataclass(frozen=True, eq=False)
class Track:
    """One computational sequence of one recording.

    Attributes:
        features: (k, d) numbers, or (k,) texts.
        times: (k, 2) begin and end in seconds.
    """

    features: npt.NDArray[Any]
    times: npt.NDArray[np.float64]

    def within(self, start: float, end: float) -> npt.NDArray[np.int64]:
        """Rows whose middle lies between two times, in order of time."""
        middle = self.times.mean(1)
        rows = np.flatnonzero((middle >= start) & (middle <= end))
        return rows[np.argsort(middle[rows], kind="stable")]


def read_csd(path: Path) -> Utterances:
    """Utterances of a folder of ``.csd`` files: labels, words, and optionally word vectors, audio and visual features.

    Which file is what is told by the name of its sequence: labels ("Opinion Segment Labels"), words, glove or bert,
    covarep or opensmile, facet or openface. Each interval of the labels is an utterance; of the other sequences it has
    what has its middle within. Pauses ("sp") are left out.

    Raises:
        DataError: if a file is damaged, or labels or words are missing.
    """
    files = sorted(path.glob("*.csd")) if path.is_dir() else sorted(path.parent.glob("*.csd"))
    found: dict[str, tuple[Path, dict[str, Track]]] = {}
    for file in files:
        name, tracks = _read_file(file)
        kind = next((kind for kind, parts in _NAMES.items() if any(part in name.lower() for part in parts)), None)
        if kind is not None and kind in found:
            what = f"holds '{name}', and {found[kind][0].name} holds {kind} sequences already"
            raise DataError(what, file=file, mend="keep one sequence of each kind in the folder")
        if kind is not None:
            found[kind] = (file, tracks)
    for kind in ("label", "words"):
        if kind not in found:
            came = ", ".join(file.name for file in files)
            what = f"has no sequence of {kind}s" if kind == "label" else "has no sequence of words"
            raise DataError(
                f"{what} among {came}", file=path, mend="put the .csd files of one data set into one folder"
            )
    return _assembled({kind: tracks for kind, (_, tracks) in found.items()}, path)


def _read_file(path: Path) -> tuple[str, dict[str, Track]]:
    h5py = require("h5py", extra="utterances", purpose="to read .csd files")
    try:
        with h5py.File(path, "r") as file:
            roots = [name for name in file if isinstance(file[name], h5py.Group) and "data" in file[name]]
            if len(roots) != 1:
                raise DataError("is no computational sequence (one group with 'data')", file=path, mend="copy it again")
            data = file[roots[0]]["data"]
            tracks = {key: _track(data[key], key, path) for key in data}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole HDF5 file ({reason})", file=path, mend="copy it again") from None
    if not tracks:
        raise DataError("holds no recordings", file=path, mend="copy it again")
    return str(roots[0]), tracks


def _track(group: Any, key: str, path: Path) -> Track:
    if "features" not in group or "intervals" not in group:
        raise DataError(f"'{key}' has no 'features' and 'intervals'", file=path, mend="copy it again")
    features, times = np.asarray(group["features"][()]), np.asarray(group["intervals"][()], np.float64)
    if times.ndim != 2 or times.shape[1] != 2 or len(features) != len(times) or not np.isfinite(times).all():
        what = f"'{key}' has {len(features)} features and intervals of shape {times.shape}"
        raise DataError(what, file=path, mend="give begin and end of each feature")
    if features.dtype.kind in "SO":
        texts = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell) for cell in features.ravel()]
        return Track(np.asarray(texts, dtype=object), times)
    return Track(features, times)


@dataclass(frozen=True)
class _Segment:
    key: str
    name: str
    start: float
    end: float
    label: float


def _segments(tracks: dict[str, Track]) -> Iterator[_Segment]:
    for key, track in sorted(tracks.items()):
        values = np.asarray(track.features, np.float64).reshape(len(track.times), -1)
        for number, ((start, end), row) in enumerate(zip(track.times.tolist(), values)):
            name = key if key.endswith("]") and len(values) == 1 else f"{key}[{number}]"
            yield _Segment(key, name, start, end, float(row[0]) if len(row) else float("nan"))


def _assembled(found: dict[str, dict[str, Track]], path: Path) -> Utterances:
    segments = [segment for segment in _segments(found["label"]) if segment.key in found["words"]]
    if not segments:
        what = "its labels and words are of different recordings"
        raise DataError(what, file=path, mend="put the .csd files of one data set into one folder")
    tokens: list[list[str]] = []
    chosen: list[npt.NDArray[np.int64]] = []
    for segment in segments:
        track = found["words"][segment.key]
        if track.features.dtype != object:
            raise DataError("its words are numbers", file=path, mend="give the sequence of words, not of word vectors")
        rows = track.within(segment.start, segment.end)
        rows = rows[[word != PAUSE for word in track.features[rows]]] if len(rows) else rows
        chosen.append(rows)
        tokens.append([str(word) for word in track.features[rows]])
    streams = {kind: _stream(found[kind], segments, kind, path) for kind in ("audio", "visual") if kind in found}
    text = None
    if "text" in found:
        text = _word_vectors(found["text"], found["words"], segments, chosen, path)
    times = np.array([[segment.start, segment.end] for segment in segments])
    return make_utterances(
        [segment.name for segment in segments], tokens, videos=[segment.key.split("[")[0] for segment in segments],
        labels=np.array([segment.label for segment in segments]), text=text, start=times[:, 0], end=times[:, 1],
        path=path, audio=streams.get("audio"), visual=streams.get("visual"),
    )  # fmt: skip


def _stream(tracks: dict[str, Track], segments: list[_Segment], kind: str, path: Path) -> Stream:
    values, positions, lengths = [], [], []
    for segment in segments:
        track = tracks.get(segment.key)
        rows = np.zeros(0, np.int64) if track is None else track.within(segment.start, segment.end)
        lengths.append(len(rows))
        if track is not None and len(rows):
            values.append(np.asarray(track.features[rows]).reshape(len(rows), -1))
            span = max(segment.end - segment.start, 1e-6)
            positions.append((track.times[rows].mean(1) - segment.start) / span)
    if not values or len({rows.shape[1] for rows in values}) != 1:
        raise DataError(f"its {kind} sequences do not fit the labels", file=path, mend="take files of one data set")
    stream = Stream.of(finite(np.concatenate(values), kind, path), np.concatenate([[0], np.cumsum(lengths)]))
    return Stream(stream.values, stream.rows, stream.offsets, np.concatenate(positions).astype(np.float32))


def _word_vectors(
    tracks: dict[str, Track],
    words: dict[str, Track],
    segments: list[_Segment],
    chosen: list[npt.NDArray[np.int64]],
    path: Path,
) -> Stream:
    """Vectors of the words, row by row of the same recordings."""
    values = []
    for segment, rows in zip(segments, chosen):
        track = tracks.get(segment.key)
        if track is None or len(track.features) != len(words[segment.key].features):
            what = f"'{segment.key}' has not one vector for each word"
            raise DataError(what, file=path, mend="take words and vectors of one data set, or leave the vectors out")
        values.append(np.asarray(track.features[rows]).reshape(len(rows), -1))
    width = max(rows.shape[1] for rows in values)
    stacked = np.concatenate([rows.reshape(len(rows), width) for rows in values])
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in values])])
    return Stream.of(finite(stacked, "word vectors", path), offsets, aligned=True)
