"""Images of surfaces, products and organs for anomaly detection, in the layouts of the field."""

from kontrast.data.surfaces.files import StoredFile, contents, list_files
from kontrast.data.surfaces.pixels import Decoded, decode, load_masks, sizes
from kontrast.data.surfaces.read import read_surfaces
from kontrast.data.surfaces.surface import ANOMALOUS, NORMAL, UNKNOWN, Surface, SurfaceSet

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "UNKNOWN",
    "Decoded",
    "StoredFile",
    "Surface",
    "SurfaceSet",
    "contents",
    "decode",
    "list_files",
    "load_masks",
    "read_surfaces",
    "sizes",
]
