"""pairs: contrastive learning between any two columns of your own table, or between views of one column.

Two encoders (or one, shared) bring the cells of a row together and keep the cells of different rows apart, by the
symmetric softmax objective of CLIP (arXiv 2103.00020, section 2.3) over the rows of a batch. What comes out is a search
engine from one column to the other, and embeddings of both.

Read in this order: `config`, `views`, `model`, `system`.
"""

from kontrast.systems.pairs.config import PairsConfig
from kontrast.systems.pairs.model import PairsModel
from kontrast.systems.pairs.system import Pairs
from kontrast.systems.pairs.views import PairTable

__all__ = ["PairTable", "Pairs", "PairsConfig", "PairsModel"]
