"""Model: two autoencoders, contrasted within each modality and between them, and the fused embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.losses import clip_loss, info_nce
from kontrast.systems.sci2cl.config import Sci2CLConfig
from kontrast.systems.sci2cl.networks import Decoder, Front, Matching, ModalityEncoder, ViewPool, attended
from kontrast.systems.sci2cl.views import ModalityFacts
from kontrast.training import Progress, TrainableModel

SIDES = (0, 1)


class Sci2CLModel(TrainableModel):
    """Everything that is learned from the training cells; rows are cells.

    Args:
        facts: the two modalities.
        config: sizes, terms.
    """

    shares: Tensor

    def __init__(self, facts: Sequence[ModalityFacts], config: Sci2CLConfig) -> None:
        super().__init__()
        self.config = config
        section = config.network
        widths = [len(fact.features) for fact in facts]
        components = [min(section.components, width - 1) for width in widths]
        self.fronts = nn.ModuleList(Front(width, count) for width, count in zip(widths, components))
        self.encoders = nn.ModuleList(
            ModalityEncoder(count or width, section, over_components=bool(count))
            for width, count in zip(widths, components)
        )
        self.decoders = nn.ModuleList(Decoder(len(fact.features), fact.kind, section) for fact in facts)
        pools = config.intra in ("pool", "both")
        self.pools = nn.ModuleList(ViewPool(section.dim, section.heads) for _ in SIDES if pools)
        self.norms = nn.ModuleList(nn.LayerNorm(section.dim) for _ in SIDES if config.bank)
        self.matching = Matching(section.dim) if config.itm != "off" else None
        for side in SIDES:
            self.register_buffer(f"frequencies_{side}", torch.zeros(widths[side]))
            self.register_buffer(f"bank_{side}", torch.zeros(config.bank, components[side] or widths[side]))
        # How much each modality counts in the fused embedding, learned from the training cells after the last step.
        self.register_buffer("shares", torch.ones(2))

    def front(self, side: int) -> Front:
        """The front of one modality."""
        found: Front = self.fronts[side]  # type: ignore[assignment]
        return found

    def decoder(self, side: int) -> Decoder:
        """The decoder of one modality."""
        found: Decoder = self.decoders[side]  # type: ignore[assignment]
        return found

    def inputs(self, side: int, values: Tensor, keep: Tensor | None = None) -> Tensor:
        """What an encoder reads of normalised values (n, d)."""
        front = self.front(side)
        made: Tensor = front(front.standardised(values), keep)
        return made

    def codes(self, side: int, values: Tensor, keep: Tensor | None = None) -> Tensor:
        """(n, e) embedding of one modality."""
        made: Tensor = self.encoders[side](self.inputs(side, values, keep))
        return made

    def contrasted(self, side: int, codes: Tensor) -> Tensor:
        """(n, e) what is compared with the other modality: with a bank, what the other modality's cells add."""
        if not len(self.norms):
            return codes
        other = 1 - side
        bank = self.encoders[other](self.get_buffer(f"bank_{other}"))
        made: Tensor = self.norms[side](attended(codes, bank))
        return made

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Codes of both modalities, and with contrast those of masked copies and of a neighbour."""
        encoded: dict[str, Tensor] = {}
        for side in SIDES:
            values = batch[f"values {side}"]
            encoded[f"whole {side}"] = self.codes(side, values)
            if f"keep {side}" in batch:
                masked = self.codes(side, values, batch[f"keep {side}"])
                encoded[f"masked {side}"] = self.contrasted(side, masked)
            if f"near {side}" in batch:
                near = self.codes(side, batch[f"near {side}"], batch[f"near keep {side}"])
                encoded[f"near {side}"] = self.contrasted(side, near)
            if f"views {side}" in batch:
                copies = batch[f"views {side}"].unbind(1)
                encoded[f"pooled {side}"] = self.pools[side](
                    torch.stack([self.codes(side, values, keep) for keep in copies], dim=1)
                )
        return encoded

    def losses(self, encoded: Mapping[str, Tensor], batch: dict[str, Any], progress: Progress) -> dict[str, Tensor]:
        """ "reconstruct" of both modalities; with contrast "inter", "intra", "pool" and "itm" where they are on."""
        terms = {"reconstruct": self._sum(lambda side: self._reconstruction(side, encoded, batch))}
        if "masked 0" not in encoded:
            return terms
        temperature = self.config.temperature
        if "near 0" in encoded:
            # Two cells with the same neighbour are not negatives of each other.
            ids = batch["neighbour"]
            if self.config.positives == "neighbours":
                pairs = [
                    info_nce(encoded[f"masked {side}"], encoded[f"near {1 - side}"], temperature=temperature, ids=ids)
                    for side in SIDES
                ]
                terms["inter"] = (pairs[0] + pairs[1]) / 2
            if self.config.intra in ("neighbours", "both"):
                terms["intra"] = self._sum(
                    lambda side: info_nce(
                        encoded[f"masked {side}"], encoded[f"near {side}"], temperature=temperature, ids=ids
                    )
                )
        if self.config.positives == "self":
            whole = [self.contrasted(side, encoded[f"whole {side}"]) for side in SIDES]
            terms["inter"] = clip_loss(whole[0], whole[1], temperature=temperature)
        if "pooled 0" in encoded:
            terms["pool"] = self._sum(
                lambda side: (encoded[f"pooled {side}"] - encoded[f"whole {side}"]).square().mean()
            )
        if self.matching is not None and "others" in batch:
            first, second = (F.normalize(self.contrasted(side, encoded[f"whole {side}"]), dim=1) for side in SIDES)
            terms["itm"] = self.matching(first, second, batch["others"])
        return terms

    def _reconstruction(self, side: int, encoded: Mapping[str, Tensor], batch: dict[str, Any]) -> Tensor:
        scores = self.front(side).standardised(batch[f"values {side}"])
        loss: Tensor = self.decoders[side](encoded[f"whole {side}"], batch[f"counts {side}"], scores)
        return loss

    @staticmethod
    def _sum(term: Any) -> Tensor:
        total: Tensor = term(0) + term(1)
        return total

    def fused(self, values: Sequence[Tensor | None], present: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """The embedding of cells, and the unit vectors of each modality that was given.

        Args:
            values: normalised values (n, d) of each modality, or None where it is missing.
            present: (d,) which features are there, or None for all.

        Returns:
            (n, 2 e): the unit vectors of both modalities side by side, each times its share; a missing modality is
            stood in for by the other, which was trained to lie near it. With the matching term (n, e): the fused
            vector of the pair.
        """
        units: list[Tensor | None] = [None, None]
        for side in SIDES:
            given = values[side]
            if given is not None:
                codes = self.codes(side, given, present[side])
                units[side] = F.normalize(self.contrasted(side, codes), dim=1)
        given_units = [unit for unit in units if unit is not None]
        both = [unit if unit is not None else given_units[0] for unit in units]
        if self.matching is not None:
            made: Tensor = self.matching.fuse(torch.cat(both, dim=1))
            return made, given_units
        return torch.cat([unit * share for unit, share in zip(both, self.shares)], dim=1), given_units
