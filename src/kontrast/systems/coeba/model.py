"""Model: the graph autoencoder, a projection, and the neighbour-concentrated losses between two views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast.encoders import ProjectionHead
from kontrast.encoders.graphs import GraphEncoder, NodeCodes, PairDecoder, normalised_adjacency
from kontrast.losses import multi_positive
from kontrast.ops import Pairs
from kontrast.randomness import derive_seed, torch_rng
from kontrast.systems.coeba.config import CoEBAConfig, ViewKind
from kontrast.systems.coeba.views import GraphTensors
from kontrast.training import Progress, TrainableModel
from kontrast.views.graphs import EdgeBalancing, Partners, degree_drop_shares, draw_partners, drop_edges, mix_neighbours


class CoEBAModel(TrainableModel):
    """Encoder, decoder and projection; the balanced graph of the current embeddings is a buffer.

    Args:
        facts: nodes, features (or None) and train edges of the graph, and the sizes that follow from them.
        config: sizes, views, losses.
    """

    added: Tensor
    drop_shares: Tensor
    balanced: Tensor
    partners: Tensor
    shares: Tensor
    likeness: Tensor

    # A node's vector depends on its neighbours: the graph is encoded whole.
    rowwise = False

    def __init__(self, facts: Mapping[str, Any], config: CoEBAConfig) -> None:
        super().__init__()
        self.config = config
        featured = facts["features"] is not None
        section, seed = config.encoder, config.seed
        dim = facts["dim"]
        self.encoder = GraphEncoder(
            facts["features"] if featured else facts["nodes"],
            facts["hidden"],
            dim,
            featured=featured,
            kind=section.kind,
            dropout=facts["dropout"],
            seed=seed,
        )
        self.decoder = PairDecoder(dim, section.decoder, seed=seed)
        self.projection = ProjectionHead(dim, config.projection, seed=derive_seed(seed, "projection"))
        self.balancing = balancing(config)
        # The balanced graph depends on the weights of an earlier step, so a resumed run must find it as it was.
        views = {config.first_view, config.second_view}
        uses = views & {"eba", "eba-add", "eba-drop"}
        room = facts["nodes"] * config.balancing.most_added if uses else 0
        self.register_buffer("added", torch.full((room, 2), -1, dtype=torch.int32))
        self.register_buffer("drop_shares", torch.zeros(facts["edges"] if uses else 0))
        mixed = facts["nodes"] if "grade" in views else 0
        self.register_buffer("partners", torch.full((mixed,), -1, dtype=torch.int32))
        self.register_buffer("shares", torch.zeros(mixed))
        self.register_buffer("likeness", torch.zeros(facts["edges"] if mixed else 0))
        self.register_buffer("balanced", torch.zeros((), dtype=torch.bool))

    def codes(self, graph: GraphTensors) -> NodeCodes:
        """Embeddings of all nodes from the edges of the graph."""
        codes: NodeCodes = self.encoder(graph.adjacency, graph.features)
        return codes

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Embeddings of the nodes, and projections of the candidates in either view.

        A graph has no independent rows: a node's vector follows from its neighbours', too.
        """
        graph: GraphTensors = batch["graph"]
        codes = self.codes(graph)
        encoded = {"nodes": codes.vectors}
        if codes.mean is not None and codes.log_std is not None:
            encoded |= {"mean": codes.mean, "log_std": codes.log_std}
        if "coins" in batch:
            kinds: tuple[ViewKind, ViewKind] = (self.config.first_view, self.config.second_view)
            for number, (name, kind) in enumerate(zip(("first", "second"), kinds)):
                adjacency = graph.adjacency
                if kind != "none":
                    edges = self.view_edges(graph, kind, batch["coins"][number], int(batch["draws"][number]))
                    adjacency = normalised_adjacency(edges, graph.n)
                kept = batch["kept_columns"][number] if "kept_columns" in batch else None
                seen: NodeCodes = self.encoder(adjacency, graph.features, kept)
                encoded[name] = self.projection(seen.vectors[batch["candidates"]])
        return encoded

    def view_edges(self, graph: GraphTensors, kind: ViewKind, coins: Tensor, draw: int) -> Tensor:
        """(k, 2) edges of one view; `draw` is the seed of what the coins (m,) cannot decide."""
        edges, drop = graph.edges, self.config.edge_drop
        if kind == "none":
            return edges
        if kind == "gca":
            return drop_edges(edges, degree_drop_shares(edges, graph.n, drop), coins, n=graph.n)
        if kind == "drop" or not self.balanced:
            return drop_edges(edges, drop, coins, n=graph.n)
        if kind == "grade":
            generator = torch_rng(draw, "mixed neighbours", device=edges.device)
            partners = Partners(self.partners.long(), self.shares, self.likeness)
            tail = self.config.balancing.tail
            return mix_neighbours(edges, partners, n=graph.n, tail=tail, drop=drop, generator=generator)
        if kind != "eba-add":
            low, _ = self.balancing.bounds(graph.edges, graph.n)
            edges = drop_edges(edges, self.drop_shares, coins, n=graph.n, floor=low)
        if kind != "eba-drop":
            edges = torch.cat([edges, self.added[self.added[:, 0] >= 0].long()])
        return edges

    def losses(self, encoded: Mapping[str, Tensor], batch: dict[str, Any], progress: Progress) -> dict[str, Tensor]:
        """The link loss, and the contrast between and within the views."""
        nodes = encoded["nodes"]
        terms = {"link": self._link(nodes, batch["links"], batch["others"])}
        if "mean" in encoded:
            mean, log_std = encoded["mean"], encoded["log_std"]
            divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
            terms["kl"] = divergence.mean() / len(mean)
        if "first" in encoded:
            terms |= self._contrast(encoded["first"], encoded["second"], batch)
            self._balance(batch["graph"], progress.step + 1)
        return terms

    def _link(self, nodes: Tensor, links: Tensor, others: Tensor) -> Tensor:
        true = self.decoder(nodes[links[:, 0]], nodes[links[:, 1]])
        false = self.decoder(nodes[others[:, 0]], nodes[others[:, 1]])
        return F.softplus(-true).mean() + F.softplus(false).mean()

    def _contrast(self, first: Tensor, second: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        anchors = batch["anchors"]
        own = Pairs(torch.arange(len(anchors), device=anchors.device), anchors)
        terms = {}
        if self.config.terms != "intra":
            pairs = Pairs(batch["inter_rows"], batch["inter_columns"])
            terms["inter"] = self._both((first, second), (second, first), anchors, pairs, None)
        if inside(self.config):
            pairs = Pairs(batch["intra_rows"], batch["intra_columns"])
            terms["intra"] = self._both((first, second), (first, second), anchors, pairs, own)
        return terms

    def _both(
        self,
        views: tuple[Tensor, Tensor],
        against: tuple[Tensor, Tensor],
        anchors: Tensor,
        positives: Pairs,
        left_out: Pairs | None,
    ) -> Tensor:
        """Mean over the two views of the loss of their anchors; positives are averaged, so hubs do not dominate."""
        losses = [
            multi_positive(
                view[anchors], other, positives, temperature=self.config.temperature, placement="out", known=left_out
            )
            for view, other in zip(views, against)
        ]
        return (losses[0] + losses[1]) / 2

    @torch.no_grad()
    def _balance(self, graph: GraphTensors, step: int) -> None:
        """Renews the balanced graph from the embeddings as they are, where it is due."""
        section = self.config.balancing
        uses = len(self.drop_shares) or len(self.partners)
        if not uses or step < section.warmup or (step - section.warmup) % section.refresh:
            return
        training = self.training
        self.eval()
        vectors = self.codes(graph).vectors
        self.train(training)
        generator = torch_rng(self.config.seed, "balancing", step, device=vectors.device)
        alone = graph.features is not None
        if len(self.drop_shares):
            found = self.balancing(graph.edges, vectors, alone=alone, generator=generator)
            self.added.fill_(-1)
            self.added[: len(found.added)] = found.added.int()
            self.drop_shares.copy_(found.drop_shares)
        if len(self.partners):
            drawn = draw_partners(graph.edges, vectors, tail=section.tail, alone=alone, generator=generator)
            self.partners.copy_(drawn.of.int())
            self.shares.copy_(drawn.shares)
            self.likeness.copy_(drawn.likeness)
        self.balanced.fill_(True)


def inside(config: CoEBAConfig) -> bool:
    """Whether the contrast within each view is part of the loss: it needs neighbours as positives."""
    return config.terms != "inter" and config.positives == "neighbours"


def balancing(config: CoEBAConfig) -> EdgeBalancing:
    """The augmentation that the options describe."""
    section = config.balancing
    return EdgeBalancing(
        low=section.low, high=section.high, most_added=section.most_added, drop=section.drop, cap=section.cap,
        sampled=section.sampled, clusters=section.clusters, search=section.search,
    )  # fmt: skip
