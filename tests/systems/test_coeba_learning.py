"""coeba on real citation graphs: the published numbers of the heuristics, and a margin over the best of them."""

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
def test_it_beats_every_heuristic_on_citations(shared_data, name, least):
    system = CoEBA(epochs=6)
    parts = system.split(system.read(graph_of(shared_data, name)))
    system.fit(parts.train, parts.valid)
    found = system.evaluate(parts.test)
    heuristics = Heuristics(parts.test.graph, parts.test.context)
    labels = np.repeat([1, 0], [len(parts.test.rows), len(parts.test.negatives)])
    pairs = np.concatenate([parts.test.rows, parts.test.negatives])
    for heuristic in heuristics.names():
        scores = heuristics.score(heuristic, pairs)
        assert found["auroc"] > auroc(scores, labels) + 0.01, heuristic
        assert found["ap"] > average_precision(scores, labels) + 0.005, heuristic
    assert found["auroc"] > least
    permuted = [system.evaluate(system.permuted(parts.test, seed))["auroc"] for seed in range(5)]
    assert abs(np.mean(permuted) - 0.5) < 0.03
