"""Paired cells from the formats of the field: the same cells from each, and one sentence for damage."""

from __future__ import annotations

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from kontrast.data.omics import CountMatrix, annotate, matrix, read_cells, write_h5mu
from kontrast.data.omics.matrix import DenseOnDisk, InMemory, SparseOnDisk
from kontrast.errors import DataError

CELLS, GENES, PEAKS = 12, 7, 9


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def counts(rng):
    return {
        "rna": rng.poisson(1.0, (CELLS, GENES)).astype(np.float32),
        "atac": (rng.random((CELLS, PEAKS)) < 0.4).astype(np.float32),
    }


IDS = np.asarray([f"bar-{number}" for number in range(CELLS)], dtype=object)
GENE_NAMES = np.asarray([f"gene-{number}" for number in range(GENES)], dtype=object)
PEAK_NAMES = np.asarray([f"chr1-{number}00-{number}50" for number in range(PEAKS)], dtype=object)
OBS = pd.DataFrame({"cell_type": ["a", "b", "c"] * 4, "split": ["train"] * 8 + ["test"] * 4}, index=IDS)


def h5mu(folder, counts):
    path = folder / "cells.h5mu"
    parts = [("rna", CountMatrix.of(counts["rna"]), GENE_NAMES), ("atac", CountMatrix.of(counts["atac"]), PEAK_NAMES)]
    write_h5mu(path, parts, OBS, {})
    return path


def h5ads(folder, counts, order=None, encode=sparse.csr_matrix):
    target = folder / "glue"
    target.mkdir()
    for name, names in (("RNA", GENE_NAMES), ("ATAC", PEAK_NAMES)):
        rows = counts[name.lower()]
        obs = OBS
        if order is not None and name == "ATAC":
            rows, obs = rows[order], OBS.iloc[order]
        anndata.AnnData(encode(rows), obs=obs, var=pd.DataFrame(index=names)).write_h5ad(target / f"Set-{name}.h5ad")
    return target


def tenx(folder, counts):
    path = folder / "filtered_feature_bc_matrix.h5"
    whole = sparse.csc_matrix(np.concatenate([counts["rna"], counts["atac"]], axis=1).T.astype(np.int32))
    with h5py.File(path, "w") as stream:
        group = stream.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(whole, name)
        group["shape"] = np.asarray(whole.shape)
        group["barcodes"] = IDS.astype("S")
        group["features/name"] = np.concatenate([GENE_NAMES, PEAK_NAMES]).astype("S")
        group["features/feature_type"] = np.asarray([b"Gene Expression"] * GENES + [b"Peaks"] * PEAKS)
    return path


def mtx(folder, counts, zipped=False):
    target = folder / "matrix"
    target.mkdir()
    whole = np.concatenate([counts["rna"], counts["atac"]], axis=1).T
    io.mmwrite(target / "matrix.mtx", sparse.coo_matrix(whole.astype(int)))
    types = ["Gene Expression"] * GENES + ["Peaks"] * PEAKS
    names = [*GENE_NAMES, *PEAK_NAMES]
    (target / "features.tsv").write_text("".join(f"id\t{name}\t{kind}\n" for name, kind in zip(names, types)))
    (target / "barcodes.tsv").write_text("".join(f"{name}\n" for name in IDS))
    OBS.rename_axis("id").reset_index().to_csv(target / "cells.csv", index=False)
    if zipped:
        for file in list(target.glob("*.tsv")) + list(target.glob("*.mtx")):
            with gzip.open(f"{file}.gz", "wb") as stream:
                stream.write(file.read_bytes())
            file.unlink()
    return target


def scmdc(folder, counts):
    path = folder / "cells.h5"
    with h5py.File(path, "w") as stream:
        stream["X1"], stream["X2"], stream["Y"] = counts["rna"], counts["atac"], np.arange(CELLS) % 3
    return path


def same(cells, counts):
    assert list(cells.modalities) == ["rna", "atac"] or set(cells.modalities) == {"rna", "atac"}
    for name, wanted in counts.items():
        assert np.array_equal(cells.modalities[name].counts.select().todense(), wanted), name
    assert cells.modalities["rna"].kind == "rna"
    assert cells.modalities["atac"].kind == "atac"


@pytest.mark.parametrize("write", [h5mu, h5ads, tenx, mtx, scmdc], ids=lambda write: write.__name__)
def test_every_format_gives_the_same_cells(write, tmp_path, counts):
    cells = read_cells(write(tmp_path, counts))
    same(cells, counts)
    if write in (h5mu, h5ads, mtx):
        assert list(cells.obs["cell_type"]) == list(OBS["cell_type"])
        assert list(cells.ids) == list(IDS)
    if write is scmdc:
        assert list(cells.obs["cell_type"]) == [str(number % 3) for number in range(CELLS)]


def test_zipped_mtx_and_a_folder_per_modality(tmp_path, counts):
    same(read_cells(mtx(tmp_path, counts, zipped=True)), counts)
    parent = tmp_path / "both"
    for name, names in (("rna", GENE_NAMES), ("atac", PEAK_NAMES)):
        folder = parent / name
        folder.mkdir(parents=True)
        io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(counts[name].T.astype(int)))
        (folder / "features.tsv").write_text("".join(f"{feature}\n" for feature in names))
        (folder / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in IDS))
    same(read_cells(parent), counts)


@pytest.mark.parametrize("encode", [sparse.csr_matrix, sparse.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
def test_cells_are_paired_by_barcode_and_the_rest_is_dropped(tmp_path, counts, rng, encode):
    order = rng.permutation(CELLS)[: CELLS - 2]
    cells = read_cells(h5ads(tmp_path, counts, order, encode))
    assert len(cells) == CELLS - 2
    assert sum(cells.dropped.values()) == 2
    places = [list(IDS).index(name) for name in cells.ids]
    same(cells, {name: rows[places] for name, rows in counts.items()})


def test_layer_counts_is_taken_and_can_be_chosen(tmp_path, counts):
    folder = tmp_path / "layers"
    folder.mkdir()
    for name, names in (("rna", GENE_NAMES), ("atac", PEAK_NAMES)):
        made = anndata.AnnData(sparse.csr_matrix(np.log1p(counts[name])), obs=OBS, var=pd.DataFrame(index=names))
        made.layers["counts"] = sparse.csr_matrix(counts[name])
        made.write_h5ad(folder / f"{name}.h5ad")
    same(read_cells(folder), counts)
    assert read_cells(folder, layer="X").modalities["rna"].kind == "real"
    with pytest.raises(DataError, match="fractions, not counts"):
        read_cells(folder, layer="X", kinds={"rna": "rna"})
    with pytest.raises(DataError, match=r"no layer 'raw'.*known: X, counts"):
        read_cells(folder, layer="raw")


def test_features_of_one_name_in_both_modalities_are_written_and_read(tmp_path, counts):
    """CD4 the gene and CD4 the protein."""
    path = tmp_path / "same.h5mu"
    names = np.asarray([f"CD{number}" for number in range(PEAKS)], dtype=object)
    parts = [("rna", CountMatrix.of(counts["rna"]), names[:GENES]), ("prot", CountMatrix.of(counts["atac"]), names)]
    write_h5mu(path, parts, OBS, {})
    cells = read_cells(path)
    assert cells.modalities["rna"].features[0] == "rna:CD0"
    assert cells.modalities["prot"].features[-1] == f"CD{PEAKS - 1}"


def test_repeated_gene_symbols_of_10x_become_unique(tmp_path, counts):
    path = tenx(tmp_path, counts)
    with h5py.File(path, "r+") as stream:
        names = np.concatenate([np.asarray(["A", "A", "A-1", "A"] + ["g"] * (GENES - 4)), PEAK_NAMES]).astype("S")
        del stream["matrix/features/name"]
        stream["matrix/features/name"] = names
    features = list(read_cells(path).modalities["rna"].features)
    assert len(set(features)) == GENES
    assert features[:2] == ["A", "A-2"]


@pytest.mark.parametrize("backed", [False, True], ids=["memory", "disk"])
def test_blocks_and_chosen_features_are_the_rows_asked_for(tmp_path, counts, rng, backed, monkeypatch):
    monkeypatch.setattr(matrix, "IN_MEMORY", 0 if backed else 10**9)
    cells = read_cells(h5mu(tmp_path, counts))
    found = cells.modalities["rna"].counts
    assert isinstance(found.source, SparseOnDisk if backed else InMemory)
    rows = rng.integers(0, CELLS, 20)
    columns = np.asarray([5, 0, 3])
    assert np.array_equal(found.take(rows).select(columns).todense(), counts["rna"][rows][:, columns])
    again = np.zeros((20, GENES), np.float32)
    for positions, block in found.take(rows).blocks(size=3):
        again[positions] = block.todense()
    assert np.array_equal(again, counts["rna"][rows])


@pytest.mark.parametrize("write", [tenx, scmdc], ids=["10x", "scMDC"])
def test_other_formats_stay_on_disk_too(tmp_path, counts, write, monkeypatch):
    monkeypatch.setattr(matrix, "IN_MEMORY", 0)
    cells = read_cells(write(tmp_path, counts))
    assert isinstance(cells.modalities["atac"].counts.source, SparseOnDisk | DenseOnDisk)
    same(cells, counts)


def test_annotate_keeps_the_file_and_adds_to_it(tmp_path, counts, rng):
    path = h5mu(tmp_path, counts)
    chosen = rng.permutation(CELLS)[:5]
    vectors = rng.random((5, 3)).astype(np.float32)
    annotate(path, IDS[chosen], pd.DataFrame({"cluster": list("vwxyz"), "time": np.arange(5.0)}), {"X_new": vectors})
    mudata = pytest.importorskip("mudata")
    made = mudata.read_h5mu(path)
    assert np.array_equal(made.obsm["X_new"][chosen], vectors)
    assert np.isnan(made.obsm["X_new"]).any(axis=1).sum() == CELLS - 5
    assert list(made.obs["cluster"].iloc[chosen]) == list("vwxyz")
    assert list(made.obs["cell_type"]) == list(OBS["cell_type"])
    same(read_cells(path), counts)
    annotate(path, IDS, pd.DataFrame({"cluster": ["k"] * CELLS}), {"X_new": np.zeros((CELLS, 2), np.float32)})
    assert mudata.read_h5mu(path).obsm["X_new"].shape == (CELLS, 2)


def test_fingerprints_tell_cells_apart_and_find_copies(tmp_path, counts):
    cells = read_cells(h5mu(tmp_path, counts))
    prints = cells.fingerprints()
    assert len(set(prints)) == CELLS
    assert cells.take([3, 3, 1]).fingerprints() == [prints[3], prints[3], prints[1]]
    empty = {name: np.zeros_like(rows) for name, rows in counts.items()}
    (tmp_path / "empty").mkdir()
    assert read_cells(h5mu(tmp_path / "empty", empty)).fingerprints() == [None] * CELLS


# ---- what is refused ---------------------------------------------------------------------------------------------


def refused(path, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        read_cells(path, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_damaged_files_are_refused(tmp_path, counts):
    for write in (h5mu, tenx, scmdc):
        path = write(tmp_path, counts)
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], b"\x00" * len(whole)):
            path.write_bytes(damaged)
            refused(path, r"is empty|damaged|cut short")
        path.write_bytes(whole)
    folder = mtx(tmp_path, counts)
    text = (folder / "matrix.mtx").read_text()
    (folder / "matrix.mtx").write_text(text[: len(text) // 2])
    refused(folder, "damaged or cut short")
    (folder / "matrix.mtx").write_text(text)
    (folder / "barcodes.tsv").write_text("one\ntwo\n")
    refused(folder, "for 16 features and 2 cells")
    (folder / "barcodes.tsv").unlink()
    refused(folder, r"has no barcodes.tsv")


def test_indices_that_do_not_fit_are_refused(tmp_path, counts):
    for what, values, match in (
        ("indices", 99, "names feature 99 of 7"),
        ("indptr", -5, "does not fit"),
    ):
        path = h5mu(tmp_path, counts)
        with h5py.File(path, "r+") as stream:
            stream[f"mod/rna/X/{what}"][1] = values
        refused(path, match)
        path.unlink()


def test_wrong_files_and_folders_are_named(tmp_path, counts):
    refused(tmp_path / "absent.h5mu", "no such file")
    (tmp_path / "cells.txt").write_text("nothing")
    refused(tmp_path / "cells.txt", "'.txt', which is not a format")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no paired cells")
    with h5py.File(tmp_path / "odd.h5", "w") as stream:
        stream["Z"] = np.zeros(3)
    refused(tmp_path / "odd.h5", "unknown layout")
    with h5py.File(tmp_path / "odd.h5mu", "w") as stream:
        stream["Z"] = np.zeros(3)
    refused(tmp_path / "odd.h5mu", "no MuData file")


def test_values_that_cannot_be_counts_are_refused(tmp_path, counts):
    bad = {**counts, "rna": counts["rna"].copy()}
    bad["rna"][4, 2] = np.nan
    refused(h5mu(tmp_path, bad), r"modality 'rna' holds NaN or infinity in cell 5")
    bad["rna"][4, 2] = -1
    path = h5mu(tmp_path, bad)
    assert read_cells(path).modalities["rna"].kind == "real"
    refused(path, "holds values below 0", kinds={"rna": "rna"})
    refused(path, "did you mean 'atac'", kinds={"atax": "real"})
    refused(path, "cannot be of kind 'genes'", kinds={"rna": "genes"})
    refused(path, "has no modality 'prot'", only=["prot"])


def test_names_must_be_unique_and_shared(tmp_path, counts):
    path = tmp_path / "doubled.h5ad"
    twice = OBS.set_axis(["same"] * CELLS, axis=0)
    with pytest.warns(UserWarning, match="not unique"):
        anndata.AnnData(counts["rna"], obs=twice, var=pd.DataFrame(index=GENE_NAMES)).write_h5ad(path)
    refused(path, "has the cell 'same' more than once")
    folder = h5ads(tmp_path, counts)
    other = anndata.AnnData(
        counts["atac"], obs=OBS.set_axis([f"x{n}" for n in range(CELLS)], axis=0), var=pd.DataFrame(index=PEAK_NAMES)
    )
    other.write_h5ad(folder / "Set-ATAC.h5ad")
    refused(folder, "share no cell")
    (folder / "Set-ATAC.h5ad").rename(folder / "Other-RNA.h5ad")
    refused(folder, "have the same name")
