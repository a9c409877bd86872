"""System: the estimator over two columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.splits import Splits, split_table
from kontrast.data.tables import ColumnKind, Table, read_table
from kontrast.encoders import Encoder, EncoderConfig, TextEncoder, build_encoder, encode_rows, resolve_encoder
from kontrast.errors import DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.evaluation.lexical import bm25_values
from kontrast.evaluation.retrieval import RetrievalValues, retrieval_values
from kontrast.extras import installed
from kontrast.randomness import derive_seed, numpy_rng
from kontrast.systems.pairs.config import PairsConfig
from kontrast.systems.pairs.corpus import Corpus
from kontrast.systems.pairs.example import write_example_pairs
from kontrast.systems.pairs.figures import pair_figures
from kontrast.systems.pairs.model import PairsModel
from kontrast.systems.pairs.views import (
    PairBatches,
    PairTable,
    Queries,
    Side,
    fixed_view,
    make_view,
    meeting_groups,
    read_pairs,
)
from kontrast.training import Stage

KS = (1, 5, 10)
REPORTED = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map")
WATCHED = ("recall@10", "mrr")
OWN_COLUMNS = ("id", "kind", "split", "vector", "text", "side")
"""Columns of embeddings that are ours; one of the data with such a name gets another."""


class Pairs(System[PairsConfig, PairTable]):
    """Contrastive learning between two columns of a table, or between views of one.

    Retrieval is measured from left to right on the test part: queries are its distinct left cells, candidates its
    distinct right cells, and every row says that its right cell is an answer to its left one.
    """

    card: ClassVar[Card] = Card(
        name="pairs",
        title="any two columns of your own table, or views of one",
        summary=(
            "Two encoders bring the two cells of a row together and keep cells of different rows apart (the symmetric "
            "softmax objective of CLIP over a batch). Text, numeric vectors and images in any combination. The result "
            "is a search engine from one column to the other and an embedding of both; with one column, of its cells."
        ),
        task="retrieval",
        modalities=("text", "vector", "image"),
        formats=(
            "parquet, CSV, TSV or JSONL with two columns (text, numeric vectors as lists, image paths) and, if you "
            "like, split, id, group and label columns",
            "plain .txt: one text per line, learned from views",
        ),
        primary_metric="recall@10",
        higher_is_better=True,
        ablation="contrastive training",
        null_control="the pairing of training rows",
        unit="queries",
        arxiv="2103.00020",
        citation="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
        extras=("text", "images"),
    )
    Config = PairsConfig
    model_: PairsModel
    smoke: ClassVar[dict[str, Any]] = {
        "epochs": 4,
        "batch_size": 64,
        "text": {"dim": 64, "vocab_size": 1000},
        "optimiser": {"learning_rate": 1e-2},
    }
    exports: ClassVar[tuple[str, ...]] = ("sentence-transformers",)
    answer_options: ClassVar[tuple[str, ...]] = ("top_k", "corpus", "search")

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> PairTable:
        return read_pairs(path, self.config, purpose, getattr(self, "facts_", {}))

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_pairs(path)

    def split(self, data: PairTable) -> Splits[PairTable]:
        keys = [data.left] if data.right is None else [data.left, data.right]
        parts = split_table(
            data.table, keys, group=data.group, seed=self.config.split_seed, require=("train", "test")
        )  # fmt: skip
        return parts.map(
            lambda table: PairTable(table, data.left, data.right, data.kinds, data.id, data.group, data.label)
        )

    def size(self, data: PairTable) -> int:
        return len(data)

    def take(self, data: PairTable, rows: Sequence[int] | npt.NDArray[Any]) -> PairTable:
        return data.take(rows)

    def permuted(self, data: PairTable, seed: int) -> PairTable:
        order = numpy_rng(seed, "permuted truth").permutation(len(data))
        return data.with_right_from(order)

    def chance(self, data: PairTable) -> float:
        candidates = len(set(data.keys("right")))
        return min(10, candidates) / candidates

    def leaks(self, train: PairTable, test: PairTable) -> LeakReport:
        sides: tuple[Side, ...] = ("left",) if test.right is None else ("left", "right")
        fields = [{data.column(side): data.cells(side) for side in sides} for data in (train, test)]
        groups = [test.group] if test.group is not None else []
        for data, values in zip((train, test), fields):
            values.update({name: data.table.ids(name) for name in groups})
        return check_leaks(*fields, groups=groups)

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: PairTable) -> dict[str, Any]:
        left_kind = train.kinds[train.left]
        right_kind = train.kinds[train.column("right")]
        left_cells, right_cells = train.cells("left"), train.cells("right")
        shared = train.right is None or (self.config.share and left_kind == right_kind)
        if left_kind == right_kind == "text" and train.right is not None:
            # One vocabulary serves both sides, so that words mean the same on either.
            left_cells = right_cells = [*left_cells, *right_cells]
        if left_kind == right_kind == "vector":
            shared = shared and left_cells.shape[1] == right_cells.shape[1]
        left = self._encoder(left_kind, left_cells, "left")
        right = left if shared else self._encoder(right_kind, right_cells, "right")
        self._fresh = (left, right)
        return {
            "left": train.left,
            "right": train.right,
            "left_kind": left_kind,
            "right_kind": right_kind,
            "shared": shared,
            "left_encoder": left.structure(),
            "right_encoder": None if shared else right.structure(),
        }

    def _encoder(self, kind: ColumnKind, cells: Any, side: Side) -> Encoder:
        sections = EncoderConfig(text=self.config.text, vector=self.config.vector, image=self.config.image)
        seed = derive_seed(self.config.seed, side)
        return resolve_encoder("vector" if kind == "number" else kind, cells, sections, seed=seed)

    def build(self, facts: dict[str, Any]) -> PairsModel:
        fresh: tuple[Encoder, Encoder] | None = self.__dict__.pop("_fresh", None)
        if fresh is not None:
            return PairsModel(*fresh, self.config)
        left = build_encoder(facts["left_encoder"])
        right = left if facts["shared"] else build_encoder(facts["right_encoder"])
        return PairsModel(left, right, self.config)

    def stages(self, train: PairTable, valid: PairTable | None) -> Iterator[Stage]:
        config = self.config
        if len(train) < 2:
            raise DataError("there is one training row", file=train.table.path, mend="contrast needs at least two rows")
        if len(np.unique(meeting_groups(train))) < 2:
            what = "all training rows hang together by equal values, so that none is a negative of another"
            raise DataError(what, file=train.table.path, mend="bring rows that share no value")
        if config.contrast == "off":
            return
        batches = PairBatches(train, self.model_.left.encoder, self.model_.right.encoder, config)
        yield Stage(
            name="contrast",
            model=self.model_,
            batches=batches.stream(config.seed),
            epochs=config.epochs,
            optimiser=config.optimiser,
            seed=config.seed,
            validate=partial(self._validate, valid) if valid is not None and len(valid) > 1 else None,
            monitor="mrr" if valid is not None and len(valid) > 1 else None,
            mode="max",
        )

    def _validate(self, valid: PairTable) -> dict[str, float]:
        return _only(self.retrieval(valid), WATCHED)

    def finish(self, train: PairTable, valid: PairTable | None) -> None:
        self.corpus_ = self._corpus_of(train if valid is None else train.joined(valid))

    # ---- use -----------------------------------------------------------------------------------------------------

    def embed(self, data: PairTable) -> Embeddings:
        """Vectors of the left cells, then of the right ones where `data` has them; unit length, float32."""
        self.check_fitted()
        sides: tuple[Side, ...] = ("left",) if data.right is None else ("left", "right")
        vectors = np.concatenate([self.vectors(data, side) for side in sides])
        kinds = [data.column(side) for side in sides for _ in range(len(data))]
        columns: dict[str, Sequence[Any]] = {"text": [word for side in sides for word in data.words(side)]}
        label = "side" if len(sides) == 2 else None
        if len(sides) == 2:
            columns["side"] = kinds
        for name in (data.group, data.label):
            if name is not None:
                label = f"{name} (yours)" if name in OWN_COLUMNS else name
                columns[label] = data.table.ids(name) * len(sides)
        return Embeddings(vectors, data.ids() * len(sides), kinds, columns, label=label, hover="text")

    def vectors(self, data: PairTable, side: Side, view: int | None = None) -> npt.NDArray[np.float32]:
        tower = self.model_.left if side == "left" else self.model_.right
        rows = tower.encoder.prepare(data.cells(side))
        if view is not None:
            augment = make_view(data.kinds[data.column(side)], self.config.views)
            rows = fixed_view(rows, data.keys(side), augment, numpy_rng("fixed view", view))
        vectors = encode_rows(tower.encoder, rows, head=tower.head)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def predict(self, data: PairTable) -> pd.DataFrame:
        """The `top_k` nearest right-hand cells of each row: id, query, rank, answer_id, answer, score (cosine)."""
        self.check_fitted()
        corpus = self.corpus_ if self.config.corpus is None else self._read_corpus(self.config.corpus)
        index = corpus.index(self.config.search)
        scores, found = index.search(self.vectors(data, "left"), self.config.top_k)
        width = found.shape[1]
        hits = found.ravel()
        frame = pd.DataFrame(
            {
                "id": np.repeat(data.ids(), width),
                "query": np.repeat(data.words("left"), width),
                "rank": np.tile(np.arange(1, width + 1), len(data)),
                "answer_id": [corpus.ids[hit] for hit in hits],
                "answer": [corpus.words[hit] for hit in hits],
                "score": scores.ravel(),
            }
        )
        found_any: pd.DataFrame = frame[np.isfinite(frame["score"])]
        return found_any.reset_index(drop=True)

    def _corpus_of(self, data: PairTable) -> Corpus:
        """The distinct right-hand cells."""
        first = np.sort(np.unique(data.keys("right"), return_index=True)[1])
        distinct = data.take(first)
        return Corpus(self.vectors(distinct, "right"), distinct.ids(), distinct.words("right"))

    def _read_corpus(self, path: Path) -> Corpus:
        name = self.facts_["right"] or self.facts_["left"]
        table = read_table(path)
        if name not in table.columns and len(table.columns) == 1:
            table = Table(table.frame.set_axis([name], axis=1), table.path, table.counted)
        kind = table.check(name, self.facts_["right_kind"])
        id_column = self.config.id if self.config.id in table.columns else None
        return self._corpus_of(PairTable(table, name, None, {name: kind}, id_column))

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measure(self, data: PairTable) -> Measurement:
        self.check_fitted()
        values = self.retrieval(data)
        metrics = _only(values, REPORTED)
        backwards = _only(self.retrieval(data, backwards=True), WATCHED)
        metrics |= {f"backwards {name}": value for name, value in backwards.items()}
        first = Queries.of(data, backwards=False).queries
        return Measurement(metrics, values.per_query[self.card.primary_metric], data.take(first).ids())

    def retrieval(self, data: PairTable, *, backwards: bool = False) -> RetrievalValues:
        """Metrics of finding the right-hand cells (`backwards`: the left-hand ones) of the distinct cells opposite.

        With one column, queries and candidates are two fixed views of each row.
        """
        ask = Queries.of(data, backwards=backwards)
        views = (0, 1) if data.right is None else (None, None)
        asked, searched = (ask.sides[0], ask.sides[1])
        return retrieval_values(
            self.vectors(data.take(ask.queries), asked, views[0]),
            self.vectors(data.take(ask.candidates), searched, views[1]),
            ask.relevance,
            ks=KS,
        )

    def baselines(self, train: PairTable, test: PairTable) -> dict[str, dict[str, float]]:
        """The encoders before training; BM25 between two texts; plain cosine between vectors of one length; chance."""
        untrained = type(self)(self.config)
        untrained.facts_ = untrained.learn_facts(train)
        untrained.initialise()
        found = {"untrained encoder": _only(untrained.retrieval(test), REPORTED)}
        ask = Queries.of(test, backwards=False)
        kinds = (test.kinds[test.left], test.kinds[test.column("right")])
        if kinds == ("text", "text") and test.right is not None and installed("bm25s"):
            words = [test.take(rows).cells(side) for rows, side in zip((ask.queries, ask.candidates), ask.sides)]
            found["BM25"] = _only(bm25_values(words[0], words[1], ask.relevance, ks=KS), REPORTED)
        if kinds == ("vector", "vector") and test.right is not None:
            left, right = test.take(ask.queries).cells("left"), test.take(ask.candidates).cells("right")
            if left.shape[1] == right.shape[1]:
                found["cosine of the given vectors"] = _only(
                    retrieval_values(left, right, ask.relevance, ks=KS), REPORTED
                )
        found["chance"] = {self.card.primary_metric: self.chance(test)}
        return found

    def figures(self, data: PairTable) -> list[Figure]:
        """Where the right answer came, how far true pairs stand apart from others, and what was answered."""
        return pair_figures(self, data)

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The corpus, and text towers in the format of sentence-transformers."""
        self.corpus_.save(folder / "corpus")
        for side, tower in (("left", self.model_.left), ("right", self.model_.right)):
            if isinstance(tower.encoder, TextEncoder) and (side == "left" or not self.facts_["shared"]):
                name = "text" if self.facts_["shared"] else side
                tower.encoder.save_sentence_transformers(folder / "sentence-transformers" / name, head=tower.head)

    def load_extra(self, folder: Path) -> None:
        self.corpus_ = Corpus.load(folder / "corpus")


def _only(values: RetrievalValues, names: Sequence[str]) -> dict[str, float]:
    """Means of some of the metrics, in that order."""
    means = values.means()
    return {name: means[name] for name in names}
