"""Objectives: pure functions and thin modules that own only what is learned or remembered."""

# Softmax-type and sigmoid objectives, built on the engine in `kontrast.ops`.
from kontrast.losses._infonce import ClipLoss, InfoNCE, clip_loss, info_nce
from kontrast.losses._temperature import Temperature

__all__ = ["ClipLoss", "InfoNCE", "Temperature", "clip_loss", "info_nce"]
