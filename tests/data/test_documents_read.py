"""Collections of documents and queries from every layout, and what is said of broken ones."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from kontrast.data.documents import read_collection
from kontrast.errors import DataError

HTML = {"a": "<h1>cat</h1><p>It purrs.</p>", "b": "<h1>dog</h1><p>It barks.</p>", "c": "<p>Fish</p>"}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def beir(folder, *, qrels="qrels.tsv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(lines({"_id": name, "text": text} for name, text in HTML.items()))
    (folder / "queries.jsonl").write_text(lines({"_id": f"q{n}", "text": text} for n, text in enumerate("xyz")))
    (folder / qrels).parent.mkdir(exist_ok=True)
    (folder / qrels).write_text("query-id\tcorpus-id\tscore\nq0\ta\t1\nq0\tb\t2\nq1\tb\t1\nq1\tc\t0\n")
    return folder


def test_beir_folders_with_grades(tmp_path):
    data = read_collection(beir(tmp_path / "x"))
    assert data.ids == ("a", "b", "c")
    assert [query.relevant for query in data.queries] == [((0, 1.0), (1, 2.0)), ((1, 1.0),), ()]
    assert data.documents[0].elements[1].text == "It purrs."
    assert data.used().tolist() == [0, 1]
    assert data.judged


def test_beir_parts_are_those_of_the_files(tmp_path):
    folder = beir(tmp_path / "x", qrels="qrels/train.tsv")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\tc\t1\n")
    assert [query.part for query in read_collection(folder).queries] == ["train", "train", "test"]
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\ta\t1\n")
    with pytest.raises(DataError, match="in 'valid' already"):
        read_collection(folder)


def test_trec_judgements_and_titles(tmp_path):
    folder = beir(tmp_path / "x")
    (folder / "qrels.tsv").write_text("q0 0 a 1\nq2 0 c 3\n")
    rows = [
        {"_id": "a", "title": "Cats & co", "text": "They purr."},
        {"_id": "b", "text": "x"},
        {"_id": "c", "text": "y"},
    ]
    (folder / "corpus.jsonl").write_text(lines(rows))
    data = read_collection(folder)
    assert data.queries[2].relevant == ((2, 3.0),)
    assert [element.text for element in data.documents[0].elements] == ["Cats & co", "They purr."]


def test_queries_that_name_their_document_and_part(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    with gzip.open(folder / "docs.jsonl.gz", "wt") as stream:
        stream.write(lines({"doc_id": name, "html": text} for name, text in HTML.items()))
    rows = [
        {"query_id": "1", "doc_id": "b", "split": "dev", "kind": "long", "query": "barks"},
        {"query_id": 2, "query": "?"},
    ]
    (folder / "queries.jsonl").write_text(lines(rows))
    first, second = read_collection(folder).queries
    assert (first.id, first.relevant, first.part, first.kind) == ("1", ((1, 1.0),), "valid", "long")
    assert (second.id, second.relevant, second.part) == ("2", (), None)


def test_rows_that_hold_their_documents_share_equal_ones(tmp_path):
    rows = [
        {"query": "one", "pos": [HTML["a"]], "neg": [HTML["b"], HTML["a"]]},
        {"query": "two", "pos": [HTML["b"], HTML["c"]], "neg": []},
    ]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    data = read_collection(tmp_path / "rows.jsonl")
    assert len(data.documents) == 3
    assert data.queries[0].negatives == (1,)
    assert data.queries[1].answers == (1, 2)


def test_the_official_layout_of_three_files(tmp_path):
    for name in ("train", "dev", "test"):
        row = {"query": f"{name}?", "content": f"<p>{name}</p>"}
        (tmp_path / f"{name}.json").write_text(lines([row]))
    data = read_collection(tmp_path)
    assert [query.part for query in data.queries] == ["train", "valid", "test"]
    (tmp_path / "one.json").write_text(json.dumps([{"query": "q", "content": "<p>c</p>"}], indent=1))
    assert len(read_collection(tmp_path / "one.json")) == 1


def test_folders_of_files_and_single_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.html").write_text(HTML["a"])
    (tmp_path / "b.md").write_text("# dog\n\nIt barks.")
    (tmp_path / ".hidden.html").write_text("<p>no</p>")
    assert read_collection(tmp_path).ids == ("b.md", "sub/a.html")
    (tmp_path / "queries.jsonl").write_text(lines([{"query": "purr", "doc_id": "sub/a.html"}]))
    assert read_collection(tmp_path).queries[0].answers == (1,)
    alone = read_collection(tmp_path / "b.md")
    assert (alone.ids, alone.queries) == (("b.md",), ())


def test_questions_alone(tmp_path):
    (tmp_path / "q.txt").write_text("first\n\n  second \n")
    assert [query.text for query in read_collection(tmp_path / "q.txt").queries] == ["first", "second"]
    (tmp_path / "q.jsonl").write_text(lines([{"query": "third"}]))
    assert read_collection(tmp_path / "q.jsonl").texts == ["third"]


def broken(name, content, said):
    return pytest.param(name, content, said, id=said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        broken("corpus.jsonl", b"", "is empty"),
        broken("corpus.jsonl", b'{"_id": "a", "text": "x"}\n{"_id": "a"', "line 2 is not valid JSON"),
        broken("corpus.jsonl", b"[1]\n", "line 1 holds a JSON list, not an object"),
        broken("corpus.jsonl", b'{"_id": "a", "text": ""}\n', "field 'text' holds a blank text"),
        broken("corpus.jsonl", b'{"_id": "a", "txt": "x"}\n', "has no field 'html'"),
        broken("corpus.jsonl", b'{"_id": "a", "html": "<p></p>"}\n', "has no text in the document 'a'"),
        broken(
            "corpus.jsonl", b'{"_id":"a","text":"x"}\n{"_id":"a","text":"y"}\n', "line 2 has the document 'a' again"
        ),
        broken("corpus.jsonl", b'{"_id": "a", "text": "\xff"}\n', "line 1 is not UTF-8"),
        broken("queries.jsonl", b'{"_id": "q0", "text": 7}\n', "holds a JSON number where a text is needed"),
        broken("queries.jsonl", b'{"_id": "q0", "text": "x", "doc_id": "zz"}\n', "names the document 'zz'"),
        broken("queries.jsonl", b'{"_id": "q0", "text": "x", "split": "later"}\n', "has the split 'later'"),
        broken("queries.jsonl", b'{"_id":"q","text":"x"}\n{"_id":"q","text":"y"}\n', "has the query 'q' again"),
        broken("qrels.tsv", b"query-id\tcorpus-id\tscore\n", "has no judgements"),
        broken("qrels.tsv", b"q0\ta\tmany\n", "line 1 has the score 'many'"),
        broken("qrels.tsv", b"q0\ta\tnan\n", "line 1 has the score 'nan'"),
        broken("qrels.tsv", b"q0\ta\n", "line 1 has 2 columns"),
        broken("qrels.tsv", b"q9\ta\t1\n", "line 1 names the query 'q9'"),
        broken("qrels.tsv", b"q0\tz\t1\n", "line 1 names the document 'z'"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path, name, content, said):
    folder = beir(tmp_path / "x")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        read_collection(folder)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_other_paths_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read_collection(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a folder that holds nothing"):
        read_collection(tmp_path)
    (tmp_path / "x.xyz").write_text("x")
    with pytest.raises(DataError, match="which is no collection's"):
        read_collection(tmp_path / "x.xyz")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"query": "x", "content": "y"}\n' * 99)[:40])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_collection(tmp_path / "cut.jsonl.gz")
    (tmp_path / "odd.jsonl").write_text('{"q": "x", "d": "y"}\n')
    with pytest.raises(DataError, match="line 1 holds q, d; write query"):
        read_collection(tmp_path / "odd.jsonl")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="has no question"):
        read_collection(tmp_path / "empty.txt")
