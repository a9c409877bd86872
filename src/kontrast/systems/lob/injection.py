"""Labelled manipulation for real order books: fake orders are laid over the messages of a day, or put between them.

Real labels can hardly be had. A genuine small order is placed inside the spread, fake orders on the other side lean on
the price, the genuine one is executed, and the fakes vanish. What a model learns from this is what was put in,
so the baseline of a single message, without any context, belongs beside every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks import DELETE, EXECUTE, KINDS, SUBMIT, OrderStream, Truth, empty_levels
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng
from kontrast.systems.lob.features import tick_of

Ints = npt.NDArray[np.int64]

MS, SECOND = 1_000_000, 1_000_000_000
SPREAD_BPS = 3.0
"""Smallest relative spread at which an overlaid event starts, in 1e-4 of mid."""
LAYERING_CAP_BPS = 7.0


@dataclass(frozen=True)
class Period:
    """A stretch of a day that gets some events.

    Attributes:
        start_ns, end_ns: since midnight.
        events: how many.
        part: 0 train, 1 valid, 2 test.
    """

    start_ns: int
    end_ns: int
    events: int
    part: int


@dataclass(frozen=True)
class Message:
    """One message of a manipulator.

    Attributes:
        time_ns: since midnight.
        type: as LOBSTER numbers them.
        order: number of the order within its event.
        size, price, direction: of the order.
        shift: by how much the real book is displaced while this is the last message, in units of price.
    """

    time_ns: int
    type: int
    order: int
    size: int
    price: int
    direction: int
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Constants:
    """What events of a stock are measured by, from its real messages.

    Attributes:
        tick: price step.
        sizes: of submissions of at least the median.
        big_sizes: of submissions from the 85th percentile on, cut at the 99.5th.
        depth: mean size of a level.
        gaps_ns: times between real messages from 0.05 to 60 ms.
    """

    tick: int
    sizes: Ints
    big_sizes: Ints
    depth: float
    gaps_ns: Ints

    @classmethod
    def of(cls, stream: OrderStream) -> Constants:
        """Measured on a stream.

        Raises:
            DataError: if it has too few submissions.
        """
        sizes = stream.size[stream.type == SUBMIT]
        gaps = np.diff(stream.time_ns)
        gaps = gaps[(gaps >= 0.05 * MS) & (gaps <= 60 * MS)]
        if len(sizes) < 20 or len(gaps) < 20:
            what = f"{stream.name} has {len(sizes)} submissions and {len(gaps)} gaps below 60 ms, too few to imitate"
            raise DataError(what, file=stream.path, mend="inject into data with messages of at least some minutes")
        low, high = np.quantile(sizes, [0.85, 0.995])
        levels = np.concatenate([stream.ask_size, stream.bid_size], axis=1)
        return cls(
            round(tick_of(stream)),
            sizes[sizes >= np.median(sizes)],
            np.minimum(sizes[sizes >= low], int(high)),
            float(levels.mean()),
            gaps,
        )


def inject(
    stream: OrderStream,
    periods: Sequence[Period],
    *,
    seed: int,
    kinds: Sequence[str] = ("layering", "spoofing"),
    margin_s: float = 60.0,
    apart_s: float = 40.0,
) -> OrderStream:
    """The stream with manipulation overlaid: the real messages stay where they are, the book shows both.

    Args:
        stream: real messages.
        periods: when, and how many events each.
        seed: of everything random.
        kinds: "layering", "spoofing" or both; of both, layering has a share of 0.6.
        margin_s: least time between an event and the ends of its period.
        apart_s: least time between two events.

    Returns:
        A stream with truth and split. Real messages outside events are what they were.

    Raises:
        DataError: if the stream has no messages, is labelled already, or has no room for so many events.
    """
    constants = unmanipulated(stream)
    rng = numpy_rng(seed, "injection", stream.ticker, stream.date)
    events: list[tuple[int, list[Message]]] = []
    for period in periods:
        starts = start_rows(stream, period, margin_s=margin_s)
        found = 0
        for row in rng.permutation(starts).tolist():
            if found == period.events:
                break
            begin = int(stream.time_ns[row])
            if any(abs(begin - other[0].time_ns) < apart_s * SECOND for _, other in events):
                continue
            kind = _drawn_kind(kinds, rng)
            messages = plan_overlay(kind, stream, row, constants, rng)
            if messages is not None and messages[-1].time_ns < period.end_ns:
                events.append((KINDS.index(kind), messages))
                found += 1
        if found < period.events:
            what = f"{stream.name} has room for {found} of {period.events} events in one part of the day"
            raise DataError(what, file=stream.path, mend="ask for fewer events, or give a longer day")
    return _overlaid(stream, sorted(events, key=lambda event: event[1][0].time_ns), periods, rng)


def start_rows(stream: OrderStream, period: Period, *, margin_s: float = 60.0, spread_bps: float = SPREAD_BPS) -> Ints:
    """Rows of a period at which an event may start: both sides quoted and the spread wide."""
    ask, bid = stream.ask_price[:, 0], stream.bid_price[:, 0]
    no_ask, no_bid = empty_levels(stream)
    spread = (ask - bid) / np.maximum((ask + bid) / 2, 1)
    low, high = period.start_ns + margin_s * SECOND, period.end_ns - margin_s * SECOND
    fits = (spread >= spread_bps * 1e-4) & (stream.time_ns >= low) & (stream.time_ns < high)
    return np.flatnonzero(fits & ~no_ask[:, 0] & ~no_bid[:, 0] & ~no_ask.any(1) & ~no_bid.any(1))


def unmanipulated(stream: OrderStream) -> Constants:
    """Constants of a stream that can be injected into; raises `DataError` for any other."""
    if not stream.has_messages:
        mend = "give LOBSTER's messages, or a table with type, size, price and direction"
        raise DataError(f"{stream.name} has snapshots only, no messages", file=stream.path, mend=mend)
    if stream.truth is not None and stream.truth.label.any():
        raise DataError(f"{stream.name} is labelled already", file=stream.path, mend="inject into real data")
    return Constants.of(stream)


def _drawn_kind(kinds: Sequence[str], rng: np.random.Generator) -> str:
    draw = rng.random()
    return ("layering" if draw < 0.6 else "spoofing") if len(kinds) > 1 else kinds[0]


def plan_overlay(
    kind: str, stream: OrderStream, row: int, constants: Constants, rng: np.random.Generator
) -> list[Message] | None:
    """Messages of a layering or spoofing event that starts at a row; None if a real quote comes in its way."""
    side = 1 if rng.random() < 0.5 else -1
    tick = constants.tick
    own, other = (stream.bid_price, stream.ask_price) if side == 1 else (stream.ask_price, stream.bid_price)
    best_own, best_other = int(own[row, 0]), int(other[row, 0])
    spread = side * (best_other - best_own) // tick
    genuine = best_other - side * min(2, spread // 3) * tick
    clock = int(stream.time_ns[row] + rng.uniform(0.5, 3) * MS)
    size = int(rng.choice(constants.sizes))
    messages = [Message(clock, SUBMIT, 0, size, genuine, -side)]
    prices, sizes = _fake_orders(kind, own[row], genuine, side, (best_own + best_other) / 2, constants, rng)
    for number, (price, amount) in enumerate(zip(prices, sizes), start=1):
        clock += int(rng.choice(constants.gaps_ns))
        messages.append(Message(clock, SUBMIT, number, amount, price, side))
    clock += int(rng.uniform(5, 400) * MS)
    messages.append(Message(clock, EXECUTE, 0, size, genuine, -side))
    clock += (600 + 100 * int(rng.integers(-5, 5))) * MS
    fakes = messages[1:-1]
    order = range(len(fakes) - 1, -1, -1) if rng.random() < 0.7 else rng.permutation(len(fakes)).tolist()
    for number in order:
        clock += int(rng.choice(constants.gaps_ns))
        messages.append(replace(fakes[number], time_ns=clock, type=DELETE))
    return messages if _undisturbed(stream, row, messages, side, genuine) else None


def _fake_orders(
    kind: str, levels: Ints, genuine: int, side: int, mid: float, constants: Constants, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Prices and sizes of the fake orders, on the side `side` whose real level prices are `levels`."""
    tick = constants.tick
    if kind == "spoofing":
        price = int(levels[rng.integers(min(3, len(levels)))])
        wanted, sizes = constants.depth * rng.uniform(3, 8), list[int]()
        while sum(sizes) < wanted and len(sizes) < 8:
            sizes.append(int(rng.choice(constants.big_sizes)))
        return [price] * len(sizes), sizes
    count = int(rng.integers(10, 13))
    best = int(levels[0])
    room = min(LAYERING_CAP_BPS * 1e-4 * mid, side * (genuine - best) - tick)
    step = max(1, int(room // tick) // max(1, count // 3))
    prices = []
    for number in range(count):
        level = number % len(levels)
        better = best + side * step * (number // len(levels) + 1) * tick
        improves = level == 0 and side * (genuine - better) >= tick
        prices.append(better if improves else int(levels[level]))
    return prices, [int(size) for size in rng.choice(constants.sizes, count)]


def _undisturbed(stream: OrderStream, row: int, messages: list[Message], side: int, genuine: int) -> bool:
    """Whether no real quote reaches a fake or the genuine order while they live."""
    last = int(np.searchsorted(stream.time_ns, messages[-1].time_ns, "right"))
    if last >= len(stream):
        return False
    ask, bid = stream.ask_price[row:last, 0], stream.bid_price[row:last, 0]
    own, other = (side * bid, side * ask) if side == 1 else (side * ask, side * bid)
    nearest = max(side * message.price for message in messages if message.direction == side)
    # Where the spread has no room the genuine order joins the best quote, which may then not move away from it.
    joins = other[0] == side * genuine
    touched = other < side * genuine if joins else other <= side * genuine
    empty = (stream.ask_size[row:last, 0] == 0) | (stream.bid_size[row:last, 0] == 0)
    return not (touched | (other <= nearest) | (own >= side * genuine) | empty).any()


# ---- the book with both ----------------------------------------------------------------------------------------------


def _overlaid(
    stream: OrderStream, events: list[tuple[int, list[Message]]], periods: Sequence[Period], rng: np.random.Generator
) -> OrderStream:
    book: dict[str, Any] = {
        name: getattr(stream, name).copy() for name in ("ask_price", "ask_size", "bid_price", "bid_size")
    }
    added: list[OrderStream] = []
    taken = np.unique(stream.order_id)
    for number, (kind, messages) in enumerate(events):
        times = np.array([message.time_ns for message in messages])
        before = np.searchsorted(stream.time_ns, times, "right") - 1
        ids = unused_ids(taken, stream, int(before[0]), 1 + max(message.order for message in messages), rng)
        added.append(own_rows(stream, number, kind, messages, before, ids))
        alive: list[Message] = []
        for place, message in enumerate(messages):
            _apply(alive, message)
            after = int(before[place + 1]) if place + 1 < len(messages) else int(before[place])
            for row in range(int(before[place]) + 1, after + 1):
                for name, value in zip(book, shown(stream, row, alive)):
                    book[name][row] = value
    real = replace(stream, truth=Truth.none(len(stream)), split=parts_of(stream.time_ns, periods), **book)
    return merged(real, [replace(rows, split=parts_of(rows.time_ns, periods)) for rows in added])


def parts_of(time_ns: Ints, periods: Sequence[Period]) -> npt.NDArray[np.int8]:
    """(n,) part of each message: that of the last period that has begun."""
    ordered = sorted(periods, key=lambda period: period.start_ns)
    borders = np.array([period.start_ns for period in ordered[1:]])
    return np.array([period.part for period in ordered], np.int8)[np.searchsorted(borders, time_ns, "right")]


def _apply(alive: list[Message], message: Message) -> None:
    if message.type == SUBMIT:
        alive.append(message)
    else:
        alive[:] = [other for other in alive if other.order != message.order]


def shown(stream: OrderStream, row: int, alive: Sequence[Message], shift: int = 0) -> list[Ints]:
    """Ask prices and sizes, bid prices and sizes: the best levels of the real book of a row and the live orders."""
    result = []
    for direction, prices, sizes in (
        (-1, stream.ask_price[row], stream.ask_size[row]),
        (1, stream.bid_price[row], stream.bid_size[row]),
    ):
        volume = {int(price) + shift: int(size) for price, size in zip(prices, sizes) if size > 0}
        for message in alive:
            if message.direction == direction:
                volume[message.price] = volume.get(message.price, 0) + message.size
        best = sorted(volume, reverse=direction == 1)[: stream.levels]
        gone = stream.levels - len(best)
        empty = -direction * 9_999_999_999
        result.append(np.array(best + [empty] * gone, np.int64))
        result.append(np.array([volume[price] for price in best] + [0] * gone, np.int64))
    return result


def own_rows(
    stream: OrderStream, number: int, kind: int, messages: list[Message], before: Ints, ids: Ints
) -> OrderStream:
    """The manipulator's messages with the book after each; `ids` are the numbers of its orders."""
    books: list[list[Ints]] = []
    alive: list[Message] = []
    for message, row in zip(messages, before.tolist()):
        _apply(alive, message)
        books.append(shown(stream, row, alive, message.shift))
    ask_price, ask_size, bid_price, bid_size = (np.stack(column) for column in zip(*books))
    n = len(messages)
    return OrderStream(
        stream.ticker,
        stream.date,
        np.array([message.time_ns for message in messages], np.int64),
        np.array([message.type for message in messages], np.int8),
        ids[[message.order for message in messages]],
        np.array([message.size for message in messages], np.int64),
        np.array([message.price for message in messages], np.int64),
        np.array([message.direction for message in messages], np.int8),
        ask_price,
        ask_size,
        bid_price,
        bid_size,
        truth=Truth(np.ones(n, np.int8), np.full(n, number, np.int64), np.full(n, kind, np.int8)),
    )


def unused_ids(taken: Ints, stream: OrderStream, row: int, count: int, rng: np.random.Generator) -> Ints:
    """Order numbers near those of the moment that no real order has; `taken` are those of the whole day, sorted."""
    near = int(np.median(stream.order_id[max(0, row - 20) : row + 20]))
    reach = 1000
    while True:
        low, high = max(1, near - reach), near + reach
        used = taken[np.searchsorted(taken, low) : np.searchsorted(taken, high)]
        candidates = np.setdiff1d(np.arange(low, high), used, assume_unique=True)
        if len(candidates) >= 10 * count:
            return rng.choice(candidates, count, replace=False).astype(np.int64)
        reach *= 2


def merged(real: OrderStream, added: list[OrderStream]) -> OrderStream:
    """All rows in order of time; at equal times the real ones first."""
    streams = [real, *added]
    time = np.concatenate([stream.time_ns for stream in streams])
    own = np.repeat([0, *([1] * len(added))], [len(stream) for stream in streams])
    order = np.lexsort((np.arange(len(time)), own, time))
    names = (
        "time_ns", "type", "order_id", "size", "price", "direction", "ask_price", "ask_size", "bid_price", "bid_size",
        "split",
    )  # fmt: skip
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(stream, name) for stream in streams])[order] for name in names
    }
    truths = [stream.truth or Truth.none(len(stream)) for stream in streams]
    truth = Truth(*(np.concatenate([getattr(t, name) for t in truths])[order] for name in ("label", "event", "kind")))
    return replace(real, **joined, truth=truth)
