"""System: the estimator over utterances."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.splits import Splits, leak_free_parts
from kontrast.data.utterances import FORMATS, Utterances, read_utterances, write_utterances
from kontrast.errors import ConfigError, DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.evaluation.sentiment import sentiment_metrics, seven_classes
from kontrast.progress import say
from kontrast.randomness import numpy_rng
from kontrast.systems.ssu.baselines import simple_baselines
from kontrast.systems.ssu.config import SSUConfig
from kontrast.systems.ssu.example import write_example_utterances
from kontrast.systems.ssu.explaining import Explanation, explain, graph_table, write_graphs
from kontrast.systems.ssu.figures import sentiment_figures
from kontrast.systems.ssu.measuring import chance_mae, known_labels, measurement
from kontrast.systems.ssu.model import LIMIT, SSUModel
from kontrast.systems.ssu.stress import stress_set
from kontrast.systems.ssu.views import Prepared, Scale, label_classes, left_out, prepare
from kontrast.training import BucketedSampler, IndexedBatches, Stage
from kontrast.training.batches import to_device

BATCH = 256
STEPS = 140
RARE = 20
"""With a class of fewer training utterances than this the classifier tells three signs instead of seven numbers."""
WORDS = 5000


class SSU(System[SSUConfig, Utterances]):
    """Sentiment of utterances from text, sound and face, by graphs with a semantic anchor and multiview contrast."""

    card: ClassVar[Card] = Card(
        name="ssu",
        title="how negative or positive an utterance is, from its words, sound and face",
        summary=(
            "Words are a graph by syntax; audio and visual segments are graphs whose edges the text guides and a "
            "learned threshold thins. One anchor node from the text ties all of them together. A shared graph network "
            "reads the three graphs, a second one their union; the shared one is contrasted with a view whose edges "
            "are perturbed. What comes out is a score from -3 to 3, and the edges and weights behind it."
        ),
        task="regression",
        modalities=("text", "audio", "visual"),
        formats=FORMATS,
        primary_metric="mae",
        higher_is_better=False,
        ablation="the contrast of the views and the alignment",
        null_control="which second view and fused vector belong to an utterance",
        unit="utterances",
        arxiv="2508.18322",
        citation="Sun, He, Ou, Song, structural-semantic unifier for multimodal sentiment, AAAI 2026",
        extras=("utterances",),
    )
    Config = SSUConfig
    model_: SSUModel
    smoke: ClassVar[dict[str, Any]] = {
        "epochs": 4,
        "batch_size": 32,
        "graph": {"max_segments": 10},
        "network": {"dim": 16, "heads": 2, "projection": 8, "dropout": 0.1, "input_dropout": 0.1},
        "optimiser": {"learning_rate": 1e-2},
    }
    answer_options: ClassVar[tuple[str, ...]] = ("ask", "without")
    answer_files: ClassVar[dict[str, str]] = {
        ".dot": "of ask=explain: the fusion graph of each utterance for Graphviz",
        ".json": "of ask=explain: nodes and edges of each utterance",
        "": "of ask=stress: a folder with the data set",
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> Utterances:
        data = read_utterances(path, reach=self.config.reach)
        if purpose == "train" and not np.isfinite(data.labels).any():
            raise DataError("has no labels", file=path, mend="add a column 'label' with sentiment from -3 to 3")
        return data

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_utterances(path)

    def split(self, data: Utterances) -> Splits[Utterances]:
        """The parts that the data state, else whole videos at random; only utterances with a label."""
        data = known_labels(data)
        if data.split is not None:
            parts = np.asarray(data.split)
        else:
            parts = leak_free_parts([data.videos], self.config.split_seed, self.config.fractions)
        found = {name: np.flatnonzero(parts == name) for name in ("train", "valid", "test")}
        if not len(found["train"]):
            mend = "mark some 'train' in column 'split'" if data.split is not None else "give utterances of more videos"
            raise DataError("has no training part", file=data.path, mend=mend)
        taken = {name: data.take(rows) if len(rows) else None for name, rows in found.items()}
        train = taken["train"]
        assert train is not None
        return Splits(train, taken["valid"], taken["test"])

    def size(self, data: Utterances) -> int:
        return len(data)

    def take(self, data: Utterances, rows: Sequence[int] | npt.NDArray[Any]) -> Utterances:
        return data.take(rows)

    def permuted(self, data: Utterances, seed: int) -> Utterances:
        """The labels dealt out anew among the utterances."""
        return data.with_labels(data.labels[numpy_rng(seed, "permuted truth").permutation(len(data))])

    def chance(self, data: Utterances) -> float:
        """Mean absolute error of the system's own scores dealt out at random; before `fit` of the best constant."""
        data = known_labels(data)
        labels = data.labels.astype(np.float64)
        scores = self.scores(data) if hasattr(self, "model_") else np.full(len(data), np.median(labels))
        return chance_mae(scores, labels)

    def leaks(self, train: Utterances, test: Utterances) -> LeakReport:
        """Test utterances, and their videos, that stand in the training part; and longer texts word by word."""
        return check_leaks(_fields(train), _fields(test), groups=["video"])

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: Utterances) -> dict[str, Any]:
        """Sizes and scales of the features, the vocabulary where there are no word vectors, classes of the labels."""
        train = known_labels(train)
        config = self.config
        vocabulary, text_scale, text_dim = None, 1.0, config.network.dim
        if train.text is None:
            counts = Counter(word for words in train.tokens for word in words)
            frequent = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
            vocabulary = [word for word in frequent if counts[word] > 1]
        else:
            text_dim = train.text.dim
            text_scale = _scale(train.text.values[train.text.rows])
        if (train.heads < 0).all() and config.graph.text == "dependency":
            say("note: the data bring no syntax (column 'head'): words are joined to their neighbours.")
        sentence = None
        if train.sentence is not None and config.graph.sentence:
            sentence = {"dim": int(train.sentence.shape[1]), "scale": _scale(train.sentence)}
        streams = {}
        for name, stream in sorted(train.streams.items()):
            if not len(stream.rows):
                say(f"note: no training utterance has {name} features; the modality is left out.")
                continue
            aligned = stream.aligned if config.graph.reading == "auto" else config.graph.reading == "aligned"
            if aligned and not stream.aligned:
                raise ConfigError(
                    f"option 'graph.reading': the {name} stream has not one segment per word, use auto or unaligned."
                )
            streams[name] = {"scale": Scale.fit(stream).to_facts(), "aligned": aligned}
        sevens = np.bincount(label_classes(train.labels, 7), minlength=7)
        return {
            "text": {"vocabulary": vocabulary, "dim": text_dim, "scale": text_scale},
            "sentence": sentence,
            "streams": streams,
            "classes": 7 if sevens.min() >= RARE else 3,
            "epochs": config.epochs if config.epochs is not None else self._epochs(len(train)),
            "label": {"mean": float(np.median(train.labels)), "std": float(max(train.labels.std(), 1e-3))},
        }

    def _epochs(self, rows: int) -> int:
        """Passes that make about `STEPS` batches, at least 4 and at most 60."""
        return min(max(math.ceil(STEPS / math.ceil(rows / self.config.batch_size)), 4), 60)

    def build(self, facts: dict[str, Any]) -> SSUModel:
        return SSUModel(facts, self.config)

    def stages(self, train: Utterances, valid: Utterances | None) -> Iterator[Stage]:
        config = self.config
        prepared = self._prepared(known_labels(train), without=[])
        sampler = BucketedSampler(prepared.lengths, config.batch_size, seed=config.seed)
        rates = dict.fromkeys(("audio", "visual"), config.modality_dropout) | {"text": config.text_dropout}

        def collate(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, torch.Tensor]:
            return left_out(prepared.batch(rows), rates, rng)

        weights = {
            "classes": config.sup_weight,
            "views": config.self_weight if config.compares else 0.0,
            "align": config.align_weight if config.aligns else 0.0,
        }
        yield Stage(
            name="sentiment",
            model=self.model_,
            batches=IndexedBatches(sampler, collate, seed=config.seed, data=prepared.digest()),
            epochs=self.facts_["epochs"],
            optimiser=config.optimiser,
            seed=config.seed,
            weights={name: weight for name, weight in weights.items() if weight > 0},
            validate=partial(self._validate, valid) if valid is not None and len(valid) else None,
        )

    def _validate(self, valid: Utterances) -> Mapping[str, float]:
        """Metrics, and the spread of the vectors: alignment alone is best served by vectors that are all alike."""
        found = self._encoded(valid, without=[])
        metrics = sentiment_metrics(np.clip(found["score"], -LIMIT, LIMIT), valid.labels)
        return {**metrics, "spread fuse": _spread(found["fuse"]), "spread ori": _spread(found["ori"])}

    # ---- use -----------------------------------------------------------------------------------------------------

    def _prepared(self, data: Utterances, without: Sequence[Any]) -> Prepared:
        self._check(data)
        return prepare(data, self.facts_, self.config.graph, list(without))

    def _check(self, data: Utterances) -> None:
        """Raises DataError where the data do not have what the model learned from."""
        facts = self.facts_
        wanted = facts["text"]
        if wanted["vocabulary"] is None:
            came = None if data.text is None else data.text.dim
            if came != wanted["dim"]:
                what = f"has {'no word vectors' if came is None else f'word vectors of length {came}'}"
                what += f", and the model learned from such of length {wanted['dim']}"
                mend = "give 'text_word' made by the same encoder, or train without word vectors"
                raise DataError(what, file=data.path, mend=mend)
        if facts["sentence"] is not None:
            width = None if data.sentence is None else data.sentence.shape[1]
            if width != facts["sentence"]["dim"]:
                what = f"has {'no sentence vectors' if width is None else f'sentence vectors of length {width}'}"
                what += f", and the model learned from such of length {facts['sentence']['dim']}"
                mend = "give 'text_sentence' made by the same encoder, or train with graph.sentence=false"
                raise DataError(what, file=data.path, mend=mend)
        for name, known in facts["streams"].items():
            stream = data.streams.get(name)
            if stream is None or not len(stream.rows):
                continue
            width = len(known["scale"]["mean"])
            if stream.dim != width:
                what = f"has {stream.dim} {name} features, and the model learned from {width}"
                raise DataError(what, file=data.path, mend="extract the same features, or leave them out")
            if known["aligned"] and not stream.aligned:
                what = (
                    f"has {name} sequences that are not aligned to the words, and the model learned from aligned ones"
                )
                raise DataError(what, file=data.path, mend="align them, or train with graph.reading=unaligned")

    @torch.no_grad()
    def _encoded(self, data: Utterances, without: Sequence[Any] | None = None) -> dict[str, npt.NDArray[np.float32]]:
        """Vectors and scores of the utterances, in their order; those of like length share a batch."""
        self.check_fitted()
        prepared = self._prepared(data, self.config.without if without is None else without)
        device = next(self.model_.parameters()).device
        order = np.argsort(prepared.lengths, kind="stable")
        made: dict[str, list[npt.NDArray[np.float32]]] = {}
        for start in range(0, len(order), BATCH):
            batch = to_device(prepared.batch(order[start : start + BATCH]), device)
            for name, tensor in self.model_.encode(batch).items():
                made.setdefault(name, []).append(tensor.float().cpu().numpy())
        back = np.argsort(order, kind="stable")
        return {name: np.concatenate(parts)[back] for name, parts in made.items()}

    def scores(self, data: Utterances) -> npt.NDArray[np.float64]:
        """(n,) sentiment in [-3, 3]."""
        return np.clip(self._encoded(data)["score"].astype(np.float64), -LIMIT, LIMIT)

    def embed(self, data: Utterances) -> Embeddings:
        """Vectors of the utterances as option `view` says, with their text, sentiment and video."""
        vectors = self._encoded(data)[self.config.view]
        texts = [" ".join(words) for words in data.tokens]
        columns: dict[str, Sequence[Any]] = {"text": texts, "video": list(data.videos)}
        label = None
        if np.isfinite(data.labels).all():
            columns["sentiment"] = [round(float(value), 3) for value in data.labels]
            label = "sentiment"
        kind = "anchor" if self.config.view == "anchor" else "utterance"
        return Embeddings(np.ascontiguousarray(vectors), list(data.ids), kind, columns, label=label, hover="text")

    def predict(self, data: Utterances) -> pd.DataFrame:
        """What `ask` asks for: scores, the edges and weights behind them, statistics of the graphs, or a stress set."""
        self.check_fitted()
        ask = self.config.ask
        if ask == "stress":
            made = stress_set(data, self.config.split_seed)
            return pd.DataFrame(
                {"id": made.ids, "text": [" ".join(words) for words in made.tokens], "label": made.labels}
            )
        if ask == "explain":
            return self.explanation(data).to_frame()
        if ask == "graphs":
            return graph_table(self.explanation(data))
        scores = self.scores(data)
        return pd.DataFrame(
            {
                "id": data.ids,
                "text": [" ".join(words) for words in data.tokens],
                "score": scores,
                "polarity": np.where(scores > 0, "positive", np.where(scores < 0, "negative", "neutral")),
                "class": seven_classes(scores),
            }
        )

    def explanation(self, data: Utterances) -> Explanation:
        """Kept edges, their weights, and the anchor's β of every utterance."""
        self.check_fitted()
        return explain(self.model_, self._prepared(data, self.config.without), data)

    def write_answers(self, answers: pd.DataFrame, data: Utterances, path: Path) -> None:
        """The graphs of ``ask=explain`` as .json or .dot, or the folder of ``ask=stress``."""
        wanted = "explain" if path.suffix in (".json", ".dot") else "stress"
        if self.config.ask != wanted:
            what = f"a file '{path.suffix}'" if path.suffix else "a folder"
            raise ConfigError(f"option 'ask': {what} is the answer of ask={wanted}, not of ask={self.config.ask}.")
        if wanted == "explain":
            write_graphs(self.explanation(data), path)
        else:
            write_utterances(stress_set(data, self.config.split_seed), path)

    def measure(self, data: Utterances) -> Measurement:
        """Metrics as `sentiment_metrics` names them, for all and for groups of utterances; absolute errors per item."""
        self.check_fitted()
        data = known_labels(data)
        return Measurement(*measurement(data, self.scores(data)))

    def baselines(self, train: Utterances, test: Utterances) -> dict[str, dict[str, float]]:
        """A constant, and ridge regressions on words, mean word vectors, sentence vectors, and these with audio."""
        return simple_baselines(known_labels(train), known_labels(test))

    def figures(self, data: Utterances) -> list[Figure]:
        """Predicted against true scores, confusion of the seven classes, groups, edges and β of one utterance."""
        return sentiment_figures(self, data)


def _scale(values: npt.NDArray[Any]) -> float:
    """One number that brings vectors to unit variance per entry."""
    return float(max(np.sqrt(np.square(values.astype(np.float64)).mean()), 1e-6)) if values.size else 1.0


def _spread(vectors: npt.NDArray[np.float32]) -> float:
    return float(vectors.std(0).mean())


def _fields(data: Utterances) -> dict[str, Sequence[Any]]:
    # Short exclamations recur in any two reviews.
    texts = [" ".join(words) if len(words) >= 8 else None for words in data.tokens]
    return {"id": list(data.ids), "video": list(data.videos), "text": texts}
