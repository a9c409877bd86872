"""lob on real data: two NASDAQ days with injected manipulation, the baselines that it must beat, and its controls."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.data.orderbooks import read_orderbooks
from kontrast.evaluation.detection import auroc
from kontrast.systems.lob import Lob, LobData, Period, inject
from kontrast.systems.lob.injection import start_rows
from kontrast.systems.lob.measuring import chance_ap

pytestmark = pytest.mark.learning

HOUR = 3_600_000_000_000
GRADIENT_BOOSTING = 0.34
"""Average precision of boosted trees on windows with the same labels, as the data's README has it."""
QUICK = {"epochs": 5, "normal_windows": 6000}


@pytest.fixture(scope="module")
def folder(shared_data):
    folder = shared_data / "lobster_l5"
    if not folder.is_dir():
        pytest.skip("lobster_l5 is not there")
    return folder


@pytest.fixture(scope="module")
def parts(folder):
    system = Lob()
    return system.split(system.read(folder))


@pytest.fixture(scope="module")
def trained(parts):
    return Lob(**QUICK).fit(parts.train, parts.valid)


def test_the_frozen_split_is_obeyed(parts):
    sizes = {name: len(part) for name, part in parts}
    assert sizes == {"train": 182_139, "valid": 23_153, "test": 60_208}
    assert parts.test.truth.label.sum() == 2462
    assert Lob().leaks(parts.train, parts.test).clean


def test_it_beats_boosted_trees_and_a_single_message_by_far(trained, parts):
    found = trained.evaluate(parts.test)
    assert found["ap"] > GRADIENT_BOOSTING + 0.2
    assert found["auroc"] > 0.96
    assert found["event recall"] > 0.6
    assert found["ap 5 and more price levels"] > found["ap 1 price level"]


def test_reconstruction_alone_is_no_better_than_chance(parts):
    off = Lob(**QUICK, contrast="off").fit(parts.train, parts.valid)
    assert off.evaluate(parts.test)["ap"] < 0.12


def test_labels_at_other_times_teach_little(trained, parts):
    shuffled = Lob(**QUICK, contrast="shuffled").fit(parts.train, parts.valid)
    found, chance = shuffled.evaluate(parts.test)["ap"], chance_ap(parts.test.truth.label)
    assert found < chance + 0.12
    assert found < trained.evaluate(parts.test)["ap"] - 0.3


def test_placebo_episodes_score_as_normal_messages_do(trained, parts):
    """Moments that fit the injection rule, without any injection: the score must not have learned the rule."""
    scores, truth = trained.scores(parts.test), parts.test.truth
    rng = np.random.default_rng(0)
    placebo = np.zeros(len(parts.test), bool)
    for number, (stream, start, end) in enumerate(parts.test.segments.tolist()):
        book = parts.test.streams[stream]
        period = Period(int(book.time_ns[start]), int(book.time_ns[end - 1]), 60, 2)
        mine = parts.test.rows[:, 0] == number
        for row in rng.choice(start_rows(book, period), 60, replace=False).tolist():
            places = parts.test.rows[:, 2]
            placebo |= mine & (places >= row) & (places < row + 20)
    # Messages close to a real event share windows with it.
    event_windows = np.convolve(truth.label, np.ones(51), "same") > 0
    calm = (truth.label == 0) & ~event_windows
    assert auroc(scores[calm], placebo[calm].astype(int)) < 0.65


def test_another_injection_of_another_seed_is_detected(trained, folder):
    (real,) = read_orderbooks(folder / "LOBSTER_SampleFile_GOOG_2012-06-21_5.zip")
    made = inject(real, [Period(int(15 * HOUR), int(16 * HOUR), 20, 2)], seed=77)
    rows = np.flatnonzero(made.time_ns >= 15 * HOUR)
    data = LobData.of([made], [(0, int(rows[0]), len(made))], "test")
    found = trained.evaluate(data)
    assert found["auroc"] > 0.95
    assert found["ap"] > 10 * found["prevalence"]
