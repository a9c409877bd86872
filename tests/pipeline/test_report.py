"""The report: words, numbers and charts from a run folder, in one page that needs nothing else and trusts no text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from kontrast.config import BaseConfig, param
from kontrast.contract import Card, Embeddings, Figure
from kontrast.pipeline.markup import Html, clipped, format_difference, format_number, hover_text, join, tag
from kontrast.pipeline.report import ReportData, collect_report, reading, write_figures, write_report
from kontrast.pipeline.report_charts import MAX_LABELS, MapData, bar_chart, compact, curve_charts, map_chart
from kontrast.pipeline.report_page import render_page
from kontrast.pipeline.run_folder import Ablation, AblationArm, Metrics, RunFolder
from kontrast.pipeline.run_records import RunRecord

HOSTILE = '</script><script>window.stolen=1</script><img src=x onerror="window.stolen=1">&amp; "quoted"'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CARD = Card(
    name="pairs",
    title="Trained on pairs",
    summary="Two texts that belong together.",
    task="retrieval",
    modalities=("text",),
    formats=("csv",),
    primary_metric="recall@10",
    higher_is_better=True,
    ablation="the contrastive loss",
    null_control="the pairing",
    arxiv="1908.10084",
)


class Optimiser(BaseConfig):
    learning_rate: float = param(1e-3, "peak learning rate", gt=0, paper=1e-4)


class Options(BaseConfig):
    temperature: float = param(0.05, "softmax temperature", gt=0)
    columns: list[str] = param(lambda: ["a", "b"], "columns of a pair")
    optimiser: Optimiser = param(Optimiser, "optimiser")


class Page(HTMLParser):
    """Tags, attributes and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.raw: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside[-1]] = self.raw.get(self.inside[-1], "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def charts(self) -> dict:
        return json.loads(self.raw["chart-data"])


@pytest.fixture
def run(tmp_path):
    (tmp_path / "questions.csv").write_text("question,answer\n")
    run = RunFolder.create(
        tmp_path / "run",
        system="pairs",
        seed=0,
        data=tmp_path / "questions.csv",
        rows=10,
        command=["kontrast", "train", "pairs", "--data", "my questions.csv"],
    )
    run.write_config({"system": {"temperature": 0.07, "columns": ["a", "b"], "optimiser": {"learning_rate": 1e-3}}})
    run.write_metrics(
        Metrics(
            "recall@10",
            True,
            {"recall@10": 0.612, "recall@1": 0.3, "mrr": math.nan},
            {"recall@10": 0.6},
            {"untrained": {"recall@10": 0.08, "recall@1": 0.4}, "BM25": {"recall@10": 0.331}},
            {"test": {"recall@10": (0.58, 0.64)}},
            {"test": 1204},
            "queries",
        )
    )
    rng = np.random.default_rng(0)
    run.write_embeddings(
        Embeddings(
            rng.normal(size=(40, 8)).astype(np.float32),
            [f"q{row}" for row in range(40)],
            "question",
            {"topic": ["tea", HOSTILE] * 20, "text": [f"What is {row}? {HOSTILE}" for row in range(40)]},
            label="topic",
            hover="text",
        ),
        split="test",
    )
    steps = np.arange(1, 11)
    run.write_history(
        pd.DataFrame(
            {"stage": "main", "epoch": steps, "step": steps * 10, "loss": 1 / steps, "valid/recall@10": steps / 20}
        )
    )
    return run


# ---- words and numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.6123, "0.612"),
        (12.345, "12.35"),
        (123.45, "123.5"),
        (1204, "1,204"),
        (1234567.8, "1,234,568"),
        (-0.5, "−0.500"),
        (2e-5, "2.0e-5"),
        (0.0, "0"),
        (7.0, "7"),
        (1.0, "1.000"),
        (None, "–"),
        (math.nan, "–"),
        (-math.inf, "–"),
        (np.float32(0.25), "0.250"),
        (np.int64(3), "3"),
        (True, "yes"),
        ("word", "word"),
    ],
)
def test_numbers_are_written_one_way(value, text):
    assert format_number(value) == text


def test_differences_carry_their_sign():
    assert [format_difference(value) for value in (0.028, -0.004, 0.0, math.nan)] == ["+0.028", "−0.004", "0", "–"]


def test_markup_escapes_whatever_is_not_markup():
    assert (
        tag("p", "<b>", Html("<i>ok</i>"), class_='a"b', hidden=True, id=None)
        == '<p class="a&quot;b" hidden>&lt;b&gt;<i>ok</i></p>'
    )
    assert join("a", ["<", Html("<br>")], None) == "a&lt;<br>"
    assert clipped("<" * 100, 10) == f'<span title="{"&lt;" * 100}">{"&lt;" * 9}…</span>'
    assert hover_text("<b>" + "word " * 100, width=20, lines=2).count("<br>") == 1
    assert hover_text("<b>") == "&lt;b&gt;"


def test_the_result_in_words():
    metrics = Metrics(
        "recall@10",
        True,
        {"recall@10": 0.61},
        baselines={"untrained": {"recall@10": 0.08}, "BM25": {"recall@10": 0.33}},
        counts={"test": 1204},
        unit="queries",
    )
    assert reading(metrics) == (
        "recall@10 0.610 on 1,204 held-out queries; BM25 0.330, untrained 0.080. "
        "That beats the best baseline, BM25, by 0.280."
    )


@pytest.mark.parametrize(
    ("own", "other", "higher", "words"),
    [
        (0.5, 0.7, True, "BM25 does better, by 0.200."),
        (0.5, 0.7, False, "That beats the baseline, BM25, by 0.200."),
        (0.7, 0.5, False, "BM25 does better, by 0.200."),
        (0.5, 0.5, True, "no better than BM25"),
        (0.5, math.nan, True, "No baseline was measured."),
        (math.nan, 0.5, True, "m –"),
    ],
)
def test_the_verdict_is_honest(own, other, higher, words):
    assert words in reading(Metrics("m", higher, {"m": own}, baselines={"BM25": {"m": other}}))


def test_without_numbers_the_reading_says_so():
    assert "has not been measured" in reading(None)
    assert "has not been measured" in reading(Metrics("m"))


# ---- the page ----------------------------------------------------------------------------------------------------


def test_the_page_holds_everything_in_order(run):
    write_figures(
        run,
        [
            Figure(
                "Histogram",
                "What it shows.",
                plotly={"data": [{"type": "bar", "y": [1, 2]}], "layout": {"template": {"x": 1}}},
            ),
            Figure("Picture", "A dot.", image=PNG),
            Figure(
                "Hardest",
                "The worst.",
                table=pd.DataFrame({"query": [HOSTILE] * 60, "rank": range(60), "x": [None] * 60}),
            ),
        ],
    )
    run.write_ablation(
        Ablation(
            "recall@10",
            True,
            (
                AblationArm("on", "full", 0.61),
                AblationArm("off", "without", 0.41, difference=0.2, difference_low=0.1, difference_high=0.3),
            ),
            (0, 1, 2),
            "The contrastive part helped.",
        )
    )
    path = write_report(run, collect_report(run, card=CARD, options={"system": Options}))
    page = Page(path.read_text(encoding="utf-8"))
    titles = [
        "pairs on questions.csv",
        "recall@10 0.612 (95 % interval 0.580 to 0.640) on 1,204 held-out queries",
        "Result",
        "Does the contrastive part help?",
        "The contrastive part helped.",
        "Training",
        "Map of the embeddings",
        "Figures",
        "Histogram",
        "Picture",
        "Hardest",
        "Configuration",
        "Provenance",
        "kontrast train pairs --data 'my questions.csv'",
    ]
    body = page.text[page.text.index("pairs on") :]
    places = [body.rindex(title) for title in titles]
    assert places == sorted(places)
    assert "First 50 of 60 rows." in page.text
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    charts = page.charts
    assert set(charts) == {
        attributes["id"] for _, attributes in page.tags if "chart" in (attributes.get("class") or "").split()
    }
    assert "template" not in charts["chart-own-0"]["layout"]
    image = next(attributes for name, attributes in page.tags if name == "img")
    assert image["alt"] == "Picture: A dot."
    assert image["src"].startswith("data:image/png;base64,")
    assert run.record.data["sha256"] in page.text


def test_config_marks_what_differs_from_the_preset(run):
    rows = {row.name: row for row in collect_report(run, options={"system": Options}).config}
    assert rows["system.temperature"].changed
    assert rows["system.temperature"].default == 0.05
    assert not rows["system.columns"].changed
    assert not rows["system.optimiser.learning_rate"].changed
    run.update(preset="paper")
    rows = {row.name: row for row in collect_report(run, options={"system": Options}).config}
    assert rows["system.optimiser.learning_rate"].changed
    assert rows["system.optimiser.learning_rate"].default == 1e-4
    assert not any(row.changed for row in collect_report(run).config)


def test_hostile_texts_stay_texts(run):
    run.update(command=("kontrast", HOSTILE), extra={})
    run.write_metrics(Metrics(HOSTILE, True, {HOSTILE: 0.5}, baselines={HOSTILE + "b": {HOSTILE: 0.1}}))
    write_figures(run, [Figure(HOSTILE, HOSTILE, table=pd.DataFrame({HOSTILE: [HOSTILE]}))])
    run.write_config({"system": {"path": HOSTILE}})
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    scripts = [attributes for name, attributes in page.tags if name == "script"]
    assert [attributes.get("type") for attributes in scripts] == ["application/json", "text/plain", None]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert not [attributes for name, attributes in page.tags if name == "img"]
    assert "<" not in page.raw["chart-data"]
    assert all("<script" not in line and "<img" not in line for line in page.charts["chart-map"]["hover"])


def test_scripts_run_by_hash_and_nothing_is_fetched(run):
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    policy = next(
        a["content"] for n, a in page.tags if n == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    for script in ("plotly-source", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[script].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [a for n, a in page.tags if n in ("link", "iframe", "base") or (n == "script" and a.get("src"))]
    assert text.index("Provenance</h2>") < text.index("plotly-source")


def test_the_page_is_accessible_to_a_keyboard_and_a_reader(run):
    page = Page(write_report(run, card=CARD).read_text(encoding="utf-8"))
    names = [name for name, _ in page.tags]
    assert names.count("h1") == 1
    assert next(attributes["lang"] for name, attributes in page.tags if name == "html") == "en"
    for _, attributes in page.tags:
        if attributes.get("role") == "img":
            assert attributes["aria-label"]
        if "scroll" in (attributes.get("class") or "").split():
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    assert all(attributes.get("scope") for name, attributes in page.tags if name == "th")


def test_an_empty_run_still_has_a_page(tmp_path):
    run = RunFolder.create(tmp_path / "run", system="pairs", seed=0)
    run.mark("failed", failure="the data <have> no rows")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "This run failed: the data <have> no rows" in page.text
    assert "has not been measured" in page.text
    assert "Provenance" in page.text
    assert page.charts == {}
    assert render_page(ReportData(RunRecord("pairs", 0))).startswith("<!doctype html>")


def test_equal_runs_give_equal_pages(run):
    data = collect_report(run, card=CARD)
    assert render_page(data) == render_page(collect_report(run, card=CARD))


# ---- charts ------------------------------------------------------------------------------------------------------


def test_compact_numbers_are_short_and_finite():
    value = {
        "a": np.array([1 / 3, np.nan, 2.0]),
        "b": (np.float32(1e-9 / 3), 123456789.0),
        "c": pd.Timestamp("2020-01-01"),
    }
    assert compact(value) == {"a": [0.33333, None, 2], "b": [3.3333e-10, 123456789], "c": "2020-01-01T00:00:00"}


def test_bars_leave_out_what_is_missing():
    chart = bar_chart(["a", "b"], [0.5, 0.25], [(0.4, 0.7), None], "m")
    bars, whiskers, numbers = chart["data"]
    assert bars["x"] == [0.5, 0.25]
    assert (whiskers["x"], whiskers["y"]) == ([0.5], [0])
    assert compact(whiskers["error_x"]["array"]) == [0.2]
    assert compact(whiskers["error_x"]["arrayminus"]) == [0.1]
    assert numbers["x"] == [0.7, 0.25]
    assert chart["layout"]["xaxis"]["range"][1] > 0.7


def test_curves_by_stage_and_quantity():
    rows = [
        {
            "stage": stage,
            "event": event,
            "epoch": step // 10,
            "step": step,
            "loss": 1 / step,
            "loss/contrastive": 1 / step,
            "weight/contrastive": 1.0,
            "learning_rate": step / 100,
            "valid/mrr": step / 50 if event == "epoch" else None,
        }
        for stage in ("warm", "main")
        for step in range(1, 31)
        for event in (["step", "epoch"] if step % 10 == 0 else ["step"])
    ]
    charts = curve_charts(pd.DataFrame(rows))
    assert [(stage, title) for stage, title, _ in charts] == [
        (stage, title) for stage in ("warm", "main") for title in ("Loss", "Validation", "learning_rate")
    ]
    loss = charts[0][2]["data"]
    assert [trace["name"] for trace in loss] == ["loss, single steps", "loss"]
    assert [len(trace["x"]) for trace in loss] == [30, 3]


def test_long_curves_keep_their_spikes():
    y = np.ones(20_000)
    y[12_345] = 50.0
    frame = pd.DataFrame({"stage": "main", "epoch": 0, "step": np.arange(20_000), "loss": y})
    trace = curve_charts(frame)[0][2]["data"][0]
    assert len(trace["x"]) < 1000
    assert max(trace["y"]) == 50.0


def _map(labels, n=None):
    n = len(labels) if labels is not None else n
    return MapData({"PCA": np.arange(2.0 * n).reshape(n, 2)}, labels, "topic", [f"h{row}" for row in range(n)], n)


def test_a_map_keeps_points_texts_and_labels_together():
    labels = ["b", "a", "b", None, "c", "b", math.nan, "a"]
    figure, groups = map_chart(_map(labels))
    assert [(group.name, group.end - group.start) for group in groups] == [
        ("b", 3),
        ("a", 2),
        ("c", 1),
        ("unlabelled", 2),
    ]
    for group in groups:
        for place in range(group.start, group.end):
            row = int(figure["hover"][place][1:])
            assert figure["methods"]["PCA"]["x"][place] == 2 * row
            assert labels[row] == group.name or group.name == "unlabelled"


def test_rare_labels_become_other():
    labels = [f"l{row:02d}" for row in range(30) for _ in range(40 - row)]
    _, groups = map_chart(_map(labels))
    assert len(groups) == MAX_LABELS
    assert groups[-1].name == "other (19 labels)"
    assert len({group.color for group in groups}) == MAX_LABELS
    _, groups = map_chart(_map([f"l{row}" for row in range(MAX_LABELS)]))
    assert "other" not in " ".join(group.name for group in groups)


def test_numbers_of_many_values_make_a_scale():
    figure, groups = map_chart(_map(list(np.linspace(0, 1, 50))))
    assert groups == []
    assert len(figure["values"]) == 50
    figure, groups = map_chart(_map([1, 2, 3] * 5))
    assert [group.name for group in groups] == ["1", "2", "3"]
    figure, groups = map_chart(_map(None, n=4))
    assert (groups, len(figure["groups"])) == ([], 1)


def test_large_embeddings_are_sampled(tmp_path):
    run = RunFolder.create(tmp_path / "run", system="pairs", seed=0)
    n = 6000
    vectors = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    run.write_embeddings(Embeddings(vectors, [str(row) for row in range(n)], "cell"), split="test")
    points = collect_report(run).map
    assert points is not None
    assert (len(points.hover), points.total, points.labels) == (5000, n, None)
    assert points.coordinates["PCA"].shape == (5000, 2)
    assert "5,000 of 6,000 points" in Page(write_report(run).read_text(encoding="utf-8")).text
    with pytest.raises(ValueError, match="no column 'topic'"):
        collect_report(run, label="topic")


def test_figures_come_back_from_the_folder(run):
    import plotly.graph_objects as go

    made = go.Figure([go.Scatter(x=np.arange(3.0), y=np.array([1.0, np.nan, 3.0]))]).to_dict()
    figures = [
        Figure("A", "a", plotly=made),
        Figure("B / ü", "b", image=PNG),
        Figure("C", "c", table=pd.DataFrame({"mixed": [1, "x", None], "n": [1.5, 2.5, None]})),
    ]
    write_figures(run, figures)
    back = collect_report(run).figures
    assert [(figure.title, figure.caption) for figure in back] == [("A", "a"), ("B / ü", "b"), ("C", "c")]
    assert back[1].image == PNG
    assert back[2].table is not None
    assert list(back[2].table["n"])[:2] == [1.5, 2.5]
    write_figures(run, [])
    assert collect_report(run).figures == []
    assert not re.findall(r"\.json", " ".join(path.name for path in run.figures.iterdir() if path.name != "index.json"))
