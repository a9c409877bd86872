"""Reading tables: every format gives the same columns, every fault names its place and its mend."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data import Table, column_kind, read_table, write_table
from kontrast.errors import DataError

FRAME = pd.DataFrame(
    {
        "query": ["first, with comma", 'second "quoted"', "third\nline", "ünïcode 漢字"],
        "vector": [[1.0, 2.5], [0.0, -1.0], [3.0, 4.0], [1e-3, 7.0]],
        "score": [1, 2, 3, 4],
        "picture": ["a.png", "b.JPG", "c.webp", "d.gif"],
    }
)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl"])
def test_every_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    table = read_table(write_table(FRAME, tmp_path / name), ["query", "vector", "score"])
    assert table.texts("query") == list(FRAME["query"])
    np.testing.assert_array_equal(table.vectors("vector"), np.array(FRAME["vector"].tolist(), np.float32))
    np.testing.assert_array_equal(table.numbers("score"), [1, 2, 3, 4])
    assert table.ids("score") == ["1", "2", "3", "4"]
    assert table.columns == ["query", "vector", "score"]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl"])
def test_kinds_are_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    table = read_table(write_table(FRAME, tmp_path / name))
    assert [table.kind(column) for column in FRAME] == ["text", "vector", "number", "image"]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv.gz", "t.jsonl.gz", "t.txt.gz", "t.ndjson"])
def test_compressed_text_reads(tmp_path: Path, name: str) -> None:
    body = '{"text": "one"}\n{"text": "two"}\n' if "json" in name else "text\none\ntwo\n"
    path = write(tmp_path, name, gzip.compress(body.encode()) if name.endswith("gz") else body)
    expected = ["text", "one", "two"] if ".txt" in name else ["one", "two"]
    assert read_table(path, ["text"]).texts("text") == expected


def test_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", b"\xef\xbb\xbfquery,answer\r\na,b\r\n")
    assert read_table(path).columns == ["query", "answer"]
    assert read_table(path).texts("answer") == ["b"]
    assert read_table(write(tmp_path, "t.txt", "one\r\n\r\n two \r\n")).texts("text") == ["one", "two"]


def test_tsv_with_bare_quotation_marks_reads_them_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, "t.tsv", 'a\tb\n"so" he said\tx\n5" pipe\ty\n')
    assert read_table(path).texts("a") == ['"so" he said', '5" pipe']


def test_words_that_other_readers_take_for_missing_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a,b\nNone,NA\nnull,nan\n")
    assert read_table(path, ["a", "b"]).texts("b") == ["NA", "nan"]


def test_a_block_of_columns_becomes_one_vector_column(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "name,x_10,x_2,x_1,x_b\na,10,2,1,0\nb,20,4,3,0\n")
    table = read_table(path, ["name", "x_*"])
    np.testing.assert_array_equal(table.vectors("x_*"), [[1, 2, 10], [3, 4, 20]])
    assert table.kind("x_*") == "vector"


def test_optional_columns_are_kept_when_there_and_never_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a,split,c\nx,,1\ny,train,\n")
    assert read_table(path, ["a"], optional=["split", "group"]).columns == ["a", "split"]


def test_numbers_can_be_read_as_text_in_csv_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "code\n007\n42\n")
    assert read_table(path, ["code"]).kind("code") == "number"
    assert read_table(path, ["code"], kinds={"code": "text"}).texts("code") == ["007", "42"]


def test_rows_keep_their_file_numbers_when_cut(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "t.csv", 'a,b\nx,1\n"two\nlines",\ny,3\n')).take([2, 1])
    assert table.texts("a") == ["y", "two\nlines"]
    with pytest.raises(DataError, match="at line 3"):
        table.numbers("b")


def test_images_are_found_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(b"")
    path = write(tmp_path, "t.csv", "file\nimg/a.png\nimg/missing.png\n")
    with pytest.raises(DataError, match=r"missing\.png.*at line 3.*relative to the table's folder"):
        read_table(path, ["file"])
    assert read_table(path).take([0]).images("file") == [tmp_path / "img" / "a.png"]


PARQUET = "parquet"
FAULTS = {
    "unknown extension": ("t.xlsx", "x", None, r"t\.xlsx.*'\.xlsx'.*\.parquet, \.csv"),
    "empty file": ("t.csv", "", None, r"is empty"),
    "header only": ("t.csv", "a,b\n", None, r"has no rows"),
    "no objects": ("t.jsonl", "\n\n", None, r"has no rows"),
    "wrong column": (
        "t.csv",
        "query,answer\na,b\n",
        ["qeury"],
        r"no column 'qeury'; did you mean 'query'\? known: answer",
    ),
    "no such block": ("t.csv", "query,y_1\na,1\n", ["x_*"], r"begin with 'x_' and a number"),
    "duplicate names": ("t.csv", "a,b,a\n1,2,3\n", None, r"more than one column named 'a'"),
    "no names": ("t.csv", ",,\n1,2,3\n", None, r"line 1 holds no column names"),
    "empty cells": (
        "t.csv",
        "a,b\nx,1\n ,2\n,3\ny,4\n,5\n,6\n",
        ["a"],
        r"'a' has 4 empty cells at lines 3, 4, 6 and 1 more",
    ),
    "one empty cell": ("t.jsonl", '{"a": "x"}\n{"b": 1}\n', ["a"], r"'a' has 1 empty cell at line 2"),
    "column empty": ("t.csv", "a,b\n,1\n,2\n", ["a"], r"'a' is empty in every row"),
    "ragged rows": ("t.csv", "a,b\n1,2\n3\n", None, r"line 3 has 1 cells where the header has 2"),
    "open quote": ("t.csv", 'a,b\n"x,1\ny,2\n', None, r"breaks the quoting rule"),
    "broken JSON": ("t.jsonl", '{"a": 1}\n{"a": \n', None, r"line 2 is not valid JSON"),
    "JSON list": ("t.jsonl", "[1, 2]\n", None, r"line 1 holds a JSON list"),
    "ragged vectors": (
        "t.jsonl",
        '{"v": [1, 2]}\n{"v": [1]}\n',
        ["v"],
        r"length 1 at line 2 where the first has length 2",
    ),
    "empty vectors": ("t.jsonl", '{"v": []}\n', ["v"], r"holds empty vectors"),
    "NaN in vector": (
        "t.jsonl",
        '{"v": [1, 2]}\n{"v": [1, NaN]}\n',
        ["v"],
        r"NaN or infinity at line 2 \(first at entry 2",
    ),
    "null in vector": ("t.jsonl", '{"v": [1, null]}\n', ["v"], r"NaN or infinity at line 1"),
    "text in vector": (
        "t.csv",
        'v\n"[1, 2]"\nnone\n"[2, 3]"\n',
        {"v": "vector"},
        r"'none' \(str\) at line 3.*list of numbers",
    ),
    "nested vector": ("t.jsonl", '{"v": [[1], [2]]}\n', ["v"], r"flat lists of numbers"),
    "number as text": ("t.jsonl", '{"a": "x"}\n{"a": 5}\n', ["a"], r"holds 5 \(int\) at line 2 where a text is needed"),
    "text as number": ("t.csv", "a\n1\nx\n", {"a": "number"}, r"'x' \(str\) at line 3 where a finite number"),
    "infinite number": ("t.csv", "a\n1\ninf\n", {"a": "number"}, r"'inf' \(str\) at line 3"),
    "Latin-1": ("t.csv", b"a\nx\ncaf\xe9\n", None, r"line 3 is not UTF-8 text \(byte 0xe9 at position 4\)"),
    "UTF-16": ("t.txt", "hello".encode("utf-16"), None, r"is UTF-16 text"),
    "NUL": ("t.txt", b"ab\0c\n", None, r"line 1 holds a NUL byte"),
    "cut gzip": ("t.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 50)[:-9], None, r"not a whole gzip file"),
    "not gzip": ("t.csv.gz", "a\n1\n", None, r"not a whole gzip file"),
    "not parquet": ("t.parquet", "a,b\n1,2\n", None, r"not a whole parquet file"),
    "lists of strings": ("t.jsonl", '{"a": ["x", "y"]}\n', ["a"], r"'a' holds lists of strings; allowed are text"),
    "objects": ("t.jsonl", '{"a": {"b": 1}}\n', ["a"], r"'a' holds \{'b': 1\} \(dict\); allowed are text, vector"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_clear_sentence(tmp_path: Path, fault: str) -> None:
    name, content, asked, expected = FAULTS[fault]
    path = write(tmp_path, name, content)
    columns = list(asked) if asked else None
    with pytest.raises(DataError, match=expected) as caught:
        read_table(path, columns, kinds=asked if isinstance(asked, dict) else None)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    write(tmp_path, "pairs.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"no such file; perhaps 'pairs\.csv' is meant"):
        read_table(tmp_path / "pair.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "nowhere" / "t.csv")


def test_damaged_parquet(tmp_path: Path) -> None:
    whole = write_table(FRAME, tmp_path / "t.parquet").read_bytes()
    with pytest.raises(DataError, match="not a whole parquet file"):
        read_table(write(tmp_path, "cut.parquet", whole[:-5]))
    broken = bytearray(whole)
    broken[4:300] = b"\xff" * 296
    with pytest.raises(DataError, match=r"parquet"):
        read_table(write(tmp_path, "broken.parquet", bytes(broken)))


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    name = ["t.parquet", "t.csv", "t.jsonl", "t.tsv"][seed % 4]
    data = bytearray(write_table(FRAME, tmp_path / name).read_bytes())
    for place in rng.integers(len(data), size=5):
        data[place] = rng.integers(256)
    path = write(tmp_path, f"bad_{name}", bytes(data))
    with contextlib.suppress(DataError):
        read_table(path, ["query", "vector"])


def test_a_fixed_size_list_and_float16_are_vectors(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3)
    pq.write_table(pa.table({"v": values}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ["v"])
    assert table.vectors("v").dtype == np.float32
    np.testing.assert_array_equal(table.vectors("v"), np.arange(6).reshape(2, 3))


def test_tables_from_memory() -> None:
    table = Table.of({"a": ["x", "y"], "v": [[1, 2], [3, 4]]})
    assert table.vectors("v").shape == (2, 2)
    assert Table.of(table) is table
    with pytest.raises(DataError, match="differ in length"):
        Table.of({"a": ["x"], "b": []})
    with pytest.raises(DataError, match="no rows"):
        Table.of(pd.DataFrame({"a": []}))
    with pytest.raises(DataError, match="'a' has 1 empty cell at row 2"):
        Table.of(pd.DataFrame({"a": ["x", None]})).texts("a")


def test_wrong_kind_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be read as 'graph'"):
        Table.of({"a": ["x"]}).check("a", "graph")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2], "number"), ([True, False], "number"), (["1", "-2.5e3", ""], "number"), (["a", "1"], "text"),
        (["[1, 2]", "[3]"], "vector"), (["[a]", "[b]"], "text"), (["x.png", "y.jpeg"], "image"),
        (["x.png", "y"], "text"),
        ([np.ones(2), np.ones(2)], "vector"), (["nan", "inf"], "text"), ([None, "word"], "text"),
    ],
)  # fmt: skip
def test_column_kind(cells: list[object], kind: str) -> None:
    assert column_kind(pd.Series(cells, name="c")) == kind


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(
        st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).filter(str.strip),
        min_size=1,
        max_size=5,
    )
)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_any_text_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, name: str, texts: list[str]
) -> None:
    path = write_table(pd.DataFrame({"t": texts, "n": range(len(texts))}), tmp_path_factory.mktemp("t") / name)
    assert read_table(path, ["t"], kinds={"t": "text"}).texts("t") == texts


def test_writing_refuses_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write a table as '\.xml'"):
        write_table(FRAME, tmp_path / "t.xml")


def test_json_numbers_keep_their_type_as_ids(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", "\n".join(json.dumps({"id": n}) for n in (7, 8)))
    assert read_table(path).ids("id") == ["7", "8"]
