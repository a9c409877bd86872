"""Adaptation to an unlabelled batch of the target: not zero-shot in the strict sense, and asked for by name."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from kontrast.data.surfaces import SurfaceSet
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.features import Describer
from kontrast.systems.cozad.model import CoZADModel
from kontrast.systems.cozad.pool import TaskBatches, make_pool


def adapted(model: CoZADModel, data: SurfaceSet, describer: Describer, config: CoZADConfig) -> CoZADModel:
    """A copy of the model after inner steps on a batch of images whose labels are not known.

    All images count as normal, each with its confidence: those that the net finds odd beyond the fence weigh less, so
    that the anomalous ones among them do not dominate.

    Args:
        model: stays as it is.
        data: the batch; scores then depend on all of it.
        describer: gives frozen features.
        config: inner steps and rate.
    """
    # Sorted by name: what is adapted to is a set, not an order.
    data = data.take(np.argsort([row.id for row in data.rows], kind="stable"))
    pool = make_pool(data, describer, config)
    pool = replace(pool, domain=torch.zeros_like(pool.domain), domains=("target",))
    copy = deepcopy(model)
    copy.register_buffer("confidence", torch.ones(len(data)))
    copy.register_buffer("image_scores", torch.zeros(len(data)))
    copy.pool = pool
    copy.weigh()
    batches = TaskBatches(pool, config.changed(**{"meta.tasks": 1}))
    with torch.enable_grad():
        copy.adapt(batches.get(0, 0))
    copy.pool = None
    return copy.eval()
