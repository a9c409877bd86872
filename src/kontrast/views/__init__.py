"""Augmentations: frozen configurations that, called with a batch and a generator, give the batch changed."""

from kontrast.views.base import View, compose
from kontrast.views.images import ColourJitter, HorizontalFlip, RandomCrop
from kontrast.views.texts import SpanCrop, TokenDropout
from kontrast.views.vectors import FeatureMask, GaussianNoise

__all__ = [
    "ColourJitter",
    "FeatureMask",
    "GaussianNoise",
    "HorizontalFlip",
    "RandomCrop",
    "SpanCrop",
    "TokenDropout",
    "View",
    "compose",
]
