"""Readers of utterances: tables with features, surroundings, and what is refused."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from kontrast.data.utterances import make_utterances, read_utterances, surroundings, write_utterances
from kontrast.data.utterances.utterances import Stream, finite
from kontrast.errors import DataError

ROWS = [
    {"id": "a1", "video": "a", "tokens": ["not", "good"], "head": [1, 1], "label": -1.2, "split": "train", "start": 0.0,
     "end": 2.0},
    {"id": "a2", "video": "a", "tokens": ["fine"], "head": [0], "label": 0.5, "split": "val", "start": 2.5, "end": 3.0},
    {"id": "b1", "video": "b", "tokens": [], "head": [], "label": 3, "split": "test", "start": 0.0, "end": 1.0},
]  # fmt: skip


def folder(tmp_path, rows=ROWS, name="utterances.jsonl", **arrays):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    if arrays:
        np.savez(tmp_path / "features.npz", **arrays)
    return tmp_path


def features():
    rng = np.random.default_rng(0)
    return {
        "ids": np.array(["a1", "a2", "b1"]),
        "text_word": rng.normal(size=(3, 4)).astype(np.float16),
        "text_word_offsets": np.array([0, 2, 3, 3]),
        "text_sentence": rng.normal(size=(3, 5)),
        "audio": rng.normal(size=(3, 6)),
        "visual": rng.normal(size=(3, 2)),
        "has_visual": np.array([True, True, False]),
    }


def test_a_table_with_features_is_read(tmp_path):
    arrays = features()
    data = read_utterances(folder(tmp_path, name="utterances.jsonl.gz", **arrays))
    assert data.ids == ("a1", "a2", "b1")
    assert data.tokens == (("not", "good"), ("fine",), ())
    assert data.heads.tolist() == [1, 1, 0]
    assert data.split == ("train", "valid", "test")
    assert data.labels.tolist() == pytest.approx([-1.2, 0.5, 3.0])
    assert data.text.lengths.tolist() == [2, 1, 0]
    assert np.allclose(data.text.values, arrays["text_word"])
    # One vector per utterance becomes the utterances around it in its video; b1 has no face.
    assert data.audio.lengths.tolist() == [2, 2, 1]
    assert data.visual.lengths.tolist() == [2, 2, 0]
    assert data.audio.centre.tolist() == [True, False, False, True, True]
    assert data.audio.position[0] == 0.5
    assert data.audio.position[1] > 0.5 > data.audio.position[2]


def test_a_table_alone_is_enough_and_texts_are_cut_into_words(tmp_path):
    file = tmp_path / "some.csv"
    file.write_text("text,label\nnot so good,-1\n,0\nfine,\n")
    data = read_utterances(file)
    assert data.tokens == (("not", "so", "good"), (), ("fine",))
    assert np.isnan(data.labels[2])
    assert data.heads.tolist() == [-1] * 4
    assert (data.text, data.audio, data.split) == (None, None, None)
    assert len(set(data.videos)) == 3


def test_sequences_come_with_offsets_or_padded(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "audio": rng.normal(size=(7, 2)), "audio_offsets": np.array([0, 4, 5, 7]),
        "visual": rng.normal(size=(3, 5, 2)), "visual_lengths": np.array([5, 1, 0]),
    }  # fmt: skip
    data = read_utterances(folder(tmp_path, **arrays))
    assert data.audio.lengths.tolist() == [4, 1, 2]
    assert data.visual.lengths.tolist() == [5, 1, 0]
    assert np.allclose(data.visual.values[5], arrays["visual"][1, 0])
    assert data.audio.position[:4] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert not data.audio.aligned


def test_sequences_of_one_row_per_word_are_aligned(tmp_path):
    arrays = {"audio": np.random.default_rng(2).normal(size=(3, 2)), "audio_offsets": np.array([0, 2, 3, 3])}
    assert read_utterances(folder(tmp_path, **arrays)).audio.aligned


def test_writing_and_reading_again_changes_nothing(tmp_path):
    (tmp_path / "first").mkdir()
    first = read_utterances(folder(tmp_path / "first", **features()))
    second = read_utterances(write_utterances(first, tmp_path / "second"))
    assert second.ids == first.ids
    assert second.tokens == first.tokens
    assert second.split == first.split
    assert np.array_equal(second.heads, first.heads)
    assert np.allclose(second.labels, first.labels)
    for name, stream in first.streams.items():
        other = second.streams[name]
        assert np.array_equal(other.offsets, stream.offsets)
        assert np.allclose(other.values[other.rows], stream.values[stream.rows])


def test_take_keeps_everything_of_the_chosen(tmp_path):
    data = read_utterances(folder(tmp_path, **features()))
    part = data.take([1, 0])
    assert part.ids == ("a2", "a1")
    assert part.heads.tolist() == [0, 1, 1]
    assert part.text.lengths.tolist() == [1, 2]
    whole = data.audio.values[data.audio.rows]
    assert np.array_equal(part.audio.values[part.audio.rows], np.concatenate([whole[2:4], whole[:2]]))
    empty = data.take([])
    assert len(empty) == 0
    assert len(empty.heads) == 0


def test_surroundings_stay_in_the_video_and_leave_out_what_is_missing():
    values = np.arange(5.0)[:, None]
    present = np.array([True, True, False, True, True])
    stream = surroundings(values, present, ["v", "v", "v", "v", "w"], None, None, 1)
    found = [stream.rows[a:b].tolist() for a, b in zip(stream.offsets, stream.offsets[1:])]
    assert found == [[0, 1], [0, 1], [], [3], [4]]
    assert stream.position.min() >= 0
    assert stream.position.max() <= 1
    # Order in time, not in the file.
    start = np.array([2.0, 0.0, 1.0])
    stream = surroundings(np.arange(3.0)[:, None], np.ones(3, bool), ["v"] * 3, start, start + 1, 1)
    assert stream.rows[: stream.offsets[1]].tolist() == [2, 0]


def test_infinite_features_become_zero():
    found = finite(np.array([[1.0, np.nan], [-np.inf, 2.0]]), "audio", None)
    assert found.tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_a_stream_takes_empty_sequences():
    stream = Stream.of(np.ones((3, 2)), np.array([0, 0, 3, 3]))
    assert stream.take(np.array([2, 1, 0])).lengths.tolist() == [0, 3, 0]


BROKEN = {
    "ids": ({"ids": np.array(["a1", "a2", "c"])}, "'ids' differs"),
    "offsets": ({"audio_offsets": np.array([0, 9, 1, 3])}, "offsets of 'audio'"),
    "rows": ({"audio": np.zeros((5, 2))}, "'audio' has 5 rows for 3 utterances"),
    "shape": ({"audio": np.zeros(3)}, "'audio' has the shape"),
    "type": ({"audio": np.array([["a"], ["b"], ["c"]])}, "'audio' has the shape"),
    "nan": ({"audio": np.full((3, 2), np.nan)}, "no finite value"),
    "words": ({"text_word_offsets": np.array([0, 1, 2, 3])}, "2 words and 1 word vectors"),
    "no offsets": ({"text_word_offsets": None}, "'text_word' has no offsets"),
    "sentence": ({"text_sentence": np.zeros((2, 5))}, "'text_sentence' has 2 rows"),
    "flags": ({"has_visual": np.array([True])}, "'has_visual' has the shape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_features_are_refused_in_one_sentence(tmp_path, name):
    change, said = BROKEN[name]
    arrays = {key: value for key, value in {**features(), **change}.items() if value is not None}
    with pytest.raises(DataError, match=said) as caught:
        read_utterances(folder(tmp_path, **arrays))
    assert "features.npz" in str(caught.value) or "utterances.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_ROWS = {
    "no words": ([{"id": "x"}], "neither 'tokens' nor 'text'"),
    "tokens": ([{"tokens": "one two"}], "line 1: 'tokens'"),
    "numbers for words": ([{"tokens": [1, 2]}], "line 1: 'tokens'"),
    "text": ([{"text": 7}], "line 1: 'text'"),
    "label": ([{"text": "a", "label": "good"}], "line 1: 'label'"),
    "range": ([{"id": "u", "text": "a", "label": 4}], "'u' has the label 4"),
    "twice": ([{"id": "u", "text": "a"}, {"id": "u", "text": "b"}], "'u' comes twice"),
    "heads": ([{"tokens": ["a", "b"], "head": [0]}], "line 1: 'head'"),
    "head outside": ([{"id": "u", "tokens": ["a", "b"], "head": [0, 2]}], "'u' has a head 2 among 2 words"),
    "split": ([{"text": "a", "split": "later"}], "line 1: 'split'"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_named(tmp_path, name):
    rows, said = BAD_ROWS[name]
    with pytest.raises(DataError, match=said):
        read_utterances(folder(tmp_path, rows))


def test_damaged_and_missing_files_are_named(tmp_path):
    whole = folder(tmp_path, **features())
    archive = (tmp_path / "features.npz").read_bytes()
    for broken in (archive[: len(archive) // 2], b"", b"\x00" * 100):
        (tmp_path / "features.npz").write_bytes(broken)
        with pytest.raises(DataError, match=r"features\.npz"):
            read_utterances(whole)
    np.savez(tmp_path / "features.npz", audio=np.array([{"a": 1}, 2, 3], dtype=object))
    with pytest.raises(DataError, match="is not a whole npz"):
        read_utterances(whole)
    with pytest.raises(DataError, match="no such file"):
        read_utterances(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing"):
        read_utterances(tmp_path / "empty")


def test_no_utterances_are_refused():
    with pytest.raises(DataError, match="no utterances"):
        make_utterances([], [])
