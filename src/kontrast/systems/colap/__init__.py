"""colap: a text classifier of one language brought to others with a few labelled examples (arXiv 2508.19464).

A prompt with one slot turns a text into the vector of its slot. A classifier learns from a language with many labels;
then, for each further language and a few labelled texts of it, the vectors are drawn to those of their translations
(XRCL) or of texts of the same class (XCCL) in the first language, beside cross-entropy on the few labels.

Read in this order: `config`, `prompt`, `views`, `objectives`, `model`, `system`.
"""

from kontrast.systems.colap.config import ColapConfig
from kontrast.systems.colap.model import ColapModel
from kontrast.systems.colap.objectives import xccl, xrcl
from kontrast.systems.colap.prompt import Prompt, read_prompt
from kontrast.systems.colap.sweep import sweep
from kontrast.systems.colap.system import Colap

__all__ = ["Colap", "ColapConfig", "ColapModel", "Prompt", "read_prompt", "sweep", "xccl", "xrcl"]
