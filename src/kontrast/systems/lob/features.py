"""What a network sees of a message: the hand-made features, the order itself, and the book around it.

Every number depends on the message, on earlier ones of the same day and on nothing else; no order number, clock time or
absolute price is among them. Rows are then standardised per stock with means and deviations of the training rows that
nobody manipulated.

All columns know their mirror image: what they would be if buyers were sellers. The statistics of a pair of columns are
shared, so mirroring and standardising commute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks import DELETE, EXECUTE, REDUCE, SUBMIT, OrderStream, empty_levels

Floats = npt.NDArray[np.float32]
Group = Literal["handmade", "level1", "orders", "book", "static"]

ROLL = 10
"""Rows of the rolling means, of the hand-made features."""
CLIP = 10.0
"""Standardised features are cut at plus and minus this."""

_SIDED = ("return", "derivative", "quote_size", "trade_size", "cancelled_size", "trade", "cancelled")
HANDMADE = tuple(f"{name}_{side}" for name in _SIDED for side in ("ask", "bid"))
ORDERS = (
    "submit_ask", "submit_bid", "cancel_ask", "cancel_bid", "submit_size_ask", "submit_size_bid",
    "cancel_size_ask", "cancel_size_bid", "distance", "gap", "imbalance", "imbalance_1",
)  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Names of the columns of some groups, and their mirror image.

    Attributes:
        names: one per column.
        mirror: column i of a mirrored row is ``sign[i] * row[mirror[i]]``.
        sign: 1 or -1.
    """

    names: tuple[str, ...]
    mirror: tuple[int, ...]
    sign: tuple[int, ...]

    @classmethod
    def of(cls, groups: Sequence[Group], levels: int) -> Columns:
        """The columns of `groups`, in their order, for books of so many levels."""
        names = [f"{group}.{name}" for group in groups for name in _names(group, levels)]
        place = {name: number for number, name in enumerate(names)}
        mirror = [place[_other_side(name)] for name in names]
        # A price that rises is one that falls in the mirror; an imbalance changes its sign.
        sign = [-1 if any(word in name for word in ("return", "derivative", "imbalance")) else 1 for name in names]
        return cls(tuple(names), tuple(mirror), tuple(sign))

    def mirrored(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows (..., columns) as they would be with the sides exchanged."""
        return np.asarray(rows[..., list(self.mirror)] * np.asarray(self.sign, rows.dtype))


def _names(group: Group, levels: int) -> Sequence[str]:
    if group in ("handmade", "level1"):
        return HANDMADE
    if group == "orders":
        return ORDERS
    return [f"{what}{level + 1}_{side}" for level in range(levels) for side in ("ask", "bid") for what in ("p", "s")]


def _other_side(name: str) -> str:
    if name.endswith("_ask"):
        return f"{name.removesuffix('_ask')}_bid"
    return f"{name.removesuffix('_bid')}_ask" if name.endswith("_bid") else name


@dataclass(frozen=True, eq=False)
class Market:
    """Quantities of a stream that several groups need.

    Attributes:
        tick: smallest price step, in the units of the prices.
        ask, bid: (n, levels) prices with empty levels filled in.
        ask_size, bid_size: (n, levels).
        mid: (n,) mean of best ask and bid.
        gap_ms: (n,) milliseconds since the message before, 0 for the first.
    """

    tick: float
    ask: npt.NDArray[np.float64]
    bid: npt.NDArray[np.float64]
    ask_size: npt.NDArray[np.float64]
    bid_size: npt.NDArray[np.float64]
    mid: npt.NDArray[np.float64]
    gap_ms: npt.NDArray[np.float64]

    @classmethod
    def of(cls, stream: OrderStream, tick: float) -> Market:
        """From a stream."""
        no_ask, no_bid = empty_levels(stream)
        ask, bid = _filled(stream.ask_price, no_ask, tick), _filled(stream.bid_price, no_bid, -tick)
        return cls(
            tick,
            ask,
            bid,
            np.where(no_ask, 0, stream.ask_size).astype(np.float64),
            np.where(no_bid, 0, stream.bid_size).astype(np.float64),
            (ask[:, 0] + bid[:, 0]) / 2,
            np.diff(stream.time_ns, prepend=stream.time_ns[:1]) / 1e6,
        )


def _filled(prices: npt.NDArray[np.int64], empty: npt.NDArray[np.bool_], step: float) -> npt.NDArray[np.float64]:
    """Prices with an empty best level taken from the last row that had one, and deeper ones a step behind the level."""
    filled = prices.astype(np.float64)
    if not empty.any():
        return filled
    first = np.where(empty[:, 0], -1, np.arange(len(filled)))
    known = np.maximum.accumulate(first)
    some = int(np.argmax(~empty[:, 0]))
    filled[:, 0] = filled[np.where(known < 0, some, known), 0] if not empty[:, 0].all() else 0.0
    for level in range(1, filled.shape[1]):
        filled[:, level] = np.where(empty[:, level], filled[:, level - 1] + step, filled[:, level])
    return filled


def tick_of(stream: OrderStream) -> float:
    """The price step of a stock: the largest step that all but a few of its quotes are multiples of."""
    no_ask, no_bid = empty_levels(stream)
    prices = np.concatenate([stream.ask_price[~no_ask], stream.bid_price[~no_bid]])
    prices = prices[:: max(1, len(prices) // 20_000)]
    for step in (5_000, 1_000, 500, 100, 50, 10, 5):
        if len(prices) and (prices % step == 0).mean() > 0.98:
            return float(step)
    return 1.0


def raw_features(stream: OrderStream, groups: Sequence[Group], tick: float) -> Floats:
    """(n, columns) features of the messages, before they are standardised; columns as `Columns.of` names them."""
    market = Market.of(stream, tick)
    parts = []
    for group in groups:
        if group in ("handmade", "level1"):
            parts.append(_handmade(stream, market, best_level_only=group == "level1"))
        elif group == "orders":
            parts.append(_orders(stream, market))
        else:
            static = _book(market)
            parts.append(static if group == "static" else np.diff(static, axis=0, prepend=static[:1]))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _handmade(stream: OrderStream, market: Market, *, best_level_only: bool) -> npt.NDArray[np.float64]:
    """The 14 features of a published detector on level 1, with returns that look back instead of ahead.

    With `best_level_only` only messages at or inside the best quotes count, as in data of one level.
    """
    dt = np.maximum(market.gap_ms, 1.0)
    size = stream.size.astype(np.float64)
    counts = np.ones(len(stream), bool)
    if best_level_only:
        counts = at_best(stream, market)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for side, direction, quote, depth in (
        ("ask", -1, market.ask[:, 0], market.ask_size[:, 0]),
        ("bid", 1, market.bid[:, 0], market.bid_size[:, 0]),
    ):
        change = np.diff(np.log(np.maximum(quote, market.tick)), prepend=np.log(max(quote[0], market.tick)))
        own = (stream.direction == direction) & counts
        trade, cancel = own & (stream.type == EXECUTE), own & np.isin(stream.type, (REDUCE, DELETE))
        columns |= {
            f"return_{side}": change,
            f"derivative_{side}": change / dt,
            f"quote_size_{side}": _rolling_mean(depth),
            f"trade_size_{side}": _rolling_mean(size * trade) * trade,
            f"cancelled_size_{side}": _rolling_mean(size * cancel),
            f"trade_{side}": trade / dt,
            f"cancelled_{side}": cancel / dt,
        }
    return np.stack([columns[name] for name in HANDMADE], axis=1)


def at_best(stream: OrderStream, market: Market) -> npt.NDArray[np.bool_]:
    """(n,) messages at the best quote of their side or inside it, as the book was before or is after them."""
    sell = stream.direction < 0
    best = np.where(sell, market.ask[:, 0], market.bid[:, 0])
    before = np.concatenate([best[:1], np.where(sell[1:], market.ask[:-1, 0], market.bid[:-1, 0])])
    price = stream.price.astype(np.float64)
    near = np.where(sell, price <= np.maximum(best, before), price >= np.minimum(best, before))
    return np.asarray(near & (stream.type != 0))


def _orders(stream: OrderStream, market: Market) -> npt.NDArray[np.float64]:
    """The message itself, at any level: who submits or cancels how much, how far from mid, how soon, how lopsided."""
    submit, cancel = stream.type == SUBMIT, np.isin(stream.type, (REDUCE, DELETE))
    size = np.log1p(stream.size.astype(np.float64))
    ask, bid = stream.direction < 0, stream.direction > 0
    away = np.where(ask, stream.price - market.mid, market.mid - stream.price) / market.tick
    away = np.where(stream.type == 0, 0.0, np.clip(away, -20, 60))
    flags = [submit & ask, submit & bid, cancel & ask, cancel & bid]
    depth = (market.bid_size.sum(1), market.ask_size.sum(1))
    best = (market.bid_size[:, 0], market.ask_size[:, 0])
    return np.stack(
        [
            *flags,
            *(size * flag for flag in flags),
            away,
            np.log1p(market.gap_ms),
            *((bids - asks) / np.maximum(bids + asks, 1.0) for bids, asks in (depth, best)),
        ],
        axis=1,
    ).astype(np.float64)


def _book(market: Market) -> npt.NDArray[np.float64]:
    """(n, 4 · levels): of each level the distance from mid in ticks and the log size, of ask and bid."""
    n, levels = market.ask.shape
    book = np.empty((n, levels, 4))
    book[:, :, 0] = (market.ask - market.mid[:, None]) / market.tick
    book[:, :, 1] = np.log1p(market.ask_size)
    book[:, :, 2] = (market.mid[:, None] - market.bid) / market.tick
    book[:, :, 3] = np.log1p(market.bid_size)
    return book.reshape(n, 4 * levels)


def _rolling_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of the last `ROLL` rows, of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - ROLL, 0)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


@dataclass(frozen=True, eq=False)
class Scaler:
    """Means and deviations of one stock, shared by a column and its mirror image.

    Attributes:
        mean, std: (columns,); a column that never changes has the deviation 1.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, rows: Floats, columns: Columns) -> Scaler:
        """From rows (n, columns) that nobody manipulated."""
        both = rows.astype(np.float64)
        mirror, sign = list(columns.mirror), np.asarray(columns.sign)
        mean = both.mean(0)
        mean = (mean + sign * mean[mirror]) / 2
        variance = np.square(both - mean).mean(0)
        std = np.sqrt((variance + variance[mirror]) / 2)
        return cls(mean, np.where(std > 1e-12, std, 1.0))

    def __call__(self, rows: Floats) -> Floats:
        """Standardised rows, cut at ±`CLIP`."""
        scaled = np.asarray((rows - self.mean) / self.std, dtype=np.float32)
        np.clip(scaled, -CLIP, CLIP, out=scaled)
        return scaled

    def to_facts(self) -> dict[str, list[float]]:
        """JSON-able."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Scaler:
        """The inverse of `to_facts`."""
        return cls(np.asarray(facts["mean"], np.float64), np.asarray(facts["std"], np.float64))
