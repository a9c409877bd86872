"""seal on real data: manual pages and the questions that people wrote for them."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.data.documents import parse_html
from kontrast.evaluation.lexical import tokenise
from kontrast.systems.seal import Seal
from kontrast.systems.seal.baselines import lexical_baselines
from kontrast.systems.seal.measuring import relevance_of

pytestmark = pytest.mark.learning

ZERO_SHOT_MINILM = 0.661
"""NDCG@10 of the frozen encoder on the first 256 tokens, tags stripped, as the data's README has it."""
TFIDF = 0.648
QUICK = {"encoder": {"context_units": 8, "context_tokens": 32}}
"""Vectors of the first elements alone, so that a machine that reads the pages for the first time is soon done."""


@pytest.fixture(scope="module")
def parts(shared_data):
    folder = shared_data / "manhtml"
    if not folder.is_dir():
        pytest.skip("manhtml is not there")
    system = Seal()
    return system.split(system.read(folder))


@pytest.fixture(scope="module")
def trained(parts):
    return Seal(**QUICK).fit(parts.train, parts.valid)


def test_the_frozen_split_is_obeyed(parts):
    assert {name: len(part) for name, part in parts} == {"train": 1914, "valid": 390, "test": 848}
    assert len(parts.test.documents) == 538
    assert len(parts.train.used()) == 323
    leaks = Seal().leaks(parts.train, parts.test)
    assert leaks["document", "group"].n_leaked == 0
    assert leaks["query", "normalised"].n_leaked <= 1  # one question differs by its case alone


def test_it_beats_every_baseline_and_training_helps(trained, parts):
    found = trained.evaluate(parts.test)
    lexical = lexical_baselines(parts.test, relevance_of(parts.test))
    bar = max(ZERO_SHOT_MINILM, TFIDF, *(metrics["ndcg@10"] for metrics in lexical.values()))
    assert found["ndcg@10"] > bar + 0.05
    assert found["hit@10"] > 0.86
    assert found["ndcg@10 own documents"] > 0.8
    untrained = trained.untrained(parts.train).evaluate(parts.test)
    assert found["ndcg@10"] > untrained["ndcg@10"] + 0.003
    assert abs(found["ndcg@10"] - found["ndcg@10 read untagged"]) < 0.02


def test_shuffled_answers_teach_nothing(trained, parts):
    shuffled = Seal(**QUICK, contrast="shuffled", epochs=1).fit(parts.train)
    assert shuffled.evaluate(parts.test)["ndcg@10"] < trained.evaluate(parts.test)["ndcg@10"] - 0.01


def test_stripping_the_tagged_pages_gives_the_untagged_ones(parts):
    for document in parts.test.documents[::40]:
        again = parse_html(document.tagged())
        assert again.plain().split() == document.plain().split()
        assert again.units == document.units


def test_the_marked_elements_share_the_words_of_their_questions(trained, parts):
    asked = parts.test.take(range(0, len(parts.test), 20))
    found = trained.predict(asked)
    right = {(query.id, parts.test.ids[place]) for query in asked.queries for place in query.answers}
    marked, others = [], []
    for row in found.itertuples():
        if (row.query_id, row.doc_id) in right:
            words = set(tokenise(row.query))
            document = parts.test.documents[parts.test.ids.index(row.doc_id)]
            shares = [len(words & set(tokenise(text))) / len(words) for text in document.unit_texts]
            marked.append(shares[row.element_number])
            others.append(np.mean(shares))
    assert len(marked) > 25
    assert np.mean(marked) > 2 * np.mean(others)
