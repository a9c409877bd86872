"""What verbs print: rich tables on a terminal, plain aligned lines in a pipe, one JSON object for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kontrast.config import Preset
    from kontrast.contract import Card
    from kontrast.pipeline.run_folder import RunFolder


def emit(result: Mapping[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    """Prints `result` as JSON, or calls `human`."""
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False))
    else:
        human()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Prints rows under their column names."""
    if not rows:
        print("nothing to show")
        return
    names = list(columns if columns is not None else dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(names):
            # What stands first is a name that a person copies: it is never cut.
            grid.add_column(name, no_wrap=place == 0, overflow="fold")
        for line in cells:
            grid.add_row(*(text.replace("[", r"\[") for text in line))
        Console().print(grid)
        return
    widths = [max(len(name), *(len(line[column]) for line in cells)) for column, name in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def fields(facts: Mapping[str, Any]) -> None:
    """Prints names and values, one a line."""
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else _cell(value)
        print(f"{key.replace('_', ' ').ljust(width)}  {text}")


def metric_lines(metrics: Mapping[str, float]) -> None:
    """Prints metrics, one a line."""
    fields(metrics)


def headline(run: RunFolder, card: Card) -> None:
    """Prints a finished run's test metrics beside the baselines, and where the report lies."""
    metrics = run.metrics()
    rows = [
        {"metric": name + (" *" if name == card.primary_metric else ""), card.name: value}
        | {baseline: values.get(name) for baseline, values in metrics.baselines.items()}
        for name, value in sorted(metrics.test.items(), key=lambda item: item[0] != card.primary_metric)
    ]
    table(rows)
    print(f"* decides; measured on the test part. Report: {run.report}")


def comparison(result: Mapping[str, Any]) -> None:
    """Prints `compare_runs`: metrics and differing options side by side, then what the differences say."""
    names = [str(run["run"]) for run in result["runs"]]
    for key, heading in (("metrics", "metric"), ("options", "option")):
        if result[key]:
            table([{heading: row[heading], **dict(zip(names, row["values"]))} for row in result[key]])
            print()
    for line in (*(row["sentence"] for row in result["differences"]), *result["notes"]):
        print(line)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:.4f}".rstrip("0").rstrip(".") if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return str(value)


def requested(preset: str | None) -> Preset:
    """The preset asked for on the command line, or the machine's default.

    Raises:
        ConfigError: if it is neither cpu nor paper.
    """
    from kontrast.config import as_preset
    from kontrast.contract import default_preset

    return default_preset() if preset is None else as_preset(preset)
