"""ssu: sentiment of utterances by graphs of text, sound and face (Sun, He, Ou and Song, arXiv 2508.18322).

Words, audio segments and visual segments are graphs that share one semantic anchor; a shared and a fusing graph network
read them, trained by regression, classification, contrast of two views and alignment.

Read in this order: `config`, `views`, `graphs`, `model`, `system`; `stress` makes data in which the modalities matter.
"""

from kontrast.systems.ssu.config import SSUConfig
from kontrast.systems.ssu.model import SSUModel, SSUNetwork
from kontrast.systems.ssu.stress import stress_set
from kontrast.systems.ssu.system import SSU

__all__ = ["SSU", "SSUConfig", "SSUModel", "SSUNetwork", "stress_set"]
