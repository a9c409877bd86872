"""Readers of labelled texts in several languages."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kontrast.data.languages import LanguageTexts, read_languages
from kontrast.data.languages.read import said_by_name
from kontrast.data.languages.relations import read_relations
from kontrast.data.languages.tables import read_language_table
from kontrast.errors import DataError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def sib(tmp_path):
    for language, word in (("eng_Latn", "ship"), ("swh_Latn", "meli")):
        for part, first in (("train", 1), ("dev", 11), ("test", 21)):
            lines = [f'{first + row}\t{("travel", "health")[row % 2]}\t"a {word}, {row}"' for row in range(4)]
            write(tmp_path / language / f"{part}.tsv", "\n".join(["index_id\tcategory\ttext", *lines]) + "\n")
        write(tmp_path / language / "labels.txt", "travel\nhealth\n")
    return tmp_path


def test_sib_200_says_language_and_part_by_its_folders(sib):
    data = read_languages(sib)
    assert data.languages == ["eng_Latn", "swh_Latn"]
    assert len(data) == 24
    assert sorted(set(data.part)) == ["test", "train", "valid"]
    english = data.take(data.language == "eng_Latn")
    assert english.fields["text"][0] == "a ship, 0" or english.fields["text"][4] == "a ship, 0"
    assert list(english.pair) == list(data.take(data.language == "swh_Latn").pair)
    assert len(set(data.keys())) == len(data)
    assert read_languages(sib, only=["swh_Latn"]).languages == ["swh_Latn"]


def test_unknown_language_names_those_that_are_there(sib):
    with pytest.raises(DataError, match="eng_Latn, swh_Latn"):
        read_languages(sib, only=["deu_Latn"])


def test_americasnli_and_xnli(tmp_path):
    nli = write(tmp_path / "a" / "dev" / "aym.tsv", "id\tlanguage\tpremise\thypothesis\tlabel\n7\taym\tp\th\tneutral\n")
    write(tmp_path / "a" / "test" / "aym.tsv", "id\tlanguage\tpremise\thypothesis\tlabel\n8\taym\t\th\tentailment\n")
    data = read_languages(nli.parents[1])
    assert list(data.part) == ["valid", "test"]
    assert list(data.pair) == ["7", "8"]
    assert list(data.fields) == ["premise", "hypothesis"]
    assert data.fields["premise"][1] == ""
    write(tmp_path / "x" / "xnli.test.tsv",
          "language\tgold_label\tsentence1\tsentence2\tpromptID\tpairID\nde\tneutral\tp\th\t1\t2\n")  # fmt: skip
    write(tmp_path / "x" / "multinli.train.de.tsv", 'premise\thypo\tlabel\na "b\tc\tcontradictory\n')
    data = read_languages(tmp_path / "x")
    assert sorted(zip(data.language, data.part, data.label)) == [
        ("de", "test", "neutral"),
        ("de", "train", "contradiction"),
    ]


def test_names_of_files(tmp_path):
    for name, expected in {
        "multinli.train.de.tsv": ("de", "train"),
        "xnli.dev.tsv": (None, "valid"),
        "train_zh-Hans.json": ("zh-Hans", "train"),
        "eng_Latn.test.csv": ("eng_Latn", "test"),
        "anything.csv": (None, None),
    }.items():
        assert said_by_name(tmp_path / name, within=tmp_path) == expected
    assert said_by_name(tmp_path / "quy" / "test.tsv", within=tmp_path) == ("quy", "test")
    assert said_by_name(tmp_path / "dev" / "quy.tsv", within=tmp_path) == ("quy", "valid")


def test_relations_are_marked_and_translations_share_their_id(tmp_path):
    record = {"id": "r1", "tokens": ["Ann", "lives", "in", "Ghent"], "entities": [[0, 1], [3, 4]], "label": "city"}
    file = write(tmp_path / "train_nl.json", json.dumps([record]))
    data = read_languages(tmp_path)
    assert data.fields["text"][0] == "<e1> Ann </e1> lives in <e2> Ghent </e2>"
    assert (data.fields["e1"][0], data.fields["e2"][0]) == ("Ann", "Ghent")
    assert (data.language[0], data.part[0], data.pair[0], data.label[0]) == ("nl", "train", "r1", "city")
    tacred = {"id": "r1", "token": ["Ann", "lives"], "subj_start": 0, "subj_end": 0, "obj_start": 1, "obj_end": 1,
              "relation": "x"}  # fmt: skip
    write(file, json.dumps([tacred]))
    assert read_relations(file, language="en").fields["text"][0] == "<e1> Ann </e1> <e2> lives </e2>"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"entities": [[0, 1], [1, 2]]}, "no list of strings 'tokens'"),
        ({"tokens": ["a", "b"], "entities": [[0, 1], [1, 3]]}, "in a sentence of 2 tokens"),
        ({"tokens": ["a", "b"], "entities": [[0, 1]]}, "two spans"),
        ("text", "record 1 is a str"),
    ],
)
def test_broken_relations_are_named(tmp_path, record, words):
    file = write(tmp_path / "train_de.json", json.dumps([record]))
    with pytest.raises(DataError, match=words):
        read_languages(file)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "text,label\nx,1\n", "which language"),
        ("a.csv", "label,language\n1,de\n", "neither a column 'text'"),
        ("a.csv", "text,label,language,split\nx,1,de,later\n", "'later'"),
        ("a.csv", "text,label,language\n ,1,de\n", "empty cell"),
        ("a.csv", "premise,hypothesis,label,language\n,,1,de\n", "empty cell"),
        ("a.json", "{}", "holds a JSON dict"),
        ("a.json", "[]", "an empty list"),
        ("a.json", "[{", "not valid JSON"),
        ("a.csv", "", "is empty"),
    ],
)
def test_broken_tables_are_named(tmp_path, name, text, words):
    file = write(tmp_path / name, text)
    with pytest.raises(DataError, match=words) as caught:
        read_languages(file)
    assert name in str(caught.value)


def test_an_empty_folder_and_mixed_tasks(tmp_path):
    with pytest.raises(DataError, match="holds no files"):
        read_languages(tmp_path)
    write(tmp_path / "train_a.csv", "text,label\nx,1\n")
    write(tmp_path / "train_b.csv", "premise,hypothesis,label\nx,y,1\n")
    with pytest.raises(DataError, match="files of one task"):
        read_languages(tmp_path)


def test_columns_may_have_other_names(tmp_path):
    file = write(tmp_path / "a.csv", "frage,thema,sprache,paar\nx,1,de,\ny,,de,9.0\n")
    columns = {"text": "frage", "label": "thema", "language": "sprache", "pair": "paar"}
    data = read_language_table(file, columns=columns, fields=["text"])
    assert list(data.label) == ["1", None]
    assert list(data.pair) == [None, "9.0"]
    assert list(data.labelled) == [True, False]
    with pytest.raises(DataError, match="no column for the field 'body'"):
        read_language_table(file, columns={"language": "sprache"}, fields=["body"])


def test_rows_of_one_name_are_told_apart(tmp_path):
    write(tmp_path / "train_a.csv", "id,text,label\n1,x,1\n1,y,1\n")
    write(tmp_path / "test_a.csv", "id,text,label\n1,z,1\n")
    assert len(set(read_languages(tmp_path).keys())) == 3


def test_columns_must_be_of_one_length():
    data = LanguageTexts.of({"text": ["a", "b"]}, "de", part="train")
    assert list(data.take(np.asarray([1])).fields["text"]) == ["b"]
    with pytest.raises(ValueError, match="'label' has 1 values for 2 rows"):
        LanguageTexts.of({"text": ["a", "b"]}, "de", label=["x"])
