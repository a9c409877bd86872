"""ms_contab: vectors of cancer cohorts from mutation counts of two scales (MS-ConTab, arXiv 2508.19424).

Read in this order: `config`, `views`, `scaling`, `model`, `system`.
"""

from kontrast.systems.ms_contab.config import MSConTabConfig
from kontrast.systems.ms_contab.system import MSConTab

__all__ = ["MSConTab", "MSConTabConfig"]
