"""hrc_pose: category-level 6D pose from depth, with features ranked like poses (arXiv 2508.14358).

Two encoders of point clouds, one for rotation and one for translation and size. In each, distances of features are
ranked as distances of poses are, by an extension of Rank-N-Contrast with a strict and a task set of negatives; heads
read the axes, the centre and the size of the box off the features.

Read in this order: `config`, `views`, `model`, `estimating`, `system`.
"""

from kontrast.systems.hrc_pose.config import HrcPoseConfig
from kontrast.systems.hrc_pose.estimating import Estimates
from kontrast.systems.hrc_pose.model import HrcPoseModel
from kontrast.systems.hrc_pose.system import HrcPose

__all__ = ["Estimates", "HrcPose", "HrcPoseConfig", "HrcPoseModel"]
