"""Files of 10x Genomics: ``filtered_feature_bc_matrix.h5`` and folders with ``matrix.mtx``."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import io, sparse

from kontrast.data.omics.cells import RawModality
from kontrast.data.omics.matrix import CountMatrix, SparseOnDisk, damaged
from kontrast.errors import DataError
from kontrast.extras import require

NAMES = {
    "Gene Expression": "rna",
    "Peaks": "atac",
    "Antibody Capture": "prot",
    "Protein Expression": "prot",
    "CRISPR Guide Capture": "guides",
    "Multiplexing Capture": "tags",
}
"""10x's names of feature types, and ours."""


def read_10x_h5(path: Path) -> list[RawModality]:
    """The modalities of a 10x HDF5 file (Cell Ranger 3 or newer), one for each feature type.

    Raises:
        DataError: if the file is damaged or of another layout.
    """
    h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
    try:
        with h5py.File(path, "r") as stream:
            group = stream["matrix"]
            barcodes = _texts(group["barcodes"][:])
            features, types = _texts(group["features/name"][:]), _texts(group["features/feature_type"][:])
            width, cells = (int(size) for size in group["shape"][:])
            starts = np.asarray(group["indptr"][:], dtype=np.int64)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from None
    if len(starts) != cells + 1 or starts[0] != 0 or (np.diff(starts) < 0).any() or len(types) != width:
        raise DataError("'matrix' is damaged (its parts do not fit together)", file=path, mend="write the file again")
    # 10x stores features by cells in columns, which is cells by features in rows.
    whole = CountMatrix.whole(SparseOnDisk(path, "matrix", (cells, width), starts))
    return list(_by_type(whole, features, types, barcodes, path))


def read_mtx(folder: Path) -> list[RawModality]:
    """The modalities of a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (each may end in .gz).

    Features without a type are one modality, named after the folder.

    Raises:
        DataError: if a file is missing or damaged, or their sizes differ.
    """
    matrix_file = _one_of(folder, "matrix.mtx")
    barcodes = np.asarray([line.split("\t")[0] for line in _lines(_one_of(folder, "barcodes.tsv"))], dtype=object)
    names = ("features.tsv", "genes.tsv", "peaks.bed")
    rows = [line.split("\t") for line in _lines(_one_of(folder, *names))]
    if _one_of(folder, *names).name.startswith("peaks.bed"):
        rows = [["-".join(row[:3])] for row in rows]
    features = np.asarray([row[1] if len(row) > 1 else row[0] for row in rows], dtype=object)
    types = np.asarray([row[2] if len(row) > 2 else folder.name for row in rows], dtype=object)
    try:
        counts = io.mmread(matrix_file)
    except Exception as error:  # scipy's reader reports damage in many ways
        raise damaged(matrix_file, error) from None
    if counts.shape != (len(features), len(barcodes)):
        came = (
            f"has {counts.shape[0]} × {counts.shape[1]} entries for {len(features)} features and {len(barcodes)} cells"
        )
        raise DataError(came, file=matrix_file, mend="give the three files of one export")
    whole = CountMatrix.of(sparse.csr_array(counts.T))
    return list(_by_type(whole, features, types, barcodes, folder))


def _by_type(
    whole: CountMatrix, features: npt.NDArray[Any], types: npt.NDArray[Any], barcodes: npt.NDArray[Any], path: Path
) -> Iterator[RawModality]:
    for kind in dict.fromkeys(types):
        columns = np.flatnonzero(types == kind)
        if isinstance(whole.source, SparseOnDisk):
            source = whole.source
            part = CountMatrix.whole(
                SparseOnDisk(
                    path, source.group, (source.shape[0], len(columns)), source.starts, columns, source.shape[1]
                )
            )
        else:
            part = CountMatrix.of(whole.select(columns))
        name = NAMES.get(str(kind), str(kind).lower().replace(" ", "_"))
        yield RawModality(name, part, _unique(features[columns]), barcodes)


def _unique(names: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    """Gene symbols occur more than once; later ones get -1, -2 ... as scanpy names them."""
    seen: dict[str, int] = {}
    taken = set(map(str, names))
    made = []
    for name in map(str, names):
        count = seen.get(name, 0)
        fresh = name
        while count and (fresh := f"{name}-{count}") in taken:
            count += 1
        seen[name] = count + 1
        taken.add(fresh)
        made.append(fresh)
    return np.asarray(made, dtype=object)


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    return np.asarray([value.decode() if isinstance(value, bytes) else str(value) for value in values], dtype=object)


def is_mtx_folder(folder: Path) -> bool:
    """Whether a folder holds ``matrix.mtx`` or ``matrix.mtx.gz``."""
    return any((folder / f"matrix.mtx{ending}").is_file() for ending in ("", ".gz"))


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    raise DataError(f"has no {' or '.join(names)}", file=folder, mend="give the whole folder that Cell Ranger wrote")


def _lines(path: Path) -> list[str]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = raw.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise damaged(path, error) from None
    except Exception as error:  # zlib.error is no OSError
        raise damaged(path, error) from None
    return [line for line in lines if line.strip()]
