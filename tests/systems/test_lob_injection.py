"""Injected manipulation: the book stays sound, the real messages stay what they were, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data.orderbooks import DELETE, EXECUTE, KINDS, SUBMIT, OrderStream, checked, empty_levels
from kontrast.errors import ConfigError, DataError
from kontrast.systems.lob import Period, inject
from kontrast.systems.lob.blocks import BLOCK_KINDS, inject_blocks
from kontrast.systems.lob.config import InjectionSection
from kontrast.systems.lob.division import injected
from kontrast.systems.lob.injection import Constants, Message, plan_overlay, shown, start_rows
from kontrast.systems.lob.market import simulate

SECOND = 1_000_000_000
BOOK = ("ask_price", "ask_size", "bid_price", "bid_size")
MESSAGE = ("time_ns", "type", "order_id", "size", "price", "direction")


def market(seed: int = 0, n: int = 4000) -> OrderStream:
    return simulate("ACME", "2031-05-06", n, seed=seed)


def periods(stream: OrderStream, train: int = 6, valid: int = 2, test: int = 4) -> list[Period]:
    first, last = int(stream.time_ns[0]), int(stream.time_ns[-1])
    cuts = [first, first + int(0.6 * (last - first)), first + int(0.75 * (last - first)), last]
    return [Period(a, b, n, part) for part, (a, b, n) in enumerate(zip(cuts, cuts[1:], (train, valid, test)))]


@pytest.fixture(scope="module")
def pair():
    real = market()
    return real, inject(real, periods(real), seed=3, margin_s=2.0, apart_s=4.0)


def test_books_are_sound_after_injection(pair):
    _, made = pair
    checked(made)
    no_ask, no_bid = empty_levels(made)
    assert not (no_ask | no_bid).any()
    assert (np.diff(made.ask_price, axis=1) > 0).all()
    assert (np.diff(made.bid_price, axis=1) < 0).all()
    assert (made.ask_price[:, 0] > made.bid_price[:, 0]).all()
    assert (np.diff(made.time_ns) >= 0).all()


def test_without_the_manipulators_messages_the_real_ones_remain(pair):
    real, made = pair
    kept = made.take(made.truth.label == 0)
    for name in MESSAGE:
        assert np.array_equal(getattr(kept, name), getattr(real, name)), name
    differs = np.zeros(len(real), bool)
    for name in BOOK:
        differs |= (getattr(kept, name) != getattr(real, name)).any(1)
    alive = np.zeros(len(real), bool)
    for event in np.unique(made.truth.event[made.truth.event >= 0]):
        own = made.time_ns[made.truth.event == event]
        alive |= (real.time_ns >= own.min()) & (real.time_ns <= own.max())
    assert differs.any()
    assert not differs[~alive].any(), "a book outside the events was changed"


def test_each_event_submits_what_it_cancels_or_executes(pair):
    _, made = pair
    real_ids = set(made.order_id[made.truth.label == 0].tolist())
    for event in np.unique(made.truth.event[made.truth.event >= 0]):
        rows = made.take(made.truth.event == event)
        sent, gone = rows.take(rows.type == SUBMIT), rows.take(rows.type != SUBMIT)
        assert sorted(sent.order_id.tolist()) == sorted(gone.order_id.tolist())
        assert sent.size.sum() == gone.size.sum()
        assert not real_ids & set(sent.order_id.tolist())
        executed = rows.take(rows.type == EXECUTE)
        assert len(executed) == 1
        fake = rows.direction == -executed.direction[0]
        assert set(rows.type[fake]) == {SUBMIT, DELETE}
        # The genuine order stands better than the fakes lean, so it is executed and they are not.
        better = executed.direction[0] * (executed.price[0] - rows.price[fake])
        assert (better < 0).all()


def test_events_keep_their_distance_and_their_part(pair):
    real, made = pair
    starts = {}
    for event in np.unique(made.truth.event[made.truth.event >= 0]):
        rows = made.truth.event == event
        assert len(set(made.split[rows])) == 1
        starts[event] = int(made.time_ns[rows].min())
    gaps = np.diff(sorted(starts.values()))
    assert gaps.min() >= 4.0 * SECOND - 5_000_000
    counts = [len(np.unique(made.truth.event[(made.truth.label == 1) & (made.split == part)])) for part in (0, 1, 2)]
    assert counts == [6, 2, 4]
    for period in periods(real):
        inside = (made.split == period.part) & (made.truth.label == 1)
        assert made.time_ns[inside].min() >= period.start_ns + 2 * SECOND
        assert made.time_ns[inside].max() < period.end_ns


def test_the_same_seed_injects_the_same(pair):
    real, made = pair
    again = inject(real, periods(real), seed=3, margin_s=2.0, apart_s=4.0)
    other = inject(real, periods(real), seed=4, margin_s=2.0, apart_s=4.0)
    assert made.to_frame().equals(again.to_frame())
    assert not made.to_frame().equals(other.to_frame())


def test_layering_stands_on_many_levels_and_spoofing_on_one():
    real = market(1)
    for kind, few in (("layering", False), ("spoofing", True)):
        made = inject(real, periods(real, 4, 1, 1), seed=0, kinds=[kind], margin_s=2.0, apart_s=4.0)
        for event in np.unique(made.truth.event[made.truth.event >= 0]):
            rows = made.take(made.truth.event == event)
            executed = int(rows.direction[rows.type == EXECUTE][0])
            fakes = rows.take((rows.type == SUBMIT) & (rows.direction == -executed))
            assert (len(np.unique(fakes.price)) == 1) == few
            assert (len(fakes) <= 8) if few else (10 <= len(fakes) <= 12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 400), st.integers(0, 10_000))
def test_a_planned_event_never_meets_a_real_quote(row, seed):
    stream = market(2, 800)
    constants = Constants.of(stream)
    messages = plan_overlay("layering", stream, row, constants, np.random.default_rng(seed))
    if messages is None:
        return
    genuine = messages[0]
    last = int(np.searchsorted(stream.time_ns, messages[-1].time_ns, "right"))
    opposite = stream.bid_price if genuine.direction == -1 else stream.ask_price
    assert (genuine.direction * opposite[row:last, 0] > genuine.direction * genuine.price).all()
    fakes = [m.price for m in messages if m.direction == -genuine.direction]
    other = stream.ask_price if genuine.direction == -1 else stream.bid_price
    lean = max if genuine.direction == -1 else min
    assert (-genuine.direction * (other[row:last, 0] - lean(fakes)) > 0).all()
    assert [m.time_ns for m in messages] == sorted(m.time_ns for m in messages)


def test_shown_is_the_best_of_real_and_fake_volume():
    stream = market().take(slice(100, 101)).first_levels(2)
    best = int(stream.bid_price[0, 0])
    joined = Message(0, SUBMIT, 1, 30, best, 1)
    better = Message(0, SUBMIT, 2, 40, best + 100, 1)
    ask_price, ask_size, bid_price, bid_size = shown(stream, 0, [joined, better])
    assert bid_price.tolist() == [best + 100, best]
    assert bid_size.tolist() == [40, int(stream.bid_size[0, 0]) + 30]
    assert ask_price.tolist() == stream.ask_price[0].tolist()
    assert ask_size.tolist() == stream.ask_size[0].tolist()


def test_starts_have_a_wide_spread_and_keep_off_the_ends():
    stream = market()
    period = periods(stream)[0]
    rows = start_rows(stream, period, margin_s=5.0)
    ask, bid = stream.ask_price[rows, 0], stream.bid_price[rows, 0]
    assert ((ask - bid) / ((ask + bid) / 2) >= 3e-4).all()
    assert stream.time_ns[rows].min() >= period.start_ns + 5 * SECOND
    assert stream.time_ns[rows].max() < period.end_ns - 5 * SECOND


def test_events_are_dealt_to_the_days_of_a_stock_in_proportion():
    days = [simulate("A", f"2031-05-0{day}", 2500, seed=day) for day in (1, 2)]
    section = InjectionSection(train_events=6, valid_events=1, test_events=2, margin=2.0, apart=4.0)
    made = injected(days, (0.6, 0.2), section, 0)
    count = [
        [len(np.unique(s.truth.event[(s.truth.label == 1) & (s.split == part)])) for part in (0, 1, 2)] for s in made
    ]
    assert np.sum(count, axis=0).tolist() == [6, 1, 2]
    assert count[0][2] == 0


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_blocks_move_the_clock_on_and_leave_the_real_messages(kind):
    # A spread of ten ticks at a price of 100 dollars is wide enough for every kind.
    real = market()
    real = replace(real, ask_price=real.ask_price + 600)
    made = inject_blocks(real, periods(real, 3, 1, 2), seed=1, kinds=[kind], margin_s=2.0, apart_s=4.0)
    checked(made)
    kept = made.take(made.truth.label == 0)
    for name in ("type", "order_id", "size", "price", "direction", *BOOK):
        assert np.array_equal(getattr(kept, name), getattr(real, name)), name
    late = kept.time_ns - real.time_ns
    assert (np.diff(late) >= 0).all()
    assert len(np.unique(late)) == 7
    assert len(np.unique(made.truth.event)) - 1 == 6
    assert set(made.truth.kind[made.truth.label == 1]) == {KINDS.index(kind)}
    for event in range(6):
        rows = np.flatnonzero(made.truth.event == event)
        assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1)), "a real message is inside the block"
        own = made.take(rows)
        assert (own.ask_price[:, 0] > own.bid_price[:, 0]).all()
        if kind == "pump and dump":
            rise = own.bid_price[:, 0].max() / own.bid_price[-1, 0] - 1
            assert 0.025 < rise < 0.045
        if kind == "quote stuffing":
            assert 50 <= len(own) <= 200
            assert (own.type[0::2] == SUBMIT).all()
            assert (own.type[1::2] == DELETE).all()
            assert (own.time_ns[-1] - own.time_ns[0]) / 1e6 < 30


def test_kinds_must_fit_the_mode():
    assert InjectionSection(mode="block", kinds=["quote stuffing"]).mode == "block"
    for options in ({"mode": "block", "kinds": ["spoofing"]}, {"kinds": ["pump and dump"]}):
        with pytest.raises(ConfigError, match="kinds"):
            InjectionSection(**options)


def test_what_cannot_be_injected_into_is_refused():
    real = market()
    made = inject(real, periods(real), seed=0, margin_s=2.0, apart_s=4.0)
    with pytest.raises(DataError, match="labelled already"):
        inject(made, periods(real), seed=0)
    with pytest.raises(DataError, match="snapshots only"):
        inject(replace(real, type=np.zeros(len(real), np.int8)), periods(real), seed=0)
    with pytest.raises(DataError, match="room for"):
        inject(real, periods(real, 500), seed=0, margin_s=2.0, apart_s=4.0)
    with pytest.raises(DataError, match="too few to imitate"):
        inject(real.take(slice(0, 20)), periods(real), seed=0)
