"""SEAL: structure- and element-aware fine-tuning for retrieval of long structured documents (arXiv 2508.20778).

A query must find its document as tagged HTML, without its markup, and with some of its elements left out: one InfoNCE
each, with mined negatives. What comes out is a search engine over HTML, Markdown and Word documents that names the
element of a document that matches best.

Read in this order: `config`, `views` (with `reading` and `masking`), `model`, `system`.
"""

from kontrast.systems.seal.config import SealConfig
from kontrast.systems.seal.masking import Masking
from kontrast.systems.seal.model import SealModel
from kontrast.systems.seal.reading import skeleton, without_units
from kontrast.systems.seal.system import Seal
from kontrast.systems.seal.views import SealBatch

__all__ = ["Masking", "Seal", "SealBatch", "SealConfig", "SealModel", "skeleton", "without_units"]
