"""Reads paired cells from whatever the field writes them into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kontrast.data.omics.anndata_files import read_h5ad, read_h5mu
from kontrast.data.omics.cells import Cells, RawModality, pair_cells
from kontrast.data.omics.matrix import CountMatrix, DenseOnDisk, damaged
from kontrast.data.omics.tenx import is_mtx_folder, read_10x_h5, read_mtx
from kontrast.data.tables import read_table
from kontrast.errors import DataError
from kontrast.extras import require

FORMATS = (
    "h5mu (MuData) with raw counts in X or the layer 'counts', and obs columns for type, batch and split",
    "folder with one h5ad per modality, such as the RNA and ATAC pair of GLUE; the files share barcodes",
    "10x Genomics filtered_feature_bc_matrix.h5 with two feature types",
    "folder with matrix.mtx, barcodes.tsv and features.tsv, or with one such folder per modality",
    "scMDC h5 with the datasets X1, X2 and, if known, Y",
)
TABLES = ("cells.csv", "cells.tsv", "cells.parquet", "obs.csv", "obs.tsv", "obs.parquet")
"""Names under which a folder may hold facts about its cells, with the barcodes in a column `id` or the first one."""


def read_cells(
    path: str | Path,
    *,
    layer: str | None = None,
    kinds: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
) -> Cells:
    """Cells with all their modalities; counts stay on disk where they are many.

    Args:
        path: a file or folder of one of `FORMATS`.
        layer: layer of h5ad and h5mu files with the counts; None: "counts" where there is one, else X.
        kinds: kind of a modality by its name ("rna", "atac", "protein", "composition", "real"); others are guessed.
        only: names of the modalities to keep, in this order; None keeps all.

    Raises:
        DataError: naming the file, what is wrong and the mend.
        MissingExtraError: without the extra ``omics``.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend="check the path")
    raw, obs = _folder(path, layer) if path.is_dir() else _file(path, layer)
    return pair_cells(raw, obs, path, kinds, only)


def _file(path: Path, layer: str | None) -> tuple[list[RawModality], pd.DataFrame]:
    if path.stat().st_size == 0:
        raise DataError("is empty", file=path, mend="check that it was written completely")
    ending = path.suffix.lower()
    if ending == ".h5mu":
        return read_h5mu(path, layer)
    if ending == ".h5ad":
        raw, obs = read_h5ad(path, layer)
        return [raw], obs
    if ending in (".h5", ".hdf5"):
        return _h5(path), pd.DataFrame() if not _has(path, "Y") else _scmdc_labels(path)
    mend = "give .h5mu, 10x .h5, scMDC .h5, or a folder of .h5ad files or of matrix.mtx"
    raise DataError(f"has the extension '{ending}', which is not a format of paired cells", file=path, mend=mend)


def _folder(path: Path, layer: str | None) -> tuple[list[RawModality], pd.DataFrame]:
    files = sorted(path.glob("*.h5ad"))
    inner = sorted(child for child in path.iterdir() if child.is_dir() and is_mtx_folder(child))
    whole = sorted([*path.glob("*.h5mu"), *path.glob("*.h5")])
    raw: list[RawModality] = []
    obs = pd.DataFrame()
    if files:
        for file in files:
            part, own = read_h5ad(file, layer)
            raw.append(part)
            obs = obs.join(own[[column for column in own.columns if column not in obs.columns]], how="outer")
    elif is_mtx_folder(path):
        raw = read_mtx(path)
    elif inner:
        raw = [part for folder in inner for part in read_mtx(folder)]
    elif len(whole) == 1:
        raw, obs = _file(whole[0], layer)
    else:
        mend = "give one h5ad per modality, one h5mu or h5, or matrix.mtx with its barcodes and features"
        raise DataError(f"holds no paired cells ({len(whole)} h5 and h5mu files)", file=path, mend=mend)
    names = [part.name for part in raw]
    if len(set(names)) < len(names):
        mend = "end the files' names in the modality, such as cells-rna.h5ad and cells-atac.h5ad"
        raise DataError(f"its modalities have the same name ({', '.join(names)})", file=path, mend=mend)
    table = next((path / name for name in TABLES if (path / name).is_file()), None)
    return raw, obs if table is None else _facts(table)


def _facts(path: Path) -> pd.DataFrame:
    table = read_table(path)
    frame = table.frame
    key = "id" if "id" in frame.columns else str(frame.columns[0])
    names = frame[key].astype(str)
    if names.duplicated().any():
        example = names[names.duplicated()].iloc[0]
        raise DataError(
            f"names the cell '{example}' more than once in '{key}'", file=path, mend="keep one row per cell"
        )
    return frame.drop(columns=key).set_index(pd.Index(names.to_numpy(object)))


def _h5(path: Path) -> list[RawModality]:
    if _has(path, "matrix"):
        return read_10x_h5(path)
    if _has(path, "X1") and _has(path, "X2"):
        return _scmdc(path)
    mend = "give a 10x file (group 'matrix') or an scMDC file (X1, X2)"
    raise DataError("is an HDF5 file of an unknown layout", file=path, mend=mend)


def _has(path: Path, key: str) -> bool:
    h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
    try:
        with h5py.File(path, "r") as stream:
            return key in stream
    except OSError as error:
        raise damaged(path, error) from None


def _scmdc(path: Path) -> list[RawModality]:
    """X1 is RNA; X2 is what its values say: open peaks or counts of proteins."""
    h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
    try:
        with h5py.File(path, "r") as stream:
            shapes = {key: tuple(int(size) for size in stream[key].shape) for key in ("X1", "X2")}
            block = np.asarray(stream["X2"][:64])
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, error) from None
    if any(len(shape) != 2 for shape in shapes.values()) or shapes["X1"][0] != shapes["X2"][0]:
        came = f"has X1 of shape {shapes['X1']} and X2 of shape {shapes['X2']}"
        raise DataError(came, file=path, mend="give cells by features with the same cells in both")
    second = "prot" if shapes["X2"][1] < 500 and block.max(initial=0) > 1 else "atac"
    ids = np.asarray([f"cell-{number + 1}" for number in range(shapes["X1"][0])], dtype=object)
    made = []
    for key, name in (("X1", "rna"), ("X2", second)):
        features = np.asarray([f"{name}-{number + 1}" for number in range(shapes[key][1])], dtype=object)
        made.append(
            RawModality(
                name, CountMatrix.whole(DenseOnDisk(path, key, (shapes[key][0], shapes[key][1]))), features, ids
            )
        )
    return made


def _scmdc_labels(path: Path) -> pd.DataFrame:
    h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
    try:
        with h5py.File(path, "r") as stream:
            labels = np.asarray(stream["Y"][:]).ravel()
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, error) from None
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in labels.tolist()]
    return pd.DataFrame({"cell_type": texts}, index=[f"cell-{number + 1}" for number in range(len(texts))])
