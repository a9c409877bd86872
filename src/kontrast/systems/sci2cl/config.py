"""Config: the modalities, the encoders, the two contrasts, and what `predict` is asked."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from kontrast.config import BaseConfig, param
from kontrast.contract import SystemConfig
from kontrast.training import OptimiserConfig

PAPER = "[code] configuration of PBMC-10k"
OURS = "chosen on the training parts of four data sets, see the documentation"
Ask = Literal["clusters", "subcluster", "labels", "trajectory", "markers"]


class NetworkSection(BaseConfig):
    """The autoencoder of a modality."""

    components: int = param(
        50, "principal components that the network reads; 0: the features themselves", ge=0, le=1000, paper=0
    )
    hidden: list[int] = param(lambda: [128], "widths between input and embedding", paper=[5000, 2000, 1000])
    dim: int = param(20, "length of a modality's embedding", ge=2, le=4096, paper=512, source=PAPER)
    heads: int = param(4, "heads of the attention over masked views; a divisor of dim", ge=1)
    likelihood: Literal["nb", "zinb", "poisson"] = param(
        "nb", "distribution of RNA and protein counts given the embedding", paper="zinb"
    )
    ridge: float = param(1.0, "weight of the squared dropout probability of zinb", ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"option 'network.hidden' needs at least one positive width, got {self.hidden}")
        if self.dim % self.heads:
            raise ValueError(f"option 'network.heads' must divide dim {self.dim}, got {self.heads}")
        return self


class Sci2CLConfig(SystemConfig):
    """Options of `sci2cl`. The paper preset is the authors' method with its sizes, label use included."""

    modalities: list[str] | None = param(None, "names of the two modalities; none: the two that the file has")
    kinds: dict[str, str] = param(
        dict, "kind of a modality by its name: rna, atac, protein, composition or real; others are guessed"
    )
    layer: str | None = param(None, "layer of h5ad and h5mu files with raw counts; none: counts if there, else X")
    features: int = param(
        4000, "features kept of a modality that has more: the most variable genes, the most open peaks",
        ge=2, paper=10_000, source="[code]",
    )  # fmt: skip
    label: str | None = param(
        None, "obs column with cell types, for metrics and label transfer only; none: cell_type or a like name"
    )
    ignore: list[str] = param(
        lambda: ["undefined", "unknown", "nan", ""], "labels that stand for no label, whatever their case"
    )
    rare: int = param(10, "types with fewer cells in the file are not measured", unit="cells", ge=1)
    group: str | None = param(None, "obs column, such as the donor, whose values stay on one side of our own split")
    order: str | None = param(None, "obs column with a known order, such as hours, that pseudotime is compared with")

    network: NetworkSection = param(NetworkSection, "the autoencoder of a modality")
    mask: float = param(0.4, "share of features that a masked copy sets to their mean", ge=0, lt=1, source="[code]")
    mask_by: Literal["cell", "batch"] = param("cell", "draw masks for each cell or one for the batch", paper="batch")
    views: int = param(4, "masked copies of a cell under the attention", ge=1, le=64, paper=8, source=PAPER)
    intra: Literal["neighbours", "pool", "both", "none"] = param(
        "neighbours",
        "contrast within a modality: a cell against its neighbour, the paper's attention over masked copies, both",
        paper="pool",
    )
    positives: Literal["neighbours", "self"] = param(
        "neighbours", "what a cell is to find in the other modality: one of its neighbours, or itself", paper="self"
    )
    neighbours: int = param(15, "nearest training cells that count as neighbours", ge=1, le=500, source=OURS)
    temperature: float = param(
        1.0, "softmax temperature; the lower, the more it tells cells of one type apart", gt=0, le=10, source="[code]"
    )
    itm: Literal["off", "neighbours", "labels"] = param(
        "off",
        "matching term: off, with negatives that are no neighbours, or with cell types (semi-supervised)",
        paper="labels",
    )
    negatives: int = param(3, "negatives of a cell in the matching term", ge=1, le=64, source=PAPER)
    bank: int = param(
        0, "training cells that every cell attends to in the other modality; 0: none", ge=0, le=8192, paper=512
    )
    weights: dict[str, float] = param(
        lambda: {"reconstruct": 0.01, "inter": 1.0, "intra": 0.5, "pool": 1.0, "itm": 0.1},
        "weights of the terms of the second stage",
        paper={"reconstruct": 1.0, "inter": 1.0, "intra": 1.0, "pool": 1.0, "itm": 1.0},
    )
    balance: float = param(
        16.0, "how sharply the better separated modality outweighs the other; 0: equal weights",
        ge=0, le=100, paper=0.0, source=OURS,
    )  # fmt: skip

    batch_size: int = param(128, "cells of a step", ge=2, source="[code]")
    warm_up: int | None = param(None, "epochs of the autoencoders alone; none: about 20 steps", ge=1, paper=300)
    epochs: int | None = param(None, "epochs with contrast; none: about 500 steps", ge=1, paper=500)
    optimiser: OptimiserConfig = param(
        lambda: OptimiserConfig(name="adamw", learning_rate=3e-3, weight_decay=0.01, schedule="cosine"),
        "optimiser and learning rate",
        paper={"name": "adam", "learning_rate": 1e-5, "weight_decay": 0.0, "schedule": "constant"},
    )

    ask: Ask = param("clusters", "what predict answers: clusters, subcluster, labels, trajectory or markers")
    clusters: int | None = param(None, "number of k-means clusters; none: by silhouette", ge=1)
    method: Literal["kmeans", "leiden"] = param("kmeans", "how cells are clustered")
    resolution: float = param(1.0, "of Leiden; more gives more clusters", gt=0, le=100)
    of: str | None = param(None, "the type or cluster that subcluster divides")
    root: str | None = param(None, "the type or cluster where a trajectory begins")
    course: Literal["geodesic", "diffusion"] = param("geodesic", "how far a cell is from the root")
    top: int = param(10, "markers of each group", ge=1, le=1000)
    votes: int = param(15, "training cells that vote on a cell's label", ge=1, le=1000)

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        known = {"reconstruct", "inter", "intra", "pool", "itm"}
        wrong = [name for name, weight in self.weights.items() if name not in known or weight < 0]
        if wrong:
            raise ValueError(f"option 'weights' has weights of at least 0 for {', '.join(sorted(known))}, got {wrong}")
        if self.modalities is not None and len(set(self.modalities)) != 2:
            raise ValueError(f"option 'modalities' names two different modalities, got {self.modalities}")
        return self
