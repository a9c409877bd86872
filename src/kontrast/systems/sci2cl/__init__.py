"""sci2cl: one embedding per cell from two measurements of it (scI2CL, arXiv 2508.18304).

Each modality has an autoencoder over its counts; cells are then contrasted within each modality and between the two.
The embedding serves clusters, subclusters, label transfer, trajectories and markers.

Read in this order: `config`, `views`, `networks`, `model`, `system`.
"""

from kontrast.systems.sci2cl.config import Sci2CLConfig
from kontrast.systems.sci2cl.model import Sci2CLModel
from kontrast.systems.sci2cl.system import Sci2CL
from kontrast.systems.sci2cl.views import OmicsData

__all__ = ["OmicsData", "Sci2CL", "Sci2CLConfig", "Sci2CLModel"]
