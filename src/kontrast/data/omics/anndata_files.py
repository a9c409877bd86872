"""h5mu and h5ad files: names and facts at once, counts in blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from kontrast.data.omics.cells import RawModality
from kontrast.data.omics.matrix import CountMatrix, DenseOnDisk, SparseOnDisk, checked_csr, damaged
from kontrast.errors import DataError, suggest
from kontrast.extras import require

COUNTS = "counts"
"""The layer that by custom holds raw counts where `X` holds something else."""


def read_h5mu(path: Path, layer: str | None) -> tuple[list[RawModality], pd.DataFrame]:
    """All modalities of a MuData file, and its `obs`.

    Args:
        path: the file.
        layer: layer with the counts; None: the layer "counts" where there is one, else X.

    Raises:
        DataError: if the file is damaged, is no MuData file or lacks the layer.
    """

    def parts(stream: Any) -> tuple[list[RawModality], pd.DataFrame]:
        if "mod" not in stream:
            raise DataError("is an HDF5 file without 'mod', so no MuData file", file=path, mend="write it with mudata")
        names = list(stream["mod"].attrs.get("mod-order", list(stream["mod"])))
        raw, obs = [], _frame(stream, "obs", path)
        for name in names:
            part, own = _modality(stream, f"mod/{name}", str(name), path, layer)
            raw.append(part)
            obs = obs.join(own[[column for column in own.columns if column not in obs.columns]], how="outer")
        return raw, obs

    found: tuple[list[RawModality], pd.DataFrame] = _opened(path, parts)
    return found


def read_h5ad(path: Path, layer: str | None, name: str | None = None) -> tuple[RawModality, pd.DataFrame]:
    """One AnnData file as a modality that is named after the file; see `read_h5mu`."""

    def parts(stream: Any) -> tuple[RawModality, pd.DataFrame]:
        if "var" not in stream or "obs" not in stream:
            raise DataError("is an HDF5 file without 'obs' and 'var', so no AnnData file", file=path)
        return _modality(stream, "", name or modality_name(path), path, layer)

    found: tuple[RawModality, pd.DataFrame] = _opened(path, parts)
    return found


def modality_name(path: Path) -> str:
    """The last word of a file's name, such as "rna" of ``10x-Multiome-Pbmc10k-RNA.h5ad``."""
    words = path.name.split(".")[0].replace("_", "-").split("-")
    return words[-1].lower() or path.stem


def _opened(path: Path, parts: Callable[[Any], Any]) -> Any:
    h5py = require("h5py", extra="omics", purpose="to read HDF5 files")
    require("anndata", extra="omics", purpose="to read h5ad and h5mu files")
    try:
        with warnings.catch_warnings(), h5py.File(path, "r") as stream:
            warnings.simplefilter("ignore")
            return parts(stream)
    except DataError:
        raise
    # Each layer below reports damage in its own way: OSError, KeyError, TypeError, IORegistryError, RuntimeError ...
    except Exception as error:
        raise damaged(path, error) from None


def _frame(stream: Any, key: str, path: Path) -> pd.DataFrame:
    anndata_io = require("anndata.io", extra="omics", purpose="to read h5ad and h5mu files")
    if key not in stream:
        raise DataError(f"has no '{key}'", file=path, mend="write the file again with anndata or mudata")
    frame = anndata_io.read_elem(stream[key])
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"its '{key}' is no table", file=path, mend="write the file again with anndata or mudata")
    frame.index = frame.index.astype(str)
    return frame


def _modality(stream: Any, prefix: str, name: str, path: Path, layer: str | None) -> tuple[RawModality, pd.DataFrame]:
    at = f"{prefix}/" if prefix else ""
    obs, var = _frame(stream, f"{at}obs", path), _frame(stream, f"{at}var", path)
    layers = list(stream[f"{at}layers"]) if f"{at}layers" in stream else []
    if layer is not None and layer != "X" and layer not in layers:
        known = suggest(layer, ["X", *layers])
        raise DataError(f"modality '{name}' has no layer '{layer}'; {known}", file=path)
    chosen = layer or (COUNTS if COUNTS in layers else "X")
    key = f"{at}X" if chosen == "X" else f"{at}layers/{chosen}"
    if key not in stream:
        raise DataError(f"modality '{name}' has no '{key.removeprefix(at)}'", file=path, mend="give counts in X")
    counts = _counts(stream[key], key, (len(obs), len(var)), path, f"modality '{name}'")
    return RawModality(name, counts, var.index.to_numpy(object), obs.index.to_numpy(object)), obs


def _counts(node: Any, key: str, shape: tuple[int, int], path: Path, what: str) -> CountMatrix:
    found = tuple(int(size) for size in (node.shape if hasattr(node, "shape") else node.attrs.get("shape", ())))
    if found != shape:
        came = f"{what} has counts of shape {found} for {shape[0]} cells and {shape[1]} features"
        raise DataError(came, file=path, mend="write the file again")
    if hasattr(node, "shape"):
        return CountMatrix.whole(DenseOnDisk(path, key, shape))
    encoding = str(node.attrs.get("encoding-type", ""))
    starts = np.asarray(node["indptr"][:], dtype=np.int64)
    if encoding == "csr_matrix":
        _check_starts(starts, shape[0], path, key)
        return CountMatrix.whole(SparseOnDisk(path, key, shape, starts))
    if encoding == "csc_matrix":
        # Columns lie together, so rows cannot be read in blocks: such a file must fit into memory.
        _check_starts(starts, shape[1], path, key)
        columns = checked_csr(node["data"][:], node["indices"][:], starts, shape[0], path, key)
        return CountMatrix.of(columns.T.tocsr())
    raise DataError(f"{what} is stored as '{encoding}'", file=path, mend="store counts dense, as csr or as csc")


def _check_starts(starts: npt.NDArray[np.int64], rows: int, path: Path, key: str) -> None:
    if len(starts) != rows + 1 or starts[0] != 0 or (np.diff(starts) < 0).any():
        raise DataError(f"'{key}' is damaged (its indptr does not fit)", file=path, mend="write the file again")


def write_h5mu(
    path: Path,
    modalities: Sequence[tuple[str, CountMatrix, npt.NDArray[Any]]],
    obs: pd.DataFrame,
    obsm: dict[str, npt.NDArray[Any]],
) -> None:
    """Writes a MuData file; feature names that several modalities share get the modality's name before them."""
    anndata = require("anndata", extra="omics", purpose="to write h5mu files")
    mudata = require("mudata", extra="omics", purpose="to write h5mu files")
    every = pd.Index(np.concatenate([np.asarray(features, dtype=object) for _, _, features in modalities]))
    doubled = set(every[every.duplicated()])
    parts = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, counts, features in modalities:
            names = [f"{name}:{feature}" if feature in doubled else str(feature) for feature in features]
            parts[name] = anndata.AnnData(
                sparse.csr_matrix(counts.select()), obs=pd.DataFrame(index=obs.index), var=pd.DataFrame(index=names)
            )
        made = mudata.MuData(parts)
        made.obs = tidy(obs).reindex(made.obs_names)
        for key, values in obsm.items():
            made.obsm[key] = values
        made.write_h5mu(path)


def write_h5ad(path: Path, counts: CountMatrix, features: npt.NDArray[Any], obs: pd.DataFrame) -> None:
    """Writes an AnnData file with one modality."""
    anndata = require("anndata", extra="omics", purpose="to write h5ad files")
    made = anndata.AnnData(sparse.csr_matrix(counts.select()), obs=tidy(obs), var=pd.DataFrame(index=list(features)))
    made.write_h5ad(path)


def annotate(path: Path, ids: npt.NDArray[Any], obs: pd.DataFrame, obsm: dict[str, npt.NDArray[Any]]) -> None:
    """Adds columns and vectors to the `obs` and `obsm` of an h5ad or h5mu file in place; the counts are not touched.

    Args:
        path: the file; give a copy of the user's own.
        ids: (n,) the cells that the values are about; other cells of the file get missing values.
        obs: n rows of new columns.
        obsm: vectors (n, d) by key.
    """
    h5py = require("h5py", extra="omics", purpose="to write HDF5 files")
    anndata_io = require("anndata.io", extra="omics", purpose="to write h5ad and h5mu files")
    with warnings.catch_warnings(), h5py.File(path, "r+") as stream:
        warnings.simplefilter("ignore")
        table = _frame(stream, "obs", path)
        places = pd.Index(ids.astype(str)).get_indexer(table.index)
        for column in obs.columns:
            values = obs[column].to_numpy()
            missing = None if values.dtype.kind == "O" else np.nan
            table[column] = [values[place] if place >= 0 else missing for place in places]
        if len(obs.columns):
            del stream["obs"]
            anndata_io.write_elem(stream, "obs", tidy(table))
        group = stream.require_group("obsm")
        for key, values in obsm.items():
            if key in group:
                del group[key]
            rows = np.full((len(places), *values.shape[1:]), np.nan, dtype=np.float32)
            rows[places >= 0] = values[places[places >= 0]]
            anndata_io.write_elem(group, key, rows)


def tidy(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns of objects as categories of texts, which is what the file formats hold."""
    made = obs.copy()
    for column in made.columns:
        if made[column].dtype == object:
            values = made[column]
            made[column] = pd.Categorical(values.where(values.isna(), values.astype(str)))
    return made
