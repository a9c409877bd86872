"""System: the estimator over collections of structured documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.documents import Collection, Document, read_collection
from kontrast.data.splits import Splits, fold_case, leak_free_parts
from kontrast.encoders import Encoder, TextEncoder, build_encoder, encode_rows
from kontrast.encoders.elements import ElementsEncoder
from kontrast.errors import DataError
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.evaluation.retrieval import RetrievalValues, retrieval_values
from kontrast.randomness import numpy_rng
from kontrast.systems.seal.answers import answer, write_answer_file
from kontrast.systems.seal.baselines import head_baseline, lexical_baselines
from kontrast.systems.seal.config import SealConfig
from kontrast.systems.seal.corpus import Corpus
from kontrast.systems.seal.encoding import Context, fresh_encoder, save_elements
from kontrast.systems.seal.example import write_example_collection
from kontrast.systems.seal.figures import seal_figures
from kontrast.systems.seal.masking import Masking
from kontrast.systems.seal.measuring import KS, PRIMARY, chance_ndcg, details, judged_rows, only, relevance_of
from kontrast.systems.seal.mining import given_negatives, mined_by_vectors, mined_by_words
from kontrast.systems.seal.model import SealModel
from kontrast.systems.seal.reading import DocumentRows, ElementReader, Reader, TextReader
from kontrast.systems.seal.views import Pairing, SealBatches, shuffled_positives
from kontrast.training import Stage

Vectors = npt.NDArray[np.float32]
ViewOfDocuments = Literal["tag", "untag"]


class Seal(System[SealConfig, Collection]):
    """Fine-tuning of an embedder for long structured documents, aware of their markup and of their elements.

    Rows are queries; the documents are the same in every part of a split. Training sees the training queries, the
    documents that answer them and documents mined among those.
    """

    card: ClassVar[Card] = Card(
        name="seal",
        title="search in long structured documents (HTML, Markdown, Word), aware of tags and elements",
        summary=(
            "A query must find its document in three views: as tagged HTML, without markup (structure-aware learning), "
            "and with some elements left out (element-aware alignment). One InfoNCE per view, with negatives mined for "
            "each query. The default encoder sums up the elements of a whole document, each with the vector that a "
            "frozen encoder gives it; text encoders can be fine-tuned instead."
        ),
        task="retrieval",
        modalities=("text",),
        formats=(
            "BEIR folder: corpus.jsonl (HTML or text), queries.jsonl, qrels.tsv or qrels/{train,dev,test}.tsv",
            "folder of .html, .md or .docx files, with queries.jsonl whose field doc_id names a file",
            "JSON lines of {query, content} or {query, pos, neg}, in one file or as train, dev and test",
            "for questions: .txt with one a line, or JSON lines with a field query",
        ),
        primary_metric=PRIMARY,
        higher_is_better=True,
        ablation="contrastive fine-tuning",
        null_control="which document answers which training query",
        unit="queries",
        arxiv="2508.20778",
        citation=(
            "Huang et al., SEAL: Structure and Element Aware Learning Improves Long Structured Document Retrieval, "
            "EMNLP 2025"
        ),
        extras=("text", "documents", "minilm"),
    )
    Config = SealConfig
    model_: SealModel
    corpus_: Corpus
    smoke: ClassVar[dict[str, Any]] = {
        "encoder": {"context": None, "words": 0, "table": 64, "vocab_size": 1000},
        "epochs": 6,
        "batch_size": 32,
        "optimiser": {"learning_rate": 2e-2},
    }
    exports: ClassVar[tuple[str, ...]] = ("sentence-transformers",)
    answer_options: ClassVar[tuple[str, ...]] = ("ask", "top_k", "corpus", "search", "negative_ranks")
    answer_files: ClassVar[dict[str, str]] = {
        ".html": "the answers to be read, with the element that matches best marked",
        ".trec": "a TREC run file",
        ".run": "a TREC run file",
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> Collection:
        data = read_collection(path)
        if purpose == "train":
            if not data.documents:
                raise DataError("holds no documents", file=path, mend="give them as corpus.jsonl beside queries.jsonl")
            if not data.queries:
                raise DataError("holds no queries", file=path, mend="add queries.jsonl with _id, text and doc_id")
            data = judged_rows(data)
        return data

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_collection(path)

    def split(self, data: Collection) -> Splits[Collection]:
        """The parts that the data name; else no two parts share a query or an answering document."""
        stated = [query.part for query in data.queries]
        if any(stated):
            lacking = [query.id for query in data.queries if query.part is None]
            if lacking:
                what = f"{len(lacking)} queries are in no part ('{lacking[0]}' is one) and others are in one"
                raise DataError(what, file=data.path, mend="give every query a part, or none")
            parts = np.array(stated)
        else:
            pairs = [(row, place) for row, query in enumerate(data.queries) for place in query.answers]
            texts = fold_case(pd.Series([data.queries[row].text for row, _ in pairs], dtype=object))
            names = [data.ids[place] for _, place in pairs]
            ids = [data.queries[row].id for row, _ in pairs]
            dealt = leak_free_parts([ids, texts, names], self.config.split_seed, (0.7, 0.1, 0.2))
            of_row = dict(zip((row for row, _ in pairs), dealt.tolist()))
            parts = np.array([of_row[row] for row in range(len(data))])
        found = {name: data.take(np.flatnonzero(parts == name)) for name in ("train", "valid", "test")}
        for name in ("train", "test"):
            if not len(found[name]):
                mend = "give qrels for it, or more queries that share no document"
                raise DataError(f"the part '{name}' has no queries", file=data.path, mend=mend)
        return Splits(found["train"], found["valid"] if len(found["valid"]) else None, found["test"])

    def size(self, data: Collection) -> int:
        return len(data)

    def take(self, data: Collection, rows: Sequence[int] | npt.NDArray[Any]) -> Collection:
        return data.take(rows)

    def permuted(self, data: Collection, seed: int) -> Collection:
        """The names of the documents dealt out anew."""
        return data.relabelled(numpy_rng(seed, "permuted truth").permutation(len(data.documents)))

    def chance(self, data: Collection) -> float:
        return chance_ndcg(data)

    def leaks(self, train: Collection, test: Collection) -> LeakReport:
        """Queries and answering documents of the test that training has seen."""
        fields = []
        for data in (train, test):
            pairs = [(query.text, data.ids[place]) for query in data.queries for place in query.answers]
            fields.append({"query": [text for text, _ in pairs], "document": [name for _, name in pairs]})
        return check_leaks(*fields, groups=["document"])

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: Collection) -> dict[str, Any]:
        """The encoder's structure; vocabulary and word weights come from training documents alone."""
        self.__dict__.pop("_held", None)
        self._context = Context.of(self.config.encoder)
        self._fresh = fresh_encoder(self.config, train, self._context)
        return {
            "encoder": self._fresh.structure(),
            "context": self._context.facts() if self._context is not None else None,
        }

    def build(self, facts: dict[str, Any]) -> SealModel:
        fresh: Encoder | None = self.__dict__.pop("_fresh", None)
        if fresh is None:
            elements = facts["encoder"]["encoder"] == "elements"
            make = ElementsEncoder.from_structure if elements else build_encoder
            fresh = make(facts["encoder"])
        return SealModel(fresh, self.config)

    def stages(self, train: Collection, valid: Collection | None) -> Iterator[Stage]:
        config = self.config
        if len(train) < 2 or len(train.used()) < 2:
            what = f"has {len(train)} training queries over {len(train.used())} documents"
            raise DataError(what, file=train.path, mend="contrast needs at least two queries with different documents")
        if config.contrast == "off":
            return
        rows = self.rows(train.documents)
        masking = Masking(train.documents, config.masking)
        batches = SealBatches(train, rows, self._reader(), masking, self._pairing(train), config)
        validate = partial(self._validate, valid) if valid is not None and len(valid) else None
        yield Stage(
            name="contrast",
            model=self.model_,
            batches=batches.stream(),
            epochs=config.epochs,
            optimiser=config.optimiser,
            seed=config.seed,
            weights={view: config.weight(view) for view in config.views},
            validate=validate,
            monitor=PRIMARY if validate is not None else None,
            mode="max",
        )

    def _pairing(self, train: Collection) -> Pairing:
        """Answers of the training queries, and negatives mined among the documents of the training part."""
        config = self.config
        positives: Sequence[Sequence[int]] = [query.answers for query in train.queries]
        if config.contrast == "shuffled":
            positives = shuffled_positives(train, config.seed)
        if config.group_size == 1:
            return Pairing(positives, np.empty((len(train), 0), dtype=np.int64))
        if config.negatives == "given":
            return Pairing(positives, given_negatives(train))
        used = train.used()
        places = {int(number): place for place, number in enumerate(used)}
        inside = [[places[number] for number in row] for row in positives]
        if config.negatives == "bm25":
            texts = [train.documents[number].plain() for number in used]
            pool = mined_by_words(train.texts, texts, inside, config.negative_ranks)
        else:
            documents = self.document_vectors(train.documents, chosen=used)
            pool = mined_by_vectors(self.query_vectors(train.texts), documents, inside, config.negative_ranks)
        return Pairing(positives, np.where(pool >= 0, used[pool], -1))

    def _validate(self, valid: Collection) -> dict[str, float]:
        return only(self.retrieval(valid), (PRIMARY, "mrr@10"))

    def finish(self, train: Collection, valid: Collection | None) -> None:
        self.corpus_ = self.corpus_of(train)

    # ---- reading and encoding ------------------------------------------------------------------------------------

    def _reader(self) -> Reader:
        encoder = self.model_.encoder
        if isinstance(encoder, ElementsEncoder):
            if not hasattr(self, "_context"):
                facts = self.facts_["context"]
                self._context = Context.from_facts(facts) if facts is not None else None
            context = self._context.texts if self._context is not None else None
            return ElementReader(encoder, context, self.config.encoder.context_units)
        assert isinstance(encoder, TextEncoder)
        return TextReader(encoder, self.config.encoder.budget)

    def rows(self, documents: tuple[Document, ...]) -> DocumentRows:
        """The documents prepared for the encoder; those asked for last are kept."""
        held: tuple[tuple[Document, ...], DocumentRows] | None = getattr(self, "_held", None)
        if held is None or held[0] is not documents:
            held = self._held = (documents, self._reader().documents(documents, "reading elements"))
        return held[1]

    def query_vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, d) of queries."""
        return _unit(encode_rows(self.model_.encoder, self._reader().queries(texts)))

    def document_vectors(
        self,
        documents: tuple[Document, ...],
        view: ViewOfDocuments | None = None,
        chosen: npt.NDArray[np.int64] | None = None,
    ) -> Vectors:
        """Unit vectors (m, d) of documents, or of the chosen ones, in a view (that of searching if None)."""
        numbers = np.arange(len(documents)) if chosen is None else chosen
        rows = self.rows(documents).view(view or self.config.read_as, numbers)
        return _unit(encode_rows(self.model_.encoder, rows, batch_size=128))

    def unit_vectors(self, document: Document) -> Vectors:
        """Unit vectors of the units of one document, each by itself."""
        rows = self._reader().documents([document]).single_units(0)
        return _unit(encode_rows(self.model_.encoder, rows))

    def corpus_of(self, data: Collection) -> Corpus:
        """The documents of a collection, ready to be searched."""
        vectors = self.document_vectors(data.documents)
        return Corpus(list(data.ids), [document.tagged() for document in data.documents], vectors)

    # ---- use -----------------------------------------------------------------------------------------------------

    def embed(self, data: Collection) -> Embeddings:
        """Unit vectors of the queries, then of all documents."""
        self.check_fitted()
        vectors = np.concatenate([self.query_vectors(data.texts), self.document_vectors(data.documents)])
        sides = ["query"] * len(data) + ["document"] * len(data.documents)
        texts = [*data.texts, *(document.title for document in data.documents)]
        ids = [*(query.id for query in data.queries), *data.ids]
        return Embeddings(vectors, ids, sides, {"text": texts, "side": sides}, label="side", hover="text")

    def predict(self, data: Collection) -> pd.DataFrame:
        """The answer to the question that the option ``ask`` names."""
        self.check_fitted()
        return answer(self, data)

    def write_answers(self, answers: pd.DataFrame, data: Collection, path: Path) -> None:
        """A page with the matching elements marked, or a TREC run file."""
        write_answer_file(self, answers, data, path)

    def searched(self, data: Collection) -> Corpus:
        """What `predict` searches for the queries of `data`."""
        if self.config.corpus is not None:
            data = read_collection(self.config.corpus)
            if not data.documents:
                raise DataError("holds no documents to search", file=self.config.corpus, mend="give a corpus")
        return self.corpus_of(data) if data.documents else self.corpus_

    # ---- measuring -----------------------------------------------------------------------------------------------

    def retrieval(self, data: Collection, view: ViewOfDocuments | None = None) -> RetrievalValues:
        """Retrieval metrics per query over all documents of `data`."""
        queries, documents = self.query_vectors(data.texts), self.document_vectors(data.documents, view)
        return retrieval_values(queries, documents, relevance_of(data), ks=KS)

    def measure(self, data: Collection) -> Measurement:
        self.check_fitted()
        data = judged_rows(data)
        queries, documents = self.query_vectors(data.texts), self.document_vectors(data.documents)
        values = retrieval_values(queries, documents, relevance_of(data), ks=KS)
        metrics = only(values) | details(data, queries, documents, values)
        other: ViewOfDocuments = "untag" if self.config.read_as == "tag" else "tag"
        metrics[f"{PRIMARY} read {other}ged"] = self.retrieval(data, other).means()[PRIMARY]
        return Measurement(metrics, values.per_query[PRIMARY], [query.id for query in data.queries])

    def baselines(self, train: Collection, test: Collection) -> dict[str, dict[str, float]]:
        """BM25, TF-IDF, a ready encoder on the beginning of each page, this encoder before training, chance."""
        untrained = self.untrained(train)
        relevance = relevance_of(test)
        found = lexical_baselines(test, relevance)
        name = self.config.encoder.context
        if self.config.encoder.name == "elements" and name is not None:
            found[f"{Path(name).name}, first 256 tokens"] = head_baseline(test, relevance, name)
        found["untrained encoder"] = only(untrained.retrieval(test))
        found["chance"] = {PRIMARY: self.chance(test)}
        return found

    def untrained(self, train: Collection) -> Seal:
        """The same encoder before training."""
        untrained = type(self)(self.config)
        untrained.facts_ = untrained.learn_facts(train)
        untrained.initialise()
        return untrained

    def figures(self, data: Collection) -> list[Figure]:
        """Where the right document came, scores of answers and of others, gates of tags, gain by length, answers."""
        return seal_figures(self, judged_rows(data))

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The corpus, a frozen encoder that no package brings, and the encoder for sentence-transformers."""
        self.corpus_.save(folder / "corpus")
        self._reader()
        context = getattr(self, "_context", None)
        if context is not None:
            context.save(folder / "context")
        encoder = self.model_.encoder
        target = folder / "sentence-transformers"
        if isinstance(encoder, TextEncoder):
            encoder.save_sentence_transformers(target)
        elif isinstance(encoder, ElementsEncoder):
            save_elements(target, encoder, context, self.config)

    def load_extra(self, folder: Path) -> None:
        self.corpus_ = Corpus.load(folder / "corpus")
        if (folder / "context").is_dir():
            self._context = Context.load(folder / "context", self.config.encoder.context_tokens)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
