"""ms_contab on real mutations: cohorts of unseen patients are found better than by their profiles alone."""

from __future__ import annotations

import pytest

from kontrast.systems.ms_contab import MSConTab

pytestmark = pytest.mark.learning


def folder_of(shared_data, name):
    if not (shared_data / name).is_dir():
        pytest.skip(f"no {shared_data / name}")
    return shared_data / name


@pytest.fixture(scope="module")
def tcga(shared_data):
    system = MSConTab()
    parts = system.split(system.read(folder_of(shared_data, "mutation_tcga")))
    return system.fit(parts.train, parts.valid), parts


def test_cohorts_of_unseen_patients_are_found_better_than_by_plain_profiles(tcga):
    system, parts = tcga
    found, baselines = system.evaluate(parts.test), system.baselines(parts.train, parts.test)
    for name in ("gene profile", "chromosome profile", "both profiles", "NMF of both profiles"):
        assert found["mrr"] > baselines[name]["mrr"] + 0.05, name
    assert found["recall@1"] >= 0.7
    # Each view finds the other's, of patients of whom nothing was seen; chance is 1 in 31.
    assert found["gene to chromosome recall@1"] > 0.45
    assert found["chromosome to gene recall@1"] > 0.55
    assert found["patient accuracy"] > found["patient majority_accuracy"] + 0.15


def test_permuted_names_bring_it_to_chance(tcga):
    system, parts = tcga
    values = [system.evaluate(system.permuted(parts.test, seed))["mrr"] for seed in range(3)]
    assert abs(sum(values) / 3 - system.chance(parts.test)) < 0.1


def test_the_official_tables_align_their_views(shared_data):
    system = MSConTab(epochs=10)
    parts = system.split(system.read(folder_of(shared_data, "mutation_cosmic43")))
    found = system.fit(parts.train, parts.valid).evaluate(parts.test)
    assert found["gene to chromosome recall@1"] > 0.3
    assert found["gene to chromosome median rank"] <= 5
    assert found["mrr"] > 0.7
