"""sci2cl from file to file: every question, other cells in every format, what scanpy and muon read back."""

from __future__ import annotations

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from kontrast.errors import ConfigError, DataError
from kontrast.systems.sci2cl import Sci2CL


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return Sci2CL.write_example(tmp_path_factory.mktemp("garden"))


@pytest.fixture(scope="module")
def saved(example, tmp_path_factory):
    system = Sci2CL(**Sci2CL.smoke)
    system.fit(system.split(system.read(example)).train)
    return system.save(tmp_path_factory.mktemp("model") / "saved")


def asked(saved, **options):
    system = Sci2CL.load(saved)
    system.config = system.config.changed(**options)
    return system


def tables(example):
    made = mudata.read_h5mu(example)
    return {name: np.asarray(part.X.todense()) for name, part in made.mod.items()}, made


def write_pair(example, folder, rows=slice(None), columns=slice(None)):
    """The example as one h5ad per modality."""
    counts, made = tables(example)
    folder.mkdir()
    for name, part in made.mod.items():
        chosen = columns if name == "rna" else slice(None)
        anndata.AnnData(
            sparse.csr_matrix(counts[name][rows, chosen]),
            obs=made.obs.iloc[rows],
            var=pd.DataFrame(index=part.var_names[chosen]),
        ).write_h5ad(folder / f"cells-{name}.h5ad")
    return folder


# ---- files -------------------------------------------------------------------------------------------------------


def test_h5mu_in_h5mu_out_keeps_what_was_there(example, saved, tmp_path):
    system = asked(saved)
    data = system.read(example, purpose="predict")
    embeddings = system.embed(data)
    system.write_embeddings(embeddings, data, tmp_path / "out.h5mu")
    made, before = mudata.read_h5mu(tmp_path / "out.h5mu"), mudata.read_h5mu(example)
    assert np.array_equal(made.obsm["X_sci2cl"], embeddings.vectors)
    assert list(made.obs_names) == list(embeddings.ids) == list(before.obs_names)
    for name, part in before.mod.items():
        assert (made.mod[name].X != part.X).nnz == 0
        assert list(made.mod[name].var_names) == list(part.var_names)
    assert set(before.obs.columns) <= set(made.obs.columns)


def test_clusters_are_written_into_obs(example, saved, tmp_path):
    system = asked(saved, clusters=5)
    data = system.read(example, purpose="predict")
    answers = system.predict(data)
    system.write_answers(answers, data, tmp_path / "out.h5mu")
    made = mudata.read_h5mu(tmp_path / "out.h5mu")
    assert made.obs["sci2cl_cluster"].astype(str).tolist() == answers["cluster"].tolist()
    assert made.obs["sci2cl_cluster"].nunique() == 5
    assert made.obsm["X_sci2cl"].shape == (300, 16)


def test_other_formats_become_h5mu_and_h5ad(example, saved, tmp_path):
    system = asked(saved)
    data = system.read(write_pair(example, tmp_path / "pair"), purpose="predict")
    embeddings = system.embed(data)
    for ending in (".h5mu", ".h5ad"):
        system.write_embeddings(embeddings, data, tmp_path / f"out{ending}")
    whole = mudata.read_h5mu(tmp_path / "out.h5mu")
    assert np.array_equal(whole.obsm["X_sci2cl"], embeddings.vectors)
    assert set(whole.mod) == {"rna", "prot"}
    one = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert np.array_equal(one.obsm["X_sci2cl"], embeddings.vectors)
    assert list(one.obs["cell_type"].astype(str)) == list(mudata.read_h5mu(example).obs["cell_type"].astype(str))


def test_a_cell_has_one_vector_whatever_file_it_comes_from(example, saved, tmp_path):
    system = asked(saved)
    wanted = system.vectors(system.read(example))
    pair = write_pair(example, tmp_path / "pair", rows=np.arange(20, 60))
    assert np.allclose(system.vectors(system.read(pair, purpose="predict")), wanted[20:60], atol=1e-6)
    counts, made = tables(example)
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    whole = sparse.csc_matrix(np.concatenate([counts["rna"], counts["prot"]], axis=1).T.astype(np.int32))
    with h5py.File(path, "w") as stream:
        group = stream.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(whole, name)
        group["shape"], group["barcodes"] = np.asarray(whole.shape), made.obs_names.to_numpy().astype("S")
        names = [*made.mod["rna"].var_names, *made.mod["prot"].var_names]
        group["features/name"] = np.asarray(names, dtype="S")
        kinds = [b"Gene Expression"] * counts["rna"].shape[1] + [b"Antibody Capture"] * counts["prot"].shape[1]
        group["features/feature_type"] = np.asarray(kinds)
    assert np.allclose(system.vectors(system.read(path, purpose="predict")), wanted, atol=1e-6)


def test_one_missing_modality_still_gives_vectors(example, saved, tmp_path):
    system = asked(saved)
    pair = write_pair(example, tmp_path / "pair")
    whole = system.vectors(system.read(example))
    vectors = system.vectors(system.read(pair / "cells-rna.h5ad", purpose="predict"))
    assert vectors.shape == whole.shape
    assert np.isfinite(vectors).all()
    share = system.model_.shares.numpy()
    assert np.allclose(vectors[:, :8], whole[:, :8], atol=1e-6)
    assert np.allclose(vectors[:, 8:] * share[0], vectors[:, :8] * share[1], atol=1e-6)
    with pytest.raises(DataError, match="has 1 modalities"):
        Sci2CL().read(pair / "cells-rna.h5ad")
    (pair / "cells-rna.h5ad").rename(tmp_path / "x-guides.h5ad")
    with pytest.raises(DataError, match="the model knows rna and prot"):
        system.read(tmp_path / "x-guides.h5ad", purpose="predict")


def test_missing_features_are_masked_and_too_many_are_refused(example, saved, tmp_path):
    system = asked(saved)
    whole = system.vectors(system.read(example))
    fewer = system.read(write_pair(example, tmp_path / "fewer", columns=slice(0, 50)), purpose="predict")
    vectors = system.vectors(fewer)
    assert not np.allclose(vectors, whole)
    cosine = (vectors * whole).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(whole, axis=1)
    assert np.median(cosine) > 0.8
    with pytest.raises(DataError, match=r"has 20 of the 60 features that the model learned"):
        system.vectors(system.read(write_pair(example, tmp_path / "few", columns=slice(0, 20)), purpose="predict"))


def test_cells_in_another_order_of_features_have_the_same_vectors(example, saved, tmp_path):
    system = asked(saved)
    order = np.random.default_rng(0).permutation(60)
    data = system.read(write_pair(example, tmp_path / "turned", columns=order), purpose="predict")
    assert np.allclose(system.vectors(data), system.vectors(system.read(example)), atol=1e-6)


# ---- questions ---------------------------------------------------------------------------------------------------


def test_clusters_by_kmeans_silhouette_and_leiden(example, saved):
    for options, count in (({"clusters": 3}, 3), ({}, 5), ({"method": "leiden", "resolution": 0.3}, None)):
        system = asked(saved, **options)
        data = system.read(example, purpose="predict")
        found = system.predict(data)
        assert list(found.columns) == ["id", "cluster"]
        sizes = np.bincount(found["cluster"].astype(int))
        assert (sizes > 0).all()
        assert (np.diff(sizes) <= 0).all()
        assert count is None or abs(len(sizes) - count) <= 1
        order = np.random.default_rng(0).permutation(len(data))
        turned = system.predict(data.take(order)).set_index("id")["cluster"]
        assert (turned.loc[found["id"]].to_numpy() == found["cluster"].to_numpy()).all()
    with pytest.raises(ConfigError, match="there are 300 cells, got 301"):
        asked(saved, clusters=301).predict(data)


def test_labels_are_passed_on_to_new_cells(example, saved):
    system = asked(saved, ask="labels")
    test = system.split(system.read(example)).test
    found = system.predict(test)
    assert (found["label"].to_numpy() == test.labels).mean() > 0.9
    assert found["confidence"].between(0, 1).all()
    metrics = system.evaluate(test)
    assert metrics["transfer_accuracy"] == pytest.approx((found["label"].to_numpy() == test.labels).mean())


def test_subclusters_of_a_type(example, saved):
    system = asked(saved, ask="subcluster", of="leaf")
    found = system.predict(system.read(example, purpose="predict"))
    assert len(found) == 60
    assert found["subcluster"].str.startswith("leaf.").all()
    for of, error, match in (
        (None, ConfigError, "option 'of' is needed for this question; known: leaf, petal"),
        ("lef", DataError, "no cell of 'lef'.*did you mean 'leaf'"),
    ):
        system = asked(saved, ask="subcluster", of=of)
        with pytest.raises(error, match=match):
            system.predict(system.read(example))


def test_a_trajectory_begins_at_its_root(example, saved, tmp_path):
    system = asked(saved, ask="trajectory", root="root")
    data = system.read(example, purpose="predict")
    found = system.predict(data)
    assert (found.loc[found["group"] == "root", "pseudotime"] == 0).all()
    assert found["pseudotime"].max() == 1
    system.write_answers(found, data, tmp_path / "out.h5mu")
    assert np.allclose(
        mudata.read_h5mu(tmp_path / "out.h5mu").obs["sci2cl_pseudotime"], found["pseudotime"], equal_nan=True
    )
    ordered = asked(saved, order="hours").evaluate(data)
    assert -1 <= ordered["pseudotime_spearman"] <= 1
    with pytest.raises(DataError, match="is no order, it holds"):
        asked(saved, order="batch").evaluate(data)


def test_markers_are_a_table_of_groups(example, saved, tmp_path):
    system = asked(saved, ask="markers", top=4)
    data = system.read(example, purpose="predict")
    found = system.predict(data)
    assert set(found["modality"]) == {"rna", "prot"}
    assert (found.groupby(["modality", "group"]).size() == 4).all()
    assert (found["q"] >= found["p"]).all()
    assert (found.groupby("group")["q"].min() < 1e-6).all()
    with pytest.raises(ConfigError, match="markers are about groups"):
        system.write_answers(found, data, tmp_path / "out.h5mu")


def test_cells_without_labels_train_and_answer(example, tmp_path):
    counts, made = tables(example)
    made.obs = made.obs[["split"]]
    path = tmp_path / "bare.h5mu"
    made.write_h5mu(path)
    system = Sci2CL(**{**Sci2CL.smoke, "epochs": 1, "warm_up": 1})
    parts = system.split(system.read(path))
    system.fit(parts.train)
    found = system.evaluate(parts.test)
    assert np.isnan(found["ari"])
    assert 0 <= found["foscttm"] <= 1
    assert len(system.predict(parts.test)) == len(parts.test)
    assert "ari" in system.baselines(parts.train, parts.test)["chance"]
    assert system.figures(parts.test)
    system.config = system.config.changed(ask="labels")
    with pytest.raises(DataError, match="fewer than two cell types to pass on"):
        system.predict(parts.test)
    assert len(counts) == 2


def test_figures_show_types_clusters_batches_course_and_markers(example, saved):
    system = asked(saved, root="root")
    titles = [figure.title for figure in system.figures(system.split(system.read(example)).test)]
    assert titles == [
        "Cells by type", "Cells by cluster", "Cells by batch", "Pseudotime", "Types and clusters",
        "Agreement of the modalities", "Markers in rna", "Markers in prot",
    ]  # fmt: skip
