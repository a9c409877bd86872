"""Model: nodes from sequences, their graphs, shared and fusing graph attention, and the four terms of the loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.encoders.dense_graphs import DenseGAT, DenseGraphs, masked_softmax
from kontrast.losses import grace
from kontrast.negatives.momentum import update_momentum
from kontrast.systems.ssu.config import SSUConfig
from kontrast.systems.ssu.graphs import (
    ANCHOR,
    CROSS,
    GUIDED,
    KINDS,
    SELF,
    GuidedGraph,
    dependency_kinds,
    partners,
    temporal_kinds,
)
from kontrast.training import Progress, TrainableModel

LIMIT = 3.0


class SequenceEncoder(nn.Module):
    """Standardised features (b, l, f) to nodes (b, l, dim): layer norm, a look at the neighbours, a linear map."""

    def __init__(self, features: int, dim: int, kind: str, dropout: float) -> None:
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(features), nn.Linear(features, dim)
        self.drop = nn.Dropout(dropout)
        self.conv = nn.Conv1d(dim, dim, 3, padding=1) if kind == "conv" else None
        self.gru = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True) if kind == "gru" else None
        self.centre = nn.Parameter(torch.zeros(dim))
        self.out = nn.Linear(dim, dim)

    def forward(self, values: Tensor, mask: Tensor, centre: Tensor) -> Tensor:
        hidden = F.gelu(self.enter(self.drop(self.norm(values)))) + centre[..., None] * self.centre
        hidden = hidden * mask[..., None]
        if self.conv is not None:
            hidden = hidden + F.gelu(self.conv(hidden.transpose(1, 2)).transpose(1, 2))
        elif self.gru is not None:
            lengths = mask.sum(1).clamp(min=1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
            found, _ = nn.utils.rnn.pad_packed_sequence(
                self.gru(packed)[0], batch_first=True, total_length=mask.shape[1]
            )
            hidden = hidden + found
        return cast(Tensor, self.out(hidden) * mask[..., None])


@dataclass(frozen=True)
class Nodes:
    """Nodes of a batch and all that graphs are made of.

    Attributes:
        values: (b, n, dim) words, audio segments, visual segments; enhanced by the text.
        mask: (b, n).
        modality: (n,) 0, 1, 2.
        weight, gate, kind: (b, n, n) edges within modalities.
        anchor: (b, dim).
        beta: (b, n) weights of the anchor's edges; those of a modality sum to 1.
        sizes: nodes of each modality, in order.
    """

    values: Tensor
    mask: Tensor
    modality: Tensor
    weight: Tensor
    gate: Tensor
    kind: Tensor
    anchor: Tensor
    beta: Tensor
    sizes: tuple[int, ...]


class SSUNetwork(nn.Module):
    """The network; `SSUModel` holds it twice, as it is and averaged over the last steps.

    Args:
        facts: what `learn_facts` gave.
        config: options.
    """

    def __init__(self, facts: Mapping[str, Any], config: SSUConfig) -> None:
        super().__init__()
        self.config = config
        section, graph = config.network, config.graph
        dim, dropout = section.dim, section.dropout
        self.names = ("text", *facts["streams"])
        vocabulary = facts["text"]["vocabulary"]
        self.vocabulary = None if vocabulary is None else nn.Embedding(len(vocabulary) + 1, dim)
        self.text = nn.Linear(dim if vocabulary is not None else facts["text"]["dim"], dim)
        self.drop = nn.Dropout(section.input_dropout)
        self.sequences = nn.ModuleDict(
            {
                name: SequenceEncoder(len(known["scale"]["mean"]), dim, section.sequence, section.input_dropout)
                for name, known in facts["streams"].items()
            }
        )
        self.guides = nn.ModuleDict(
            {
                name: GuidedGraph(dim, section.heads, graph, aligned=known["aligned"])
                for name, known in facts["streams"].items()
            }
        )
        self.sentence = nn.Linear(facts["sentence"]["dim"], dim) if facts["sentence"] is not None else None
        self.null = nn.Parameter(torch.zeros(dim))
        self.anchor_query = nn.Linear(dim, dim, bias=False)
        self.anchor_keys = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in self.names)
        # The last row is the anchor's.
        self.kind = nn.Parameter(0.02 * torch.randn(len(self.names) + 1, dim))
        self.shared = DenseGAT(dim, section.heads, KINDS, layers=section.layers, dropout=dropout)
        self.fusing = DenseGAT(dim, section.heads, KINDS, layers=section.layers, dropout=dropout)
        self.read_single, self.read_fused = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim)
        self.regress = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, 1))
        self.classify = nn.Linear(dim, facts["classes"])
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, section.projection))
        self.level, self.spread = float(facts["label"]["mean"]), float(facts["label"]["std"])

    # ---- nodes and edges ---------------------------------------------------------------------------------------------

    def nodes(self, batch: Mapping[str, Tensor]) -> Nodes:
        """Nodes of the utterances, and the edges within each modality."""
        words_mask = batch["words_mask"]
        raw = batch["words"]
        if self.vocabulary is not None:
            raw = self.vocabulary(raw[..., 0].long())
        words = self.text(self.drop(raw)) * words_mask[..., None]
        kinds = dependency_kinds(batch["heads"], words_mask)
        if self.config.graph.text == "chain":
            kinds = temporal_kinds(words_mask)
        edge = (kinds >= 0).to(words.dtype)
        values, masks = [words], [words_mask]
        edges = [(edge, edge, kinds.clamp(min=0))]
        for name in self.names[1:]:
            mask = batch[f"{name}_mask"]
            segments = self.sequences[name](batch[name], mask, batch[f"{name}_centre"])
            guide = cast(GuidedGraph, self.guides[name])
            text, text_mask = words, words_mask
            if guide.aligned and text.shape[1] != segments.shape[1]:
                # Where the text, or the segments, of a whole batch are missing, one block is padding alone.
                text, text_mask, segments, mask = _equally_long(text, text_mask, segments, mask)
            position = F.pad(batch[f"{name}_position"], (0, segments.shape[1] - batch[name].shape[1]))
            enhanced, *found = guide(segments, mask, position, text, text_mask)
            values.append(enhanced)
            masks.append(mask)
            edges.append((found[0], found[1], found[2]))
        sizes = tuple(part.shape[1] for part in values)
        modality = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(words.device)
        weight, gate, kind = (_blocks([part[place] for part in edges]) for place in range(3))
        anchor = self.anchor(batch, words, words_mask)
        beta = self.beta(anchor, values, masks)
        joined = torch.cat(values, 1) + self.kind[modality]
        mask = torch.cat(masks, 1)
        return Nodes(joined * mask[..., None], mask, modality, weight, gate, kind, anchor, beta, sizes)

    def anchor(self, batch: Mapping[str, Tensor], words: Tensor, mask: Tensor) -> Tensor:
        """(b, dim) the mean of the words (equation 6), with the sentence vector; learned where there are no words."""
        mean = words.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        if self.sentence is not None:
            mean = mean + self.sentence(self.drop(batch["sentence"]))
        return torch.where(mask.any(1)[:, None], mean, self.null)

    def beta(self, anchor: Tensor, values: list[Tensor], masks: list[Tensor]) -> Tensor:
        """(b, n) weights of the anchor's edges, a softmax within each modality (equation 7)."""
        query = self.anchor_query(anchor)[:, None] * anchor.shape[-1] ** -0.5
        parts = [
            masked_softmax((query * key(part)).sum(-1), mask)
            for key, part, mask in zip(self.anchor_keys, values, masks)
        ]
        return torch.cat(parts, 1)

    # ---- graphs ------------------------------------------------------------------------------------------------------

    def single_graphs(self, nodes: Nodes) -> tuple[Tensor, DenseGraphs, Tensor]:
        """The modalities' graphs as one block-diagonal graph, each with a copy of the anchor at the end.

        Returns:
            Nodes (b, n + m, dim), the graphs, and a boolean (b, n + m, n + m) of the edges that a view may drop.
        """
        count = len(self.names)
        there = torch.stack([nodes.mask[:, nodes.modality == place].any(1) for place in range(count)], 1)
        # An utterance of which nothing is known still has its anchor.
        there[:, 0] |= ~there.any(1)
        own = nodes.modality[None] == torch.arange(count, device=nodes.mask.device)[:, None]
        beta = nodes.beta[:, None] * own
        return self._with_anchors(nodes, beta, there if self.config.graph.anchor else torch.zeros_like(there))

    def fusion_graph(self, nodes: Nodes) -> tuple[Tensor, DenseGraphs, Tensor]:
        """The union of the graphs with cross-modal pairs and one anchor; as `single_graphs`."""
        affinity, chosen = partners(nodes.values, nodes.modality, nodes.mask, self.config.graph.partners)
        fused = Nodes(
            nodes.values,
            nodes.mask,
            nodes.modality,
            torch.where(chosen, affinity, nodes.weight),
            torch.where(chosen, torch.ones_like(nodes.gate), nodes.gate),
            torch.where(chosen, CROSS, nodes.kind),
            nodes.anchor,
            nodes.beta,
            nodes.sizes,
        )
        there = nodes.mask.new_full((len(nodes.mask), 1), self.config.graph.anchor)
        return self._with_anchors(fused, nodes.beta[:, None], there)

    def _with_anchors(self, nodes: Nodes, beta: Tensor, there: Tensor) -> tuple[Tensor, DenseGraphs, Tensor]:
        """Adds anchors (b, k, n) weights behind the nodes; `there` (b, k) says which are real."""
        b, k, n = beta.shape
        tied = (beta > 0) & there[..., None]
        anchors = (nodes.anchor + self.kind[-1])[:, None].expand(b, k, -1)
        values = torch.cat([nodes.values, anchors * there[..., None]], 1)
        weight = F.pad(nodes.weight, (0, k, 0, k))
        gate = F.pad(nodes.gate, (0, k, 0, k))
        kind = F.pad(nodes.kind, (0, k, 0, k), value=ANCHOR)
        loose = F.pad((nodes.gate > 0.5) & (nodes.kind != SELF), (0, k, 0, k))
        edges = F.pad(beta * tied, (0, k))
        # The anchor hears itself as loudly as it hears a node on average.
        own = torch.diag_embed(there / tied.sum(2).clamp(min=1))
        edges = edges + F.pad(own, (n, 0))
        weight = torch.cat([weight[:, :n], edges], 1) + F.pad(edges[..., :n].transpose(1, 2), (n, 0, 0, k))
        open_ = F.pad(tied, (0, k)) | F.pad(torch.diag_embed(there), (n, 0))
        gate = torch.cat([gate[:, :n], open_.to(gate.dtype)], 1)
        gate = gate + F.pad(tied.transpose(1, 2).to(gate.dtype), (n, 0, 0, k))
        mask = torch.cat([nodes.mask, there], 1)
        return values, DenseGraphs(weight, gate, kind, mask), loose

    def read_out(self, states: Tensor, nodes: Nodes, linear: nn.Module, anchors: int) -> Tensor:
        """Vectors of graphs (b, dim): anchor and mean of the nodes; of single graphs the mean over the modalities."""
        n = nodes.mask.shape[1]
        if anchors == 1:
            mean = _mean(states[:, :n], nodes.mask)
            return cast(Tensor, linear(torch.cat([self._state(states[:, n], mean, nodes), mean], 1)))
        parts, there = [], []
        for place, _ in enumerate(self.names):
            inside = nodes.mask & (nodes.modality == place)
            mean = _mean(states[:, :n], inside)
            parts.append(linear(torch.cat([self._state(states[:, n + place], mean, nodes), mean], 1)))
            there.append(inside.any(1))
        present = torch.stack(there, 1)
        present[:, 0] |= ~present.any(1)
        stacked = torch.stack(parts, 1) * present[..., None]
        return stacked.sum(1) / present.sum(1, keepdim=True)

    def _state(self, anchor: Tensor, mean: Tensor, nodes: Nodes) -> Tensor:
        """What stands for the anchor in the read-out: its state, or without an anchor the mean again."""
        return anchor if self.config.graph.anchor else mean

    # ---- vectors -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Mapping[str, Tensor], *, second: bool = False) -> dict[str, Tensor]:
        """Vectors, score and class logits of the utterances.

        Args:
            batch: as `Prepared.batch` gives it.
            second: also encode a second view with edges dropped and added.

        Returns:
            "fuse", "ori", "anchor" (b, dim), "score" (b,) on the scale of the labels, "logits" (b, classes); with
            `second` "first_view" and "second_view" (b, projection).
        """
        nodes = self.nodes(batch)
        count = len(self.names)
        values, graphs, loose = self.single_graphs(nodes)
        ori = self.read_out(self.shared(values, graphs), nodes, self.read_single, count)
        fused_values, fused_graph, _ = self.fusion_graph(nodes)
        fuse = self.read_out(self.fusing(fused_values, fused_graph), nodes, self.read_fused, 1)
        score = self.level + self.spread * self.regress(torch.cat([fuse, ori], 1))[:, 0]
        made = {"fuse": fuse, "ori": ori, "anchor": nodes.anchor, "score": score, "logits": self.classify(ori)}
        if second:
            perturbed = self.perturb(nodes, graphs, loose)
            other = self.read_out(self.shared(values, perturbed), nodes, self.read_single, count)
            made |= {"first_view": self.project(ori), "second_view": self.project(other)}
        return made

    def perturb(self, nodes: Nodes, graphs: DenseGraphs, loose: Tensor) -> DenseGraphs:
        """The second view: edges within modalities dropped and added; those of anchors and to oneself stay."""
        section = self.config.graph
        n = nodes.mask.shape[1]
        k = graphs.mask.shape[1] - n
        same = (nodes.modality[:, None] == nodes.modality) & ~torch.eye(n, dtype=torch.bool, device=nodes.mask.device)
        allowed = F.pad(same & nodes.mask[:, :, None] & nodes.mask[:, None], (0, k, 0, k))
        free = loose | loose.transpose(1, 2)
        return graphs.perturbed(section.drop, section.add, free=free, allowed=allowed, kind=GUIDED)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _blocks(parts: list[Tensor]) -> Tensor:
    """Square blocks (b, k, k) on one diagonal, 0 elsewhere."""
    n = sum(part.shape[1] for part in parts)
    rows, before = [], 0
    for part in parts:
        size = part.shape[1]
        rows.append(F.pad(part, (before, n - before - size)))
        before += size
    return torch.cat(rows, 1)


def _equally_long(
    text: Tensor, text_mask: Tensor, segments: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    longest = max(text.shape[1], segments.shape[1])
    more, fewer = longest - text.shape[1], longest - segments.shape[1]
    return (
        F.pad(text, (0, 0, 0, more)),
        F.pad(text_mask, (0, more)),
        F.pad(segments, (0, 0, 0, fewer)),
        F.pad(mask, (0, fewer)),
    )


class SSUModel(TrainableModel):
    """The network with its loss, and the average of its weights over the last steps, which is what predicts.

    Args:
        facts: what `learn_facts` gave.
        config: options.
    """

    averaged: Tensor

    def __init__(self, facts: Mapping[str, Any], config: SSUConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SSUNetwork(facts, config)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors and scores; in training those of the network as it is, else of the averaged one."""
        if self.training or int(self.averaged) == 0:
            return dict(self.network(batch, second=self.training and self.config.compares))
        return dict(self.average(batch))

    def losses(
        self, encoded: Mapping[str, Tensor], batch: Mapping[str, Tensor], progress: Progress
    ) -> dict[str, Tensor]:
        """The terms of equation 11: "regression", "classes" (8), "views" (9) and "align" (10)."""
        config = self.config
        score, label = encoded["score"], batch["label"]
        distance = {"l1": F.l1_loss, "smooth": F.smooth_l1_loss, "mse": F.mse_loss}[config.regression]
        terms = {"regression": distance(score, label)}
        if config.sup_weight > 0:
            terms["classes"] = F.cross_entropy(encoded["logits"], batch["class"])
        wrong = config.contrast == "shuffled"
        if "second_view" in encoded:
            second = encoded["second_view"].roll(1, 0) if wrong else encoded["second_view"]
            ids = batch["class"] if config.negatives == "other" else None
            terms["views"] = grace(encoded["first_view"], second, temperature=config.temperature, ids=ids)
        if config.aligns:
            fuse, ori = encoded["fuse"], encoded["ori"]
            if config.align == "unit":
                fuse, ori = F.normalize(fuse, dim=1), F.normalize(ori, dim=1)
            fuse = fuse.detach() if config.align == "stop" else fuse
            terms["align"] = F.mse_loss(fuse.roll(1, 0) if wrong else fuse, ori)
        return terms

    @torch.no_grad()
    def after_step(self, progress: Progress, batch: Any) -> None:
        """Takes the weights into the average once the last steps have begun."""
        if self.config.average == 0 or progress.fraction < 1 - self.config.average:
            return
        self.averaged += 1
        update_momentum(self.network, self.average, 1 - 1 / int(self.averaged))
