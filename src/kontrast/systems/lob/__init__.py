"""lob: spoofing and layering in limit order books (Lin and Yang, arXiv 2508.17086).

An encoder of the book learns to reconstruct it and is frozen; a second encoder turns windows of messages into vectors
by reconstruction and supervised contrast; a detector on the vectors scores every message.

Read in this order: `config`, `features`, `views`, `model`, `system`; `injection` makes labelled data of real ones.
"""

from kontrast.systems.lob.config import LobConfig
from kontrast.systems.lob.injection import Period, inject
from kontrast.systems.lob.model import LobModel
from kontrast.systems.lob.system import Lob
from kontrast.systems.lob.views import LobData

__all__ = ["Lob", "LobConfig", "LobData", "LobModel", "Period", "inject"]
