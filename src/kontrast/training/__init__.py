"""Training: batches as pure functions of (seed, epoch, index), stages, checkpoints that survive kill -9.

A System wraps its networks and objectives in a `TrainableModel`, describes each training as a `Stage` and calls
`run_stage`; where and how it runs is the `TrainerConfig`'s business.
"""

from kontrast.training.batches import Batches, IndexedBatches, Shard, to_device
from kontrast.training.config import OptimiserConfig, TrainerConfig
from kontrast.training.fit import Stage, run_stage
from kontrast.training.grad_cache import encode_in_parts
from kontrast.training.history import History
from kontrast.training.model import Progress, TrainableModel
from kontrast.training.processes import FirstGoesFirst
from kontrast.training.samplers import (
    BalancedSampler,
    BucketedSampler,
    GroupedSampler,
    OrderedSampler,
    Sampler,
    ShuffledSampler,
)
from kontrast.training.slices import split_rows

__all__ = [
    "BalancedSampler",
    "Batches",
    "BucketedSampler",
    "GroupedSampler",
    "FirstGoesFirst",
    "History",
    "IndexedBatches",
    "OptimiserConfig",
    "OrderedSampler",
    "Progress",
    "Sampler",
    "Shard",
    "ShuffledSampler",
    "Stage",
    "TrainableModel",
    "TrainerConfig",
    "encode_in_parts",
    "run_stage",
    "split_rows",
    "to_device",
]
