"""sci2cl on real cells: above principal components, and no harm from a modality that says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from kontrast.systems.sci2cl import Sci2CL

pytestmark = pytest.mark.learning


def learned(shared_data, name, **options):
    path = shared_data / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    system = Sci2CL(**options)
    data = system.read(path)
    parts = system.split(data)
    system.fit(parts.train)
    return system, data, parts


def test_bone_marrow_cells_are_clustered_better_than_by_principal_components(shared_data):
    system, data, parts = learned(shared_data, "sci2cl_bmmc_cite/bmmc_cite.h5mu")
    found = system.evaluate(parts.test)
    baselines = system.baselines(parts.train, parts.test)
    for name in ("rna PCA", "prot PCA", "both side by side"):
        assert found["nmi"] > baselines[name]["nmi"], name
        assert found["ari"] > baselines[name]["ari"] + 0.02, name
    assert found["matching_recall@1"] > 3 / len(parts.test)
    permuted = [system.evaluate(system.permuted(parts.test, seed))["ari"] for seed in range(5)]
    assert abs(np.mean(permuted)) < 0.03
    whole = system.evaluate(data)
    assert whole["ari"] > 0.70
    assert all(whole["ari"] > metrics["ari"] + 0.03 for metrics in system.baselines(parts.train, data).values())


def test_cell_lines_stay_apart(shared_data):
    system, data, _ = learned(shared_data, "sci2cl_cellmix/cellmix.h5mu")
    assert system.evaluate(data)["ari"] >= 0.93


def test_a_modality_that_says_nothing_does_no_harm(shared_data):
    system, _, parts = learned(shared_data, "sci2cl_a549/a549_scicar.h5mu", label="time_h", warm_up=3, epochs=15)
    assert system.agreement_.value < 0.2
    assert system.model_.shares[1] < 0.2
    found = system.evaluate(parts.test)
    best = max(metrics["nmi"] for metrics in system.baselines(parts.train, parts.test).values() if "nmi" in metrics)
    assert found["nmi"] > best + 0.05
