"""From a path to a set of surfaces, whatever the layout."""

from __future__ import annotations

from pathlib import Path

from kontrast.data.surfaces.files import StoredFile, list_files
from kontrast.data.surfaces.layouts import find_surfaces
from kontrast.data.surfaces.pixels import is_image
from kontrast.data.surfaces.surface import ANOMALOUS, UNKNOWN, Surface, SurfaceSet
from kontrast.data.surfaces.tables import INDEX, VISA, read_index
from kontrast.errors import DataError


def read_surfaces(path: str | Path) -> SurfaceSet:
    """Images of one or several domains, from any of these:

    - a folder in the layout of MVTec AD, BTAD, MPDD or DTD-Synthetic (``train/good``, ``test/<type>``,
      ``ground_truth/<type>``), or a folder of such folders, each a domain;
    - VisA with its ``split_csv/1cls.csv``;
    - KolektorSDD and KolektorSDD2 (masks beside the images);
    - folders named by the label (``yes`` and ``no`` of BrainMRI, ``good`` and ``bad``);
    - a folder with ``index.csv``, or such a CSV file (see `read_index`);
    - a zip archive of any of these, and a folder of zip archives, read in place;
    - a folder of images, or one image, of which nothing is known: for prediction.

    Raises:
        DataError: naming the file, what is wrong and the mend.
    """
    path = Path(path)
    if path.is_file() and is_image(path.name):
        return SurfaceSet((Surface(path.name, path.parent.name, "", UNKNOWN, "", StoredFile(path)),), path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _set(read_index(StoredFile(path), list_files(path.parent)), path)
    if path.is_file() and path.suffix.lower() != ".zip":
        raise DataError("is no image, CSV file or zip archive", file=path, mend="give a folder of images")
    files = list_files(path)
    for table in (INDEX, VISA):
        for name in files:
            if name == table or name.endswith(f"/{table}"):
                folder = name.removesuffix(table).rstrip("/")
                return _set(read_index(files[name], files, folder), path)
    return _set(find_surfaces(files, path.stem if path.is_file() else path.resolve().name), path)


def _set(rows: list[Surface], path: Path) -> SurfaceSet:
    masked = frozenset(row.domain for row in rows if row.mask is not None and row.label == ANOMALOUS)
    return SurfaceSet(tuple(sorted(rows, key=lambda row: row.id)), path, masked)
