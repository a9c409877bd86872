"""System: the estimator over a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.graphs import Fold, Graph, canonical, contains, divide_edges, pair_keys, read_graph, sample_non_edges
from kontrast.data.splits import Splits
from kontrast.errors import CheckpointError, ConfigError, DataError
from kontrast.evaluation.calibration import PlattScaling, fit_platt
from kontrast.evaluation.detection import link_metrics
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.files import read_json, write_json
from kontrast.randomness import numpy_rng
from kontrast.systems.coeba.answers import HARD, negatives_table, recommend, write_negatives
from kontrast.systems.coeba.balanced import balanced_graph, write_balanced
from kontrast.systems.coeba.config import CoEBAConfig
from kontrast.systems.coeba.example import write_example_graph
from kontrast.systems.coeba.figures import graph_figures
from kontrast.systems.coeba.heuristics import Heuristics, hard_negatives
from kontrast.systems.coeba.measuring import KS, link_measurement
from kontrast.systems.coeba.model import CoEBAModel, balancing, inside
from kontrast.systems.coeba.questions import is_question, read_held_out, read_question
from kontrast.systems.coeba.stored import StoredGraph
from kontrast.systems.coeba.views import GraphTensors, LinkBatches, LinkData, Nodes
from kontrast.training import Stage
from kontrast.training.batches import to_device

_PAIRS = 1 << 18
LARGE = 10_000


class CoEBA(System[CoEBAConfig, LinkData]):
    """Contrastive link prediction on one undirected graph.

    Rows are edges: those of the training part are learned from, those of the test part are to be told from pairs that
    are no edges. The encoder sees the edges of the training part alone. For prediction a row is a node that asks for
    new neighbours, or a pair that asks for its score.
    """

    card: ClassVar[Card] = Card(
        name="coeba",
        title="which edges a graph is missing, or will have next",
        summary=(
            "A graph autoencoder scores pairs of nodes. Beside its link loss two views of the graph are contrasted so "
            "that a node comes close to itself and to its neighbours. One view balances degrees: nodes with few edges "
            "get some to similar nodes, edges between nodes with many are thinned. What comes out is a score for every "
            "pair and a vector for every node."
        ),
        task="link prediction",
        modalities=("graph",),
        formats=(
            "edge list as TXT, CSV, TSV, JSONL or parquet, node names of any kind",
            "folder with a table 'edges' (source, target) and a table 'nodes' (id, label, features)",
            "npz: edges with CSR features and own splits, or adjacency and attribute matrices",
            "planetoid ind.NAME.* files, PyG Data (.pt), MATLAB .mat (variable net), NetworkX GraphML",
            "folders of MUSAE (csv and json), geom-gcn (txt), OGB and HeaRT",
        ),
        primary_metric="auroc",
        higher_is_better=True,
        ablation="the contrastive terms (the plain graph autoencoder)",
        null_control="which node of one view stands for which node of the other",
        unit="edges",
        arxiv="2508.14808",
        citation="Chang, Hung, Lu, Shen, contrastive link prediction with edge balancing augmentation, CIKM 2025",
    )
    Config = CoEBAConfig
    model_: CoEBAModel
    platt_: PlattScaling | None = None
    smoke: ClassVar[dict[str, Any]] = {
        "epochs": 4,
        "anchors": 64,
        "projection": 32,
        "encoder": {"hidden": 32, "dim": 16},
        "balancing": {"warmup": 10, "refresh": 10},
    }
    answer_options: ClassVar[tuple[str, ...]] = ("ask", "top_k", "probabilities", "hard_negatives")
    answer_files: ClassVar[dict[str, str]] = {
        "": "a folder: of ask=augment the balanced graph and its degrees, of ask=negatives HeaRT's files"
    }

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> LinkData:
        """A graph; for prediction of a fitted system also a table of pairs to score or of nodes to find edges for.

        A graph given for prediction is taken at its word: the encoder sees all its edges, and none is recommended.
        Where hard negatives are asked for, rows are the edges that training did not learn from.
        """
        ask = self.config.ask
        if purpose == "predict" and hasattr(self, "stored_"):
            if ask == "negatives":
                return read_held_out(path, self.stored_)
            if ask == "links" and is_question(path):
                return read_question(path, self.stored_)
        graph = read_graph(path)
        if purpose == "predict":
            return LinkData(graph, graph.edges, "node", np.arange(graph.n), known=graph.edges)
        return LinkData(graph, graph.edges, "edge", graph.edges, whole=True)

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_graph(path)

    def split(self, data: LinkData) -> Splits[LinkData]:
        graph, config = data.graph, self.config
        if data.kind != "edge":
            raise DataError(f"holds questions about {data.kind}s, no edges to split", file=graph.path)
        fold = self._fold(data)
        parts: dict[str, LinkData | None] = {"valid": None, "test": None}
        for name in parts:
            rows: Nodes = getattr(fold, name)
            if not len(rows):
                continue
            context, seen = fold.train, fold.valid if name == "test" else None
            if name == "test" and config.test_context == "train+valid":
                context = canonical(np.concatenate([fold.train, fold.valid]), graph.n)
            negatives = getattr(fold, f"{name}_negatives")
            if negatives is None:
                negatives = self._sampled(graph, rows, fold, name)
            hard = getattr(fold, f"{name}_hard")
            if hard is None and config.hard_negatives:
                hard = hard_negatives(
                    graph, fold.train, rows, config.hard_negatives, forbidden=seen, seed=config.split_seed
                )
            parts[name] = LinkData(graph, context, "edge", rows, negatives, hard)
        if not len(fold.train):
            raise DataError("its split has no training edges", file=graph.path, mend="give some edges to train on")
        return Splits(LinkData(graph, fold.train, "edge", fold.train), parts["valid"], parts["test"])

    def _fold(self, data: LinkData) -> Fold:
        folds, fold = data.graph.folds, self.config.fold
        if not folds:
            if fold is not None:
                raise ConfigError(f"option 'fold': the data bring no splits of their own, got {fold}.")
            return divide_edges(replace(data.graph, edges=canonical(data.rows, data.graph.n)), self.config.split_seed)
        if fold is not None and fold >= len(folds):
            raise ConfigError(f"option 'fold': the data bring the splits 0 to {len(folds) - 1}, got {fold}.")
        return folds[fold if fold is not None else self.config.seed % len(folds)]

    def _sampled(self, graph: Graph, rows: Nodes, fold: Fold, name: str) -> Nodes:
        """As many uniform non-edges of the whole graph as there are rows."""
        everything = np.concatenate([graph.edges, fold.train, fold.valid, fold.test])
        keys = np.unique(pair_keys(everything, graph.n))
        return sample_non_edges(graph.n, len(rows), keys, numpy_rng(self.config.split_seed, "negatives", name))

    def size(self, data: LinkData) -> int:
        return len(data)

    def take(self, data: LinkData, rows: Sequence[int] | npt.NDArray[Any]) -> LinkData:
        return data.take(rows)

    def permuted(self, data: LinkData, seed: int) -> LinkData:
        """Held-out edges and negatives in one pot, and dealt out anew."""
        pot = np.concatenate([data.rows, data.negatives])
        order = numpy_rng(seed, "permuted truth").permutation(len(pot))
        return replace(data, rows=pot[order[: len(data)]], negatives=pot[order[len(data) :]], hard=None)

    def chance(self, data: LinkData) -> float:
        return 0.5

    def leaks(self, train: LinkData, test: LinkData) -> LeakReport:
        """Test edges among the training edges in either direction, or among those that the encoder sees in the test."""
        seen = np.concatenate([train.rows, train.context])
        if train is not test:
            seen = np.concatenate([seen, test.context])
        return check_leaks({"edge": _named(train.graph, seen)}, {"edge": _named(test.graph, test.rows)})

    # ---- learning ------------------------------------------------------------------------------------------------

    def learn_facts(self, train: LinkData) -> dict[str, Any]:
        if train.kind != "edge":
            raise DataError(f"holds questions about {train.kind}s, not edges to learn from", file=train.graph.path)
        graph, section, given = train.graph, self.config.encoder, self.config.optimiser.learning_rate
        featured = graph.features is not None
        factor = 1.0 if featured else 10.0 if graph.n <= LARGE else 2.0
        return {
            "nodes": graph.n,
            "edges": len(train.context),
            "features": int(graph.features.shape[1]) if graph.features is not None else None,
            "hidden": section.hidden if section.hidden is not None else 256 if featured else 128,
            "dim": section.dim if section.dim is not None else 128 if featured else 64,
            "dropout": section.dropout if section.dropout is not None else 0.5 if featured else 0.0,
            "learning_rate": given * factor if self.config.scale_rate else given,
        }

    def build(self, facts: dict[str, Any]) -> CoEBAModel:
        return CoEBAModel(facts, self.config)

    def stages(self, train: LinkData, valid: LinkData | None) -> Iterator[Stage]:
        config = self.config
        batches = LinkBatches(train, config)
        weights: dict[str, float] = {}
        if batches.contrasts:
            terms = ["inter"] * (config.terms != "intra") + ["intra"] * inside(config)
            if not terms:
                raise ConfigError("option 'terms': 'intra' contrasts neighbours and needs positives 'neighbours'.")
            weights = dict.fromkeys(terms, config.weight / len(terms))
        validate = None
        if valid is not None and len(valid) and len(valid.negatives):
            validate = partial(self._validate, valid)
        yield Stage(
            name="links",
            model=self.model_,
            batches=batches,
            epochs=config.epochs,
            optimiser=config.optimiser.changed(learning_rate=self.facts_["learning_rate"]),
            seed=config.seed,
            weights=weights,
            validate=validate,
            monitor="auroc+ap" if validate is not None else None,
            mode="max",
        )

    def _validate(self, valid: LinkData) -> Mapping[str, float]:
        vectors = self.vectors(valid)
        found = link_metrics(self._scores(vectors, valid.rows), self._scores(vectors, valid.negatives), (50,))
        return {**found, "auroc+ap": (found["auroc"] + found["ap"]) / 2}

    def finish(self, train: LinkData, valid: LinkData | None) -> None:
        parts = [train.context, train.rows] + ([] if valid is None else [valid.rows])
        known = canonical(np.concatenate(parts), train.graph.n)
        graph = replace(train.graph, edges=known, folds=(), path=None, dropped={})
        self.stored_ = StoredGraph(graph, train.context)
        self.platt_ = None
        if valid is not None and len(valid) and len(valid.negatives):
            scores = self.scores(valid, np.concatenate([valid.rows, valid.negatives]))
            self.platt_ = fit_platt(scores, np.repeat([1, 0], [len(valid), len(valid.negatives)]))

    # ---- use -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def vectors(self, data: LinkData) -> npt.NDArray[np.float32]:
        """(nodes, dim) embeddings of all nodes of the graph, from the edges that may be seen."""
        self._check_fits(data.graph)
        device = next(self.model_.parameters()).device
        tensors = GraphTensors.of(data.graph, data.context)
        return self.model_.codes(to_device(tensors, device)).vectors.float().cpu().numpy()

    def _check_fits(self, graph: Graph) -> None:
        self.check_fitted()
        wanted, came = self.facts_["features"], None if graph.features is None else int(graph.features.shape[1])
        if wanted != came:
            what = f"has {'no' if came is None else came} node features, and the model learned "
            what += "without any" if wanted is None else f"{wanted}"
            raise DataError(what, file=graph.path, mend="give the graph that it learned from, or one with its features")
        stored: StoredGraph | None = getattr(self, "stored_", None)
        if wanted is None and (graph.n != self.facts_["nodes"] or (stored and stored.graph.ids != graph.ids)):
            what = "has other nodes than the graph that the model learned from, and without features it knows no others"
            raise DataError(what, file=graph.path, mend="give the same nodes in the same order, or train on this graph")

    @torch.no_grad()
    def _scores(self, vectors: npt.NDArray[np.float32], pairs: Nodes) -> npt.NDArray[np.float32]:
        """(k,) logits of pairs (k, 2)."""
        device = next(self.model_.parameters()).device
        nodes, ends = torch.from_numpy(vectors).to(device), torch.from_numpy(np.ascontiguousarray(pairs)).to(device)
        parts = [self.model_.decoder(nodes[some[:, 0]], nodes[some[:, 1]]) for some in torch.split(ends, _PAIRS)]
        return torch.cat(parts).float().cpu().numpy() if parts else np.zeros(0, np.float32)

    def scores(self, data: LinkData, pairs: Nodes) -> npt.NDArray[np.float32]:
        """(k,) logits of pairs of nodes: higher is more likely an edge. They rank pairs; they are no probabilities."""
        return self._scores(self.vectors(data), pairs)

    def embed(self, data: LinkData) -> Embeddings:
        """Vectors of the nodes that the rows are about, sorted by node number, with their degrees."""
        self.check_fitted()
        nodes, graph, degree = data.nodes(), data.graph, data.degrees()
        columns: dict[str, Sequence[Any]] = {"degree": [int(degree[node]) for node in nodes]}
        if graph.labels is not None:
            columns["class"] = [graph.labels[node] for node in nodes]
        label = "class" if graph.labels is not None else None
        return Embeddings(self.vectors(data)[nodes], [graph.ids[node] for node in nodes], "node", columns, label=label)

    @torch.no_grad()
    def predict(self, data: LinkData) -> pd.DataFrame:
        """The answer to the option `ask`.

        links: of pairs source, target, score; of nodes the `top_k` new neighbours as id, rank, neighbour, score; edges
        that are known do not come again. With `probabilities` also probability. augment: the edges of the balanced
        graph, see `BalancedGraph.to_frame`. negatives: hard negatives of held-out edges, see `negatives_table`.

        Raises:
            ConfigError: if probabilities are asked for and there was no validation part.
            DataError: if hard negatives cannot be made.
        """
        self.check_fitted()
        config = self.config
        if config.ask == "negatives":
            return negatives_table(data, config.hard_negatives or HARD, config.split_seed)
        vectors = self.vectors(data)
        if config.ask == "augment":
            return balanced_graph(config, data, vectors).to_frame(vectors, data.graph.ids)
        if data.kind == "node":
            frame = recommend(data, vectors, self.model_.decoder, config.top_k)
        else:
            ends = np.asarray(data.graph.ids, dtype=object)[data.rows]
            scores = self._scores(vectors, data.rows)
            frame = pd.DataFrame({"source": ends[:, 0], "target": ends[:, 1], "score": scores})
        if config.probabilities:
            if self.platt_ is None:
                mend = "train with a validation part, or leave the option out"
                raise ConfigError(f"option 'probabilities': the model had no validation edges to fit them on; {mend}.")
            frame["probability"] = self.platt_.probabilities(frame["score"].to_numpy())
        return frame

    def write_answers(self, answers: pd.DataFrame, data: LinkData, path: Path) -> None:
        if self.config.ask == "links":
            raise ConfigError("option 'ask': links are written as a table; give a .parquet, .csv or .jsonl file.")
        if self.config.ask == "negatives":
            write_negatives(answers, data, path, self.config.split_seed)
        else:
            low, _ = balancing(self.config).bounds(torch.from_numpy(data.context), data.graph.n)
            write_balanced(answers, data, path, low)

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measure(self, data: LinkData) -> Measurement:
        """Metrics of the held-out edges, as `link_measurement` names them.

        Of a graph that was not split: its edges that training did not know, where its nodes are those of the training
        graph; of another graph with the same features its test part.
        """
        self.check_fitted()
        data = self.held_out(data)
        metrics, beaten = link_measurement(partial(self._scores, self.vectors(data)), data, self.platt_)
        return Measurement(metrics, beaten, data.names())

    def held_out(self, data: LinkData) -> LinkData:
        """What `measure` measures of data that were not split.

        Raises:
            DataError: if training knew all the edges.
        """
        if not data.whole:
            return data
        stored = self.stored_
        if data.graph.ids != stored.graph.ids:
            test = self.split(data).test
            assert test is not None
            return test
        keys = np.sort(pair_keys(stored.graph.edges, stored.graph.n))
        new = data.rows[~contains(keys, pair_keys(data.rows, stored.graph.n))]
        if not len(new):
            mend = "give edges that are new, or evaluate the run on its own test part"
            raise DataError("has no edge that training did not know", file=data.graph.path, mend=mend)
        everything = np.unique(np.concatenate([keys, pair_keys(data.rows, stored.graph.n)]))
        rng = numpy_rng(self.config.split_seed, "negatives", "new edges")
        negatives = sample_non_edges(stored.graph.n, len(new), everything, rng)
        return LinkData(data.graph, stored.context, "edge", new, negatives)

    def baselines(self, train: LinkData, test: LinkData) -> dict[str, dict[str, float]]:
        """The classic heuristics on the edges that the encoder sees in the test, the untrained encoder, chance."""
        heuristics = Heuristics(test.graph, test.context, self.config.seed)
        wanted = ("auroc", "ap", *(f"hits@{k}" for k in KS), "mrr", "hard mrr", "hard hits@10")
        found = {}
        for name in heuristics.names():
            metrics, _ = link_measurement(partial(heuristics.score, name), test)
            found[name] = {metric: metrics[metric] for metric in wanted if metric in metrics}
        untrained = type(self)(self.config)
        untrained.facts_ = untrained.learn_facts(train)
        untrained.initialise()
        metrics = untrained.evaluate(test)
        found["untrained encoder"] = {metric: metrics[metric] for metric in wanted if metric in metrics}
        found["chance"] = {self.card.primary_metric: self.chance(test)}
        return found

    def figures(self, data: LinkData) -> list[Figure]:
        """How true edges stand apart, by degree; what balancing does to degrees; recommended edges."""
        return graph_figures(self, data)

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The graph, with which `predict` answers questions about its nodes."""
        self.stored_.save(folder / "graph")
        if self.platt_ is not None:
            write_json(folder / "calibration.json", self.platt_.to_dict())

    def load_extra(self, folder: Path) -> None:
        self.stored_ = StoredGraph.load(folder / "graph")
        path = folder / "calibration.json"
        try:
            self.platt_ = PlattScaling.from_dict(read_json(path)) if path.is_file() else None
        except ValueError as error:
            raise CheckpointError(f"is damaged ({error})", file=path, mend="train it again") from None


def _named(graph: Graph, pairs: Nodes) -> list[tuple[str, str]]:
    """Pairs by the names of their ends, the same for both directions."""
    ids = graph.ids
    return [(a, b) if a <= b else (b, a) for a, b in ((ids[u], ids[v]) for u, v in pairs.tolist())]
