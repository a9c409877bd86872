"""A clearly synthetic market: random orders meet a book of their own. It makes the example's order stream."""

from __future__ import annotations

import numpy as np

from kontrast.data.orderbooks import DELETE, EXECUTE, SUBMIT, OrderStream
from kontrast.randomness import numpy_rng

TICK = 100
_SIZES = np.array([10, 20, 50, 100, 100, 100, 200, 300])


def simulate(
    ticker: str, date: str, messages: int, *, seed: int, levels: int = 5, start_s: float = 34_200
) -> OrderStream:
    """A zero-intelligence market: submissions around the mid, cancellations of random orders, and a few executions.

    Args:
        ticker, date: names.
        messages: how many.
        seed: of everything.
        levels: shown on each side.
        start_s: seconds after midnight of the first message.
    """
    rng = numpy_rng(seed, "market", ticker)
    mid = 1_000_000
    resting: dict[int, tuple[int, int, int]] = {}
    volume: dict[int, dict[int, int]] = {1: {}, -1: {}}
    next_id = 1
    rows: list[tuple[float, int, int, int, int, int]] = []
    books: list[list[list[tuple[int, int]]]] = []
    clock = start_s

    def change(price: int, size: int, side: int) -> None:
        left = volume[side].get(price, 0) + size
        if left > 0:
            volume[side][price] = left
        else:
            volume[side].pop(price, None)

    def submit(side: int, price: int) -> tuple[int, int, int, int, int]:
        nonlocal next_id
        next_id += int(rng.integers(1, 8))
        size = int(rng.choice(_SIZES))
        resting[next_id] = (side, price, size)
        change(price, size, side)
        return SUBMIT, next_id, size, price, side

    def remove(order: int, kind: int) -> tuple[int, int, int, int, int]:
        side, price, size = resting.pop(order)
        change(price, -size, side)
        return kind, order, size, price, side

    for step in range(12 * levels):
        for side in (1, -1):
            submit(side, mid - side * TICK * (4 + step % (3 * levels)))
    while len(rows) < messages:
        best = {1: max(volume[1]), -1: min(volume[-1])}
        thin = [side for side in (1, -1) if len(volume[side]) < 3 * levels]
        draw, side = rng.random(), thin[0] if thin else 1 if rng.random() < 0.5 else -1
        if draw < 0.5 or thin:
            # New orders come near the best quote of their side; the spread stays some ticks wide.
            away = int(rng.geometric(0.25)) - 3
            price = best[side] - side * TICK * away
            limit = best[-side] - side * TICK * int(rng.integers(4, 9))
            row = submit(side, min(price, limit) if side == 1 else max(price, limit))
        elif draw < 0.94:
            orders = list(resting)
            row = remove(orders[int(rng.integers(len(orders)))], DELETE)
        else:
            at_best = [order for order, (own, price, _) in resting.items() if own == side and price == best[side]]
            row = remove(at_best[0], EXECUTE)
        clock += float(rng.exponential(0.5)) if rng.random() < 0.3 else float(rng.exponential(0.01))
        rows.append((clock, *row))
        books.append([_best(volume[side], side, levels) for side in (-1, 1)])
    table = np.array([row[1:] for row in rows], np.int64)
    book = np.array(books, np.int64)
    return OrderStream(
        ticker,
        date,
        np.rint(np.array([row[0] for row in rows]) * 1e9).astype(np.int64),
        table[:, 0].astype(np.int8),
        table[:, 1] + 1_000_000,
        table[:, 2],
        table[:, 3],
        table[:, 4].astype(np.int8),
        book[:, 0, :, 0],
        book[:, 0, :, 1],
        book[:, 1, :, 0],
        book[:, 1, :, 1],
    )


def _best(volume: dict[int, int], side: int, levels: int) -> list[tuple[int, int]]:
    prices = sorted(volume, reverse=side == 1)[:levels]
    return [(price, volume[price]) for price in prices]
