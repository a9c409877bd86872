"""Utterances from public multimodal pickles and from computational sequences."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from kontrast.data.utterances import read_utterances
from kontrast.errors import DataError

h5py = pytest.importorskip("h5py")


def dump(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


def mmsa_part(n, first, *, aligned=False):
    rng = np.random.default_rng(first)
    pieces = 6
    masks = np.zeros((n, 3, pieces), np.float32)
    masks[:, 1, :4] = 1
    part = {
        "raw_text": np.array([f"word{k} two" for k in range(n)]),
        "id": [f"vid{k // 2}$_${k}" for k in range(first, first + n)],
        "text": rng.normal(size=(n, pieces, 3)).astype(np.float32),
        "text_bert": masks,
        "audio": rng.normal(size=(n, 5, 2)).astype(np.float32),
        "vision": rng.normal(size=(n, 4, 2)).astype(np.float32),
        "regression_labels": rng.uniform(-3, 3, n).astype(np.float32),
        "classification_labels": np.zeros(n),
    }
    if aligned:
        part["audio"][:, 3:] = 0
        part["vision"][:, 2:] = 0
    else:
        part |= {"audio_lengths": [3] * n, "vision_lengths": [4] * n}
    return part


def test_unaligned_mmsa(tmp_path):
    held = {"train": mmsa_part(3, 0), "valid": mmsa_part(2, 10), "test": mmsa_part(2, 20)}
    data = read_utterances(dump(tmp_path / "unaligned_50.pkl", held))
    assert read_utterances(tmp_path).ids == data.ids
    assert data.split == ("train",) * 3 + ("valid",) * 2 + ("test",) * 2
    assert data.ids[0] == "vid0$_$0"
    assert data.videos[:3] == ("vid0", "vid0", "vid1")
    # Four valid pieces, of which the first and last are special.
    assert data.text.lengths.tolist() == [2] * 7
    assert np.allclose(data.text.values[0], held["train"]["text"][0, 1])
    assert data.tokens[0] == ("word0", "two")
    assert data.audio.lengths.tolist() == [3] * 7
    assert data.visual.lengths.tolist() == [4] * 7
    assert data.labels[:3].tolist() == held["train"]["regression_labels"].tolist()


def test_aligned_mmsa_ends_where_zeros_begin(tmp_path):
    data = read_utterances(dump(tmp_path / "aligned_50.pkl", {"train": mmsa_part(3, 0, aligned=True)}))
    assert data.audio.lengths.tolist() == [3] * 3
    assert data.visual.lengths.tolist() == [2] * 3
    assert data.visual.aligned
    assert not data.audio.aligned
    dump(tmp_path / "unaligned_50.pkl", {})
    with pytest.raises(DataError, match=r"aligned_50\.pkl, unaligned_50\.pkl"):
        read_utterances(tmp_path)


def misa(n, first=0):
    rng = np.random.default_rng(first)
    items = []
    for k in range(first, first + n):
        words = [f"w{j}" for j in range(1 + k % 3)]
        visual, acoustic = rng.normal(size=(len(words), 4)), rng.normal(size=(len(words), 3))
        items.append(((np.arange(len(words)), visual, acoustic, words), np.array([[1.5]]), f"vid{k // 2}[{k}]"))
    return items


def test_misa_lists_alone_and_as_a_folder(tmp_path):
    data = read_utterances(dump(tmp_path / "dev.pkl", misa(4)))
    assert data.split is None
    assert data.ids[1] == "vid0[1]"
    assert data.videos[:2] == ("vid0", "vid0")
    assert data.audio.aligned
    assert data.audio.dim == 3
    assert data.labels.tolist() == [1.5] * 4
    dump(tmp_path / "train.pkl", misa(5, 10))
    data = read_utterances(tmp_path)
    assert sorted(data.split) == ["train"] * 5 + ["valid"] * 4


class Runs:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"train": {"raw_text": Runs(), "id": ["a"]}}, "may run code"),
        ({"train": {"id": ["a"]}}, "no 'raw_text' and 'id'"),
        ({"train": {"raw_text": ["a b"], "id": ["x"], "audio": np.zeros((2, 3, 1))}}, "'audio' is"),
        ({"train": {"raw_text": ["a b"], "id": ["x"], "audio": np.ones((1, 3, 1)), "audio_lengths": [9]}}, "lengths"),
        ({"other": 1}, "another layout"),
        ([1, 2], "another layout"),
        ([((0, np.zeros((1, 2)), np.zeros((3, 2)), ["a"]), np.zeros((1, 1)), "x")], "audio features of shape"),
    ],
)
def test_pickles_of_another_kind_are_refused(tmp_path, capsys, held, said):
    with pytest.raises(DataError, match=said):
        read_utterances(dump(tmp_path / "data.pkl", held))
    assert "run" not in capsys.readouterr().out


def sequence(folder, name, tracks):
    with h5py.File(folder / f"{name.replace(' ', '_')}.csd", "w") as file:
        data = file.create_group(name).create_group("data")
        for key, (features, times) in tracks.items():
            group = data.create_group(key)
            group["features"], group["intervals"] = features, np.asarray(times, float)
    return folder


def sdk(folder):
    times = [[0, 1], [1, 2], [2, 3], [5, 6]]
    words = np.array([[b"not"], [b"sp"], [b"good"], [b"fine"]])
    rng = np.random.default_rng(0)
    sequence(folder, "Opinion Segment Labels", {"vid": (np.array([[-1.0], [2.0]]), [[0, 4], [4, 7]])})
    sequence(folder, "words", {"vid": (words, times), "other": (words, times)})
    sequence(folder, "glove_vectors", {"vid": (rng.normal(size=(4, 3)), times)})
    sequence(folder, "COVAREP", {"vid": (rng.normal(size=(70, 2)), [[k / 10, k / 10 + 0.1] for k in range(70)])})
    return folder


def test_computational_sequences_are_cut_by_the_labels(tmp_path):
    data = read_utterances(sdk(tmp_path))
    assert data.ids == ("vid[0]", "vid[1]")
    assert data.tokens == (("not", "good"), ("fine",))
    assert data.labels.tolist() == [-1.0, 2.0]
    assert data.text.lengths.tolist() == [2, 1]
    assert data.audio.lengths.tolist() == [40, 30]
    assert data.audio.position[0] == pytest.approx(0.05 / 4)
    assert data.visual is None
    assert (data.start.tolist(), data.end.tolist()) == ([0.0, 4.0], [4.0, 7.0])


def test_broken_sequences_are_refused(tmp_path):
    with pytest.raises(DataError, match="no sequence of label"):
        read_utterances(sequence(tmp_path, "words", {"v": (np.array([[b"a"]]), [[0, 1]])}))
    sdk(tmp_path)
    file = tmp_path / "COVAREP.csd"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x00" * 64):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"COVAREP\.csd"):
            read_utterances(tmp_path)
    file.unlink()
    sequence(tmp_path, "COVAREP", {"vid": (np.zeros((3, 2)), [[0, 1]])})
    with pytest.raises(DataError, match="3 features and intervals"):
        read_utterances(tmp_path)
    sequence(tmp_path, "COVAREP", {"elsewhere": (np.ones((3, 2)), [[0, 1]] * 3)})
    with pytest.raises(DataError, match="do not fit the labels"):
        read_utterances(tmp_path)
