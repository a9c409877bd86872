"""seal: what the method must keep, besides the check suite that every system passes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from kontrast.contract import load_system
from kontrast.data.documents import Collection, Query, parse_html
from kontrast.encoders import encode_rows
from kontrast.errors import ConfigError, DataError
from kontrast.randomness import numpy_rng
from kontrast.systems.seal import Masking, Seal, SealBatch, SealConfig, SealModel, skeleton, without_units
from kontrast.systems.seal.masking import MOST
from kontrast.systems.seal.measuring import chance_ndcg, relevance_of
from kontrast.systems.seal.mining import given_negatives, mined_by_vectors, mined_by_words
from kontrast.systems.seal.reading import ElementReader, TextReader
from kontrast.systems.seal.views import Pairing, SealBatches, shuffled_positives
from kontrast.training import Progress

QUICK = {**Seal.smoke, "epochs": 2}
PAGE = "<div><h1>ls</h1><p>list files</p><ul><li>-a all</li><li>-l long</li></ul><pre>ls -l</pre></div>"
START = Progress(0, 1, 0)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    system = Seal(**QUICK)
    data = system.read(Seal.write_example(tmp_path_factory.mktemp("example")))
    return data, system.split(data)


@pytest.fixture(scope="module")
def fitted(example):
    _, parts = example
    return Seal(**Seal.smoke).fit(parts.train, parts.valid)


def collection(htmls, asked):
    documents = tuple(parse_html(html) for html in htmls)
    queries = tuple(
        Query(f"q{n}", text, tuple((place, 1.0) for place in answers)) for n, (text, answers) in enumerate(asked)
    )
    return Collection(tuple(f"d{n}" for n in range(len(htmls))), documents, queries)


def test_it_is_registered_and_its_paper_preset_is_the_released_recipe():
    assert load_system("seal") is Seal
    paper = SealConfig.preset("paper")
    assert (paper.group_size, paper.temperature, paper.optimiser.learning_rate) == (8, 0.02, 1e-5)
    assert (paper.masking, paper.mask_ratio, paper.encoder.max_tokens) == ("regex", 0.1, 4096)


def test_views_may_be_words_set_apart_by_commas():
    assert SealConfig(views="tag, mask").views == ["tag", "mask"]
    for wrong in ("tag,tag", "", "tag,other"):
        with pytest.raises(ConfigError, match="views"):
            SealConfig(views=wrong)
    with pytest.raises(ConfigError, match="weigh 0"):
        SealConfig(views="mask", mask_weight=0)
    with pytest.raises(ConfigError, match="negative_ranks"):
        SealConfig(negative_ranks=(5, 2))
    with pytest.raises(ConfigError, match="at least one of context, words and table"):
        SealConfig(encoder={"context": None, "words": 0})


# ---- masking ---------------------------------------------------------------------------------------------------------


def test_no_ratio_leaves_everything_in():
    masking = Masking([parse_html(PAGE)], "tree")
    keep = masking.draw(np.zeros(50, np.int64), 0.0, numpy_rng(0))
    assert all(row.all() for row in keep)


def test_the_share_left_out_is_the_ratio_and_never_more_than_half_of_the_text():
    documents = [parse_html(PAGE + "<p>more words here</p>" * 40), parse_html("<p>alone</p>"), parse_html(PAGE)]
    masking = Masking(documents, "tree")
    rng = numpy_rng(1)
    long = np.concatenate(masking.draw(np.zeros(300, np.int64), 0.1, rng))
    assert abs((~long).mean() - 0.1) < 0.01
    for number, document in enumerate(documents):
        sizes = np.array([len(text) for text in document.unit_texts])
        for keep in masking.draw(np.full(100, number), 0.9, rng):
            assert keep.any()
            assert sizes[~keep].sum() <= MOST * sizes.sum()


def test_the_regular_expression_takes_the_whole_page_or_nothing():
    """The released code's pass matches the outermost tag first: the trap that the tree avoids."""
    masking = Masking([parse_html(PAGE)], "regex")
    kept = [keep.sum() for keep in masking.draw(np.zeros(400, np.int64), 0.1, numpy_rng(2))]
    assert set(kept) == {0, 5}
    assert 0.05 < np.mean(np.array(kept) == 0) < 0.16
    flat = Masking([parse_html("<p>a</p><p>b</p><div><div>c</div>d</div>")], "regex")
    assert flat.groups[0].tolist() == [0, 1, 2, -1]


def test_masks_change_with_the_generator_and_repeat_with_it():
    masking = Masking([parse_html(PAGE)], "tree")
    draws = [np.concatenate(masking.draw(np.zeros(40, np.int64), 0.3, numpy_rng(seed))) for seed in (5, 5, 6)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_a_document_without_some_units_keeps_its_containers():
    document = parse_html(PAGE)
    keep = np.array([True, False, True, False, False])
    assert without_units(document, keep).tagged() == "<div><h1>ls</h1><ul><li>-a all</li></ul></div>"
    assert without_units(document, np.ones(5, bool)) is document
    assert without_units(document, np.zeros(5, bool)).elements == ()


def test_a_skeleton_keeps_headings_and_the_first_words_of_each_element():
    text = "one two three four five six seven eight nine ten"
    document = parse_html(f"<h1>head</h1><p>{text}</p><p>{text} &lt;x&gt;</p><p>short</p>")
    short = skeleton(document, 29, tags=False)
    assert [len(element.text.split()) for element in short.elements] == [1, 8, 8, 1]
    assert skeleton(document, 200, tags=True) is document
    assert skeleton(document, 5, tags=True) is document
    assert "&lt;" in skeleton(parse_html(f"<p>&lt;x&gt; {text}</p>"), 10, tags=False).tagged()


# ---- views and batches -----------------------------------------------------------------------------------------------


def batches_of(example, views="tag,untag,mask", **options):
    _, parts = example
    system = Seal(**{**QUICK, "views": views, **options})
    system.facts_ = system.learn_facts(parts.train)
    system.initialise()
    rows, masking = system.rows(parts.train.documents), Masking(parts.train.documents, system.config.masking)
    return system, SealBatches(
        parts.train, rows, system._reader(), masking, system._pairing(parts.train), system.config
    )


def test_without_masking_the_masked_view_is_the_tagged_one(example):
    system, batches = batches_of(example, mask_ratio=0.0)
    batch = batches.stream().get(0, 0)
    losses = system.model_.losses(system.model_.encode(batch), batch, START)
    assert set(losses) == {"tag", "untag", "mask"}
    assert losses["mask"].item() == losses["tag"].item()


def test_masks_are_drawn_anew_and_negatives_are_masked_too(example):
    _, batches = batches_of(example, group_size=3, mask_ratio=0.4)
    stream = batches.stream()
    first, again = stream.get(0, 0), stream.get(0, 0)
    assert first.documents.shape[1] == 3
    whole, masked = first.views["tag"].sizes.reshape(-1, 3), first.views["mask"].sizes.reshape(-1, 3)
    assert (masked < whole).any(0).all()
    np.testing.assert_array_equal(first.views["mask"].token, again.views["mask"].token)
    later = stream.get(1, 0)
    assert not np.array_equal(first.documents.numpy(), later.documents.numpy())


def test_negatives_never_answer_the_query_and_are_training_documents(example):
    _, parts = example
    _, batches = batches_of(example, group_size=4)
    answers = {query.text: set(query.answers) for query in parts.train.queries}
    used = set(parts.train.used().tolist())
    rows = np.arange(len(parts.train))
    batch = batches.collate(rows, numpy_rng(0))
    for row, documents in enumerate(batch.documents.tolist()):
        own = answers[parts.train.queries[row].text]
        assert documents[0] in own
        assert not own & set(documents[1:])
        assert set(documents) <= used


def test_a_document_without_tags_is_read_alike_in_both_views(example):
    system, _ = batches_of(example)
    data = collection(["fka zka", PAGE], [("a", [0])])
    tagged, bare = (system.document_vectors(data.documents, view) for view in ("tag", "untag"))
    np.testing.assert_allclose(tagged[0], bare[0], atol=1e-6)


def test_text_encoders_read_the_tagged_string_and_the_plain_one(example):
    _, parts = example
    system = Seal(**{**QUICK, "encoder": {"name": "bag", "dim": 16, "vocab_size": 500, "budget": "head"}})
    system.facts_ = system.learn_facts(parts.train)
    system.initialise()
    reader = system._reader()
    assert isinstance(reader, TextReader)
    document = parse_html(PAGE)
    rows = reader.documents([document])
    chosen = np.array([0])
    expected = reader.encoder.tokenize([document.tagged()])
    np.testing.assert_array_equal(rows.view("tag", chosen).ids, expected.ids)
    np.testing.assert_array_equal(rows.view("untag", chosen).ids, reader.encoder.tokenize([document.plain()]).ids)
    keep = [np.array([True, False, True, True, True])]
    assert len(rows.view("tag", chosen, keep).ids) < len(expected.ids)


# ---- loss ------------------------------------------------------------------------------------------------------------


class Given(SealModel):
    """Losses of given vectors."""

    def __init__(self, config):
        torch.nn.Module.__init__(self)
        self.config = config


def loss_of(queries, documents, numbers, known=(), **options):
    config = SealConfig(views="tag", **options)
    pairs = torch.tensor(list(known), dtype=torch.long).reshape(-1, 2)
    batch = SealBatch(None, {}, torch.as_tensor(numbers), pairs)
    return Given(config).losses({"query": queries, "tag": documents}, batch, START)["tag"].item()


def vectors(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_loss_is_that_of_the_formula():
    q, z = vectors(0, 4, 8), vectors(1, 4, 3, 8)
    unit = torch.nn.functional.normalize
    logits = unit(q, dim=1) @ unit(z.reshape(12, 8), dim=1).T / 0.1
    expected = (logits.logsumexp(1) - logits[torch.arange(4), torch.arange(4) * 3]).mean()
    assert math.isclose(loss_of(q, z, np.arange(12).reshape(4, 3), temperature=0.1), expected.item(), rel_tol=1e-9)


def test_one_query_with_one_document_has_no_loss():
    assert abs(loss_of(vectors(0, 1, 8), vectors(1, 1, 1, 8), [[5]])) < 1e-12


def test_random_vectors_cost_the_log_of_the_candidates():
    q, z = vectors(0, 64, 4096), vectors(1, 64, 2, 4096)
    assert abs(loss_of(q, z, np.arange(128).reshape(64, 2), temperature=1.0) - math.log(128)) < 0.01


def test_the_order_of_the_batch_does_not_matter():
    q, z, numbers = vectors(0, 4, 8), vectors(1, 4, 2, 8), np.arange(8).reshape(4, 2)
    order = [2, 0, 3, 1]
    assert math.isclose(loss_of(q, z, numbers), loss_of(q[order], z[order], numbers[order]), rel_tol=1e-9)


def test_a_document_shared_by_two_queries_is_no_negative_of_either():
    q, z = vectors(0, 3, 8), vectors(1, 3, 1, 8)
    z[1] = z[0]  # queries 0 and 1 have the same document
    unit = torch.nn.functional.normalize
    logits = unit(q, dim=1) @ unit(z[:, 0], dim=1).T / 0.02
    expected = torch.stack(
        [torch.logsumexp(logits[row][[own, other]], 0) - logits[row, own] for row, own, other in ((0, 0, 2), (1, 0, 2))]
        + [logits[2].logsumexp(0) - logits[2, 2]]
    ).mean()
    assert math.isclose(loss_of(q, z, [[7], [7], [9]]), expected.item(), rel_tol=1e-9)


def test_a_further_answer_in_the_batch_is_no_negative():
    q, z = vectors(0, 2, 8), vectors(1, 2, 1, 8)
    both = loss_of(q, z, [[0], [1]], known=[(0, 1), (1, 0)])
    assert abs(both) < 1e-12
    assert loss_of(q, z, [[0], [1]], known=[(0, 1)]) < loss_of(q, z, [[0], [1]])


def test_gates_learn_faster_than_the_rest(example):
    system, _ = batches_of(example)
    assert system.model_.learning_rate_scale("encoder.word_gates") == system.config.encoder.gate_rate
    assert system.model_.learning_rate_scale("encoder.word_weights") == 1.0


def test_views_are_weighted_and_documents_may_find_themselves(example):
    system, batches = batches_of(example, views="tag", document_terms=["mask", "untag"])
    batch = batches.stream().get(0, 0)
    assert set(batch.views) == {"tag", "untag", "mask"}
    losses = system.model_.losses(system.model_.encode(batch), batch, START)
    assert set(losses) == {"tag", "tag-mask", "tag-untag"}
    assert losses["tag-untag"] < losses["tag"]
    _, parts = example
    system, _ = batches_of(example, mask_weight=0.5)
    weighted = next(iter(system.stages(parts.train, None)))
    assert weighted.weights == {"tag": 1.0, "untag": 1.0, "mask": 0.5}


# ---- negatives, null control, measures -------------------------------------------------------------------------------


def test_mined_negatives_are_the_ranks_asked_for_without_answers():
    documents = np.eye(5, dtype=np.float32)
    queries = np.array([[5.0, 4, 3, 2, 1]], dtype=np.float32)
    assert mined_by_vectors(queries, documents, [[0]], (1, 2)).tolist() == [[1, 2]]
    assert mined_by_vectors(queries, documents, [[1]], (2, 99)).tolist() == [[2, 3, 4]]
    texts = ["red fox", "red cat", "blue cat", "dog"]
    assert mined_by_words(["red cat"], texts, [[1]], (1, 2)).tolist()[0] in ([0, 2], [2, 0])
    pool = mined_by_words(["red cat"], texts, [[1]], (1, 9))
    assert sorted(pool[0].tolist()) == [0, 2, 3]
    assert Pairing([[1]], pool).most_negatives == 3


def test_negatives_of_the_data_are_used_as_they_are_and_missing_ones_refused():
    data = collection(["<p>a</p>", "<p>b</p>", "<p>c</p>"], [("x", [0]), ("y", [1])])
    with pytest.raises(DataError, match="'q0' names no negatives"):
        given_negatives(data)
    queries = (Query("0", "x", ((0, 1.0),), (1, 2)), Query("1", "y", ((1, 1.0),), (2,)))
    named = Collection(data.ids, data.documents, queries)
    assert given_negatives(named).tolist() == [[1, 2], [2, -1]]


def test_the_null_control_gives_every_query_another_document(example):
    _, parts = example
    moved = shuffled_positives(parts.train, 0)
    assert all(set(one).isdisjoint(query.answers) for one, query in zip(moved, parts.train.queries))
    pairs = {(query.answers, other) for query, other in zip(parts.train.queries, moved)}
    assert len(pairs) == len({query.answers for query in parts.train.queries})


def test_a_perfect_run_is_one_and_a_second_place_point_six_three(example):
    from kontrast.evaluation.retrieval import retrieval_values

    data = collection(["<p>a</p>"] * 3, [("x", [0]), ("y", [1])])
    eye = np.eye(3)
    relevance = relevance_of(data)
    assert retrieval_values(eye[:2], eye, relevance, ks=(10,)).means()["ndcg@10"] == 1
    second = retrieval_values(np.array([[1.0, 2, 0], [1, 0.5, 0.2]]), eye, relevance, ks=(10,)).means()
    assert math.isclose(second["ndcg@10"], 1 / math.log2(3))
    mean = np.mean([1, 1 / math.log2(3), 0.5])
    assert math.isclose(chance_ndcg(data), mean)
    with pytest.raises(DataError, match="which document answers"):
        relevance_of(collection(["<p>a</p>"], [("x", [])]))


# ---- splits ----------------------------------------------------------------------------------------------------------


def test_parts_without_stated_ones_share_neither_documents_nor_queries(example):
    data, _ = example
    unmarked = Collection(data.ids, data.documents, tuple(Query(q.id, q.text, q.relevant) for q in data.queries))
    parts = Seal(**QUICK).split(unmarked)
    used = [set(part.used().tolist()) for _, part in parts]
    assert len(used) == 3
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert Seal(**QUICK).leaks(parts.train, parts.test).clean
    half = (*unmarked.queries[:5], *data.queries[5:])
    with pytest.raises(DataError, match="5 queries are in no part"):
        Seal(**QUICK).split(Collection(data.ids, data.documents, half))


def test_training_needs_two_documents():
    data = collection([PAGE, PAGE], [("a", [0]), ("b", [0])])
    with pytest.raises(DataError, match="at least two queries with different documents"):
        Seal(**QUICK).fit(data)


def test_data_that_cannot_be_learned_from_are_refused(tmp_path):
    (tmp_path / "q.txt").write_text("a question\n")
    with pytest.raises(DataError, match="holds no documents"):
        Seal(**QUICK).read(tmp_path / "q.txt")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.html").write_text(PAGE)
    with pytest.raises(DataError, match="holds no queries"):
        Seal(**QUICK).read(tmp_path / "docs")
    (tmp_path / "docs" / "queries.jsonl").write_text(json.dumps({"query": "x"}) + "\n")
    with pytest.raises(DataError, match="which document answers"):
        Seal(**QUICK).read(tmp_path / "docs")


def test_metrics_name_what_they_measure(fitted, example):
    _, parts = example
    metrics = fitted.evaluate(parts.test)
    assert {"ndcg@10", "mrr@10", "hit@1", "hit@10", "ndcg@10 own documents", "ndcg@10 read untagged"} <= set(metrics)
    assert metrics["ndcg@10 own documents"] >= metrics["ndcg@10"] - 1e-9
    assert isinstance(fitted._reader(), ElementReader)
    assert encode_rows(fitted.model_.encoder, fitted._reader().queries([])).shape == (0, 64)
