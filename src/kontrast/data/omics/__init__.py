"""Single-cell measurements in several modalities: readers, checks, counts that may stay on disk, normalisation."""

from kontrast.data.omics.anndata_files import annotate, write_h5ad, write_h5mu
from kontrast.data.omics.cells import Cells, Modality
from kontrast.data.omics.kinds import KINDS, Kind, normalised
from kontrast.data.omics.matrix import CountMatrix
from kontrast.data.omics.read import FORMATS, read_cells

__all__ = [
    "FORMATS",
    "KINDS",
    "Cells",
    "CountMatrix",
    "Kind",
    "Modality",
    "annotate",
    "normalised",
    "read_cells",
    "write_h5ad",
    "write_h5mu",
]
