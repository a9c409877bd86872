"""Answers of `predict` besides scores: suspect episodes, and a summary of each stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.orderbooks import DELETE, EXECUTE, HALT, REDUCE, SUBMIT, OrderStream, empty_levels
from kontrast.systems.lob.features import tick_of
from kontrast.systems.lob.views import LobData

Floats = npt.NDArray[np.float64]


def clock(time_ns: int) -> str:
    """Nanoseconds after midnight as hours, minutes, seconds and milliseconds."""
    seconds, rest = divmod(int(time_ns), 1_000_000_000)
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}.{rest // 1_000_000:03d}"


def message_table(data: LobData, scores: Floats, threshold: float) -> pd.DataFrame:
    """One row per message: id, ticker, date, time_ns, type, direction, price, size, score, alert."""
    dates = np.asarray([stream.date for stream in data.streams], dtype=object)
    columns = {name: data.column(name) for name in ("time_ns", "type", "direction", "price", "size")}
    return pd.DataFrame(
        {
            "id": data.names(),
            "ticker": data.tickers(),
            "date": list(dates[data.rows[:, 1]]),
            **columns,
            "score": scores,
            "alert": scores >= threshold,
        }
    )


def episodes(data: LobData, scores: Floats, threshold: float, *, merge_s: float, top: int) -> pd.DataFrame:
    """Alerts that follow one another closely, merged and ranked by their highest score.

    The side is the one on which more shares were cancelled during the episode; levels, orders and shares are of the
    submissions on that side.

    Returns:
        rank, ticker, date, start, end, seconds, messages, side, price_levels, orders, submitted, cancelled,
        executed_opposite, mean_score, peak_score, and first and last message of the day; with known truth also
        manipulated, the share of its messages that were.
    """
    found: list[dict[str, object]] = []
    for number, stream in enumerate(data.streams):
        alerts = np.sort(data.rows[(data.rows[:, 1] == number) & (scores >= threshold), 2])
        if not len(alerts):
            continue
        by_position = dict(zip(data.rows[data.rows[:, 1] == number, 2].tolist(), scores[data.rows[:, 1] == number]))
        cuts = np.flatnonzero(np.diff(stream.time_ns[alerts]) > merge_s * 1e9) + 1
        for group in np.split(alerts, cuts):
            own = np.array([by_position[position] for position in group.tolist()])
            found.append(_episode(stream, group, own))
    columns = [
        "rank", "ticker", "date", "start", "end", "seconds", "messages", "side", "price_levels", "orders", "submitted",
        "cancelled", "executed_opposite", "mean_score", "peak_score", "first", "last",
    ]  # fmt: skip
    if data.truth is not None:
        columns.append("manipulated")
    ranked = sorted(found, key=lambda episode: -float(episode["peak_score"]))[:top]  # type: ignore[arg-type]
    return pd.DataFrame([{"rank": place, **row} for place, row in enumerate(ranked, start=1)], columns=columns)


def _episode(stream: OrderStream, rows: npt.NDArray[np.int64], scores: Floats) -> dict[str, object]:
    kind, side, size = stream.type[rows], stream.direction[rows], stream.size[rows]
    cancelled = {way: int(size[np.isin(kind, (REDUCE, DELETE)) & (side == way)].sum()) for way in (1, -1)}
    way = 1 if cancelled[1] >= cancelled[-1] else -1
    sent = (kind == SUBMIT) & (side == way)
    episode: dict[str, object] = {
        "ticker": stream.ticker,
        "date": stream.date,
        "start": clock(int(stream.time_ns[rows[0]])),
        "end": clock(int(stream.time_ns[rows[-1]])),
        "seconds": round(float(stream.time_ns[rows[-1]] - stream.time_ns[rows[0]]) / 1e9, 3),
        "messages": len(rows),
        "side": ("buy" if way == 1 else "sell") if stream.has_messages else "",
        "price_levels": len(np.unique(stream.price[rows][sent])),
        "orders": int(sent.sum()),
        "submitted": int(size[sent].sum()),
        "cancelled": cancelled[way],
        "executed_opposite": int(size[(kind == EXECUTE) & (side == -way)].sum()),
        "mean_score": float(scores.mean()),
        "peak_score": float(scores.max()),
        "first": int(rows[0]) + 1,
        "last": int(rows[-1]) + 1,
    }
    if stream.truth is not None:
        episode["manipulated"] = float(stream.truth.label[rows].mean())
    return episode


def inspection(streams: Sequence[OrderStream]) -> pd.DataFrame:
    """One row per stream: messages, times, spread, gaps between levels, and how sound the book is."""
    rows = []
    for stream in streams:
        no_ask, no_bid = empty_levels(stream)
        whole = ~no_ask[:, 0] & ~no_bid[:, 0]
        ask, bid = stream.ask_price.astype(np.float64), stream.bid_price.astype(np.float64)
        spread = (ask[:, 0] - bid[:, 0])[whole]
        tick = tick_of(stream)
        gaps = np.concatenate([np.diff(ask, axis=1)[~no_ask[:, 1:]], -np.diff(bid, axis=1)[~no_bid[:, 1:]]])
        kinds = {name: int((stream.type == number).sum()) for name, number in
                 (("submissions", SUBMIT), ("reductions", REDUCE), ("deletions", DELETE), ("executions", EXECUTE),
                  ("halts", HALT))}  # fmt: skip
        rows.append(
            {
                "stream": stream.name,
                "messages": len(stream),
                "levels": stream.levels,
                "first": clock(int(stream.time_ns[0])),
                "last": clock(int(stream.time_ns[-1])),
                **kinds,
                "tick": tick / 10_000,
                "median_spread_ticks": float(np.median(spread) / tick) if len(spread) else float("nan"),
                "median_spread_bps": float(np.median(spread / ((ask + bid)[whole, 0] / 2)) * 1e4)
                if len(spread)
                else float("nan"),
                "mean_level_gap_ticks": float(gaps.mean() / tick) if len(gaps) else float("nan"),
                "crossed_books": int((spread <= 0).sum()),
                "empty_levels": int(no_ask.sum() + no_bid.sum()),
                "same_time": float((np.diff(stream.time_ns) == 0).mean()) if len(stream) > 1 else 0.0,
                "manipulated": int(stream.truth.label.sum()) if stream.truth is not None else 0,
                "events": len(np.unique(stream.truth.event[stream.truth.label == 1])) if stream.truth else 0,
            }
        )
    return pd.DataFrame(rows)
