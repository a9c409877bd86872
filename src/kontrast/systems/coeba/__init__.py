"""coeba: which edges a graph is missing, learned by contrast with balanced degrees (CoEBA, arXiv 2508.14808).

A graph autoencoder scores pairs of nodes. Beside its link loss, two views of the graph are contrasted so that each node
comes close to itself and its neighbours; one view raises low degrees and thins edges between high ones.

Read in this order: `config`, `views`, `model`, `system`.
"""

from kontrast.systems.coeba.config import CoEBAConfig
from kontrast.systems.coeba.heuristics import Heuristics, hard_negatives
from kontrast.systems.coeba.model import CoEBAModel
from kontrast.systems.coeba.system import CoEBA
from kontrast.systems.coeba.views import LinkData

__all__ = ["CoEBA", "CoEBAConfig", "CoEBAModel", "Heuristics", "LinkData", "hard_negatives"]
