"""What is learned from training cells without gradients: fronts, neighbours, and how much each modality counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from kontrast.evaluation.clustering import kmeans, silhouette
from kontrast.evaluation.matching import neighbour_lists, neighbour_overlap
from kontrast.randomness import numpy_rng
from kontrast.systems.sci2cl.networks import COUNTED, Decoder, Front
from kontrast.systems.sci2cl.views import Floats, Prepared, Rows

BLOCK = 1024
SAMPLE = 20_000
LEADING = 20
"""Leading components in whose space neighbours are sought."""
LOOKED_AT = 1500
SIZES = (4, 8, 12, 16, 24)


def learn_front(front: Front, part: Prepared, weights: Floats, seed: int) -> None:
    """Means, deviations and principal axes of the training cells, a block of rows at a time.

    Axes are found by subspace iteration (Halko et al. 2011, arXiv 0909.4061) on at most 20,000 cells.
    """
    n, width = part.counts.shape
    sums, squares = np.zeros(width), np.zeros(width)
    for rows in _blocks(np.arange(n)):
        values = part.values(rows, weights).astype(np.float64)
        sums += values.sum(0)
        squares += np.square(values).sum(0)
    mean = sums / n
    variance = squares / n - mean**2
    varies = variance > 1e-10 * (1 + mean**2)
    front.mean.copy_(torch.from_numpy(mean))
    front.scale.copy_(torch.from_numpy(np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)))
    if not front.components:
        return
    rng = numpy_rng(seed, "components")
    chosen = np.sort(rng.choice(n, SAMPLE, replace=False)) if n > SAMPLE else np.arange(n)
    centre = torch.zeros(width)
    for rows in _blocks(chosen):
        centre += front.standardised(torch.from_numpy(part.values(rows, weights))).sum(0) / len(chosen)

    def covariance(basis: torch.Tensor) -> torch.Tensor:
        image = torch.zeros_like(basis)
        for rows in _blocks(chosen):
            scores = front.standardised(torch.from_numpy(part.values(rows, weights))) - centre
            image += scores.T @ (scores @ basis)
        return image

    _, axes = _leading_axes(covariance, width, front.components, rng, passes=5)
    # Axes have no sign of their own: the largest entry points up.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    front.axes.copy_(axes)
    front.origin.copy_(centre @ axes)
    leading = min(LEADING, front.components)
    reach = torch.cat([scores_of(front, part, weights, rows)[:, :leading] for rows in _blocks(chosen)])
    front.length.copy_(reach.norm(dim=1).mean().clamp_min(1e-6))


def learn_usual(decoder: Decoder, part: Prepared) -> None:
    """The logits of a decoder that knows nothing of a cell: shares of counts, or how often a peak is open."""
    n = max(len(part), 1)
    if decoder.kind in COUNTED:
        sums = np.asarray(part.counts.sum(axis=0), dtype=np.float64).ravel()
        usual = np.log(sums + 1e-3 * max(float(sums.mean()), 1e-6))
        decoder.usual.copy_(torch.from_numpy(usual - usual.mean()))
    elif decoder.kind == "atac":
        open_share = (np.asarray((part.counts > 0).sum(axis=0), dtype=np.float64).ravel() + 0.5) / (n + 1)
        decoder.usual.copy_(torch.from_numpy(np.log(open_share / (1 - open_share))))


def scores_of(front: Front, part: Prepared, weights: Floats, rows: Rows) -> torch.Tensor:
    """(n, dim) what an encoder reads of some cells."""
    made: torch.Tensor = front(front.standardised(torch.from_numpy(part.values(rows, weights))))
    return made


def leading_scores(front: Front, part: Prepared, weights: Floats) -> Floats:
    """(n, ≤ 20) leading components of all cells, their mean length about 1; without components the embedding of a
    random projection onto 20 axes."""
    parts = []
    axes = None
    if not front.components:
        drawn = numpy_rng("projection", front.dim).standard_normal((front.dim, LEADING)) / np.sqrt(front.dim)
        axes = torch.from_numpy(drawn.astype(np.float32))
    for rows in _blocks(np.arange(len(part))):
        scores = scores_of(front, part, weights, rows)
        parts.append((scores[:, :LEADING] if axes is None else scores @ axes).numpy())
    return np.concatenate(parts)


@dataclass(frozen=True)
class Agreement:
    """How far two modalities see the same neighbours.

    Attributes:
        reliability: of each modality, the share of neighbours that two halves of its features agree on, above chance.
        overlap: share of neighbours that the modalities agree on, above chance.
    """

    reliability: tuple[float, float]
    overlap: float

    @property
    def value(self) -> float:
        """The overlap over what the modalities' own reliability allows, in [0, 1] (Spearman's correction)."""
        allowed = float(np.sqrt(max(self.reliability[0], 0.0) * max(self.reliability[1], 0.0)))
        return float(np.clip(self.overlap / allowed, 0.0, 1.0)) if allowed > 0 else 0.0

    @property
    def share(self) -> float:
        """How much of the less reliable modality is to be believed, in [0, 1]: modalities that never repeat each other
        in full agree fully at half of what reliability allows."""
        return min(1.0, 2.0 * self.value)

    @property
    def less_reliable(self) -> int:
        """Which modality's halves agree less."""
        return int(np.argmin(self.reliability))


def agreement(
    fronts: list[Front], parts: list[Prepared], weights: list[Floats], neighbours: int, seed: int
) -> Agreement:
    """Measures the agreement of two modalities on at most 1,500 training cells; no label is used."""
    n = len(parts[0])
    rng = numpy_rng(seed, "agreement")
    rows = np.sort(rng.choice(n, min(n, LOOKED_AT), replace=False))
    k = max(1, min(neighbours, (len(rows) - 1) // 4))
    chance = k / max(len(rows) - 1, 1)
    reliability, lists = [], []
    for front, part, own in zip(fronts, parts, weights):
        scores = front.standardised(torch.from_numpy(part.values(rows, own))).numpy()
        order = rng.permutation(scores.shape[1])
        halves = [scores[:, order[: len(order) // 2]], scores[:, order[len(order) // 2 :]]]
        found = [neighbour_lists(_leading(half, rng), k) for half in (*halves, scores)]
        reliability.append(neighbour_overlap(found[0], found[1]) - chance)
        lists.append(found[2])
    return Agreement((reliability[0], reliability[1]), neighbour_overlap(lists[0], lists[1]) - chance)


def _leading(scores: Floats, rng: np.random.Generator) -> Floats:
    """The leading principal components of z-scores (n, d)."""
    centred = torch.from_numpy(scores - scores.mean(0))
    rank = min(LEADING, min(centred.shape) - 1) or 1
    wide = centred.shape[1] > centred.shape[0]
    gram = centred @ centred.T if wide else centred.T @ centred
    values, axes = _leading_axes(lambda basis: gram @ basis, len(gram), rank, rng, passes=20)
    return np.asarray((axes * values.clamp_min(0).sqrt() if wide else centred @ axes).numpy(), dtype=np.float32)


def _leading_axes(
    multiply: Callable[[torch.Tensor], torch.Tensor], width: int, count: int, rng: np.random.Generator, *, passes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalues (count,) of a symmetric matrix (width, width) and their axes (width, count), by subspace
    iteration: all that is asked of the matrix is its product with a few columns."""
    spread = min(count + 10, width)
    basis = torch.from_numpy(np.linalg.qr(rng.standard_normal((width, spread)))[0].astype(np.float32))
    for _ in range(passes):
        basis, _ = torch.linalg.qr(multiply(basis))
    values, turned = torch.linalg.eigh((basis.T @ multiply(basis)).double())
    return values.flip(0)[:count].float(), basis @ turned.flip(1)[:, :count].float()


def joint_neighbours(scores: list[Floats], shares: tuple[float, float], neighbours: int, seed: int) -> Rows:
    """(n, k) neighbours in the space of both modalities, each times its share, among at most 20,000 cells."""
    space = np.concatenate([part * share for part, share in zip(scores, shares)], axis=1)
    among = None
    if len(space) > SAMPLE:
        among = np.sort(numpy_rng(seed, "neighbours").choice(len(space), SAMPLE, replace=False))
    return neighbour_lists(space, neighbours, among=among)


def separation(units: npt.NDArray[np.float32], seed: int) -> float:
    """How well k-means separates unit vectors: the widest silhouette over a few numbers of clusters; at least 0.01."""
    rows = units
    if len(rows) > LOOKED_AT:
        rows = rows[np.sort(numpy_rng(seed, "separation").choice(len(rows), LOOKED_AT, replace=False))]
    widths = [silhouette(rows, kmeans(rows, count, seed=seed, restarts=3)) for count in SIZES if count < len(rows) - 1]
    finite = [width for width in widths if width == width]
    return max([0.01, *finite])


def fusion_shares(found: Agreement, separations: tuple[float, float], balance: float) -> tuple[float, float]:
    """How much each modality counts in the fused embedding, the larger share 1.

    A modality counts less the worse its cells are separated, and the less reliable one counts no more than the two
    agree: what a modality does not share with a better one is noise as far as anyone can tell without labels.
    """
    if not balance:
        return 1.0, 1.0
    best = max(separations)
    shares = [(value / best) ** balance for value in separations]
    shares[found.less_reliable] *= found.share
    top = max(shares)
    return shares[0] / top, shares[1] / top


def _blocks(rows: Rows) -> list[Rows]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
