"""lob: features, windows, batches, division by time, leaks, answers; detectors and injection have their own files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kontrast.data.orderbooks import OrderStream, read_orderbooks
from kontrast.errors import ConfigError, DataError
from kontrast.pipeline.predict import predict_run
from kontrast.pipeline.train import train_run
from kontrast.randomness import numpy_rng
from kontrast.systems.lob import Lob, LobConfig, LobData
from kontrast.systems.lob.backbones import make_backbone
from kontrast.systems.lob.division import borders, divided
from kontrast.systems.lob.features import CLIP, Columns, Market, Scaler, at_best, raw_features, tick_of
from kontrast.systems.lob.market import simulate
from kontrast.systems.lob.measuring import chance_ap, precision_at_positives
from kontrast.systems.lob.model import BookEncoder
from kontrast.systems.lob.scoring import SegmentVectors
from kontrast.systems.lob.views import EventSampler, StretchSampler, rotated, window_batch, windows_of
from kontrast.training import TrainerConfig

QUIET = TrainerConfig(progress="off", loggers=[])
GROUPS = ["handmade", "level1", "orders", "book", "static"]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return Lob.write_example(tmp_path_factory.mktemp("lob"))


@pytest.fixture(scope="module")
def parts(example):
    system = Lob(**Lob.smoke)
    return system.split(system.read(example))


@pytest.fixture(scope="module")
def fitted(parts):
    return Lob(**Lob.smoke).fit(parts.train, parts.valid)


def like(fitted: Lob, **options) -> Lob:
    """The fitted system under other options."""
    system = Lob(**{**Lob.smoke, **options})
    for name in ("facts_", "model_", "detector_", "thresholds_"):
        setattr(system, name, getattr(fitted, name))
    return system


def flipped(stream: OrderStream) -> OrderStream:
    """Buyers become sellers, and prices are mirrored."""
    top = 4_000_000
    return replace(
        stream, direction=-stream.direction, price=top - stream.price,
        ask_price=top - stream.bid_price, bid_price=top - stream.ask_price,
        ask_size=stream.bid_size, bid_size=stream.ask_size,
    )  # fmt: skip


def refusal(action, kind=DataError):
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- features --------------------------------------------------------------------------------------------------------


def test_features_look_back_and_never_ahead(parts):
    stream = parts.train.streams[0]
    whole = raw_features(stream, GROUPS, 100.0)
    early = raw_features(stream.take(slice(0, 700)), GROUPS, 100.0)
    np.testing.assert_allclose(whole[:700], early, rtol=1e-5, atol=1e-6)


def test_features_ignore_order_numbers_the_hour_and_the_price_level(parts):
    stream = parts.train.streams[0].take(slice(0, 500))
    names = ("price", "ask_price", "bid_price")
    moved = replace(
        stream, order_id=stream.order_id[::-1], time_ns=stream.time_ns + 10**12,
        **{name: getattr(stream, name) + 100 for name in names},
    )  # fmt: skip
    np.testing.assert_allclose(raw_features(stream, ["orders", "book", "static"], 100.0),
                               raw_features(moved, ["orders", "book", "static"], 100.0), atol=1e-5)  # fmt: skip
    # Returns are logarithms, so a tick more or less changes them by the tick's share of the price.
    np.testing.assert_allclose(raw_features(stream, ["handmade"], 100.0), raw_features(moved, ["handmade"], 100.0),
                               rtol=1e-3, atol=1e-5)  # fmt: skip


def test_known_features_of_a_tiny_stream():
    n = 3
    stream = OrderStream(
        "A", "", np.array([0, 2, 4]) * 1_000_000, np.array([1, 3, 4], np.int8), np.arange(n), np.array([10, 10, 6]),
        np.array([99_00, 99_00, 101_00]), np.array([1, 1, -1], np.int8),
        np.full((n, 1), 101_00), np.array([[8], [8], [2]]), np.full((n, 1), 99_00), np.array([[15], [5], [5]]),
    )  # fmt: skip
    columns = Columns.of(["handmade", "orders"], 1)
    rows = pd.DataFrame(raw_features(stream, ["handmade", "orders"], 100.0), columns=columns.names)
    assert rows["orders.submit_bid"].tolist() == [1, 0, 0]
    assert rows["orders.cancel_bid"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(rows["orders.cancel_size_bid"], [0, np.log1p(10), 0], rtol=1e-6)
    np.testing.assert_allclose(rows["orders.distance"], [1, 1, 1])
    np.testing.assert_allclose(rows["orders.imbalance_1"], [7 / 23, -3 / 13, 3 / 7], rtol=1e-6)
    np.testing.assert_allclose(rows["handmade.cancelled_bid"], [0, 0.5, 0])
    np.testing.assert_allclose(rows["handmade.trade_size_ask"], [0, 0, 2])
    np.testing.assert_allclose(rows["handmade.cancelled_size_bid"], [0, 5, 10 / 3], rtol=1e-6)
    np.testing.assert_allclose(rows["handmade.quote_size_bid"], [15, 10, 25 / 3], rtol=1e-6)


def test_mirroring_features_is_exchanging_the_sides(parts):
    stream = parts.train.streams[0].take(slice(0, 400))
    groups = ["handmade", "orders", "book", "static"]
    columns = Columns.of(groups, stream.levels)
    rows, other = (raw_features(s, groups, 100.0) for s in (stream, flipped(stream)))
    mirrored = columns.mirrored(rows)
    returns = np.array(["return" in name or "derivative" in name for name in columns.names])
    np.testing.assert_allclose(mirrored[:, ~returns], other[:, ~returns], atol=1e-4)
    # A logarithm of 1 + x is only nearly odd.
    np.testing.assert_allclose(mirrored[:, returns], other[:, returns], atol=2e-3)
    np.testing.assert_array_equal(columns.mirrored(mirrored), rows)
    scaler = Scaler.fit(rows, columns)
    np.testing.assert_allclose(columns.mirrored(scaler(rows.copy())), scaler(mirrored.copy()), atol=1e-5)


def test_level_one_features_see_messages_at_the_best_quotes_alone(parts):
    stream = parts.train.streams[0].take(slice(0, 800))
    market = Market.of(stream, 100.0)
    near = at_best(stream, market)
    assert 0.05 < near.mean() < 0.95
    handmade, level1 = (raw_features(stream, [group], 100.0) for group in ("handmade", "level1"))
    names = Columns.of(["level1"], 5).names
    for side in ("ask", "bid"):
        column = names.index(f"level1.cancelled_{side}")
        assert not level1[~near, column].any()
        assert (handmade[~near, column] > 0).any()


def test_empty_levels_make_finite_features(parts):
    stream = parts.train.streams[0].take(slice(0, 60))
    prices, sizes = stream.ask_price.copy(), stream.ask_size.copy()
    prices[10:20, 2:], sizes[10:20, 2:] = 9_999_999_999, 0
    prices[:5], sizes[:5] = 9_999_999_999, 0
    rows = raw_features(replace(stream, ask_price=prices, ask_size=sizes), GROUPS, 100.0)
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() < 1e5


def test_the_tick_is_found():
    stream = simulate("A", "", 60, seed=3)
    assert tick_of(stream) == 100.0
    names = ("ask_price", "bid_price")
    assert tick_of(replace(stream, **{name: getattr(stream, name) * 5 for name in names})) == 500.0


def test_statistics_come_from_unmanipulated_training_messages_alone(parts):
    system = Lob(**Lob.smoke)
    facts = system.learn_facts(parts.train)
    (stream,) = parts.train.streams
    last = int(parts.train.segments[0, 2])
    wild = stream.size.copy()
    wild[last:] *= 1000
    later = replace(stream, size=wild)
    changed = LobData.of([later], parts.train.segments, "train")
    assert system.learn_facts(changed) == facts
    kept = stream.truth.label[:last] == 0
    own = raw_features(stream.take(slice(0, last)), system.config.features, 100.0)[kept]
    columns = Columns.of(system.config.features, 5)
    assert facts["stocks"]["KONT"]["rows"] == Scaler.fit(own, columns).to_facts()


def test_standardised_rows_are_cut(parts):
    columns = Columns.of(["orders"], 5)
    rows = raw_features(parts.train.streams[0], ["orders"], 100.0)
    scaled = Scaler.fit(rows, columns)(rows * 1000)
    assert np.abs(scaled).max() <= CLIP


# ---- windows and batches ---------------------------------------------------------------------------------------------


def test_windows_stay_within_their_segment_and_know_their_label():
    rows = [np.full((6, 1), 1.0, np.float32), np.full((5, 1), 2.0, np.float32)]
    labels = [np.array([0, 0, 1, 0, 0, 0], np.int8), np.array([0, 0, 0, 0, 1], np.int8)]
    events = [np.where(labels[0] > 0, 3, -1), np.where(labels[1] > 0, 8, -1)]
    windows = windows_of(rows, labels, events, 4)
    assert windows.ends.tolist() == [3, 4, 5, 9, 10]
    assert windows.label.tolist() == [1, 1, 1, 0, 1]
    assert windows.event.tolist() == [3, 3, 3, -1, 8]
    for window in windows.get(np.arange(5)):
        assert len(np.unique(window)) == 1, "a window crosses a border"


def test_batches_hold_the_set_share_drawn_event_by_event():
    label = np.r_[np.zeros(500), np.ones(90), np.ones(10)].astype(np.int8)
    event = np.r_[np.full(500, -1), np.full(90, 0), np.full(10, 1)]
    sampler = EventSampler(label, event, 64, share=0.25, steps=50, seed=0)
    batches = np.stack(sampler.batches(0))
    assert batches.shape == (50, 64)
    assert (label[batches].sum(1) == 16).all()
    few = (event[batches] == 1).sum() / label[batches].sum()
    assert 0.4 < few < 0.6, "an event of few windows comes as often as one of many"
    assert np.array_equal(batches, np.stack(sampler.batches(0)))
    assert not np.array_equal(batches, np.stack(sampler.batches(1)))


def test_a_batch_turns_about_half_of_its_windows():
    windows = windows_of([np.ones((40, 2), np.float32)], [np.zeros(40, np.int8)], [np.full(40, -1)], 4)
    image = windows_of([-np.ones((40, 2), np.float32)], [np.zeros(40, np.int8)], [np.full(40, -1)], 4)
    drawn = window_batch(windows, image, np.arange(30), numpy_rng(0))["windows"]
    turned = (drawn < 0).all(dim=2).all(dim=1)
    assert 5 < int(turned.sum()) < 25
    assert window_batch(windows, None, np.arange(3), numpy_rng(0))["windows"].min() == 1


def test_stretches_avoid_manipulation_and_borders():
    taken = [np.zeros(50, np.int8), (np.arange(50) == 25).astype(np.int8)]
    sampler = StretchSampler([50, 50], 10, 200, steps=3, seed=0, taken=taken)
    for begin in np.concatenate(sampler.batches(0)).tolist():
        assert begin % 50 <= 40
        assert not (begin <= 75 < begin + 10)


def test_the_null_control_moves_labels_but_keeps_events_whole():
    label = np.zeros(100, np.int8)
    label[40:45] = 1
    event = np.where(label, 2, -1)
    moved, numbers = rotated(label, event, numpy_rng(1))
    assert moved.sum() == 5
    assert not np.array_equal(moved, label)
    assert np.array_equal(numbers >= 0, moved > 0)


# ---- division by time ------------------------------------------------------------------------------------------------


def test_parts_follow_one_another_in_time(parts):
    time = {name: part.column("time_ns") for name, part in parts}
    assert time["train"].max() <= time["valid"].min()
    assert time["valid"].max() <= time["test"].min()


def test_a_border_moves_behind_the_event_that_it_would_cut(parts):
    stream = replace(parts.train.streams[0], split=None)
    event = int(np.unique(stream.truth.event)[5])
    rows = np.flatnonzero(stream.truth.event == event)
    share = (rows[0] + rows[-1]) / 2 / len(stream)
    ((valid, test),) = borders([stream], (share, 0.3))
    assert valid == rows[-1] + 1
    assert test > valid
    for name, cut in divided([stream], (share, 0.3)).items():
        for other, (_, start, end) in ((n, c) for n, cuts in divided([stream], (share, 0.3)).items() for c in cuts):
            if other != name:
                ours = {e for _, a, b in cut for e in stream.truth.event[a:b] if e >= 0}
                assert not ours & {e for e in stream.truth.event[start:end] if e >= 0}


def test_days_of_a_stock_are_divided_as_one_stretch_of_time():
    days = [simulate("A", f"2031-05-0{day}", 200, seed=day) for day in (1, 2, 3)]
    segments = divided(days, (0.5, 0.25))
    assert segments == {
        "train": [(0, 0, 200), (1, 0, 100)],
        "valid": [(1, 100, 200), (2, 0, 50)],
        "test": [(2, 50, 200)],
    }


def test_a_split_that_is_not_in_order_of_time_is_refused(parts):
    (stream,) = parts.train.streams
    backwards = replace(stream, split=(2 - stream.split).astype(np.int8))
    sentence = refusal(lambda: divided([backwards], (0.7, 0.1)))
    assert "valid messages after test messages" in sentence
    assert "order the parts" in sentence


def test_short_parts_and_lost_labels_are_refused(parts):
    (stream,) = parts.train.streams
    split = np.zeros(len(stream), np.int8)
    split[-10:] = 2
    system = Lob(**Lob.smoke)
    whole = [(0, 0, len(stream))]
    torn = replace(stream, split=split, truth=stream.truth)
    assert "stretch of 10 messages" in refusal(lambda: system.split(LobData.of([torn], whole)))
    mixed = LobData.of([stream, replace(stream, date="2030-01-03", truth=None)], [*whole, (1, 0, len(stream))])
    assert "no labels" in refusal(lambda: system.split(mixed))
    blank = replace(stream, truth=replace(stream.truth, label=stream.truth.label * 0))
    train = LobData.of([blank], parts.train.segments, "train")
    assert "no manipulated message" in refusal(lambda: system.fit(train))


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv", "jfds", "lstm", "cnn2", "simlob"])
def test_every_backbone_encodes_row_by_row_and_decodes(name):
    torch.manual_seed(0)
    backbone = make_backbone(name, 25, 7, 12, 16, 1).eval()
    windows = torch.randn(6, 25, 7)
    latent = backbone.encode(windows)
    assert latent.shape == (6, 12)
    torch.testing.assert_close(backbone.encode(windows[2:3]), latent[2:3], rtol=1e-4, atol=1e-5)
    assert backbone.decode(latent, windows).shape == windows.shape
    backbone.decode(latent, windows).sum().backward()


def test_teacher_forcing_shows_the_decoder_earlier_rows_only():
    torch.manual_seed(0)
    backbone = make_backbone("jfds", 10, 3, 8, 16, 1).eval()
    windows, latent = torch.randn(1, 10, 3), torch.randn(1, 8)
    changed = windows.clone()
    changed[:, 6:] += 1
    before, after = backbone.decode(latent, windows), backbone.decode(latent, changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_latents_of_a_stream_do_not_depend_on_how_it_is_cut():
    torch.manual_seed(0)
    encoder = BookEncoder(4, LobConfig(window=9, book={"width": 8, "heads": 2, "layers": 2, "latent": 3})).eval()
    rows = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    whole = encoder.latents(torch.from_numpy(rows)[None])[0].detach().numpy()
    np.testing.assert_allclose(encoder.stream_latents(rows), whole, atol=1e-5)
    part = encoder.stream_latents(rows[300 - encoder.history :])
    np.testing.assert_allclose(part[encoder.history :], whole[300:], atol=1e-5)
    later = rows.copy()
    later[500:] += 1
    np.testing.assert_array_equal(encoder.stream_latents(later)[:500], encoder.stream_latents(rows)[:500])


def test_the_book_encoder_beats_the_mean_and_the_row_before(parts):
    options = {**Lob.smoke, "cascade": True, "book": {**Lob.smoke["book"], "steps": 60, "epochs": 2, "latent": 8}}
    system = Lob(**options).fit(parts.train, parts.valid)
    maker = system._maker()
    rows = maker.book_rows(parts.test.streams[0].take(slice(*parts.test.segments[0, 1:])), 100.0)
    encoder = system.model_.book
    decoded = encoder.encode({"book": torch.from_numpy(rows)[None]})["decoded"][0].detach().numpy()
    error = np.square(decoded - rows).mean()
    assert error < 0.8 * np.square(rows).mean(), "worse than the mean"
    assert error < 0.8 * np.square(np.diff(rows, axis=0)).mean(), "worse than repeating the row before"
    assert np.isfinite(system.evaluate(parts.test)["ap"])


def test_weight_zero_is_the_same_as_no_contrast(parts):
    zero = Lob(**{**Lob.smoke, "weight": 0.0}).fit(parts.train)
    off = Lob(**{**Lob.smoke, "contrast": "off"}).fit(parts.train)
    assert np.array_equal(zero.embed(parts.test).vectors, off.embed(parts.test).vectors)


def test_training_on_some_messages_uses_windows_that_end_at_them(fitted, parts):
    some = parts.train.take(np.arange(400, 900)[::-1])
    windows, mirror = fitted._training_windows(some)
    assert windows.ends.tolist() == list(range(400, 900)) == mirror.ends.tolist()


def test_cross_entropy_and_selection_by_validation_are_options(parts):
    options = {**Lob.smoke, "contrast": "off", "classify_weight": 1.0, "detector": "head", "select": "best"}
    system = Lob(**options).fit(parts.train, parts.valid)
    assert {"ap", "classify"} <= {name.rsplit("/")[-1] for name in system.history_.columns}
    found = system.evaluate(parts.test)
    assert found["ap"] > 2 * found["prevalence"]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_a_messages_score_is_the_mean_over_the_windows_that_contain_it():
    window, length, start = 5, 23, 100
    rng = np.random.default_rng(0)
    ends = np.arange(window - 1, length)
    scores = rng.normal(size=len(ends))
    place = np.full(length, -1, np.int64)
    place[ends] = np.arange(len(ends))
    segment = SegmentVectors(start, length, place, np.zeros((0, 0), np.float32))
    found = segment.message_scores(scores, np.arange(start, start + length), window)
    for message in range(length):
        inside = [score for end, score in zip(ends, scores) if end - window < message <= end]
        assert found[message] == pytest.approx(np.mean(inside))


def test_a_few_messages_of_a_day_get_the_scores_that_all_of_them_get(fitted, parts):
    scores = fitted.scores(parts.test)
    rows = np.array([0, 3, 700, len(parts.test) - 1])
    np.testing.assert_allclose(fitted.scores(parts.test.take(rows)), scores[rows], atol=1e-5)


def test_causal_scores_do_not_see_what_comes_later(fitted, parts):
    causal = like(fitted, causal=True)
    (stream,) = parts.test.streams
    start = int(parts.test.segments[0, 1])
    cut = start + 600
    shorter = LobData.of([stream.take(slice(0, cut))], [(0, start, cut)])
    np.testing.assert_allclose(causal.scores(parts.test)[:600], causal.scores(shorter), atol=1e-6)
    assert causal.evaluate(parts.test)["ap"] == pytest.approx(fitted.evaluate(parts.test)["ap causal"])


def test_average_precision_is_a_mean_over_events(fitted, parts):
    measured = fitted.measure(parts.test)
    assert measured.metrics["ap"] == pytest.approx(measured.items.mean())
    assert len(measured.items) == len(np.unique(parts.test.truth.event)) - 1
    assert measured.metrics["f1"] <= measured.metrics["f1_max"] + 1e-12
    assert measured.metrics["prevalence"] == pytest.approx(parts.test.truth.label.mean())


def test_chance_and_precision_at_positives_equal_brute_force():
    rng = np.random.default_rng(0)
    label = (rng.random(40) < 0.3).astype(np.int8)
    from sklearn.metrics import average_precision_score

    drawn = [average_precision_score(rng.permutation(label), np.arange(40)) for _ in range(4000)]
    assert chance_ap(label) == pytest.approx(np.mean(drawn), abs=0.005)
    scores = rng.integers(0, 6, 40).astype(float)
    assert precision_at_positives(scores, label).mean() == pytest.approx(average_precision_score(label, scores))


def test_a_mirrored_market_gets_about_the_same_metrics(fitted, parts):
    streams = [flipped(stream) for stream in parts.test.streams]
    mirrored = LobData.of(streams, parts.test.segments, "test")
    first, second = fitted.evaluate(parts.test), fitted.evaluate(mirrored)
    assert abs(first["auroc"] - second["auroc"]) < 0.05


def test_fit_never_sees_the_test_part(parts, fitted):
    (stream,) = parts.train.streams
    last = int(parts.valid.segments[-1, 2])
    wild = stream.size.copy()
    wild[last:] = 7
    other = replace(stream, size=wild)
    data = [LobData.of([other], part.segments, name) for name, part in (("train", parts.train), ("valid", parts.valid))]
    again = Lob(**Lob.smoke).fit(*data)
    for name, tensor in fitted.model_.state_dict().items():
        assert torch.equal(tensor, again.model_.state_dict()[name]), name
    assert again.thresholds_ == fitted.thresholds_


def test_fewer_training_events_are_the_first_ones(fitted, parts):
    windows, _ = like(fitted, train_events=3)._training_windows(parts.train)
    every, _ = fitted._training_windows(parts.train)
    assert len(np.unique(windows.event)) - 1 == 3
    assert len(np.unique(every.event)) - 1 == 12
    assert windows.label.sum() < every.label.sum()


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_predict_scores_every_message_and_alerts_above_the_threshold(fitted, example):
    data = fitted.read(example, purpose="predict")
    frame = fitted.predict(data)
    assert len(frame) == len(data)
    assert frame["alert"].equals(frame["score"] >= fitted.threshold_)
    assert 0 < frame["alert"].mean() < 0.5


def test_episodes_are_ranked_and_most_are_manipulation(fitted, parts):
    frame = like(fitted, ask="episodes", top=5).predict(parts.test)
    assert len(frame) <= 5
    assert frame["peak_score"].is_monotonic_decreasing
    assert frame["manipulated"].iloc[0] > 0.2
    assert set(frame["side"]) <= {"buy", "sell"}
    (stream,) = parts.test.streams
    best = frame.iloc[0]
    rows = np.arange(best["first"] - 1, best["last"])
    assert np.isin(rows, parts.test.rows[:, 2]).all()
    assert best["submitted"] <= stream.size[rows].sum()


def test_no_alert_gives_an_empty_table_of_episodes(fitted, parts):
    system = like(fitted, ask="episodes")
    system.thresholds_ = {"mean": np.inf, "causal": np.inf}
    frame = system.predict(parts.test)
    assert len(frame) == 0
    assert "peak_score" in frame.columns


def test_inspect_counts_what_is_there(fitted, parts):
    (row,) = like(fitted, ask="inspect").predict(parts.test).to_dict("records")
    stream = parts.test.streams[0]
    assert row["messages"] == len(stream)
    assert row["manipulated"] == stream.truth.label.sum()
    assert row["crossed_books"] == 0
    assert row["submissions"] + row["deletions"] + row["executions"] == len(stream)


def test_inject_answers_with_a_table_that_reads_back(fitted, tmp_path):
    real = LobData.of([simulate("NEW", "2031-01-02", 3000, seed=5)], [(0, 0, 3000)])
    options = {"train_events": 3, "valid_events": 1, "test_events": 2, "margin": 2.0, "apart": 3.0}
    frame = like(fitted, injection=options, ask="inject").predict(real)
    frame.to_parquet(tmp_path / "made.parquet")
    (stream,) = read_orderbooks(tmp_path / "made.parquet")
    assert stream.name == "NEW 2031-01-02"
    assert len(np.unique(stream.truth.event)) - 1 == 6
    assert set(stream.split) == {0, 1, 2}


def test_unlabelled_lobster_data_are_injected_for_training(tmp_path):
    stream = simulate("ACME", "2031-05-06", 4000, seed=2)
    stem = tmp_path / "ACME_2031-05-06_34200000_57600000_{}_5.csv"
    message = np.stack(
        [stream.time_ns / 1e9, stream.type, stream.order_id, stream.size, stream.price, stream.direction], 1
    )
    pd.DataFrame(message).to_csv(str(stem).format("message"), header=False, index=False)
    book = stream.to_frame()[[name for name in stream.to_frame() if name[:4] in ("ask_", "bid_")]]
    book.to_csv(str(stem).format("orderbook"), header=False, index=False)
    options = {"train_events": 6, "valid_events": 2, "test_events": 4, "margin": 2.0, "apart": 4.0}
    config = LobConfig(**{**Lob.smoke, "injection": options})
    out = tmp_path / "run"
    run = train_run(Lob, config, QUIET, data=str(stem).format("message"), out=out, baselines=False, report=False)
    assert run.metrics().test["auroc"] > 0.6
    frame = predict_run(run.path, str(stem).format("message"), overrides={"ask": "episodes", "top": 3})
    assert len(frame) <= 3
    with pytest.raises(ConfigError):
        predict_run(run.path, str(stem).format("message"), overrides={"window": 9})


def test_other_stocks_more_levels_and_snapshots_are_scored(fitted, tmp_path, capsys):
    deep = simulate("OTHER", "2031-01-02", 200, seed=6, levels=7)
    deep.to_frame().to_parquet(tmp_path / "OTHER_2031-01-02.parquet")
    data = fitted.read(tmp_path / "OTHER_2031-01-02.parquet", purpose="predict")
    assert data.streams[0].levels == 5
    assert np.isfinite(fitted.predict(data)["score"]).all()
    assert "not among the training stocks" in capsys.readouterr().err
    shallow = deep.first_levels(2).to_frame()
    shallow.to_parquet(tmp_path / "OTHER_2031-01-02.parquet")
    assert "2 price levels" in refusal(lambda: fitted.read(tmp_path / "OTHER_2031-01-02.parquet", purpose="predict"))
    book = np.zeros((40, 60))
    for level in range(10):
        book[4 * level], book[4 * level + 2] = 0.26 + 1e-4 * (level + 1), 0.26 - 1e-4 * (level + 1)
        book[4 * level + 1] = book[4 * level + 3] = 0.002 * (level + 1)
    np.save(tmp_path / "fi2010.npy", book)
    snapshots = fitted.read(tmp_path / "fi2010.npy", purpose="predict")
    assert "snapshots without messages" in capsys.readouterr().err
    assert np.isfinite(fitted.predict(snapshots)["score"]).all()
    assert fitted.embed(snapshots).vectors.shape == (60, 16)


def test_data_without_labels_cannot_be_measured_and_short_data_not_scored(fitted, parts, tmp_path):
    (stream,) = parts.test.streams
    bare = LobData.of([replace(stream, truth=None)], parts.test.segments)
    assert "no labels" in refusal(lambda: fitted.measure(bare))
    assert len(fitted.figures(bare)) > 0
    stream.take(slice(0, 10)).to_frame().to_parquet(tmp_path / "KONT_2030-01-02.parquet")
    assert "10 messages" in refusal(lambda: fitted.read(tmp_path / "KONT_2030-01-02.parquet", purpose="predict"))


def test_options_that_do_not_fit_together_are_refused():
    assert "classify_weight" in refusal(lambda: Lob(detector="head"), ConfigError)
    assert "test part" in refusal(lambda: Lob(train_share=0.9, valid_share=0.1), ConfigError)
    assert "multiple" in refusal(lambda: Lob(book={"width": 10, "heads": 4}), ConfigError)
