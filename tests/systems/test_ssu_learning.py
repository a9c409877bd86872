"""ssu on real data: the bars of the data set, its controls, overfitting, and the semi-synthetic stress set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kontrast.systems.ssu import SSU, stress_set

pytestmark = pytest.mark.learning

WORD_VECTORS, SENTENCE_VECTORS = 1.025, 0.927
"""Mean absolute error of ridge regressions on mean word vectors and on sentence vectors, as the README has it."""


def parts_of(shared_data, name):
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not there")
    system = SSU()
    return system.split(system.read(folder))


@pytest.fixture(scope="module")
def mosi(shared_data):
    return parts_of(shared_data, "mosi_utterance")


@pytest.fixture(scope="module")
def trained(mosi):
    return SSU().fit(mosi.train, mosi.valid)


def test_the_stated_split_and_bars_come_out(mosi):
    assert {name: len(part) for name, part in mosi} == {"train": 1150, "valid": 102, "test": 261}
    assert SSU().leaks(mosi.train, mosi.test).clean
    found = {name: metrics["mae"] for name, metrics in SSU().baselines(mosi.train, mosi.test).items()}
    assert found["constant"] == pytest.approx(1.368, abs=0.002)
    assert found["mean word vectors ridge"] == pytest.approx(WORD_VECTORS, abs=0.01)
    assert found["sentence vectors ridge"] == pytest.approx(SENTENCE_VECTORS, abs=0.01)


def test_it_beats_the_ridge_regressions(trained, mosi):
    found = trained.evaluate(mosi.test)
    assert found["mae"] < SENTENCE_VECTORS - 0.02
    assert found["corr"] > 0.68
    assert found["acc2 posneg"] > 0.75


def test_it_knows_nothing_of_shuffled_labels(mosi):
    found = []
    for number in range(4):
        order = np.random.default_rng(number).permutation(len(mosi.train))
        wrong = mosi.train.with_labels(mosi.train.labels[order])
        found.append(SSU(epochs=2, seed=number).fit(wrong).evaluate(mosi.test))
    # What was learned from noise lies with or against sentiment by chance, so that single correlations reach 0.3.
    assert abs(np.mean([metrics["corr"] for metrics in found])) < 0.2
    assert min(metrics["mae"] for metrics in found) > 1.25


def test_missing_modalities_cost_little_unless_it_is_the_text(trained, mosi):
    whole = trained.evaluate(mosi.test)["mae"]
    found = {}
    for gone in ("audio", "visual", "text"):
        other = SSU(trained.config.changed(without=[gone]))
        other.facts_, other.model_ = trained.facts_, trained.model_
        found[gone] = other.evaluate(mosi.test)["mae"]
    assert abs(found["audio"] - whole) < 0.1
    assert abs(found["visual"] - whole) < 0.05
    assert whole + 0.2 < found["text"] < 1.6


def test_a_few_utterances_are_learned_by_heart(shared_data):
    few = parts_of(shared_data, "mosi_word").train.take(np.arange(32))
    options = {
        "epochs": 60, "batch_size": 16, "sup_weight": 0.0, "modality_dropout": 0.0, "text_dropout": 0.0, "average": 0.0,
        "network": {"dropout": 0.0, "input_dropout": 0.0}, "optimiser": {"learning_rate": 3e-3, "weight_decay": 0.0},
    }  # fmt: skip
    system = SSU(**options).fit(few)
    assert system.facts_["streams"]["audio"]["aligned"]
    assert system.evaluate(few)["mae"] < 0.1


def test_made_up_sound_and_face_help(shared_data, mosi):
    whole = stress_set(SSU().read(shared_data / "mosi_utterance"))
    data = dict(SSU().split(whole))
    small = {"epochs": 5, "graph": {"max_segments": 20}, "contrast": "off"}
    found = {}
    for name, change in (("all", {}), ("text", {"audio": None, "visual": None})):
        train, test = (replace(data[part], **change) for part in ("train", "test"))
        found[name] = SSU(**small).fit(train).evaluate(test)["mae"]
    assert found["all"] < found["text"] - 0.03
