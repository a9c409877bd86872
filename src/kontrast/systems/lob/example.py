"""The written example: a clearly synthetic market with manipulation overlaid by the same procedure as on real data."""

from __future__ import annotations

from pathlib import Path

from kontrast.data.tables import write_table
from kontrast.systems.lob.injection import Period, inject
from kontrast.systems.lob.market import simulate

TICKER, DATE, MESSAGES, LEVELS = "KONT", "2030-01-02", 8000, 5
PARTS = ((0.0, 0.6, 12), (0.6, 0.75, 4), (0.75, 1.0, 8))
"""Begin and end of a part, as a share of the session, and its number of events."""


def write_example_market(folder: str | Path) -> Path:
    """Writes ``KONT_2030-01-02_l5_injected.parquet``: messages and books of a stock that does not exist, with labels.

    The columns are those of every labelled table that `lob` reads. A zero-intelligence market (`market.simulate`) sends
    random orders; layering and spoofing are overlaid (`injection.inject`), both with the seed 0.
    """
    real = simulate(TICKER, DATE, MESSAGES, seed=0, levels=LEVELS)
    first, last = int(real.time_ns[0]), int(real.time_ns[-1])
    periods = [
        Period(int(first + begin * (last - first)), int(first + end * (last - first)), events, part)
        for part, (begin, end, events) in enumerate(PARTS)
    ]
    stream = inject(real, periods, seed=0, margin_s=3.0, apart_s=6.0)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return write_table(stream.to_frame(), folder / f"{TICKER}_{DATE}_l{LEVELS}_injected.parquet")
