"""seal: answers of predict, files of the field, saved models, and text encoders in place of the elements."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from kontrast.data.documents import parse_html, read_collection
from kontrast.encoders import load_text_encoder, resolve_text_encoder
from kontrast.errors import CheckpointError, ConfigError, DataError
from kontrast.evaluation import read_run
from kontrast.extras import installed
from kontrast.pipeline.predict import predict_run
from kontrast.pipeline.train import train_run
from kontrast.systems.seal import Seal
from kontrast.systems.seal.corpus import Corpus
from kontrast.systems.seal.page import answer_page
from kontrast.systems.seal.sentence_module import ElementsModule
from kontrast.training import TrainerConfig

QUIET = TrainerConfig(progress="off", loggers=[])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = Seal.write_example(folder)
    made = train_run(Seal, Seal(**Seal.smoke).config, QUIET, data=path, out=folder / "run", baselines=False)
    return path, made


@pytest.fixture(scope="module")
def fitted(run):
    return Seal.load(run[1].model)


def test_questions_search_the_documents_of_training(run, fitted, tmp_path):
    path, _ = run
    data = read_collection(path)
    query = next(query for query in data.queries if query.part == "test")
    (tmp_path / "q.txt").write_text(f"{query.text}\n")
    found = fitted.predict(fitted.read(tmp_path / "q.txt", purpose="predict"))
    assert len(found) == 10
    assert found["rank"].tolist() == list(range(1, 11))
    assert found["score"].is_monotonic_decreasing
    document = data.documents[data.ids.index(found["doc_id"][0])]
    assert found["element"][0] == document.unit_texts[found["element_number"][0]]
    assert found["element_score"][0] <= 1 + 1e-6


def test_the_marked_element_is_the_one_whose_vector_is_nearest(run, fitted):
    data = read_collection(run[0]).take([0, 5])
    found = fitted.predict(data)
    for _, row in found.groupby("query_id").head(2).iterrows():
        document = data.documents[data.ids.index(row["doc_id"])]
        scores = fitted.unit_vectors(document) @ fitted.query_vectors([row["query"]])[0]
        words = np.array([len(text.split()) for text in document.unit_texts])
        best = (scores * words / (words + 1)).argmax()
        assert row["element_number"] == best
        assert np.isclose(row["element_score"], scores[best], atol=1e-6)


def test_another_corpus_may_be_searched(run, tmp_path):
    _, made = run
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "my page.html").write_text("<h1>Sheet fka</h1><p>czu</p>")
    (tmp_path / "docs" / "other.md").write_text("# Sheet\n\n- vmi\n")
    (tmp_path / "q.txt").write_text("where is the basket?\n")
    found = predict_run(made.path, tmp_path / "q.txt", overrides={"corpus": str(tmp_path / "docs"), "top_k": 1})
    assert found["doc_id"][0] in ("my page.html", "other.md")
    with pytest.raises(DataError, match="holds a blank"):
        predict_run(made.path, tmp_path / "q.txt", tmp_path / "x.trec", {"corpus": str(tmp_path / "docs")})
    (tmp_path / "more.txt").write_text("x\n")
    with pytest.raises(DataError, match="holds no documents to search"):
        predict_run(made.path, tmp_path / "q.txt", overrides={"corpus": str(tmp_path / "more.txt")})


def test_run_files_and_pages(run, tmp_path):
    path, made = run
    answers = predict_run(made.path, path, tmp_path / "out.trec", {"top_k": 3})
    listed = read_run(tmp_path / "out.trec")
    assert len(listed) == answers["query_id"].nunique()
    assert set(listed["s000-0"]) == set(answers[answers["query_id"] == "s000-0"]["doc_id"])
    predict_run(made.path, path, tmp_path / "out.html", {"top_k": 2})
    page = (tmp_path / "out.html").read_text()
    assert page.count("<mark>") >= 400
    assert "280 further queries are not shown" in page
    assert "<script" not in page
    assert "http" not in page
    check_balanced(page)


class Balance(HTMLParser):
    """Raises where tags do not close in order."""

    def __init__(self):
        super().__init__()
        self.stack = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def check_balanced(page):
    balance = Balance()
    balance.feed(page)
    assert not balance.stack


def test_the_page_escapes_what_comes_from_documents():
    document = parse_html("<div>&lt;script&gt;x&lt;/script&gt;<p>a &amp; b</p><table><tr><td>c</td></tr></table></div>")
    corpus = Corpus(["<d>"], [document.tagged()], np.ones((1, 2), np.float32))
    rows = [("q", "<q>", 1, "<d>", document.title, 0.5, "", unit, "p", 0.5) for unit in range(3)]
    names = ["query_id", "query", "rank", "doc_id", "title", "score", "element", "element_number", "element_tag",
             "element_score"]  # fmt: skip
    page = answer_page(pd.DataFrame(rows, columns=names), corpus, "t")
    assert "<script" not in page
    assert "&lt;q&gt;" in page
    check_balanced(page)


def test_documents_are_converted_and_negatives_mined(run, tmp_path):
    path, made = run
    table = predict_run(made.path, path, tmp_path / "docs.jsonl", {"ask": "convert"})
    assert list(table.columns) == ["doc_id", "title", "elements", "words", "html"]
    again = read_collection(tmp_path / "docs.jsonl")
    assert again.ids == tuple(table["doc_id"])
    overrides = {"ask": "negatives", "negative_ranks": [1, 3]}
    mined = predict_run(made.path, path, tmp_path / "mined.jsonl", overrides)
    assert all(len(one) == 3 for one in mined["neg"])
    assert all(not set(one) & set(other) for one, other in zip(mined["pos"], mined["neg"]))
    data = read_collection(tmp_path / "mined.jsonl")
    assert len(data) == len(mined)
    assert all(len(query.negatives) == 3 for query in data.queries)
    with pytest.raises(ConfigError, match="written as a table"):
        predict_run(made.path, path, tmp_path / "x.html", overrides)


@pytest.mark.parametrize(
    ("ask", "said"), [("convert", "no documents to convert"), ("negatives", "no documents to mine from")]
)
def test_questions_that_the_data_cannot_answer_are_refused(run, tmp_path, ask, said):
    (tmp_path / "q.txt").write_text("x\n")
    with pytest.raises(DataError, match=said):
        predict_run(run[1].path, tmp_path / "q.txt", overrides={"ask": ask})
    (tmp_path / "a.html").write_text("<p>x</p>")
    with pytest.raises(DataError, match="holds no questions"):
        predict_run(run[1].path, tmp_path / "a.html")


def test_mined_negatives_train_as_given_ones(run, tmp_path):
    _, made = run
    predict_run(made.path, run[0], tmp_path / "mined.jsonl", {"ask": "negatives", "negative_ranks": [1, 4]})
    system = Seal(**Seal.smoke | {"negatives": "given", "group_size": 3, "epochs": 1})
    parts = system.split(system.read(tmp_path / "mined.jsonl"))
    assert system.fit(parts.train, parts.valid).evaluate(parts.test)["ndcg@10"] > 0.03


# ---- saved models ----------------------------------------------------------------------------------------------------


def test_the_elements_encoder_loads_as_a_module_of_sentence_transformers(run, fitted):
    folder = run[1].model / "sentence-transformers"
    data = read_collection(run[0]).take([0, 1])
    module = ElementsModule.load(str(folder))
    texts = [*data.texts, data.documents[0].tagged()]
    found = module(module.preprocess(texts))["sentence_embedding"].detach().numpy()
    expected = np.concatenate([fitted.query_vectors(data.texts), fitted.document_vectors(data.documents)[:1]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert module.get_sentence_embedding_dimension() == expected.shape[1]
    listed = json.loads((folder / "modules.json").read_text())
    assert listed[0]["type"].endswith("sentence_module.ElementsModule")


@pytest.mark.slow
@pytest.mark.skipif(not installed("sentence_transformers"), reason="sentence-transformers is not installed")
def test_sentence_transformers_itself_gives_the_same_vectors(run, fitted):
    from sentence_transformers import SentenceTransformer

    data = read_collection(run[0]).take([0, 1])
    model = SentenceTransformer(str(run[1].model / "sentence-transformers"), trust_remote_code=True, device="cpu")
    texts = [*data.texts, data.documents[0].tagged(), data.documents[7].tagged()]
    expected = np.concatenate([fitted.query_vectors(data.texts), fitted.document_vectors(data.documents)[[0, 7]]])
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-5)


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    """A transformer in the layout of sentence-transformers, from scratch."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    texts = [f"fka czu vmi pro {word}" for word in ("sheet", "place", "tint", "vessel", "stored", "where")]
    config = {"name": "transformer", "dim": 32, "layers": 2, "heads": 4, "vocab_size": 300, "max_tokens": 64}
    from kontrast.encoders import TextEncoderConfig

    resolve_text_encoder(TextEncoderConfig(**config), texts=texts, seed=0).save_sentence_transformers(folder)
    return folder


@pytest.mark.slow
def test_a_folder_is_fine_tuned_and_saved_for_sentence_transformers(run, small_folder, tmp_path):
    path, _ = run
    options = {
        "encoder": {"name": str(small_folder), "max_tokens": 64, "train_layers": 1},
        "epochs": 1,
        "batch_size": 64,
    }
    system = Seal(**options)
    parts = system.split(system.read(path))
    before = load_text_encoder(small_folder)
    system.fit(parts.train)
    after = system.model_.encoder
    assert after.max_tokens == 64
    named = dict(before.named_parameters())
    moved = {
        name for name, value in after.named_parameters() if not np.array_equal(value.detach(), named[name].detach())
    }
    assert moved
    assert all("layer.1." in name for name in moved)
    folder = system.save(tmp_path / "model")
    again = load_text_encoder(folder / "sentence-transformers")
    texts = [parts.test.documents[0].tagged(), *parts.test.texts[:2]]
    from kontrast.encoders import encode_texts

    np.testing.assert_allclose(encode_texts(again, texts), encode_texts(after, texts), atol=1e-5)
    assert Seal.load(folder).evaluate(parts.test) == system.evaluate(parts.test)
    with pytest.raises(ConfigError, match="has 2 layers, got 3"):
        Seal(**{**options, "encoder": {"name": str(small_folder), "train_layers": 3}}).fit(parts.train)


@pytest.mark.slow
def test_a_frozen_folder_of_elements_travels_with_the_model(run, small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    section = {"context": str(small_folder), "words": 64, "table": 0, "context_units": 3}
    system = Seal(encoder=section, epochs=1, batch_size=64)
    parts = system.split(system.read(run[0]))
    system.fit(parts.train, parts.valid)
    assert len(list((tmp_path / "cache" / "texts").glob("units-*.sqlite"))) == 1
    folder = system.save(tmp_path / "model")
    assert (folder / "context" / "modules.json").is_file()
    loaded = Seal.load(folder)
    np.testing.assert_array_equal(loaded.embed(parts.test).vectors, system.embed(parts.test).vectors)
    module = ElementsModule.load(str(folder / "sentence-transformers"))
    found = module(module.preprocess(parts.test.texts[:2]))["sentence_embedding"].detach().numpy()
    np.testing.assert_allclose(found, system.query_vectors(parts.test.texts[:2]), atol=1e-5)


def test_encoders_that_cannot_be_used_are_refused(run):
    parts = Seal(**Seal.smoke).split(Seal(**Seal.smoke).read(run[0]))
    for options, said in (
        ({"encoder": {"context": "bag"}}, "encoder from scratch"),
        ({"encoder": {"context": "no-such-encoder"}}, "unknown text encoder"),
        ({"encoder": {"name": "bag", "train_layers": 1}}, "needs an encoder with transformer layers"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            Seal(**options).fit(parts.train)


def test_a_damaged_corpus_is_named(run, tmp_path):
    corpus = Corpus(["a"], ["<p>x</p>"], np.ones((1, 3), np.float32))
    corpus.save(tmp_path / "c")
    assert Corpus.load(tmp_path / "c").document(0).plain() == "x"
    (tmp_path / "c" / "documents.json").write_text(json.dumps({"ids": ["a", "b"], "html": ["x"]}))
    with pytest.raises(CheckpointError, match="1 vectors, 2 ids and 1 documents"):
        Corpus.load(tmp_path / "c")
    (tmp_path / "c" / "documents.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        Corpus.load(tmp_path / "c")
