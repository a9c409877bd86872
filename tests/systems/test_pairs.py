"""Laws of `pairs` beyond the contract: who is a negative, what is relevant, which views, what other tools can load."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data.tables import Table, write_table
from kontrast.encoders import encode_rows
from kontrast.errors import DataError
from kontrast.systems.pairs import Pairs
from kontrast.systems.pairs.example import write_example_pairs
from kontrast.systems.pairs.views import (
    PairBatches,
    PairTable,
    Queries,
    make_sampler,
    meeting_groups,
    shuffled_partners,
)

SMALL = {"epochs": 2, "batch_size": 32, "text": {"dim": 32, "vocab_size": 300}, "vector": {"dim": 32, "hidden": 64}}


def texts(left, right, **more) -> PairTable:
    table = Table.of({"left": left, "right": right, **more})
    return PairTable(
        table, "left", "right", {"left": "text", "right": "text"}, group="group" if "group" in more else None
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    path = write_example_pairs(tmp_path_factory.mktemp("example"))
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:200]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def fitted(example, tmp_path_factory):
    """A system fitted on 200 rows, with the path of its table."""
    path = write_table(example, tmp_path_factory.mktemp("data") / "pairs.csv")
    system = Pairs(**SMALL)
    parts = system.split(system.read(path))
    return system.fit(parts.train, parts.valid), parts, path


# ---- who is a negative -------------------------------------------------------------------------------------------


def test_rows_that_share_a_cell_or_a_group_meet_in_one_group():
    data = texts(["a", "a", "b", "c", "d", "e"], ["1", "2", "2", "3", "4", "5"], group=["x", "x", "y", "z", "z", "w"])
    groups = meeting_groups(data)
    assert groups[0] == groups[1] == groups[2], "a–a share a left cell, 2–2 a right one"
    assert groups[3] == groups[4], "z–z share a group"
    assert len(set(groups.tolist())) == 3


def test_equal_cells_are_never_negatives(fitted):
    system, _, _ = fitted
    data = texts(["where", "where", "who", "when"], ["here", "there", "me", "now"])
    batches = PairBatches(data, system.model_.left.encoder, system.model_.right.encoder, system.config)
    batch = batches.collate(np.arange(4), np.random.default_rng(0))
    rng = torch.Generator().manual_seed(0)
    left = torch.nn.functional.normalize(torch.randn(4, 8, generator=rng), dim=1)
    right = torch.nn.functional.normalize(torch.randn(4, 8, generator=rng), dim=1)
    with torch.no_grad():
        loss = system.model_.losses({"left": left, "right": right}, batch, None)["contrastive"]
        logits = (left @ right.T).double() / system.model_.objective.temperature().double()
    blocked = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4], dtype=torch.bool)
    sides = [side.masked_fill(blocked, -torch.inf).log_softmax(1).diagonal() for side in (logits, logits.T)]
    assert float(loss) == pytest.approx(-float(sum(side.mean() for side in sides)) / 2, rel=1e-5)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=20), size=st.integers(2, 32), epoch=st.integers(0, 3))
def test_rows_of_a_group_meet_in_a_batch_only_where_they_must(sizes, size, epoch):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    config = Pairs(batch_size=size, sampler="grouped").config
    sampler = make_sampler(groups, np.ones(len(groups), dtype=np.int64), config)
    batches = sampler.batches(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(groups)))
    for rows in batches:
        for group, meeting in zip(*np.unique(groups[rows], return_counts=True)):
            assert meeting <= -(-sizes[group] // len(batches))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 5))
def test_the_null_control_keeps_no_group_that_it_can_avoid(sizes, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    partner = shuffled_partners(groups, seed)
    assert sorted(partner) == list(range(len(groups)))
    kept = int((groups[partner] == groups).sum())
    assert kept == max(0, 2 * max(sizes) - len(groups))
    np.testing.assert_array_equal(partner, shuffled_partners(groups, seed))


def test_the_null_control_moves_the_right_column_and_nothing_else(fitted, example):
    system, parts, _ = fitted
    towers = (system.model_.left.encoder, system.model_.right.encoder)
    plain = PairBatches(parts.train, *towers, system.config)
    moved = PairBatches(parts.train, *towers, system.config.changed(contrast="shuffled"))
    assert not np.array_equal(plain.partner, moved.partner)
    np.testing.assert_array_equal(plain.groups, moved.groups)
    rows = np.arange(len(parts.train))
    one, other = (batches.collate(rows, np.random.default_rng(0)) for batches in (plain, moved))
    for name, tensor in one["left"].items():
        assert torch.equal(tensor, other["left"][name])
    right = [system.model_.right({**batch["right"]}).detach() for batch in (one, other)]
    torch.testing.assert_close(right[1], right[0][moved.partner])


# ---- what is relevant --------------------------------------------------------------------------------------------


def test_relevance_with_duplicates():
    """q1 has two answers, a2 answers two queries, and a repeated row counts once."""
    data = texts(["q1", "q1", "q2", "q3", "q1"], ["a1", "a2", "a2", "a3", "a1"])
    ask = Queries.of(data, backwards=False)
    queries = [data.table.texts("left")[row] for row in ask.queries]
    answers = [data.table.texts("right")[row] for row in ask.candidates]
    assert (queries, answers) == (["q1", "q2", "q3"], ["a1", "a2", "a3"])
    rows, columns = ask.relevance.rows, ask.relevance.indices
    found = {query: sorted(answers[c] for c in columns[rows == row]) for row, query in enumerate(queries)}
    assert found == {"q1": ["a1", "a2"], "q2": ["a2"], "q3": ["a3"]}
    back = Queries.of(data, backwards=True)
    assert back.sides == ("right", "left")
    assert [data.table.texts("right")[row] for row in back.queries] == ["a1", "a2", "a3"]


@pytest.mark.parametrize("answers", [40, 17, 8])
def test_chance_is_what_random_vectors_score(fitted, answers, monkeypatch):
    system, _, _ = fitted
    rng = np.random.default_rng(0)
    data = texts([f"query {row}" for row in range(300)], [f"answer {row % answers}" for row in range(300)])
    assert system.chance(data) == min(10, answers) / answers
    random = lambda data, side, view=None: rng.normal(size=(len(data), 16)).astype(np.float32)  # noqa: E731
    monkeypatch.setattr(Pairs, "vectors", lambda self, *args: random(*args))
    scored = [system.retrieval(data).means()["recall@10"] for _ in range(20)]
    assert np.mean(scored) == pytest.approx(system.chance(data), abs=0.02)


def test_prediction_searches_the_distinct_answers_of_training(fitted):
    system, parts, _ = fitted
    known = {*parts.train.words("right"), *parts.valid.words("right")}
    assert sorted(system.corpus_.words) == sorted(known)
    frame = system.predict(parts.test)
    assert set(frame["answer"]) <= known
    assert not set(frame["answer"]) & (set(parts.test.words("right")) - known)
    best = frame.groupby("id", sort=False)["score"]
    assert best.apply(lambda scores: scores.is_monotonic_decreasing).all()


def test_answers_agree_with_the_vectors_of_embed(fitted):
    """One inference path: a score is the cosine of the two vectors that `embed` gives."""
    system, parts, _ = fitted
    test = parts.test
    embedded = system.embed(test)
    left = embedded.vectors[: len(test)]
    frame = system.predict(test)
    answers = dict(zip(system.corpus_.ids, system.corpus_.vectors))
    for place in range(0, len(frame), 37):
        row = frame.iloc[place]
        cosine = float(left[test.ids().index(row["id"])] @ answers[row["answer_id"]])
        assert row["score"] == pytest.approx(cosine, abs=1e-5)


# ---- views -------------------------------------------------------------------------------------------------------


def test_two_columns_are_augmented_only_when_asked(fitted):
    system, parts, _ = fitted
    towers = (system.model_.left.encoder, system.model_.right.encoder)
    plain = PairBatches(parts.train, *towers, system.config)
    rows = np.arange(8)
    one, other = (plain.collate(rows, np.random.default_rng(seed)) for seed in (0, 1))
    for side in ("left", "right"):
        for name, tensor in one[side].items():
            assert torch.equal(tensor, other[side][name])
    cut = PairBatches(parts.train, *towers, system.config.changed(augment=True))
    one, other = (cut.collate(rows, np.random.default_rng(seed)) for seed in (0, 1))
    texts_of = [system.model_.left.encoder(batch["left"]).detach() for batch in (one, other)]
    assert not torch.allclose(texts_of[0], texts_of[1])


def test_one_column_is_measured_by_views_and_embedded_whole(example, tmp_path):
    (tmp_path / "one.txt").write_text("\n".join(example["question"]))
    system = Pairs(**SMALL)
    parts = system.split(system.read(tmp_path / "one.txt"))
    system.fit(parts.train, parts.valid)
    assert parts.test.right is None
    embedded = system.embed(parts.test)
    assert len(embedded) == len(parts.test)
    whole = encode_rows(system.model_.left.encoder, system.model_.left.encoder.prepare(parts.test.cells("left")))
    whole = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(embedded.vectors, whole, atol=1e-6)
    views = [system.vectors(parts.test, "left", view) for view in (0, 1)]
    assert not np.allclose(views[0], views[1])
    assert not np.allclose(views[0], whole)
    assert system.evaluate(parts.test) == system.evaluate(parts.test)
    assert system.model_.left is system.model_.right


# ---- columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
def test_vectors_of_two_lengths(tmp_path, share):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(160, 6)).astype(np.float32)
    right = (left @ rng.normal(size=(6, 4))).astype(np.float32)
    path = write_table(pd.DataFrame({"a": list(left), "b": list(right)}), tmp_path / "v.parquet")
    system = Pairs(**{**SMALL, "epochs": 8, "optimiser": {"learning_rate": 1e-2}, "share": share})
    parts = system.split(system.read(path))
    system.fit(parts.train, parts.valid)
    assert system.evaluate(parts.test)["recall@10"] > 0.9
    assert Pairs.load(system.save(tmp_path / "m")).evaluate(parts.test) == system.evaluate(parts.test)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": "answer", "vector": "numbers"},
        {"number": "price", "text": "answer"},
        {"vector": "numbers", "number": "price"},
        {"number": "price"},
        {"vector": "numbers"},
    ],
    ids=" and ".join,
)
def test_every_mixture_of_kinds(example, tmp_path, columns):
    frame = example[:60].assign(numbers=list(np.random.default_rng(0).normal(size=(60, 5))), price=np.arange(60) * 0.5)
    for suffix in (".parquet", ".csv", ".jsonl"):
        path = write_table(frame[list(columns.values())], tmp_path / f"t{suffix}")
        system = Pairs(**{**SMALL, "epochs": 1})
        data = system.read(path)
        assert [data.kinds[name] for name in columns.values()] == list(columns)
    parts = system.split(data)
    system.fit(parts.train)
    assert 0 <= system.evaluate(parts.test)["recall@10"] <= 1
    assert len(system.predict(parts.test)) == 10 * len(parts.test)


def test_images_and_captions(tmp_path):
    image = pytest.importorskip("PIL.Image")
    colours = np.random.default_rng(0).integers(0, 255, size=(30, 3))
    for number, colour in enumerate(colours):
        image.fromarray(np.tile(colour, (12, 10, 1)).astype("uint8")).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,red {r} green {g} blue {b}" for number, (r, g, b) in enumerate(colours)]
    (tmp_path / "i.csv").write_text("image,caption\n" + "\n".join(rows) + "\n")
    system = Pairs(**{**SMALL, "epochs": 1, "image": {"dim": 16, "width": 8, "size": 8, "stages": 1}})
    parts = system.split(system.read(tmp_path / "i.csv"))
    system.fit(parts.train)
    assert system.predict(parts.test)["query"].iloc[0].endswith(".png")
    assert len(system.embed(parts.test)) == 2 * len(parts.test)


def test_roles_of_columns(example, tmp_path):
    frame = example.assign(id=[f"row {n}" for n in range(200)], kind=np.arange(200) // 5, text=np.arange(200) % 3)
    path = write_table(frame, tmp_path / "r.csv")
    system = Pairs(**SMALL, left="question", right="answer", id="id", group="kind", label="text")
    parts = system.split(system.read(path))
    kinds = [set(part.table.ids("kind")) for _, part in parts]
    assert not kinds[0] & kinds[1]
    assert not kinds[0] & kinds[2]
    system.fit(parts.train, parts.valid)
    embedded = system.embed(parts.test)
    assert embedded.ids[0].startswith("row ")
    assert embedded.label == "text (yours)"
    assert {"text", "side", "kind (yours)", "text (yours)"} == set(embedded.columns)
    bare = write_table(frame[["question", "answer"]], tmp_path / "bare.csv")
    assert system.evaluate(system.read(bare))["recall@10"] >= 0


@pytest.mark.parametrize("names", [("my question.text", "the answer (best)"), ("質問", "réponse"), ("kind", "vector")])
def test_any_column_name(example, tmp_path, names):
    path = write_table(example.set_axis(list(names), axis=1), tmp_path / "n.csv")
    system = Pairs(**{**SMALL, "epochs": 1})
    parts = system.split(system.read(path))
    frame = system.fit(parts.train).predict(system.read(path, purpose="predict"))
    assert len(frame) == 2000
    assert set(system.embed(parts.test).kind) == set(names)


def test_any_text(example, tmp_path):
    frame = example[:60].copy()
    frame.loc[0, "question"] = "😀"
    frame.loc[1, "answer"] = "汉字 ñ \u200b"
    frame.loc[2, "question"] = "word " * 20_000
    frame.loc[3, "answer"] = "x" * 50_000
    frame.loc[4, "question"] = 'a "quoted",\ntwo-line cell'
    path = write_table(frame, tmp_path / "t.csv")
    system = Pairs(**{**SMALL, "epochs": 1})
    data = system.read(path)
    assert data.table.texts("question")[4] == frame.loc[4, "question"]
    assert np.isfinite(system.fit(data).embed(data).vectors).all()


def test_few_rows(example, tmp_path):
    for count in (4, 5, 9):
        path = write_table(example[:count], tmp_path / f"{count}.csv")
        system = Pairs(**{**SMALL, "epochs": 1})
        parts = system.split(system.read(path))
        assert system.fit(parts.train, parts.valid).evaluate(parts.test)["recall@10"] == 1
    with pytest.raises(DataError, match="at least two rows"):
        Pairs(**SMALL).fit(texts(["a"], ["b"]))
    with pytest.raises(DataError, match="negative"):
        Pairs(**SMALL).fit(texts(["a", "b", "c"], ["same"] * 3))


# ---- for other tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "folders"),
    [
        ({}, {"text": ("left", "right")}),
        ({"share": False, "head_layers": 1}, {"left": ("left",), "right": ("right",)}),
        ({"text": {"name": "transformer", "dim": 32, "heads": 2, "layers": 1, "vocab_size": 300}}, {"text": ("left",)}),
    ],
    ids=["shared bag", "two bags with heads", "transformer"],
)
def test_sentence_transformers_loads_the_text_towers(example, tmp_path, options, folders):
    st = pytest.importorskip("sentence_transformers")
    path = write_table(example[:80], tmp_path / "p.csv")
    system = Pairs(**{**SMALL, "epochs": 1, **options})
    parts = system.split(system.read(path))
    system.fit(parts.train)
    saved = system.save(tmp_path / "model")
    assert sorted(item.name for item in (saved / "sentence-transformers").iterdir()) == sorted(folders)
    for name, sides in folders.items():
        theirs = st.SentenceTransformer(str(saved / "sentence-transformers" / name), device="cpu")
        for side in sides:
            vectors = theirs.encode(parts.test.cells(side), normalize_embeddings=True)
            np.testing.assert_allclose(vectors, system.vectors(parts.test, side), atol=1e-5)


def test_an_export_can_be_trained_further(example, tmp_path):
    path = write_table(example, tmp_path / "p.csv")
    first = Pairs(**SMALL)
    parts = first.split(first.read(path))
    saved = first.fit(parts.train).save(tmp_path / "model")
    options = {**SMALL, "text": {"name": str(saved / "sentence-transformers" / "text")}, "contrast": "off"}
    second = Pairs(**options).fit(parts.train)
    np.testing.assert_allclose(second.vectors(parts.test, "left"), first.vectors(parts.test, "left"), atol=1e-5)


def test_a_moved_model_needs_nothing_of_where_it_was(fitted, tmp_path):
    system, parts, _ = fitted
    saved = system.save(tmp_path / "here")
    moved = saved.rename(tmp_path / "there")
    assert str(tmp_path) not in (moved / "system.json").read_text()
    assert Pairs.load(moved).evaluate(parts.test) == system.evaluate(parts.test)
    assert json.loads((moved / "system.json").read_text())["facts"]["left"] == "question"
