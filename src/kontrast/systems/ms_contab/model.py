"""Model: a tower per view, and the contrast between the scales and within each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.data.mutations import CHROMOSOMES
from kontrast.encoders import ProjectionHead, VectorEncoder, VectorEncoderConfig
from kontrast.encoders.tabnet import TabNetEncoder
from kontrast.losses import nt_xent, supcon
from kontrast.randomness import derive_seed
from kontrast.systems.ms_contab.config import MSConTabConfig
from kontrast.systems.ms_contab.scaling import ProfileScaling
from kontrast.systems.ms_contab.views import VIEWS
from kontrast.training import Progress, TrainableModel


def rebuilds(config: MSConTabConfig) -> bool:
    """Whether the towers learn as autoencoders, in place of the contrast."""
    return config.contrast == "off" and config.without == "autoencoder"


def loss_weights(config: MSConTabConfig) -> dict[str, float]:
    """Weights of the loss terms that `MSConTabModel.losses` gives under these options, where they are not 1."""
    weights = {}
    if config.sparsity and config.tower.kind == "tabnet":
        weights["sparsity"] = config.sparsity
    if config.contrast != "off" and config.objective == "pairs" and config.within:
        weights |= {f"within_{view}": config.within for view in VIEWS}
    return weights


def column_groups(choose: str, width: int, classes: int) -> npt.NDArray[np.int64] | None:
    """(width,) the group of each column by the option ``tower.choose``; None: each its own."""
    columns = np.arange(width)
    if choose == "columns":
        return None
    return columns // classes if choose == "names" else columns % classes


class Tower(nn.Module):
    """Counts of one view to a vector: scaling, encoder, projection.

    Args:
        view: "gene" or "chromosome".
        names: number of genes or chromosomes.
        config: sizes.
        build: of the lengths of chromosomes.
    """

    def __init__(self, view: str, names: int, config: MSConTabConfig, build: Any) -> None:
        super().__init__()
        section, seed = config.tower, derive_seed(config.seed, view)
        self.scaling = ProfileScaling(view, names, config.profile, build)
        width = self.scaling.width
        self.encoder: TabNetEncoder | VectorEncoder
        if section.kind == "tabnet":
            groups = column_groups(section.choose, width, config.profile.classes)
            self.encoder = TabNetEncoder(width, section.tabnet, groups=groups, seed=seed)
        else:
            layers = 1 if section.kind == "linear" else 2
            sizes = VectorEncoderConfig(dim=section.hidden, hidden=section.hidden, layers=layers, dropout=0.0)
            self.encoder = VectorEncoder(width, sizes, seed=seed)
        self.head = ProjectionHead(self.encoder.dim, section.dim, layers=section.head, seed=seed)
        self.decoder: ProjectionHead | None = None
        if rebuilds(config):
            self.decoder = ProjectionHead(section.dim, width, layers=1, seed=derive_seed(seed, "decoder"))

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Counts (n, names·classes) to vectors (n, dim) and the entropy of the masks (n,), 0 without masks."""
        rows = self.scaling(counts)
        if isinstance(self.encoder, TabNetEncoder):
            decisions = self.encoder.decide(rows)
            return self.head(self.encoder.vectors(decisions)), decisions.entropy()
        return self.head(self.encoder({"vectors": rows})), rows.new_zeros(len(rows))


class MSConTabModel(TrainableModel):
    """Two towers over the same entities.

    Args:
        facts: vocabulary and build.
        config: sizes and losses.
    """

    def __init__(self, facts: Mapping[str, Any], config: MSConTabConfig) -> None:
        super().__init__()
        self.config = config
        names = {"gene": len(facts["genes"]), "chromosome": len(CHROMOSOMES)}
        self.towers = nn.ModuleDict({view: Tower(view, names[view], config, facts["build"]) for view in VIEWS})

    def tower(self, view: str) -> Tower:
        """The tower of a view."""
        found = self.towers[view]
        assert isinstance(found, Tower)
        return found

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Vectors (n, draws, dim) of each view, and the mean entropy of the masks (n,)."""
        encoded: dict[str, Tensor] = {}
        entropies = []
        for view in VIEWS:
            n, draws, width = batch[view].shape
            # One pass over all draws: ghost batches are then as large as can be.
            vectors, entropy = self.tower(view)(batch[view].reshape(n * draws, width))
            encoded[view] = vectors.reshape(n, draws, -1)
            entropies.append(entropy.reshape(n, draws).mean(1))
        encoded["entropy"] = torch.stack(entropies).mean(0)
        return encoded

    def losses(self, encoded: Mapping[str, Tensor], batch: dict[str, Any], progress: Progress) -> dict[str, Tensor]:
        """The contrast between the views and within them; with contrast=off what rebuilds another draw."""
        config = self.config
        terms: dict[str, Tensor] = {}
        if "sparsity" in loss_weights(config):
            terms["sparsity"] = encoded["entropy"].mean()
        if config.contrast == "off":
            return terms | self._rebuild(encoded, batch)
        gene, chromosome = encoded["gene"], encoded["chromosome"]
        if config.objective == "groups":
            rows = torch.cat([gene.flatten(0, 1), chromosome.flatten(0, 1)])
            entity = batch["entity"].repeat_interleave(gene.shape[1]).repeat(2)
            return terms | {"groups": supcon(rows, entity, temperature=config.temperature)}
        terms["between"] = nt_xent(gene[:, 0], chromosome[:, 0], temperature=config.temperature)
        if config.within:
            for view in VIEWS:
                draws = encoded[view]
                terms[f"within_{view}"] = nt_xent(draws[:, 0], draws[:, 1], temperature=config.temperature)
        return terms

    def _rebuild(self, encoded: Mapping[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Mean squared error of the second draw, rebuilt from the first: what is common to both is all that can be."""
        terms = {}
        for view in VIEWS:
            tower = self.tower(view)
            with torch.no_grad():
                wanted = tower.scaling(batch[view][:, 1])
            assert tower.decoder is not None
            found = tower.decoder(F.normalize(encoded[view][:, 0], dim=1))
            terms[f"rebuild_{view}"] = F.mse_loss(found, wanted)
        return terms


class NormalisedModel(MSConTabModel):
    """The same with TabNet, whose batch norm lets rows of a batch depend on each other in training."""

    rowwise: ClassVar[bool] = False
