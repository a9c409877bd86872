"""Model: the net on frozen patches, its losses, and the meta-learning step around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kontrast.losses import supcon
from kontrast.systems.cozad.confidence import decay_strength, soft_weights
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.features import FilterBackbone, in_image_distance
from kontrast.systems.cozad.pool import Pool
from kontrast.training import Progress, TrainableModel

Parameters = dict[str, Tensor]
_TOP_SHARE, _TOP_LEAST = 0.01, 4


class PatchNet(nn.Module):
    """Projection g, discriminator d and contrast head z on a patch; LayerNorm, since batch statistics leak the task."""

    def __init__(self, channels: int, hidden: int, projection: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.judge = nn.Sequential(nn.Linear(hidden, 64), nn.GELU(), nn.Linear(64, 1))
        self.contrast = nn.Linear(hidden, projection, bias=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (...), positive for anomalous, and unit vectors (..., projection), from patches (..., channels)."""
        vectors = self.project(patches)
        return self.judge(vectors)[..., 0], F.normalize(self.contrast(vectors), dim=-1)


@dataclass(frozen=True)
class Examples:
    """Patches of some images of one task.

    Attributes:
        normal: (images, patches, channels) of the image as it is and of the clean parts of a drawn version.
        kept: (images, patches) which of them are there.
        odd: (images, patches, channels) that were drawn on.
        drawn: (images, patches) which of those are there.
        weights: (images,) confidence in each image.
        foreign: (k, channels) normal patches of other domains.
    """

    normal: Tensor
    kept: Tensor
    odd: Tensor
    drawn: Tensor
    weights: Tensor
    foreign: Tensor


class CoZADModel(TrainableModel):
    """The net with everything that changes while it learns: confidence in images, and the losses' window.

    Args:
        facts: channels, images, and whether filters are learned.
        config: sizes, losses, meta-learning.
    """

    scale: Tensor
    confidence: Tensor
    image_scores: Tensor
    window: Tensor
    moments: Tensor
    trace: Tensor
    filters: Tensor

    def __init__(self, facts: Mapping[str, Any], config: CoZADConfig) -> None:
        super().__init__()
        self.config = config
        self.net = PatchNet(facts["channels"], config.net.hidden, config.net.projection)
        self.register_buffer("scale", torch.ones(facts["channels"]))
        self.register_buffer("confidence", torch.ones(facts["images"]))
        self.register_buffer("image_scores", torch.zeros(facts["images"]))
        # Losses of the last meta-iterations, NaN where there were none yet; and count, means and squared deviations.
        self.register_buffer("window", torch.full((config.confidence.window, 2), math.nan))
        self.register_buffer("moments", torch.zeros(5, dtype=torch.float64))
        # Support loss, query loss and strength of the regulariser of every meta-iteration, to be looked at.
        self.register_buffer("trace", torch.zeros(config.epochs * config.iterations, 3))
        scales, components, width = FilterBackbone.SCALES, FilterBackbone.COMPONENTS, FilterBackbone.WIDTH
        shape = (scales, components, 3, width, width) if facts["backbone"] == "filters" else (0,)
        self.register_buffer("filters", torch.zeros(shape))
        # What is learned from is given by `stages`, also to a resumed run; it is no state of the model.
        self.pool: Pool | None = None

    # ---- use -----------------------------------------------------------------------------------------------------

    def standardised(self, patches: Tensor) -> Tensor:
        """Patches less their image's median, in deviations of the source domains."""
        return patches.float() / self.scale

    def learned_maps(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """What the net says of one image.

        Args:
            patches: (side, side, channels), less the image's median.

        Returns:
            Maps (3, side, side), named by `kontrast.systems.cozad.scoring.LEARNED`, higher is odder: the logit; 1 -
            cosine to the image's mean vector; distance to the most similar learned vectors of the image. And the
            image's mean vector.
        """
        side = patches.shape[0]
        logits, vectors = self.net(self.standardised(patches).view(side * side, -1))
        mean = vectors.mean(0)
        compact = 1 - vectors @ F.normalize(mean, dim=0)
        grid = vectors.T.reshape(1, -1, side, side)
        distance = in_image_distance(grid, self.config.features.nearest)[0]
        return torch.stack([logits.view(side, side), compact.view(side, side), distance]), mean

    # ---- learning ------------------------------------------------------------------------------------------------

    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The dice as they are: a task is encoded several times, with weights that change in between (see `losses`)."""
        return dict(batch)

    def losses(
        self, encoded: Mapping[str, Tensor], batch: Mapping[str, Tensor], progress: Progress
    ) -> dict[str, Tensor]:
        """One meta-iteration.

        "detection" has the value of the mean loss of the query sets and carries the whole gradient of the tasks;
        "contrast" shows the weighted contrastive part beside it; "decay" is the regulariser.
        """
        theta: Parameters = dict(self.net.named_parameters())
        strength = self._strength()
        values, gradients = [], []
        for task in range(len(batch["domains"])):
            support, query = self._task(batch, task)
            value, gradient = self._meta(theta, support, query, strength, batch["shuffle"][task])
            values.append(value)
            gradients.append(gradient)
        before, detection, contrast = torch.stack(values).mean(0)
        # A scalar whose gradient at theta is the given one: autograd cannot reach it through steps that it did not see.
        carried = sum((theta[name] * torch.stack([each[name] for each in gradients]).mean(0)).sum() for name in theta)
        assert isinstance(carried, Tensor)
        if self.training:
            self._remember(before.detach(), (detection + contrast).detach())
            if progress.step < len(self.trace):
                self.trace[progress.step] = torch.stack([before, detection + contrast, strength]).detach()
        return {
            "detection": detection.detach() + carried - carried.detach(),
            "contrast": contrast.detach(),
            "decay": strength * _squared_norm(theta),
        }

    def _meta(
        self, theta: Parameters, support: Examples, query: Examples, strength: Tensor, dice: Tensor
    ) -> tuple[Tensor, Parameters]:
        """Losses (support, query detection, query contrast) of one task, and the meta-gradient by parameter."""
        meta = self.config.meta
        names, whole = list(theta), meta.kind == "maml"
        inner, first = theta, None
        for _ in range(meta.steps if meta.kind != "none" else 0):
            detection, contrast = self._loss(inner, support, dice[0])
            total = detection + contrast + strength * _squared_norm(inner)
            first = total.detach() if first is None else first
            steps = torch.autograd.grad(total, list(inner.values()), create_graph=whole, allow_unused=True)
            inner = {
                name: inner[name] if step is None else inner[name] - meta.rate * step
                for name, step in zip(names, steps)
            }
            if not whole:
                inner = {name: value.detach().requires_grad_() for name, value in inner.items()}
        detection, contrast = self._loss(inner, query, dice[1])
        total = detection + contrast
        if first is None:
            with torch.no_grad():
                first = torch.stack(self._loss(theta, support, dice[0])).sum()
        assert first is not None
        if meta.kind == "reptile":
            gradient = {name: (theta[name] - inner[name]).detach() for name in names}
        else:
            wanted = theta if whole else inner
            found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
            gradient = {
                name: torch.zeros_like(theta[name]) if step is None else step.detach()
                for name, step in zip(names, found)
            }
        return torch.stack([first.detach(), detection.detach(), contrast.detach()]), gradient

    def adapt(self, batch: Mapping[str, Tensor]) -> None:
        """The inner steps of one task, taken for good: support and query set of a batch with one task together."""
        meta, strength = self.config.meta, self._strength()
        for _ in range(meta.steps):
            theta: Parameters = dict(self.net.named_parameters())
            losses = [torch.stack(self._loss(theta, part, batch["shuffle"][0, 0])) for part in self._task(batch, 0)]
            total = torch.cat(losses).sum() + strength * _squared_norm(theta)
            steps = torch.autograd.grad(total, list(theta.values()), allow_unused=True)
            with torch.no_grad():
                for parameter, step in zip(theta.values(), steps):
                    if step is not None:
                        parameter.sub_(step, alpha=meta.rate)

    def _loss(self, theta: Parameters, examples: Examples, dice: Tensor) -> tuple[Tensor, Tensor]:
        """Detection and weighted contrastive loss of a set of images under the parameters `theta`."""
        config = self.config
        drawn, kept = examples.drawn, examples.kept
        normal, odd = examples.normal[kept], examples.odd[drawn]
        weights = examples.weights[:, None].expand_as(kept)[kept]
        patches = torch.cat([normal, odd, examples.foreign])
        logits, vectors = functional_call(self.net, theta, (patches,))
        n, m = len(normal), len(odd)
        detection = (weights * F.softplus(logits[:n])).sum() / n
        if m:
            detection = detection + F.softplus(-logits[n : n + m]).mean()
        if config.contrast == "off" or config.weight == 0:
            return detection, torch.zeros_like(detection)
        return detection, config.weight * self._contrast(vectors, n, weights, dice)

    def _contrast(self, vectors: Tensor, n: int, weights: Tensor, dice: Tensor) -> Tensor:
        """Normal patches of the domain find each other among anomalous patches and those of other domains.

        Args:
            vectors: (n + k, d) unit rows, the n normal patches first.
            n: number of normal patches.
            weights: (n,) confidence in their images.
            dice: numbers for the order of labels in the null control.
        """
        most = self.config.contrasted
        chosen = torch.arange(n, device=vectors.device)[:: max(1, -(-n // most))]
        rows = torch.cat([vectors[chosen], vectors[n:]])
        # Label 0 is normal; every other patch has a label of its own, and is an anchor of nothing.
        labels = torch.arange(len(rows), device=rows.device)
        labels[: len(chosen)] = 0
        counted = torch.cat([weights[chosen], torch.ones(len(rows) - len(chosen), device=rows.device)])
        if self.config.contrast == "shuffled":
            labels = labels[dice[: len(rows)].argsort()]
        return supcon(rows, labels, temperature=self.config.temperature, normalize=False, weights=counted)

    # ---- tasks ---------------------------------------------------------------------------------------------------

    def _task(self, batch: Mapping[str, Tensor], task: int) -> tuple[Examples, Examples]:
        """Support and query set: images of one domain drawn with probability in proportion to the confidence."""
        pool, meta = self._pool(), self.config.meta
        domain = batch["domains"][task]
        members = (pool.domain.to(domain.device) == domain).nonzero()[:, 0]
        support = min(meta.support, max(1, len(members) // 2))
        count = min(support + meta.query, len(members))
        # The largest of u^(1/w) are a draw without replacement with probabilities in proportion to w.
        keys = batch["images"][task][members].clamp_min(1e-12).log() / self.confidence[members].clamp_min(1e-6)
        rows = members[keys.topk(count).indices]
        whole = self._examples(rows, batch, task)
        return _part(whole, slice(0, support)), _part(whole, slice(min(support, count - 1), count))

    def _examples(self, rows: Tensor, batch: Mapping[str, Tensor], task: int) -> Examples:
        pool, meta, device = self._pool(), self.config.meta, self.scale.device
        here = rows.to(pool.images.device)
        count, cells = len(rows), pool.images.shape[1]
        dice = batch["cells"][task][:count].to(pool.images.device)
        version = (batch["versions"][task][:count] * pool.copies.shape[1]).long().to(pool.images.device)
        half = max(1, min(meta.patches // 2, cells))
        own = dice[:, 0].topk(half).indices
        odd_key = dice[:, 1].masked_fill(~pool.anomalous[here, version], -1.0).topk(half)
        clean_key = dice[:, 2].masked_fill(~pool.clean[here, version], -1.0).topk(half)
        each = here[:, None]
        originals = pool.images[each, own]
        drawn = pool.copies[each, version[:, None], odd_key.indices]
        clean = pool.copies[each, version[:, None], clean_key.indices]
        kept = torch.cat([torch.ones_like(own, dtype=torch.bool), clean_key.values >= 0], 1)
        weights = self.confidence[rows] if self.config.confidence.soft else torch.ones(count, device=device)
        others = (pool.domain != pool.domain[here[0]]).nonzero()[:, 0]
        if len(others):
            coins = batch["foreign"][task][:count].to(pool.images.device)
            foreign = pool.images[others[(coins[:, 0] * len(others)).long()], (coins[:, 1] * cells).long()]
        else:
            foreign = pool.images[:0, 0]
        return Examples(
            normal=self.standardised(torch.cat([originals, clean], 1).to(device)),
            kept=kept.to(device),
            odd=self.standardised(drawn.to(device)),
            drawn=(odd_key.values >= 0).to(device),
            weights=weights,
            foreign=self.standardised(foreign.to(device)),
        )

    def _pool(self) -> Pool:
        if self.pool is None:
            raise RuntimeError("the model has no pool to learn from")
        return self.pool

    # ---- confidence ----------------------------------------------------------------------------------------------

    def after_step(self, progress: Progress, batch: Any) -> None:
        """Renews the confidence in the training images where it is due."""
        section = self.config.confidence
        if section.soft and (progress.step + 1) % section.refresh == 0:
            self.weigh()

    @torch.no_grad()
    def weigh(self) -> None:
        """Scores every training image with the net as it is and weighs it within its domain."""
        pool = self._pool()
        scores = torch.cat([self._image_scores(rows) for rows in torch.split(pool.images, 64)])
        self.image_scores.copy_(scores)
        for number in range(len(pool.domains)):
            here = (pool.domain == number).to(scores.device)
            self.confidence[here] = soft_weights(scores[here], self.config.confidence.kappa)

    def _image_scores(self, images: Tensor) -> Tensor:
        """(n,) mean logit of the oddest hundredth of the patches (n, cells, channels), four at least."""
        count = min(images.shape[1], max(_TOP_LEAST, int(_TOP_SHARE * images.shape[1])))
        logits, _ = self.net(self.standardised(images.to(self.scale.device)))
        scores: Tensor = logits.topk(count, dim=1).values.mean(1)
        return scores

    def _strength(self) -> Tensor:
        section = self.config.confidence
        if not section.covariance:
            return self.scale.new_tensor(section.decay)
        held = self.window[~self.window.isnan().any(1)]
        return decay_strength(held, decay=section.decay, gain=section.gain)

    def _remember(self, support: Tensor, query: Tensor) -> None:
        """Puts the mean losses of a meta-iteration into the window, z-scored by their running mean and deviation."""
        pair = torch.stack([support, query]).double()
        count = self.moments[0] + 1
        mean, squares = self.moments[1:3], self.moments[3:5]
        gap = pair - mean
        mean = mean + gap / count
        squares = squares + gap * (pair - mean)
        self.moments.copy_(torch.cat([count.view(1), mean, squares]))
        deviation = (squares / count).sqrt().clamp_min(1e-6)
        self.window.copy_(torch.cat([self.window[1:], ((pair - mean) / deviation).float()[None]]))


def _part(examples: Examples, rows: slice) -> Examples:
    return Examples(
        examples.normal[rows], examples.kept[rows], examples.odd[rows], examples.drawn[rows], examples.weights[rows],
        examples.foreign[rows],
    )  # fmt: skip


def _squared_norm(theta: Parameters) -> Tensor:
    """Of weight matrices; biases and norms are free."""
    return torch.stack([value.square().sum() for value in theta.values() if value.ndim > 1]).sum()
