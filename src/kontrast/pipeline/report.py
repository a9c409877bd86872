"""The report: what a run folder says, gathered once (`collect_report`) and written as one page (`write_report`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kontrast.config import BaseConfig
from kontrast.evaluation.projection import Method, project
from kontrast.files import write_text
from kontrast.pipeline.markup import format_number, hover_text
from kontrast.pipeline.report_charts import MAX_POINTS, MapData
from kontrast.pipeline.run_figures import read_figures, write_figures
from kontrast.pipeline.run_folder import RunFolder
from kontrast.pipeline.run_records import Ablation, Metrics, RunRecord

if TYPE_CHECKING:  # the contract brings torch; a page needs none of it
    from kontrast.contract import Card, Figure

__all__ = ["ConfigRow", "ReportData", "collect_report", "reading", "write_figures", "write_report"]


@dataclass(frozen=True)
class ConfigRow:
    """One option: dotted name, its value, what the preset would have given (None if unknown), and what it means."""

    name: str
    value: Any
    default: Any = None
    doc: str = ""
    changed: bool = False


@dataclass(frozen=True)
class ReportData:
    """Everything on the page, already computed; no System is needed to write it.

    Attributes:
        record: what ran.
        title, summary, arxiv: from the system's card.
        metrics: the run's own and its baselines' numbers; None if the run was not measured.
        history: training curves (stage, epoch, step, one column per quantity); may be empty.
        ablation: the arms, if `ablate` ran.
        map: 2-D map of the embeddings, if there are any.
        figures: the system's own.
        config: every option.
        provenance: versions, seed, data and its hash, as words.
    """

    record: RunRecord
    title: str = ""
    summary: str = ""
    arxiv: str | None = None
    metrics: Metrics | None = None
    history: pd.DataFrame | None = None
    ablation: Ablation | None = None
    map: MapData | None = None
    figures: Sequence[Figure] = ()
    config: Sequence[ConfigRow] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_name(self) -> str:
        """Name of the data's file or folder; empty if unknown."""
        path = self.record.data.get("path")
        return Path(str(path)).name if path else ""

    @property
    def command(self) -> str:
        """The command line that reproduces the run; empty if it was started from Python."""
        return shlex.join(self.record.command)


def collect_report(
    run: RunFolder,
    *,
    card: Card | None = None,
    options: Mapping[str, type[BaseConfig]] | None = None,
    figures: Sequence[Figure] | None = None,
    projections: Sequence[Method] = ("pca",),
    label: str | None = None,
) -> ReportData:
    """Gathers a report from a run folder; parts that the folder lacks stay empty.

    Args:
        run: the folder.
        card: the system's card, for the title, the summary and the paper.
        options: section of config.yaml ("system", "trainer") to its configuration class; brings documentation and tells
            which values differ from the preset's.
        figures: the system's figures; by default those that `write_figures` left in the folder.
        projections: maps to draw of at most 5,000 embeddings, the first on top; "auto" is UMAP where it is installed
            and there are rows enough (about half a minute), else PCA.
        label: column that colours the map; by default the one that the embeddings name.

    Raises:
        DataError: if a file of the folder is damaged.
        ValueError: if the embeddings have no column `label`.
    """
    record = run.record
    return ReportData(
        record=record,
        title=card.title if card else "",
        summary=card.summary if card else "",
        arxiv=card.arxiv if card else None,
        metrics=run.metrics() if (run.path / "metrics.json").is_file() else None,
        history=run.history(),
        ablation=run.ablation(),
        map=_collect_map(run, record.seed, projections, label),
        figures=read_figures(run) if figures is None else figures,
        config=_collect_config(run, record.preset, options or {}),
        provenance=run.provenance(),
    )


def write_report(run: RunFolder, data: ReportData | None = None, **collect: Any) -> Path:
    """Writes report.html: one file that opens without a network.

    Args:
        run: the folder.
        data: what to write; by default ``collect_report(run, **collect)``.
        collect: arguments of `collect_report`.
    """
    from kontrast.pipeline.report_page import render_page  # plotly.js and templates load when a page is written

    return write_text(run.report, render_page(data if data is not None else collect_report(run, **collect)))


def reading(metrics: Metrics | None) -> str:
    """The result in words: the primary metric, its interval, the baselines, and whether the run beats them."""
    value = metrics.test.get(metrics.primary) if metrics else None
    if metrics is None or value is None:
        return "This run has not been measured on held-out data yet."
    text = f"{metrics.primary} {format_number(float(value))}"
    if interval := metrics.intervals.get("test", {}).get(metrics.primary):
        text += f" (95 % interval {format_number(interval[0])} to {format_number(interval[1])})"
    if count := metrics.counts.get("test"):
        text += f" on {count:,} held-out {metrics.unit}"
    others = {name: float(row[metrics.primary]) for name, row in metrics.baselines.items() if metrics.primary in row}
    others = {name: other for name, other in others.items() if np.isfinite(other)}
    if not others or not np.isfinite(value):
        return f"{text}. No baseline was measured."
    sign = 1 if metrics.higher_is_better else -1
    ranked = sorted(others.items(), key=lambda item: (-sign * item[1], item[0]))
    text += "; " + ", ".join(f"{name} {format_number(other)}" for name, other in ranked) + "."
    best, best_value = ranked[0]
    gap = sign * (float(value) - best_value)
    if gap == 0:
        return f"{text} That is no better than {best}."
    if gap < 0:
        return f"{text} {best} does better, by {format_number(-gap)}."
    which = "the baseline" if len(ranked) == 1 else "the best baseline"
    return f"{text} That beats {which}, {best}, by {format_number(gap)}."


def _collect_config(run: RunFolder, preset: str, options: Mapping[str, type[BaseConfig]]) -> list[ConfigRow]:
    if not (run.path / "config.yaml").is_file():
        return []
    rows = []
    for section, values in run.config().items():
        known = {option.path: option for option in options[section].options()} if section in options else {}
        for name, value in _leaves(values, known):
            option = known.get(name)
            if option is None:
                rows.append(ConfigRow(f"{section}.{name}" if name else section, value))
                continue
            default = _as_written(option.paper if preset == "paper" else option.default)
            doc = f"{option.doc} [{option.unit}]" if option.unit else option.doc
            rows.append(ConfigRow(f"{section}.{name}", value, default, doc, changed=value != default))
    return rows


def _leaves(value: Any, known: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values; a mapping that is itself an option's value stays whole."""
    if not isinstance(value, dict) or not value or prefix in known:
        return [(prefix, value)]
    return [
        leaf for key, item in value.items() for leaf in _leaves(item, known, f"{prefix}.{key}" if prefix else str(key))
    ]


def _as_written(value: Any) -> Any:
    """A default as config.yaml would hold it."""
    if isinstance(value, BaseConfig):
        return value.model_dump(mode="json")
    if isinstance(value, (tuple, list)):
        return [_as_written(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _collect_map(
    run: RunFolder,
    seed: int,
    projections: Sequence[Method],
    label: str | None,
) -> MapData | None:
    if not (run.path / "embeddings.parquet").is_file():
        return None
    stored = run.embeddings()
    total = len(stored.rows)
    if total == 0 or not projections:
        return None
    made = [project(stored.vectors, method=method, max_rows=MAX_POINTS, seed=seed) for method in projections]
    # UMAP has no place for some rows; a map shows those that all projections have.
    chosen = reduce(np.intersect1d, [projection.rows for projection in made])
    rows = stored.rows.iloc[chosen]
    column = label or stored.label or ("kind" if rows["kind"].nunique() > 1 else None)
    if column is not None and column not in rows:
        raise ValueError(f"the embeddings have no column '{column}' to colour by; they have {list(rows.columns)}")
    labels = None if column is None else list(rows[column])
    return MapData(
        coordinates={item.method: item.coordinates[np.isin(item.rows, chosen)] for item in made},
        labels=labels,
        label_name=column or str(rows["kind"].iloc[0]),
        hover=_hover(rows, column, stored.hover),
        total=total,
        note=f"{' or '.join(dict.fromkeys(item.title for item in made))} of the {_splits(rows)} embeddings",
    )


def _splits(rows: pd.DataFrame) -> str:
    return " and ".join(dict.fromkeys(map(str, rows["split"])))


def _hover(rows: pd.DataFrame, label: str | None, hover: str | None) -> list[str]:
    texts = rows[hover] if hover is not None and hover in rows else [None] * len(rows)
    labels = rows[label] if label is not None else [None] * len(rows)
    boxes = []
    for name, kind, part, group, text in zip(rows["id"], rows["kind"], rows["split"], labels, texts, strict=True):
        lines = [f"<b>{hover_text(format_number(group), lines=1)}</b>"] if group is not None else []
        lines += [hover_text(str(text), lines=4)] if text is not None else []
        boxes.append("<br>".join([*lines, hover_text(f"{kind} {name} · {part}", lines=2)]))
    return boxes
