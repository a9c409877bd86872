"""System: the estimator over order streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System, loading_stored, save_stored
from kontrast.data.orderbooks import KINDS, OrderStream, read_orderbooks
from kontrast.data.splits import Splits
from kontrast.errors import DataError
from kontrast.evaluation.detection import average_precision
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.progress import say
from kontrast.randomness import numpy_rng
from kontrast.systems.lob.answers import episodes, inspection, message_table
from kontrast.systems.lob.baselines import simple_baselines
from kontrast.systems.lob.config import LobConfig
from kontrast.systems.lob.detectors import DETECTORS, Detector, Head, Sphere, detector_from_arrays
from kontrast.systems.lob.division import divided, injected
from kontrast.systems.lob.example import write_example_market
from kontrast.systems.lob.features import Columns, Scaler, raw_features, tick_of
from kontrast.systems.lob.figures import lob_figures
from kontrast.systems.lob.measuring import best_threshold, chance_ap, check_truth, measurement
from kontrast.systems.lob.model import BookEncoder, LobModel
from kontrast.systems.lob.scoring import (
    POOLED,
    RowMaker,
    SegmentVectors,
    book_group,
    segment_vectors,
    window_vectors,
)
from kontrast.systems.lob.views import (
    EventSampler,
    LobData,
    StretchSampler,
    Windows,
    rotated,
    window_batch,
    windows_of,
)
from kontrast.training import IndexedBatches, Stage

STORED = ("detector.safetensors", "detector.json")
QUANTILE = 0.99
"""Where no manipulation is known on the validation part, alerts are scores above this quantile of normal ones."""

Floats = npt.NDArray[np.float64]


class Lob(System[LobConfig, LobData]):
    """Detection of spoofing and layering in limit order books.

    Rows are messages. The vector of a message is that of the window of messages that ends at it; its score is the mean
    score of the windows that contain it, or with `causal` that of the window that ends at it.
    """

    card: ClassVar[Card] = Card(
        name="lob",
        title="spoofing and layering in limit order books, from a few labelled events",
        summary=(
            "An encoder of the book learns to reconstruct it and is frozen. A second one turns windows of messages, "
            "with the first one's latent beside them, into vectors by reconstruction and supervised contrast, with "
            "manipulated windows oversampled event by event. A detector on the vectors scores every message."
        ),
        task="anomaly detection",
        modalities=("time series", "table"),
        formats=(
            "LOBSTER message and orderbook CSV, plain or as a zip, any number of levels; without labels manipulation "
            "is overlaid for training",
            "table (.parquet, .csv, .jsonl): time_ns, type, order_id, size, price, direction, ask_p1, ask_s1, bid_p1, "
            "bid_s1 ..., label, event_id, kind, split",
            "FI-2010 (.txt, .npy), decimal-precision files: snapshots without messages, for embed and predict",
            "folder of files of one of these kinds",
        ),
        primary_metric="ap",
        higher_is_better=True,
        ablation="the supervised contrast (reconstruction alone)",
        null_control="at which times the manipulated messages are",
        unit="manipulation events",
        arxiv="2508.17086",
        citation="Lin, Yang, detecting multilevel manipulation from limit order books, arXiv 2508.17086, 2025",
    )
    Config = LobConfig
    model_: LobModel
    detector_: Detector
    thresholds_: dict[str, float]
    smoke: ClassVar[dict[str, Any]] = {
        "epochs": 2,
        "steps": 25,
        "batch_size": 64,
        "normal_windows": 1000,
        "fusion": {"dim": 16, "width": 16},
        "book": {"epochs": 1, "steps": 10, "width": 16, "latent": 4, "batch_size": 8},
    }
    answer_options: ClassVar[tuple[str, ...]] = ("ask", "top", "causal", "merge")

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> LobData:
        """Streams of messages and books; labels are welcome and not needed."""
        streams = read_orderbooks(path)
        wanted = self.config.levels if self.config.levels is not None else getattr(self, "facts_", {}).get("levels")
        if wanted is not None:
            if streams[0].levels < wanted:
                what = f"has {streams[0].levels} price levels, and {wanted} are wanted"
                raise DataError(what, file=path, mend="give data with as many levels, or train with fewer --levels")
            streams = tuple(stream.first_levels(wanted) for stream in streams)
        for stream in streams:
            if len(stream) < self.config.window:
                what = f"{stream.name} has {len(stream)} messages, and a window needs {self.config.window}"
                raise DataError(what, file=path, mend="give a longer stretch of the day")
        if purpose == "predict" and not all(stream.has_messages for stream in streams):
            say("these are snapshots without messages: features that need messages are 0.")
        return LobData.of(streams, [(number, 0, len(stream)) for number, stream in enumerate(streams)])

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_market(path)

    def split(self, data: LobData) -> Splits[LobData]:
        """The parts that the data state, else earlier messages for training and later ones for the test.

        Manipulation is overlaid on data without labels, as `injection` says and by `split_seed`.
        """
        config, streams = self.config, data.streams
        shares = (config.train_share, config.valid_share)
        labelled = [stream.truth is not None for stream in streams]
        if not all(labelled):
            if any(labelled):
                lacking = streams[labelled.index(False)]
                what = f"{lacking.name} has no labels and other files have some"
                raise DataError(what, file=lacking.path, mend="give a column 'label' in all files, or in none")
            streams = injected(streams, shares, config.injection, config.split_seed)
            say(f"no labels: {_events(streams)} events of manipulation were overlaid on {len(streams)} streams.")
        segments = divided(streams, shares)
        parts = {}
        for name, cut in segments.items():
            short = next((c for c in cut if c[2] - c[1] < config.window), None)
            if short is not None:
                what = f"the {name} part of {streams[short[0]].name} has a stretch of {short[2] - short[1]} messages"
                mend = f"a window needs {config.window}; give more data, or move the borders"
                raise DataError(what, file=streams[short[0]].path, mend=mend)
            parts[name] = LobData.of(streams, cut, name) if cut else None
        if parts["train"] is None:
            path = streams[0].path if streams else None
            raise DataError("has no training part", file=path, mend="mark some messages 'train' in column 'split'")
        return Splits(parts["train"], parts["valid"], parts["test"])

    def size(self, data: LobData) -> int:
        return len(data)

    def take(self, data: LobData, rows: Sequence[int] | npt.NDArray[Any]) -> LobData:
        return data.take(rows)

    def permuted(self, data: LobData, seed: int) -> LobData:
        """The labels dealt out anew among the messages."""
        check_truth(data)
        assert data.truth is not None
        order = numpy_rng(seed, "permuted truth").permutation(len(data))
        return data.with_truth(data.truth.take(order))

    def chance(self, data: LobData) -> float:
        """Average precision of a random order, about the share of manipulated messages."""
        return chance_ap(check_truth(data))

    def leaks(self, train: LobData, test: LobData) -> LeakReport:
        """Messages and events of the test that stand in the training part."""
        return check_leaks(_fields(train), _fields(test), groups=["event"])

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: LobData) -> dict[str, Any]:
        """Levels, and per stock the price step and the statistics of training messages that nobody manipulated."""
        config = self.config
        levels = train.streams[0].levels
        columns = Columns.of(config.features, levels)
        book_columns = Columns.of([book_group(config)], levels)
        rows: dict[str, list[Any]] = {}
        ticks: dict[str, float] = {}
        used: dict[str, list[tuple[int, int, int]]] = {}
        for stream, start, end in train.segments.tolist():
            used.setdefault(train.streams[stream].ticker, []).append((stream, start, end))
        for ticker, segments in used.items():
            # Statistics may look at training messages alone, the price step included.
            ticks[ticker] = tick_of(train.streams[segments[0][0]].take(slice(*segments[0][1:])))
            for stream, start, end in segments:
                part = train.streams[stream].take(slice(start, end))
                normal = np.ones(len(part), bool) if part.truth is None else part.truth.label == 0
                found = rows.setdefault(ticker, [])
                found.append(
                    (
                        raw_features(part, config.features, ticks[ticker])[normal],
                        raw_features(part, [book_group(config)], ticks[ticker])[normal],
                    )
                )
        stocks: dict[str, Any] = {}
        for ticker, found in rows.items():
            joined = [np.concatenate([pair[i] for pair in found]) for i in (0, 1)]
            if not len(joined[0]):
                raise DataError(f"all training messages of {ticker} are manipulated", mend="give some that are not")
            stocks[ticker] = {
                "rows": Scaler.fit(joined[0], columns).to_facts(),
                "book": Scaler.fit(joined[1], book_columns).to_facts(),
                "tick": ticks[ticker],
            }
        stocks[POOLED] = {
            kind: {
                name: np.mean([stock[kind][name] for stock in stocks.values()], axis=0).tolist()
                for name in ("mean", "std")
            }
            for kind in ("rows", "book")
        }
        return {
            "levels": levels,
            "features": len(columns.names),
            "book_columns": len(book_columns.names),
            "stocks": stocks,
        }

    def build(self, facts: dict[str, Any]) -> LobModel:
        return LobModel(facts, self.config)

    def stages(self, train: LobData, valid: LobData | None) -> Iterator[Stage]:
        config = self.config
        truth = check_truth(train)
        if not truth.any():
            what = "the training part has no manipulated message to learn from"
            raise DataError(what, file=train.streams[0].path, mend="label some, or move the borders of the split")
        if self.model_.book is not None:
            yield self._book_stage(train, self.model_.book)
            self._standardise_latents(train, self.model_.book)
        windows, mirror = self._training_windows(train)
        sampler = EventSampler(
            windows.label, windows.event, config.batch_size, share=config.share, steps=config.steps, seed=config.seed
        )
        weights = {"contrast": config.weight} if config.contrasts else {}
        if config.classify_weight > 0:
            weights["classify"] = config.classify_weight
        validate = None
        if config.select == "best" and valid is not None and check_truth(valid).any():
            validate = partial(self._validate, windows, valid)
        yield Stage(
            name="fusion",
            model=self.model_.fusion,
            batches=IndexedBatches(
                sampler, partial(window_batch, windows, mirror), seed=config.seed, data=windows.digest()
            ),
            epochs=config.epochs,
            optimiser=config.optimiser,
            seed=config.seed,
            weights=weights,
            validate=validate,
            monitor="ap" if validate is not None else None,
            mode="max",
        )

    def _maker(self) -> RowMaker:
        return RowMaker(self.facts_, self.config, self.model_.book)

    def _book_stage(self, train: LobData, book: BookEncoder) -> Stage:
        """Step 1: reconstruct stretches of the book that nobody manipulated."""
        config, maker = self.config, RowMaker(self.facts_, self.config, None)
        parts = []
        for stream, start, end in train.segments.tolist():
            part = train.streams[stream].take(slice(start, end))
            parts.append(maker.book_rows(part, maker.tick(part)))
        sampler = StretchSampler(
            [len(part) for part in parts],
            4 * config.window,
            config.book.batch_size,
            steps=config.book.steps,
            seed=config.seed,
            taken=[_labels(train, segment) for segment in train.segments.tolist()],
        )
        rows = np.concatenate(parts)

        def collate(starts: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, torch.Tensor]:
            return {"book": torch.from_numpy(rows[starts[:, None] + np.arange(sampler.length)])}

        batches = IndexedBatches(sampler, collate, seed=config.seed)
        return Stage("book", book, batches, config.book.epochs, config.optimiser, config.seed)

    def _standardise_latents(self, train: LobData, book: BookEncoder) -> None:
        """Sets mean and deviation of the latents from the training rows."""
        maker = self._maker()
        book.mean.zero_()
        book.std.fill_(1.0)
        latents = []
        for stream, start, end in train.segments.tolist():
            part = train.streams[stream].take(slice(start, end))
            rows = maker.book_rows(part, maker.tick(part))
            latents.append(book.stream_latents(rows)[_labels(train, (stream, start, end)) == 0])
        joined = np.concatenate(latents)
        book.mean.copy_(torch.from_numpy(joined.mean(0)))
        book.std.copy_(torch.from_numpy(np.maximum(joined.std(0), 1e-6)))

    def _training_windows(self, train: LobData, *, null: bool = True) -> tuple[Windows, Windows | None]:
        """Windows of the training part and their mirror images; `null` moves the labels where the null control asks."""
        config, maker = self.config, self._maker()
        parts, images, labels, events = [], [], [], []
        for number, (stream, start, end) in enumerate(train.segments.tolist()):
            parts.append(maker.rows(train.streams[stream], start, end))
            if config.mirror and null:
                images.append(maker.rows(train.streams[stream], start, end, mirror=True))
            truth = train.streams[stream].truth
            assert truth is not None
            label, event = truth.label[start:end], truth.event[start:end]
            if config.train_events is not None:
                label, event = _first_events(label, event, config.train_events)
            if config.contrast == "shuffled" and null:
                label, event = rotated(label, event, numpy_rng(config.seed, "null control", number))
            labels.append(label)
            # Numbers of events are a stream's own; a batch draws among those of all.
            events.append(np.where(label > 0, event + (number << 32), -1))
        asked = train.asked()
        windows = windows_of(parts, labels, events, config.window).where(asked)
        if not images:
            return windows, None
        return windows, windows_of(images, labels, events, config.window).where(asked)

    def _validate(self, windows: Windows, valid: LobData) -> Mapping[str, float]:
        """Average precision on the validation part by distance from the centre of normal windows."""
        fusion = self.model_.fusion
        normal = numpy_rng(self.config.seed, "validate").permutation(np.flatnonzero(windows.label == 0))[:2000]
        sphere = Sphere.fit(window_vectors(fusion, windows.rows, windows.ends[normal]), np.zeros((0, 1), np.float32), 0)
        found = segment_vectors(valid, self._maker(), fusion)
        return {"ap": average_precision(self._scores(valid, found, sphere)[0], check_truth(valid))}

    def finish(self, train: LobData, valid: LobData | None) -> None:
        """Fits the detector on windows of training (and validation) messages, and chooses the threshold of alerts."""
        config = self.config
        windows, _ = self._training_windows(train, null=False)
        rng = numpy_rng(config.seed, "detector")
        normal = np.sort(rng.permutation(np.flatnonzero(windows.label == 0))[: config.normal_windows])
        marked = np.flatnonzero(windows.label == 1)
        vectors = [window_vectors(self.model_.fusion, windows.rows, windows.ends[which]) for which in (normal, marked)]
        if config.detector == "head":
            self.detector_ = Head(*self.model_.fusion.head_arrays())
        else:
            self.detector_ = DETECTORS[config.detector].fit(vectors[0], vectors[1], config.seed)
        labelled = valid is not None and valid.truth is not None and bool(valid.truth.label.any())
        if labelled and valid is not None:
            both = self._scores(valid, self._vectors(valid), self.detector_)
            cuts = [best_threshold(scores, check_truth(valid)) for scores in both]
        else:
            cuts = [float(np.quantile(self.detector_.scores(vectors[0]), QUANTILE))] * 2
        self.thresholds_ = {"mean": cuts[0], "causal": cuts[1]}

    # ---- use -----------------------------------------------------------------------------------------------------

    def _vectors(self, data: LobData) -> dict[int, SegmentVectors]:
        """Vectors of the windows that the messages are in; those of the last data asked about are remembered."""
        asked = (self.model_, data.streams, data.segments, data.rows)
        kept = getattr(self, "_kept", None)
        if kept is None or any(one is not other for one, other in zip(kept[0], asked)):
            kept = (asked, segment_vectors(data, self._maker(), self.model_.fusion))
            self._kept = kept
        found: dict[int, SegmentVectors] = kept[1]
        return found

    def _scores(self, data: LobData, found: Mapping[int, SegmentVectors], detector: Detector) -> tuple[Floats, Floats]:
        """(n,) mean scores over the windows that contain each message, and scores of the windows that end there."""
        mean, causal = np.zeros(len(data)), np.zeros(len(data))
        for number, segment in found.items():
            mine = data.rows[:, 0] == number
            scores, positions = detector.scores(segment.vectors), data.rows[mine, 2]
            mean[mine] = segment.message_scores(scores, positions, self.config.window)
            ends = np.maximum(positions - segment.start, self.config.window - 1)
            causal[mine] = scores[segment.place[ends]]
        return mean, causal

    def scores(self, data: LobData) -> Floats:
        """(n,) scores of the messages, higher where manipulation is more likely, as `causal` says."""
        self._check(data)
        return self._scores(data, self._vectors(data), self.detector_)[int(self.config.causal)]

    @property
    def threshold_(self) -> float:
        """Alerts are scores of at least this."""
        return self.thresholds_["causal" if self.config.causal else "mean"]

    def _check(self, data: LobData) -> None:
        self.check_fitted()
        levels = data.streams[0].levels if data.streams else self.facts_["levels"]
        if levels != self.facts_["levels"]:
            what = f"has {levels} price levels, and the model learned {self.facts_['levels']}"
            raise DataError(
                what, file=data.streams[0].path, mend="read it with the fitted system, which cuts levels off"
            )

    def embed(self, data: LobData) -> Embeddings:
        """Vectors of length 1 of the windows that end at the messages, or of a segment's first window."""
        self._check(data)
        found = self._vectors(data)
        vectors = np.zeros((len(data), self.config.fusion.dim), np.float32)
        for number, segment in found.items():
            mine = data.rows[:, 0] == number
            ends = np.maximum(data.rows[mine, 2] - segment.start, self.config.window - 1)
            vectors[mine] = segment.vectors[segment.place[ends]]
        columns: dict[str, Sequence[Any]] = {"ticker": data.tickers(), "time_ns": data.column("time_ns").tolist()}
        label = None
        if data.truth is not None:
            columns["manipulation"] = [KINDS[kind] for kind in data.truth.kind.tolist()]
            label = "manipulation"
        return Embeddings(vectors, data.names(), "message", columns, label=label)

    def predict(self, data: LobData) -> pd.DataFrame:
        """What `ask` asks for: scores and alerts of messages, episodes, a summary per stream, or injected data."""
        self.check_fitted()
        config = self.config
        if config.ask == "inspect":
            return inspection(data.streams)
        if config.ask == "inject":
            shares = (config.train_share, config.valid_share)
            made = injected(data.streams, shares, config.injection, config.split_seed)
            frames = [stream.to_frame().assign(ticker=stream.ticker, date=stream.date) for stream in made]
            return pd.concat(frames, ignore_index=True)
        scores = self.scores(data)
        if config.ask == "episodes":
            return episodes(data, scores, self.threshold_, merge_s=config.merge, top=config.top)
        return message_table(data, scores, self.threshold_)

    def measure(self, data: LobData) -> Measurement:
        """Metrics per message, as `measuring.measurement` names them; the average precision is a mean over events."""
        self._check(data)
        both = self._scores(data, self._vectors(data), self.detector_)
        chosen = both[int(self.config.causal)]
        return Measurement(*measurement(data, chosen, both[1], self.threshold_))

    def baselines(self, train: LobData, test: LobData) -> dict[str, dict[str, float]]:
        """Detectors on the features as they are, with and without labels; single messages; everything flagged."""
        rows = RowMaker(self.facts_, self.config, None)
        return simple_baselines(train, test, rows, window=self.config.window, seed=self.config.seed)

    def figures(self, data: LobData) -> list[Figure]:
        """A detected case in the book, curves, the score over the day, results by level of manipulation, episodes."""
        return lob_figures(self, data)

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The detector's arrays, and the thresholds."""
        facts = {"name": self.detector_.name, "thresholds": self.thresholds_}
        save_stored(folder, self.detector_.arrays(), facts, names=STORED)

    def load_extra(self, folder: Path) -> None:
        with loading_stored(folder, names=STORED) as (arrays, listed):
            thresholds = {str(k): float(v) for k, v in dict(listed["thresholds"]).items()}
            self.detector_ = detector_from_arrays(str(listed["name"]), arrays)
        self.thresholds_ = thresholds


def _fields(data: LobData) -> dict[str, Sequence[Any]]:
    """What tells messages and events from one another."""
    events = [data.event_name(code) if code >= 0 else None for code in data.event_codes().tolist()]
    return {"message": data.keys(), "event": events}


def _labels(data: LobData, segment: Sequence[int]) -> npt.NDArray[np.int8]:
    """(end - start,) labels of a segment (stream, start, end)."""
    stream, start, end = segment
    truth = data.streams[stream].truth
    return np.zeros(end - start, np.int8) if truth is None else truth.label[start:end]


def _events(streams: Sequence[OrderStream]) -> int:
    return sum(len(np.unique(s.truth.event[s.truth.label == 1])) for s in streams if s.truth is not None)


def _first_events(
    label: npt.NDArray[np.int8], event: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Labels of the first events alone; the messages of the others count as nobody's, as if nobody had found them."""
    _, first = np.unique(event[label > 0], return_index=True)
    order = event[label > 0][np.sort(first)][:count]
    kept = np.isin(event, order) & (label > 0)
    return kept.astype(np.int8), np.where(kept, event, -1)
