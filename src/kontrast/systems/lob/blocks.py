"""Manipulation put between two real messages: the clock of the rest of the day is moved on by its length.

This is how an earlier published injector works, on the best level alone: layering, quote stuffing, and pump and dump.
Nothing real happens during an event, which makes it easier to find than an overlaid one; it is there to test detectors
against an injection that they did not learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks import DELETE, EXECUTE, KINDS, SUBMIT, OrderStream, Truth
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng
from kontrast.systems.lob.injection import (
    LAYERING_CAP_BPS,
    MS,
    SECOND,
    Message,
    Period,
    merged,
    own_rows,
    parts_of,
    start_rows,
    unmanipulated,
    unused_ids,
)

Ints = npt.NDArray[np.int64]

BLOCK_KINDS = ("layering", "quote stuffing", "pump and dump")
SPREADS_BPS = {"layering": 8.0, "quote stuffing": 9.0, "pump and dump": 3.0}
"""Smallest relative spread at which an event starts, in 1e-4 of mid."""
INSIDE_BPS = 3.0


def inject_blocks(
    stream: OrderStream,
    periods: Sequence[Period],
    *,
    seed: int,
    kinds: Sequence[str] = ("layering",),
    margin_s: float = 60.0,
    apart_s: float = 40.0,
) -> OrderStream:
    """The stream with events between its messages; arguments, result and errors as those of `injection.inject`.

    Times of messages after an event are later by the length of the event, and books are what they were.
    """
    constants = unmanipulated(stream)
    rng = numpy_rng(seed, "blocks", stream.ticker, stream.date)
    chosen: list[tuple[int, str]] = []
    for period in periods:
        found = 0
        starts = {kind: start_rows(stream, period, margin_s=margin_s, spread_bps=SPREADS_BPS[kind]) for kind in kinds}
        for _ in range(200 * period.events):
            kind = kinds[int(rng.integers(len(kinds)))]
            if found == period.events or not len(starts[kind]):
                break
            row = int(rng.choice(starts[kind]))
            begin = int(stream.time_ns[row])
            if all(abs(begin - int(stream.time_ns[other])) >= apart_s * SECOND for other, _ in chosen):
                chosen.append((row, kind))
                found += 1
        if found < period.events:
            what = f"{stream.name} has room for {found} of {period.events} events in one part of the day"
            raise DataError(what, file=stream.path, mend="ask for fewer events, other kinds, or give a longer day")
    part = parts_of(stream.time_ns, periods)
    delay = np.zeros(len(stream), np.int64)
    taken, added, shift = np.unique(stream.order_id), [], 0
    for number, (row, kind) in enumerate(sorted(chosen)):
        plan = {"layering": _layering, "quote stuffing": _stuffing, "pump and dump": _pump}[kind]
        messages = [replace(m, time_ns=m.time_ns + shift) for m in plan(stream, row, constants.tick, rng)]
        ids = unused_ids(taken, stream, row, 1 + max(message.order for message in messages), rng)
        before = np.full(len(messages), row, np.int64)
        rows = own_rows(stream, number, KINDS.index(kind), messages, before, ids)
        added.append(replace(rows, split=np.full(len(rows), part[row], np.int8)))
        shift = messages[-1].time_ns + MS - int(stream.time_ns[row])
        delay[row + 1 :] = shift
    moved = replace(stream, time_ns=stream.time_ns + delay, truth=Truth.none(len(stream)), split=part)
    return merged(moved, added)


def _quotes(stream: OrderStream, row: int, side: int) -> tuple[int, int, float]:
    """Best price of a side, of the other side, and mid."""
    bid, ask = int(stream.bid_price[row, 0]), int(stream.ask_price[row, 0])
    return (bid, ask, (bid + ask) / 2) if side == 1 else (ask, bid, (bid + ask) / 2)


def _layering(stream: OrderStream, row: int, tick: int, rng: np.random.Generator) -> list[Message]:
    """Ten to twelve growing bids (or offers) below a genuine order that stands 3 bps inside the other side."""
    side = 1 if rng.random() < 0.5 else -1
    own, other, mid = _quotes(stream, row, side)
    mean = float(stream.size[stream.type == SUBMIT].mean())
    genuine = other - side * max(1, int(INSIDE_BPS * 1e-4 * mid / tick)) * tick
    room = min(LAYERING_CAP_BPS * 1e-4 * mid, side * (genuine - own) - tick)
    count = int(rng.integers(10, 13))
    size = 100 * int(np.ceil(6 * mean / count / 100))
    clock = int(stream.time_ns[row]) + MS
    whole = int(mean * rng.uniform(2, 3))
    messages = [Message(clock, SUBMIT, 0, whole, genuine, -side)]
    for number in range(count):
        clock += _around(14, 5, rng)
        price = own + side * int(room * (number + 1) / count / tick) * tick
        messages.append(Message(clock, SUBMIT, number + 1, int(size * rng.uniform(0.9, 1.1)), price, side))
    clock += _around(10, 5, rng)
    messages.append(Message(clock, EXECUTE, 0, whole, genuine, -side))
    clock += _around(600, 500, rng)
    for message in messages[1 : count + 1]:
        clock += _around(14, 5, rng)
        messages.append(replace(message, time_ns=clock, type=DELETE))
    return messages


def _stuffing(stream: OrderStream, row: int, tick: int, rng: np.random.Generator) -> list[Message]:
    """Fifty to two hundred messages, submitting and cancelling in turn, eight to ten in a millisecond."""
    side = 1 if rng.random() < 0.5 else -1
    own, other, _ = _quotes(stream, row, side)
    price = own + side * max(1, side * (other - own) // (2 * tick)) * tick
    most = max(1, int(np.quantile(stream.size[stream.type == SUBMIT], 0.1)))
    clock, messages = int(stream.time_ns[row]) + MS, []
    for number in range(int(rng.integers(25, 101))):
        size = int(rng.integers(1, most + 1))
        for kind in (SUBMIT, DELETE):
            clock += int(MS / rng.uniform(8, 10))
            messages.append(Message(clock, kind, number, size, price, side))
    return messages


def _pump(stream: OrderStream, row: int, tick: int, rng: np.random.Generator) -> list[Message]:
    """Six bids that lift both quotes by three to four per cent in a second, each with a trade at the offer; then the
    bids are cancelled one by one while the shares are sold."""
    bid, ask = int(stream.bid_price[row, 0]), int(stream.ask_price[row, 0])
    mean = float(np.concatenate([stream.ask_size[:, 0], stream.bid_size[:, 0]]).mean())
    rise = rng.uniform(0.03, 0.04) * (bid + ask) / 2
    steps = [round(rise * (number + 1) / 6 / tick) * tick for number in range(6)]
    size = max(1, int(mean * rng.uniform(1.25, 2)))
    clock, messages, before = int(stream.time_ns[row]) + MS, [], 0
    for number, step in enumerate(steps):
        clock += _around(80, 20, rng)
        messages.append(Message(clock, EXECUTE, 6 + number, size, ask + before, -1, shift=step))
        clock += _around(80, 20, rng)
        messages.append(Message(clock, SUBMIT, number, size, bid + step, 1, shift=step))
        before = step
    for number in reversed(range(6)):
        below = steps[number - 1] if number else 0
        clock += _around(250, 50, rng)
        messages.append(Message(clock, DELETE, number, size, bid + steps[number], 1, shift=steps[number]))
        clock += _around(250, 50, rng)
        messages.append(Message(clock, EXECUTE, 12 + number, size, bid + steps[number], 1, shift=below))
    return messages


def _around(mean_ms: float, spread_ms: float, rng: np.random.Generator) -> int:
    """Nanoseconds, uniform within `spread_ms` of a mean and at least 0.1 ms."""
    return int(max(0.1, rng.uniform(mean_ms - spread_ms, mean_ms + spread_ms)) * MS)
