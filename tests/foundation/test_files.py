"""Files are whole or not there."""

import json

import pytest

from kontrast.errors import DataError
from kontrast.files import content_hash, read_json, replacing, write_json


def test_a_failed_write_leaves_the_old_file_and_no_traces(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})

    def fail():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert read_json(file) == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with replacing(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / f"{text}.txt").write_text(text)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["two.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_json(tmp_path / "file" / "below.json", {})


class RustError(Exception):
    """As safetensors raises it: not an OSError, and the number only in its words."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RustError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, error):
    file = tmp_path / "a.bin"
    file.write_text("old")

    def write() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(DataError) as said:
        write()
    mend = "free some space, then give the same command again."
    assert str(said.value) == f"{file}: cannot be written (No space left on device); {mend}"
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_other_errors_go_through_as_they_are(tmp_path):
    for error in (RustError("bad header"), OSError(13, "Permission denied", "/elsewhere"), ValueError("x")):
        with pytest.raises(type(error)) as said, replacing(tmp_path / "a"):
            raise error
        assert said.value is error


def test_json_holds_nan_as_null_and_equal_values_give_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": float("nan"), "a": [1.5, (2,)]})
    write_json(tmp_path / "b.json", {"a": [1.5, (2,)], "b": float("nan")})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5, [2]], "b": None}


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_content_hash_sees_names_and_bytes(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = content_hash(folder)
    (folder / "a").rename(folder / "b")
    second = content_hash(folder)
    (folder / "b").write_text("2")
    assert len({first, second, content_hash(folder)}) == 3
