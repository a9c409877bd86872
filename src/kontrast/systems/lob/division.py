"""Division of order streams into training, validation and test stretches: earlier ones first, no event cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kontrast.data.orderbooks import OrderStream
from kontrast.data.splits import PARTS
from kontrast.errors import DataError
from kontrast.systems.lob.blocks import inject_blocks
from kontrast.systems.lob.config import InjectionSection
from kontrast.systems.lob.injection import Period, inject

Ints = npt.NDArray[np.int64]
Segments = dict[str, list[tuple[int, int, int]]]


def borders(streams: Sequence[OrderStream], shares: tuple[float, float]) -> list[tuple[int, int]]:
    """Of each stream the positions at which its validation and its test stretch begin.

    The days of a stock are laid one after another; the first of its messages are for training, the last ones for the
    test. A border that would cut an event moves behind it.

    Args:
        streams: sorted by stock and day.
        shares: of the messages for training and validation.
    """
    found: list[tuple[int, int]] = []
    for ticker in dict.fromkeys(stream.ticker for stream in streams):
        days = [stream for stream in streams if stream.ticker == ticker]
        total, before = sum(len(day) for day in days), 0
        cuts = (round(shares[0] * total), round((shares[0] + shares[1]) * total))
        for day in days:
            at = [min(max(cut - before, 0), len(day)) for cut in cuts]
            first = _off_event(day, at[0])
            found.append((first, max(first, _off_event(day, at[1]))))
            before += len(day)
    return found


def _off_event(stream: OrderStream, position: int) -> int:
    if stream.truth is None or not 0 < position < len(stream):
        return position
    event = stream.truth.event
    open_events = np.intersect1d(event[:position][event[:position] >= 0], event[position:])
    return int(np.flatnonzero(np.isin(event, open_events))[-1]) + 1 if len(open_events) else position


def divided(streams: Sequence[OrderStream], shares: tuple[float, float]) -> Segments:
    """Stretches (stream, start, end) of each part: as the data state them, else by time.

    Raises:
        DataError: if only some streams state a split, or a stock's parts are not in order of time.
    """
    stated = [stream.split is not None for stream in streams]
    if any(stated) and not all(stated):
        lacking = streams[stated.index(False)]
        what = f"{lacking.name} has no column 'split' and other files have one"
        raise DataError(what, file=lacking.path, mend="give all files one, or none")
    segments: Segments = {name: [] for name in PARTS}
    if not all(stated):
        for number, (stream, (valid, test)) in enumerate(zip(streams, borders(streams, shares))):
            for name, start, end in (("train", 0, valid), ("valid", valid, test), ("test", test, len(stream))):
                if end > start:
                    segments[name].append((number, start, end))
        return segments
    latest: dict[str, tuple[int, str]] = {}
    for number, stream in enumerate(streams):
        assert stream.split is not None
        cuts = np.flatnonzero(np.diff(stream.split)) + 1
        for start, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(stream)]):
            part = int(stream.split[start])
            before, where = latest.get(stream.ticker, (0, ""))
            if part < before:
                what = f"{stream.name} has {PARTS[part]} messages after {PARTS[before]} messages{where}"
                mend = "order the parts of a stock by time: train, then valid, then test"
                raise DataError(what, file=stream.path, mend=mend)
            latest[stream.ticker] = (part, f" of {stream.date}" if stream.date else "")
            segments[PARTS[part]].append((number, start, end))
    return segments


def injected(
    streams: Sequence[OrderStream], shares: tuple[float, float], section: InjectionSection, seed: int
) -> tuple[OrderStream, ...]:
    """Unlabelled streams with events overlaid, and their split.

    A stock gets the events of a part in proportion to the messages that its days have in it.

    Raises:
        DataError: where there is no room for the events.
    """
    cuts = borders([replace(stream, truth=None) for stream in streams], shares)
    sizes = [(valid, test - valid, len(stream) - test) for stream, (valid, test) in zip(streams, cuts)]
    made = []
    for number, (stream, (valid, test)) in enumerate(zip(streams, cuts)):
        same = [i for i, other in enumerate(streams) if other.ticker == stream.ticker]
        edges = [0, valid, test, len(stream)]
        periods = []
        for part, wanted in enumerate((section.train_events, section.valid_events, section.test_events)):
            start, end = edges[part], edges[part + 1]
            if end > start:
                total = sum(sizes[i][part] for i in same)
                done = sum(sizes[i][part] for i in same if i < number)
                # Differences of rounded sums add up to the events asked for.
                share = round(wanted * (done + sizes[number][part]) / total) - round(wanted * done / total)
                last = int(stream.time_ns[end]) if end < len(stream) else int(stream.time_ns[-1]) + 1
                periods.append(Period(int(stream.time_ns[start]), last, share, part))
        put = inject if section.mode == "overlay" else inject_blocks
        made.append(
            put(stream, periods, seed=seed, kinds=section.kinds, margin_s=section.margin, apart_s=section.apart)
        )
    return tuple(made)
