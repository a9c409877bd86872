"""Zero-shot anomaly detection: trained on some domains, used on another one at once.

from kontrast.systems.cozad import CoZAD

cozad = CoZAD(held_out="tile")
parts = cozad.split(cozad.read("surfaces"))
cozad.fit(parts.train, parts.valid)
cozad.evaluate(parts.test)
"""

from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.system import CoZAD

__all__ = ["CoZAD", "CoZADConfig"]
