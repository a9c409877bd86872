"""coeba: the questions that predict answers, and what is written for them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from kontrast.data.graphs import degrees, make_graph, pair_keys, read_graph
from kontrast.errors import CheckpointError, ConfigError, DataError
from kontrast.pipeline.predict import predict_run
from kontrast.pipeline.train import train_run
from kontrast.systems.coeba import CoEBA, LinkData
from kontrast.training import TrainerConfig

QUICK = {**CoEBA.smoke, "epochs": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return CoEBA.write_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = CoEBA(**QUICK).config
    trainer = TrainerConfig(progress="off", loggers=[])
    return train_run(CoEBA, config, trainer, data=path, out=out, baselines=False, report=False)


@pytest.fixture
def fitted(run):
    return CoEBA.load(run.model)


def asking(system, **options):
    system.config = system.config.changed(**options)
    return system


# ---- the balanced graph ----------------------------------------------------------------------------------------------


def test_the_balanced_graph_is_a_table_of_changes(fitted, path):
    system = asking(fitted, ask="augment")
    data = system.read(path, purpose="predict")
    frame = system.predict(data)
    assert list(frame.columns) == ["source", "target", "change", "similarity"]
    index, n = data.graph.index(), data.graph.n
    pairs = np.stack([frame[name].map(index) for name in ("source", "target")], axis=1)
    keys = pd.Series(pair_keys(pairs, n))
    assert keys.is_unique
    before = set(pair_keys(data.context, n).tolist())
    change = frame["change"]
    assert set(keys[change != "added"]) == before
    assert not set(keys[change == "added"]) & before
    assert (change == "added").any()
    assert (change == "dropped").any()
    assert frame["similarity"].between(-1.0001, 1.0001).all()
    assert frame.loc[change == "added", "similarity"].mean() > frame.loc[change == "dropped", "similarity"].mean()


def test_nothing_added_and_nothing_dropped_is_the_graph_itself(fitted, path):
    system = asking(fitted, ask="augment", balancing={"most_added": 0, "drop": 0.0})
    frame = system.predict(system.read(path, purpose="predict"))
    assert set(frame["change"]) == {"kept"}


def test_the_balanced_graph_and_its_degrees_are_written(run, path, tmp_path):
    frame = predict_run(run.path, path, tmp_path / "balanced", {"ask": "augment"})
    folder = tmp_path / "balanced"
    graph, given = read_graph(folder), read_graph(path)
    assert graph.ids == given.ids
    assert len(graph.edges) == (frame["change"] != "dropped").sum()
    listed, report = pd.read_csv(folder / "degrees.csv"), json.loads((folder / "report.json").read_text())
    assert listed["before"].tolist() == degrees(given.edges, given.n).tolist()
    assert listed["after"].tolist() == degrees(graph.edges, graph.n).tolist()
    assert report["added"] == (frame["change"] == "added").sum()
    assert report["dropped"] == (frame["change"] == "dropped").sum()
    assert report["before"]["edges"] - report["dropped"] + report["added"] == report["after"]["edges"]
    assert report["after"]["nodes below low"] < report["before"]["nodes below low"]
    assert report["after"]["nodes below low"] == (listed["after"] < report["low"]).sum()
    assert report["after"]["variance of degrees"] == pytest.approx(listed["after"].var(ddof=0))


# ---- hard negatives --------------------------------------------------------------------------------------------------


def test_hard_negatives_are_a_folder_that_can_be_trained_on(run, path, tmp_path):
    options = {"ask": "negatives", "hard_negatives": 12}
    frame = predict_run(run.path, path, tmp_path / "heart", options)
    system = CoEBA.load(run.model)
    parts = system.split(system.read(path))
    assert len(frame) == 12 * (len(parts.valid) + len(parts.test))
    graph = read_graph(tmp_path / "heart")
    fold = graph.folds[0]
    n = graph.n
    for rows, wanted in ((fold.train, parts.train), (fold.valid, parts.valid), (fold.test, parts.test)):
        assert sorted(pair_keys(rows, n)) == sorted(pair_keys(wanted.rows, n))
    assert fold.test_hard.shape == (len(parts.test), 12, 2)
    np.testing.assert_array_equal(graph.features.toarray(), parts.test.graph.features.toarray())
    assert len(fold.valid_negatives) == len(parts.valid)
    again = CoEBA(**QUICK).split(CoEBA().read(tmp_path / "heart"))
    assert "hard mrr" in CoEBA(**QUICK).fit(again.train, again.valid).evaluate(again.test)
    # Candidates of a test edge are no neighbours of the end that is kept, be it in training or in validation.
    known = set(pair_keys(np.concatenate([fold.train, fold.valid]), n).tolist())
    assert not set(pair_keys(fold.test_hard.reshape(-1, 2), n).tolist()) & known


def test_hard_negatives_of_a_table_of_pairs(fitted, path, tmp_path):
    system = asking(fitted, ask="negatives", hard_negatives=6)
    test = system.split(system.read(path)).test
    ids = test.graph.ids
    seen = test.context[0]
    lines = [f"{ids[u]},{ids[v]}" for u, v in [*test.rows[:3].tolist(), seen.tolist()]]
    (tmp_path / "pairs.csv").write_text("source,target\n" + "\n".join(lines) + "\n")
    frame = system.predict(system.read(tmp_path / "pairs.csv", purpose="predict"))
    assert len(frame) == 18, "a training edge has no negatives"
    assert set(frame["part"]) == {"test"}
    kept = (frame["negative_source"] == frame["source"]) ^ (frame["negative_target"] == frame["target"])
    assert kept.all()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("nodes.txt", "chess-01\n", "hard negatives belong to edges"),
        ("other.csv", "source,target\nnobody,chess-01\n", "no node of the graph"),
    ],
)
def test_what_has_no_hard_negatives_is_refused(fitted, tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        asking(fitted, ask="negatives").read(tmp_path / name, purpose="predict")


def test_graphs_without_new_edges_or_with_other_nodes_have_no_hard_negatives(fitted, path, tmp_path):
    system = asking(fitted, ask="negatives")
    graph = fitted.stored_.graph
    np.savez(tmp_path / "other.npz", edges=graph.edges, ids=np.array(graph.ids[::-1]))
    with pytest.raises(DataError, match="other nodes"):
        system.read(tmp_path / "other.npz", purpose="predict")
    ids = np.array(graph.ids)[fitted.stored_.context]
    pd.DataFrame(ids, columns=["source", "target"]).to_csv(tmp_path / "seen.csv", index=False)
    with pytest.raises(DataError, match="no edges besides training edges"):
        system.read(tmp_path / "seen.csv", purpose="predict")
    with pytest.raises(DataError, match="hard negatives belong to held-out edges"):
        system.predict(LinkData(graph, graph.edges, "node", np.arange(3)))


def test_links_are_no_folder(run, path, tmp_path):
    with pytest.raises(ConfigError, match="written as a table"):
        predict_run(run.path, path, tmp_path / "links")
    assert not (tmp_path / "links").exists()


# ---- probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities_rise_with_the_score_and_survive_saving(fitted, path, tmp_path):
    system = asking(fitted, probabilities=True)
    data = system.read(path, purpose="predict")
    frame = system.predict(data.take(np.arange(4)))
    assert frame["probability"].between(0, 1).all()
    order = frame.sort_values("score")
    assert order["probability"].is_monotonic_increasing
    system.save(tmp_path / "again")
    loaded = asking(CoEBA.load(tmp_path / "again"), probabilities=True)
    pd.testing.assert_frame_equal(loaded.predict(data.take(np.arange(4))), frame)


def test_probabilities_are_fitted_on_validation_edges_alone(path):
    system = CoEBA(**QUICK, probabilities=True)
    parts = system.split(system.read(path))
    system.fit(parts.train, parts.valid)
    pairs = np.concatenate([parts.valid.rows, parts.valid.negatives])
    found = system.platt_.probabilities(system.scores(parts.valid, pairs))
    # At the maximum of the likelihood the mean probability is the share of (smoothed) positives.
    assert found.mean() == pytest.approx(0.5, abs=1e-3)
    assert 0 <= system.evaluate(parts.test)["ece"] < 0.5
    without = CoEBA(**QUICK, probabilities=True).fit(parts.train)
    assert "ece" not in without.evaluate(parts.test)
    with pytest.raises(ConfigError, match="no validation edges"):
        without.predict(parts.test)


def test_a_damaged_calibration_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    (tmp_path / "model" / "calibration.json").write_text('{"slope": 1}')
    with pytest.raises(CheckpointError, match=r"calibration\.json"):
        CoEBA.load(tmp_path / "model")


# ---- new neighbours --------------------------------------------------------------------------------------------------


def test_a_network_as_decoder_recommends_what_it_scores_best(path):
    system = CoEBA(**{**QUICK, "encoder": {"decoder": "mlp", "hidden": 16, "dim": 8}}, top_k=3)
    parts = system.split(system.read(path))
    system.fit(parts.train, parts.valid)
    data = LinkData(parts.test.graph, parts.test.context, "node", np.arange(5))
    frame = system.predict(data)
    index = data.graph.index()
    pairs = np.stack([frame["id"].map(index), frame["neighbour"].map(index)], axis=1)
    np.testing.assert_allclose(frame["score"], system.scores(data, pairs), rtol=1e-5)
    known = set(pair_keys(data.context, data.graph.n).tolist())
    for node in range(5):
        others = np.array([v for v in range(data.graph.n) if v != node])
        rows = np.stack([np.full(len(others), node), others], axis=1)
        free = np.array([key not in known for key in pair_keys(rows, data.graph.n).tolist()])
        best = np.sort(system.scores(data, rows[free]))[::-1][:3]
        np.testing.assert_allclose(frame.loc[frame["id"] == data.graph.ids[node], "score"], best, rtol=1e-5)


def test_sizes_follow_from_the_graph_and_are_recorded(path):
    system = CoEBA()
    parts = system.split(system.read(path))
    facts = system.learn_facts(parts.train)
    assert (facts["hidden"], facts["dim"], facts["dropout"], facts["learning_rate"]) == (256, 128, 0.5, 1e-3)
    bare = make_graph(parts.train.rows, ids=parts.train.graph.ids)
    data = LinkData(bare, bare.edges, "edge", bare.edges)
    facts = system.learn_facts(data)
    assert (facts["hidden"], facts["dim"], facts["dropout"], facts["learning_rate"]) == (128, 64, 0.0, 1e-2)
    large = make_graph(np.array([[0, 1]]), n=10_001)
    assert system.learn_facts(LinkData(large, large.edges, "edge", large.edges))["learning_rate"] == 2e-3
    given = CoEBA(encoder={"hidden": 8, "dim": 4, "dropout": 0.0}, scale_rate=False).learn_facts(data)
    assert (given["hidden"], given["dim"], given["dropout"], given["learning_rate"]) == (8, 4, 0.0, 1e-3)
    assert next(iter(CoEBA(**QUICK).fit(data).model_.parameters())).dtype == torch.float32
