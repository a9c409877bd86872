"""The System contract: what every method offers, and the registry that finds them."""

from kontrast.contract.card import Card
from kontrast.contract.registry import load_system, system_names
from kontrast.contract.results import Embeddings, Figure, Measurement
from kontrast.contract.stored import loading_stored, save_stored
from kontrast.contract.system import System, SystemConfig, default_preset

__all__ = [
    "Card",
    "Embeddings",
    "Figure",
    "Measurement",
    "System",
    "SystemConfig",
    "default_preset",
    "load_system",
    "loading_stored",
    "save_stored",
    "system_names",
]
