"""The report as one HTML file: text first, charts drawn by an inlined plotly.js, nothing fetched from anywhere.

The page allows itself no network at all, and no script but the two that are in it, by their hashes: whatever the texts
of a data set hold, they stay texts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd
from plotly.offline import get_plotlyjs

from kontrast.pipeline.markup import (
    MISSING,
    Html,
    clipped,
    format_difference,
    format_number,
    join,
    tag,
)
from kontrast.pipeline.report import ConfigRow, ReportData, reading
from kontrast.pipeline.report_charts import Group, bar_chart, compact, curve_charts, forest_chart, map_chart
from kontrast.pipeline.run_records import Ablation, Metrics

if TYPE_CHECKING:
    from kontrast.contract import Figure

_TABLE_ROWS = 50
_LONG_TEXT = 24
_LOWER_IS_BETTER = re.compile(
    r"loss|error|(^|[^a-z])(rmse|mse|mae|ece|nll|brier|eer|fpr\d*|perplexity|distance|rank)([^a-z]|$)"
)
_HIGHER_IS_BETTER = re.compile(
    r"recall|precision|accuracy|(^|[^a-z])(acc|auroc|auprc|auc|ap|map|mrr|ndcg|hits?|f1|nmi|ari|purity|dice|iou|miou|r2"
    r"|spearman|pearson|silhouette|success|kappa)([^a-z]|$)"
)


def render_page(data: ReportData) -> str:
    """The whole page as HTML text."""
    charts: dict[str, Any] = {}
    sections = [
        ("result", "Result", _result(data, charts)),
        ("ablation", "Does the contrastive part help?", _ablation(data.ablation, charts)),
        ("training", "Training", _training(data, charts)),
        ("map", "Map of the embeddings", _map(data, charts)),
        ("figures", "Figures", _figures(data.figures, charts)),
        ("config", "Configuration", _config(data)),
        ("provenance", "Provenance", _provenance(data)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in shown]
    body = join(
        _header(data, tag("nav", tag("ul", links), aria_label="Sections")),
        tag("main", [tag("section", tag("h2", title), body, id=name) for name, title, body in shown]),
        _footer(data),
    )
    return _document(f"{data.record.system}: report", body, charts)


def _document(title: str, body: Html, charts: Mapping[str, Any]) -> str:
    plotly, script = _plotly(), _template("report.js")
    # regl, which draws plotly's WebGL scatter, compiles its draw calls from strings.
    allowed = f"'sha256-{_sha256(plotly)}' 'sha256-{_sha256(script)}' 'unsafe-eval'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(_template("report.css"))),
    )
    # Inert until the script above it runs it: the browser paints the text before it parses 5 MB of code.
    scripts = (
        f'<script type="application/json" id="chart-data">{_json(charts)}</script>\n'
        f'<script type="text/plain" id="plotly-source">{plotly}</script>\n<script>{script}</script>'
    )
    if not charts:
        scripts = f'<script type="application/json" id="chart-data">{{}}</script>\n<script>{script}</script>'
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n{scripts}\n</body>\n</html>\n'


def _json(value: Any) -> str:
    text = json.dumps(compact(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _plotly() -> str:
    source = str(get_plotlyjs()).replace("\r\n", "\n")
    return re.sub(r"<(?=/script|script|!--)", r"\\x3c", source, flags=re.IGNORECASE)


@cache
def _template(name: str) -> str:
    return (files("kontrast.pipeline") / "templates" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# ---- sections ----------------------------------------------------------------------------------------------------


def _header(data: ReportData, nav: Html) -> Html:
    record = data.record
    name = f"{record.system} on {data.data_name}" if data.data_name else record.system
    facts = [_when(record.started), f"seed {record.seed}", f"{record.preset} preset", f"on {record.device}"]
    if took := record.durations.get("train"):
        facts.append(f"trained in {_duration(took)}")
    paper = None
    if data.arxiv:
        paper = tag("a", f"arXiv {data.arxiv}", href=f"https://arxiv.org/abs/{data.arxiv}", rel="noreferrer")
    return tag(
        "header",
        tag("h1", name),
        tag("p", " · ".join(fact for fact in facts if fact), class_="soft"),
        tag("p", f"This run failed: {record.failure or 'no reason was recorded'}", class_="bad")
        if record.status == "failed"
        else None,
        tag("p", reading(data.metrics), class_="reading"),
        tag("p", tag("strong", f"{data.title[:1].upper()}{data.title[1:].rstrip('.')}."), " ", data.summary, " ", paper)
        if data.title
        else None,
        tag("noscript", tag("p", "Charts need JavaScript; every number is also in the tables.", class_="soft")),
        nav,
    )


def _result(data: ReportData, charts: dict[str, Any]) -> Html | None:
    metrics = data.metrics
    if metrics is None or not metrics.test:
        return None
    sign = -1 if metrics.higher_is_better else 1
    ranked = sorted(
        metrics.baselines, key=lambda name: (*_rank(metrics.baselines[name].get(metrics.primary), sign), name)
    )
    rows: dict[str, Mapping[str, float]] = {data.record.system: metrics.test}
    rows |= {name: metrics.baselines[name] for name in ranked}
    bounds = {data.record.system: metrics.intervals.get("test", {}), **metrics.intervals}
    primary = metrics.primary
    chosen = [name for name in rows if primary in rows[name] and format_number(float(rows[name][primary])) != MISSING]
    chart = None
    if len(chosen) > 1 and chosen[0] == data.record.system:
        values = [float(rows[name][primary]) for name in chosen]
        charts["chart-result"] = bar_chart(
            chosen, values, [_finite(bounds.get(name, {}).get(primary)) for name in chosen], primary
        )
        texts = ", ".join(f"{name} {format_number(value)}" for name, value in zip(chosen, values, strict=True))
        chart = _chart("chart-result", None, f"{primary}: {texts}", f"{primary} on the test split.")
    # The primary metric first, then its family (recall@1, recall@5 ...), then the rest.
    family = primary.split("@")[0]
    names = sorted(
        {name for row in rows.values() for name in row},
        key=lambda name: (name != primary, name.split("@")[0] != family, _natural(name)),
    )
    table = _metric_table(data.record.system, rows, bounds, metrics, names)
    return tag("div", tag("div", table), chart, class_="side stacked" if len(names) > 4 else "side")


def _metric_table(
    own: str,
    rows: Mapping[str, Mapping[str, float]],
    bounds: Mapping[str, Mapping[str, tuple[float, float]]],
    metrics: Metrics,
    names: Sequence[str],
) -> Html:
    best = {name: _best([row.get(name) for row in rows.values()], _direction(name, metrics)) for name in names}

    def cell(row: str, name: str) -> Html:
        value = rows[row].get(name)
        text = format_number(None if value is None else float(value))
        marked = len(rows) > 1 and value is not None and best[name] is not None and value == best[name]
        interval = _finite(bounds.get(row, {}).get(name))
        return tag(
            "td",
            tag("span", text, class_="best", title="best in its column") if marked else text,
            tag("span", f"{format_number(interval[0])} to {format_number(interval[1])}", class_="interval")
            if interval
            else None,
            class_="number",
        )

    lines = []
    for row in rows:
        cells = [cell(row, name) for name in names]
        lines.append(tag("tr", tag("th", clipped(row, 48), scope="row"), cells, class_="own" if row == own else None))
    if metrics.valid:
        values = [tag("td", format_number(metrics.valid.get(name)), class_="number") for name in names]
        lines.append(tag("tr", tag("th", f"{own}, validation split", scope="row"), values, class_="aside"))
    count = metrics.counts.get("test")
    where = f"Test split, {count:,} {metrics.unit}." if count else "Test split."
    note = " The best of each column is marked." if len(rows) > 1 else ""
    interval = " Small print: 95 % interval." if any(bounds.values()) else ""
    head = tag("tr", tag("th", "method", scope="col"), [_column(name, metrics) for name in names])
    return _table(head, lines, f"{where}{note}{interval}", "Metrics")


def _column(name: str, metrics: Metrics) -> Html:
    direction = _direction(name, metrics)
    arrow = None
    if direction is not None:
        arrow = tag(
            "span", "\u00a0↑" if direction else "\u00a0↓", title="higher is better" if direction else "lower is better"
        )
    return tag("th", name, arrow, scope="col", class_="number")


def _ablation(ablation: Ablation | None, charts: dict[str, Any]) -> Html | None:
    if ablation is None:
        return None
    lines = []
    for arm in ablation.arms:
        span = MISSING if arm.difference is None else f"{_signed(arm.difference_low)} to {_signed(arm.difference_high)}"
        own = arm.difference is None
        lines.append(
            tag(
                "tr",
                tag("th", clipped(arm.title, 60), scope="row"),
                tag("td", format_number(arm.value), class_="number"),
                tag("td", MISSING if arm.difference is None else _signed(arm.difference), class_="number"),
                tag("td", span, class_="number"),
                class_="own" if own else None,
            )
        )
    heads = [
        tag("th", name, scope="col", class_="number") for name in (ablation.metric, "full − this", "95 % interval")
    ]
    seeds = f"{len(ablation.seeds)} seeds" if len(ablation.seeds) != 1 else "one seed"
    table = _table(
        tag("tr", tag("th", "arm", scope="col"), heads),
        lines,
        f"Same splits, {seeds}; differences are paired.",
        "Ablation",
    )
    chart = None
    if any(arm.difference is not None for arm in ablation.arms):
        charts["chart-ablation"] = forest_chart(ablation)
        note = "Full method minus each arm, with its 95 % interval; right of zero, the full method is better."
        if not ablation.higher_is_better:
            note = "Full method minus each arm, with its 95 % interval; left of zero, the full method is better."
        chart = _chart("chart-ablation", None, ablation.sentence, note)
    return join(tag("p", ablation.sentence, class_="reading"), tag("div", tag("div", table), chart, class_="side"))


def _training(data: ReportData, charts: dict[str, Any]) -> Html | None:
    if data.history is None or data.history.empty:
        return None
    made = curve_charts(data.history)
    stages = list(dict.fromkeys(stage for stage, _, _ in made))
    parts: list[Html] = []
    for stage in stages:
        boxes = []
        for place, (_, title, figure) in enumerate(chart for chart in made if chart[0] == stage):
            name = f"chart-curve-{stages.index(stage)}-{place}"
            charts[name] = figure
            shown = ", ".join(str(trace["name"]) for trace in figure["data"] if trace.get("showlegend", True))
            boxes.append(_chart(name, title, f"{title} during stage {stage}: {shown}", None))
        parts += [tag("h3", f"Stage {stage}")] if len(stages) > 1 else []
        parts.append(tag("div", boxes, class_="charts"))
    return join(parts) if parts else None


def _map(data: ReportData, charts: dict[str, Any]) -> Html | None:
    points = data.map
    if points is None or not points.hover:
        return None
    figure, groups = map_chart(points)
    charts["chart-map"] = figure
    n, total = len(points.hover), points.total
    count = f"{n:,} points" if n == total else f"{n:,} of {total:,} points, drawn by the seed"
    coloured = f", coloured by {points.label_name}" if points.labels is not None else ""
    methods = list(points.coordinates)
    buttons = [
        tag("button", name, type="button", aria_pressed="true" if name == methods[0] else "false", data_method=name)
        for name in methods
    ]
    toggle = tag("div", buttons, class_="choices methods needs-script", role="group", aria_label="Projection")
    caption = f"{points.note}: {count}{coloured}."
    box = tag("div", id="chart-map", class_="chart waiting", role="img", aria_label=f"Scatter plot. {caption}")
    usage = "Hover for the row; drag to pan; click the map, then scroll to zoom; double-click to reset."
    return join(
        tag("p", caption, class_="soft"),
        tag("p", usage, class_="soft needs-script"),
        toggle if len(methods) > 1 else None,
        tag("div", box, class_="map"),
        _legend(groups),
    )


def _legend(groups: Sequence[Group]) -> Html | None:
    if not groups:
        return None
    items = []
    for place, group in enumerate(groups):
        swatch = tag(
            "span",
            class_=f"swatch {group.symbol}",
            style=f"background: var(--{group.color[1:]})",
            aria_hidden="true",
        )
        label = [swatch, clipped(group.name, 40), tag("span", f" {group.end - group.start:,}", class_="soft")]
        items.append(tag("li", tag("button", label, type="button", aria_pressed="true", data_group=place)))
    items.append(tag("li", tag("button", "all / none", type="button", id="map-all", class_="soft needs-script")))
    return tag("ul", items, class_="choices legend", aria_label="Labels; press one to hide or show its points")


def _figures(figures: Sequence[Figure], charts: dict[str, Any]) -> Html | None:
    boxes = []
    for place, figure in enumerate(figures):
        if figure.plotly is not None:
            layout = {key: value for key, value in (figure.plotly.get("layout") or {}).items() if key != "template"}
            name = f"chart-own-{place}"
            charts[name] = {"data": list(figure.plotly.get("data") or []), "layout": layout}
            boxes.append(_chart(name, figure.title, f"{figure.title}: {figure.caption}", figure.caption))
            continue
        if figure.image is not None:
            source = f"data:image/png;base64,{base64.b64encode(figure.image).decode()}"
            body = tag("img", src=source, alt=f"{figure.title}: {figure.caption}")
        else:
            body = _frame_table(figure.table if figure.table is not None else pd.DataFrame(), figure.title)
        boxes.append(
            tag(
                "figure",
                tag("h3", figure.title),
                tag("figcaption", figure.caption),
                body,
                class_="full" if figure.table is not None else None,
            )
        )
    return tag("div", boxes, class_="charts") if boxes else None


def _frame_table(frame: pd.DataFrame, name: str) -> Html:
    shown = frame.head(_TABLE_ROWS)
    numeric = [pd.api.types.is_numeric_dtype(frame.iloc[:, place]) for place in range(frame.shape[1])]
    kinds = [
        "number" if yes else "long" if any(len(str(value)) > _LONG_TEXT for value in shown.iloc[:, place]) else None
        for place, yes in enumerate(numeric)
    ]
    head = [tag("th", str(column), scope="col", class_=kind) for column, kind in zip(frame.columns, kinds, strict=True)]
    lines = [
        tag("tr", [tag("td", _value(value), class_=kind) for value, kind in zip(row, kinds, strict=True)])
        for row in shown.itertuples(index=False, name=None)
    ]
    note = f"First {_TABLE_ROWS} of {len(frame):,} rows." if len(frame) > _TABLE_ROWS else None
    return _table(tag("tr", head), lines, note, name, class_="tall" if len(shown) > 14 else None)


def _config(data: ReportData) -> Html | None:
    rows = data.config
    if not rows:
        return None
    changed = [row for row in rows if row.changed]
    note = f"{len(rows)} options."
    if any(row.changed or row.doc for row in rows):
        count = {0: "none differs", 1: "1 differs"}.get(len(changed), f"{len(changed)} differ")
        note = f"{len(rows)} options; {count} from the {data.record.preset} preset."
    field = tag("input", type="search", id="config-search", autocomplete="off")
    return join(
        tag("p", note),
        _config_table(changed, "Options that differ from the preset") if changed else None,
        tag(
            "details",
            tag("summary", "All options"),
            tag("div", tag("label", "Search the options ", field), class_="needs-script"),
            tag("p", id="config-found", class_="soft", role="status"),
            tag("div", _config_table(rows, "All options"), id="config-all"),
        ),
    )


def _config_table(rows: Iterable[ConfigRow], name: str) -> Html:
    lines = [
        tag(
            "tr",
            tag("th", tag("code", row.name), scope="row"),
            tag("td", _option(row.value), class_="value"),
            tag("td", _option(row.default) if row.changed else "", class_="value"),
            tag("td", row.doc),
            class_="changed" if row.changed else None,
        )
        for row in rows
    ]
    head = tag("tr", [tag("th", text, scope="col") for text in ("option", "value", "preset's value", "meaning")])
    return _table(head, lines, None, name)


def _provenance(data: ReportData) -> Html:
    lines = [
        tag("tr", tag("th", name, scope="row"), tag("td", clipped(str(value), 400)))
        for name, value in data.provenance.items()
    ]
    command = None
    if data.command:
        command = join(
            tag("p", "This command makes the run again:"),
            tag("pre", tag("code", data.command, id="command"), tabindex="0"),
            tag("button", "Copy", type="button", id="copy-command", class_="needs-script"),
        )
    return join(command, _table(None, lines, None, "Provenance", class_="facts") if lines else None)


def _footer(data: ReportData) -> Html:
    version = data.record.versions.get("kontrast", "")
    return tag("footer", tag("p", f"Written by kontrast {version}.".replace(" .", "."), class_="soft"))


# ---- small parts -------------------------------------------------------------------------------------------------


def _chart(name: str, title: str | None, alt: str, caption: str | None) -> Html:
    return tag(
        "figure",
        tag("h3", title) if title else None,
        tag("figcaption", caption) if caption else None,
        tag("div", id=name, class_="chart waiting", role="img", aria_label=alt[:600]),
    )


def _table(head: Html | None, lines: Sequence[Html], caption: str | None, name: str, class_: str | None = None) -> Html:
    table = tag(
        "table",
        tag("thead", head) if head else None,
        tag("tbody", lines),
        class_=class_,
    )
    box = tag("div", table, class_=f"scroll {class_ or ''}".strip(), tabindex="0", role="region", aria_label=name)
    return join(tag("p", caption, class_="soft"), box) if caption else box


def _value(value: Any) -> Html:
    if isinstance(value, (list, tuple, dict)):
        return clipped(str(value), 120)
    return clipped(MISSING if pd.api.types.is_scalar(value) and pd.isna(value) else format_number(value), 120)


def _option(value: Any) -> Html:
    if value is None or (isinstance(value, float) and value != value):
        return Html(MISSING)
    if isinstance(value, bool):
        return Html(str(value).lower())
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 120)


def _signed(value: float) -> str:
    return format_difference(value)


def _finite(interval: Sequence[float] | None) -> tuple[float, float] | None:
    if interval is None or any(format_number(float(bound)) == MISSING for bound in interval):
        return None
    return float(interval[0]), float(interval[1])


def _direction(name: str, metrics: Metrics) -> bool | None:
    """Whether higher is better: known for the primary metric, read off the shared names for the others."""
    if name == metrics.primary:
        return metrics.higher_is_better
    if _LOWER_IS_BETTER.search(name.lower()):
        return False
    return True if _HIGHER_IS_BETTER.search(name.lower()) else None


def _best(values: Iterable[float | None], higher: bool | None) -> float | None:
    finite = [value for value in values if value is not None and format_number(float(value)) != MISSING]
    if higher is None or not finite:
        return None
    choose: Callable[[list[float]], float] = max if higher else min
    return choose(finite)


def _rank(value: float | None, sign: int) -> tuple[bool, float]:
    missing = value is None or format_number(float(value)) == MISSING
    return missing, 0.0 if value is None or missing else sign * float(value)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _when(moment: str | None) -> str:
    try:
        return f"{datetime.fromisoformat(moment or ''):%-d %B %Y, %H:%M} UTC"
    except ValueError:
        return moment or ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
