"""coeba on real graphs: the published numbers of the heuristics, and margins over them and over the autoencoder."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.evaluation.detection import auroc, average_precision
from kontrast.systems.coeba import CoEBA, Heuristics

pytestmark = pytest.mark.learning


def graph_of(shared_data, name):
    path = shared_data / "linkpred" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cora", {"common neighbours": 71.8, "resource allocation": 71.8, "feature cosine": 80.9}),
        ("citeseer", {"common neighbours": 66.3, "resource allocation": 66.3, "feature cosine": 89.2}),
        ("netscience", {"common neighbours": 92.3, "personalised PageRank": 93.1}),
        ("celegans", {"common neighbours": 84.8, "resource allocation": 86.7}),
        ("power", {"common neighbours": 57.7, "resource allocation": 57.7}),
        ("usair", {"common neighbours": 93.3, "resource allocation": 94.8, "personalised PageRank": 93.3}),
    ],
)
def test_heuristics_have_the_numbers_of_the_data_set(shared_data, name, wanted):
    system = CoEBA()
    data = system.read(graph_of(shared_data, name))
    found = {heuristic: [] for heuristic in wanted}
    for fold in range(len(data.graph.folds)):
        test = CoEBA(fold=fold).split(data).test
        pairs = np.concatenate([test.rows, test.negatives])
        labels = np.repeat([1, 0], [len(test.rows), len(test.negatives)])
        heuristics = Heuristics(test.graph, test.context)
        for heuristic in wanted:
            found[heuristic].append(100 * auroc(heuristics.score(heuristic, pairs), labels))
    for heuristic, value in wanted.items():
        assert np.mean(found[heuristic]) == pytest.approx(value, abs=0.06), heuristic


@pytest.mark.parametrize(("name", "least"), [("cora", 0.93), ("citeseer", 0.92)])
def test_it_beats_every_heuristic_and_the_plain_autoencoder(shared_data, name, least):
    path = graph_of(shared_data, name)
    systems = {}
    for arm in ("on", "off"):
        systems[arm] = CoEBA(fold=0, contrast=arm)
        parts = systems[arm].split(systems[arm].read(path))
        systems[arm].fit(parts.train, parts.valid)
    test = parts.test
    found = {arm: system.measure(test) for arm, system in systems.items()}
    full = found["on"].metrics
    heuristics = Heuristics(test.graph, test.context)
    labels = np.repeat([1, 0], [len(test.rows), len(test.negatives)])
    pairs = np.concatenate([test.rows, test.negatives])
    for heuristic in heuristics.names():
        scores = heuristics.score(heuristic, pairs)
        assert full["auroc"] > auroc(scores, labels) + 0.01, heuristic
        assert full["ap"] > average_precision(scores, labels) + 0.005, heuristic
    assert full["auroc"] > least
    # The same held-out edges in either arm: the share of non-edges that each beats, paired.
    assert found["on"].item_ids == found["off"].item_ids
    assert np.mean(found["on"].items - found["off"].items) > 0.001
    assert full["ap"] > found["off"].metrics["ap"]
    permuted = [systems["on"].evaluate(systems["on"].permuted(test, seed))["auroc"] for seed in range(5)]
    assert abs(np.mean(permuted) - 0.5) < 0.03


def test_a_graph_without_features_is_learned_with_its_own_settings(shared_data):
    path = graph_of(shared_data, "usair")
    system = CoEBA(fold=0, epochs=8)
    parts = system.split(system.read(path))
    system.fit(parts.train, parts.valid)
    assert system.facts_["learning_rate"] == pytest.approx(0.01)
    assert (system.facts_["features"], system.facts_["dropout"]) == (None, 0.0)
    found = system.evaluate(parts.test)
    # On this dense graph resource allocation stays ahead; a vector for each node must still be far from chance.
    assert found["auroc"] > 0.85
    assert found["ece"] < 0.2
