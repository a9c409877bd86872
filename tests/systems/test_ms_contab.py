"""ms_contab: what the method must keep, besides the check suite that every system passes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kontrast.contract import load_system
from kontrast.data.mutations import CHROMOSOMES, CLASSES, MutationCounts, count_table, read_mutations
from kontrast.errors import CheckpointError, ConfigError, DataError
from kontrast.losses import nt_xent, supcon
from kontrast.systems.ms_contab import MSConTab, MSConTabConfig
from kontrast.systems.ms_contab.answers import DRAWS, importances, spread
from kontrast.systems.ms_contab.clusters import cluster_quality, clusters_of, column_shuffled, some_patients, unit
from kontrast.systems.ms_contab.config import ProfileSection
from kontrast.systems.ms_contab.known import Known
from kontrast.systems.ms_contab.measuring import burden_correlation
from kontrast.systems.ms_contab.model import column_groups, loss_weights
from kontrast.systems.ms_contab.scaling import ProfileScaling
from kontrast.systems.ms_contab.views import (
    VIEWS,
    DrawBatches,
    add_up,
    cohort_entities,
    patient_entities,
    pooled,
    split_counts,
    thinned,
    view_table,
)
from kontrast.training import Progress

QUICK = {**MSConTab.smoke, "epochs": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return MSConTab.write_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def parts(path):
    system = MSConTab(**QUICK)
    return system.split(system.read(path))


@pytest.fixture(scope="module")
def fitted(parts):
    return MSConTab(**QUICK).fit(parts.train, parts.valid)


def asked(fitted, **options):
    """The same model with another question."""
    system = MSConTab(fitted.config.changed(**options))
    system.facts_, system.known_, system.model_ = fitted.facts_, fitted.known_, fitted.model_
    return system


def cohort_counts(n=9, seed=0):
    """Whole cohorts with spectra of their own and burdens over three decades."""
    rng = np.random.default_rng(seed)
    genes = tuple(f"G{number}" for number in range(30))
    tables = []
    for names in (30, 24):
        rates = rng.dirichlet(np.full(names * CLASSES, 0.3), n) * np.logspace(2, 5, n)[:, None]
        counts = rng.poisson(rates)
        row, column = np.nonzero(counts)
        tables.append(count_table(row, column, counts.shape, counts[row, column]))
    names = ("NS", *(f"type{number}" for number in range(n - 1)))
    return MutationCounts(names, names, genes, *tables, whole_cohorts=True, strand="coding", build="hg38")


def batches(data, config):
    genes = data.counts.genes[: config.profile.genes]
    tables = {view: view_table(data.counts, view, genes, config.profile) for view in VIEWS}
    return DrawBatches(data, tables, config)


def test_it_is_registered_and_its_paper_preset_is_the_official_recipe():
    assert load_system("ms_contab") is MSConTab
    paper = MSConTab(preset="paper").config
    assert (paper.profile.scale, paper.profile.gene_view, paper.tower.kind) == ("raw", "ranked", "tabnet")
    assert (paper.batch, paper.temperature, paper.within, paper.draw.patients) == (8, 0.5, 0, 1.0)
    assert (paper.tower.tabnet.decision, paper.tower.tabnet.output, paper.tower.choose) == (128, "first", "columns")
    assert paper.draw.thin == "none"


# ---- scaling ---------------------------------------------------------------------------------------------------------


def scaled(view, section, counts, build="hg38"):
    scaling = ProfileScaling(view, counts.shape[1] // section.classes, section, build).learn(counts)
    return scaling(torch.from_numpy(counts))


@pytest.mark.parametrize("view", VIEWS)
def test_the_number_of_mutations_has_no_part_in_hellinger_profiles(view):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (5, 24 * CLASSES)).astype(np.float32)
    scaling = ProfileScaling(view, 24, ProfileSection(), "hg38").learn(counts)
    once, many = (scaling(torch.from_numpy(counts * times)) for times in (1, 1000))
    torch.testing.assert_close(once, many)


def test_raw_chromosome_values_vanish_in_batch_norm_and_scaled_ones_do_not():
    counts = np.random.default_rng(0).poisson(300, (43, 24 * CLASSES)).astype(np.float32)
    norm = torch.nn.BatchNorm1d(24 * CLASSES)
    blind = norm(scaled("chromosome", ProfileSection(scale="raw"), counts)).detach().std(0).mean()
    assert blind < 0.01
    for scale in ("log_z", "hellinger"):
        seen = norm(scaled("chromosome", ProfileSection(scale=scale), counts)).detach().std(0).mean()
        assert seen == pytest.approx(1, abs=0.05)


def test_raw_values_are_those_of_the_official_code():
    counts = np.ones((1, 24 * CLASSES), np.float32)
    found = scaled("chromosome", ProfileSection(scale="raw"), counts)
    assert found[0, 0].item() == pytest.approx(1 / 248956422)
    assert found[0, -1].item() == pytest.approx(1 / 57227415)


def test_ranked_genes_do_not_know_which_gene_they_are():
    counts = np.random.default_rng(0).integers(0, 50, (4, 40, CLASSES)).astype(np.float32)
    counts[:, :, 0] += 1000 * np.arange(40)
    mixed = np.stack([row[np.random.default_rng(seed).permutation(40)] for seed, row in enumerate(counts)])
    flat = [table.reshape(4, -1) for table in (counts, mixed)]
    ranked, aligned = ProfileSection(gene_view="ranked", scale="raw"), ProfileSection(scale="raw")
    found = [ProfileScaling("gene", 40, ranked, "hg38")(torch.from_numpy(table)) for table in flat]
    assert found[0].shape == (4, 25 * CLASSES)
    torch.testing.assert_close(found[0], found[1])
    totals = found[0].reshape(4, 25, CLASSES).sum(2)
    assert (totals.diff(dim=1) <= 0).all()
    other = [ProfileScaling("gene", 40, aligned, "hg38")(torch.from_numpy(table)) for table in flat]
    assert not torch.equal(other[0], other[1])


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_draws_are_functions_of_seed_epoch_and_index_and_differ(parts):
    made = batches(parts.train, MSConTabConfig(**QUICK))
    first, again, later = made.get(0, 1), made.get(0, 1), made.get(1, 1)
    assert torch.equal(first["gene"], again["gene"])
    assert not torch.equal(first["gene"], later["gene"])
    assert not torch.equal(first["gene"][:, 0], first["gene"][:, 1])
    with pytest.raises(IndexError):
        made.get(0, made.count(0))


def test_a_virtual_cohort_is_the_sum_of_some_of_its_own_patients(parts):
    config = MSConTabConfig(**{**QUICK, "profile": {"genes": 40, "pool": "counts"}})
    made = batches(parts.train, config)
    step = made.get(0, 0)
    sizes = np.array([len(members) for members in parts.train.members])
    for entity, draws in zip(step["entity"].tolist(), step["chromosome"].numpy()):
        own = made.tables["chromosome"][parts.train.members[entity]].toarray()
        assert (draws <= own.sum(0)).all()
        assert (draws.sum(1) <= np.sort(own.sum(1))[::-1][: round(0.5 * sizes[entity])].sum()).all()


def test_the_null_control_pairs_views_of_different_entities(parts):
    data = parts.train
    one = {**QUICK, "draw": {"patients": 1.0}}
    on, null = (batches(data, MSConTabConfig(**{**one, "contrast": arm})) for arm in ("on", "shuffled"))
    true, false = on.get(0, 0), null.get(0, 0)
    for view in VIEWS:
        for row, entity in enumerate(true["entity"].tolist()):
            assert np.array_equal(true[view][row, 0], on.whole[view][entity])
    same = [
        np.array_equal(false[view][row, draw], null.whole[view][entity])
        for view in VIEWS for draw in range(2) for row, entity in enumerate(false["entity"].tolist())
    ]  # fmt: skip
    assert sum(same) < len(same) / 2
    # The very same draws are there, only under other names.
    torch.testing.assert_close(false["gene"].sum(), true["gene"].sum())


@pytest.mark.parametrize("n", [9, 17, 43])
def test_no_step_has_a_single_entity(n):
    data = cohort_entities(cohort_counts(n))
    made = batches(data, MSConTabConfig(batch=8, passes=1))
    sizes = [len(made.get(0, index)["entity"]) for index in range(made.count(0))]
    assert sum(sizes) == n
    assert min(sizes) >= 8


def test_with_roots_every_patient_counts_alike(parts):
    counts, genes = parts.train.counts, parts.train.counts.genes
    roots = view_table(counts, "chromosome", genes, ProfileSection())
    np.testing.assert_allclose(np.asarray(roots.power(2).sum(1)).ravel(), 1, atol=1e-9)
    # A patient with a hundred times as many mutations of the same shares changes nothing.
    many = replace(counts, by_chromosome=counts.by_chromosome * 100)
    np.testing.assert_allclose(view_table(many, "chromosome", genes, ProfileSection()).toarray(), roots.toarray())
    one = [np.array([0])]
    alone = pooled(add_up(roots, one), ProfileSection())
    whole = counts.by_chromosome[[0]].toarray()
    np.testing.assert_allclose(alone, whole / whole.sum(), rtol=1e-5)


def test_thinning_keeps_the_share_and_no_more_than_there_is():
    counts = np.full((3, 400), 50, np.float32)
    found = thinned(counts, np.array([0.1, 0.5, 1.0]), np.random.default_rng(0))
    assert found.mean(1) == pytest.approx([5, 25, 50], rel=0.05)
    assert (found <= counts).all()


def test_parts_of_counts_add_up_and_share_no_mutation():
    counts = cohort_counts()
    made = split_counts(counts, (0.6, 0.1, 0.3), seed=0)
    total = sum(part.by_chromosome.toarray() for part in made)
    assert (total == counts.by_chromosome.toarray()).all()
    assert made[0].totals().sum() / counts.totals().sum() == pytest.approx(0.6, abs=0.01)
    again = split_counts(counts.take(np.arange(len(counts))[::-1]), (0.6, 0.1, 0.3), seed=0)
    assert (again[0].by_gene.toarray()[::-1] == made[0].by_gene.toarray()).all()


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_contrast_at_its_start_is_the_logarithm_of_the_candidates():
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 8, 4096)).astype(np.float32))
    assert nt_xent(vectors[0], vectors[1]).item() == pytest.approx(math.log(15), abs=0.05)


def test_the_contrast_does_not_know_which_view_is_first_and_equal_views_are_its_floor():
    gene, chromosome = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 8, 16)))
    torch.testing.assert_close(nt_xent(gene, chromosome), nt_xent(chromosome, gene))
    apart = torch.eye(8, 16, dtype=torch.float64)
    floor = math.log(1 + 14 * math.exp(-1 / 0.5))
    assert nt_xent(apart, apart).item() == pytest.approx(floor, abs=1e-6)


def test_the_terms_are_those_of_the_options(parts):
    progress = Progress(0, 1, 0)
    for options, names in (
        ({}, {"groups", "sparsity"}),
        ({"objective": "pairs"}, {"between", "within_gene", "within_chromosome", "sparsity"}),
        ({"objective": "pairs", "within": 0.0, "sparsity": 0.0}, {"between"}),
        ({"contrast": "off"}, {"rebuild_gene", "rebuild_chromosome", "sparsity"}),
        ({"tower": {"kind": "mlp"}}, {"groups"}),
    ):
        system = MSConTab(**{**QUICK, **options})
        system.facts_ = system.learn_facts(parts.train)
        system.initialise()
        batch = batches(parts.train, system.config).get(0, 0)
        encoded = system.model_.encode(batch)
        terms = system.model_.losses(encoded, batch, progress)
        assert set(terms) == names
        assert set(loss_weights(system.config)) <= names
        if "groups" in names:
            rows = torch.cat([encoded[view].flatten(0, 1) for view in VIEWS])
            entity = batch["entity"].repeat_interleave(2).repeat(2)
            torch.testing.assert_close(terms["groups"], supcon(rows, entity, temperature=0.2))


def test_masks_choose_columns_names_or_classes():
    assert column_groups("columns", 24, 12) is None
    assert column_groups("names", 24, 12).tolist() == [0] * 12 + [1] * 12
    assert column_groups("classes", 24, 12).tolist() == [*range(12), *range(12)]


# ---- entities, splits, leaks -----------------------------------------------------------------------------------------


def test_parts_share_no_patient_and_a_shared_one_is_reported(parts):
    system = MSConTab(**QUICK)
    names = [set(part.counts.samples) for _, part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not system.leaks(parts.test, replace(parts.test)).clean


def test_halves_and_splits_of_the_data_are_obeyed(parts):
    counts = MSConTab(**QUICK).read(parts.train.counts.path).counts
    n = len(counts)
    half, split = tuple("AB"[row % 2] for row in range(n)), tuple(("train", "val", "test")[row % 3] for row in range(n))
    counts = replace(counts, columns={"half": half, "split": split})
    made = MSConTab(**QUICK).split(cohort_entities(counts))
    assert set(made.test.counts.columns["half"]) == {"B"}
    assert set(made.valid.counts.columns["split"]) == {"val"}
    assert set(made.train.counts.columns["half"]) == {"A"}
    patients = MSConTab(**QUICK, level="patient")
    assert set(patients.split(patient_entities(counts, 10)).test.counts.columns["split"]) == {"test"}
    with pytest.raises(DataError, match="column 'half' holds 'C'"):
        MSConTab(**QUICK).split(cohort_entities(replace(counts, columns={"half": ("C",) * n})))
    with pytest.raises(ConfigError, match="no column 'split'"):
        MSConTab(**QUICK, split_by="split").split(cohort_entities(replace(counts, columns={})))


def test_whole_cohorts_are_split_by_their_mutations_and_keep_their_names():
    counts = cohort_counts()
    system = MSConTab(**QUICK)
    made = system.split(cohort_entities(counts, whole=True))
    assert made.train.names == made.test.names
    assert system.leaks(made.train, made.test).clean
    with pytest.raises(DataError, match="whole cohorts, not patients"):
        patient_entities(counts, 10)


def test_a_row_and_its_twin_are_neighbours_by_name(fitted, parts):
    counts = parts.train.counts
    twins = replace(counts, cohorts=tuple("NS" if name == "basalt" else name for name in counts.cohorts))
    data = cohort_entities(twins)
    system = asked(fitted, top_k=1)
    found = system.predict(data).set_index("id")["cohort"]
    assert found["NS"] == "basalt"
    embedded = dict(zip(data.names, system.embed(data).vectors))
    same = dict(zip(parts.train.names, system.embed(cohort_entities(counts)).vectors))
    np.testing.assert_allclose(embedded["NS"], same["basalt"], atol=1e-6)


def test_shuffled_labels_bring_every_measure_of_the_cohorts_to_chance(parts):
    """Training on cohorts that mean nothing must not find cohorts of unseen patients."""
    rng = np.random.default_rng(0)

    def renamed(part):
        cohorts = tuple(np.array(part.counts.cohorts)[rng.permutation(len(part.counts))])
        return cohort_entities(replace(part.counts, cohorts=cohorts))

    train, test = renamed(parts.train), renamed(parts.test)
    system = MSConTab(**QUICK).fit(train)
    found = system.evaluate(test)
    assert abs(found["mrr"] - system.chance(test)) < 0.3
    assert found["patient accuracy"] < 0.3


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_neighbours_know_their_rank_and_leave_themselves_out(fitted, parts):
    found = asked(fitted, top_k=3).predict(parts.train)
    assert (found.groupby("id")["cohort"].count() == 3).all()
    assert not (found["id"] == found["cohort"]).any()
    assert (found.groupby("id")["cosine"].diff().dropna() <= 1e-6).all()


def test_entities_with_few_mutations_are_less_certain(fitted, parts):
    few = replace(parts.train.counts.take(np.arange(0, len(parts.train.counts), 6)))
    small, large = cohort_entities(few), parts.train
    means = [spread(fitted, data, fitted.vectors(data)).mean() for data in (small, large)]
    assert DRAWS == 8
    assert means[0] > means[1] > 0


def test_clusters_do_not_depend_on_the_order_of_rows(fitted, parts):
    data = parts.test
    order = np.random.default_rng(0).permutation(len(data))
    for method in ("kmeans", "ward"):
        system = asked(fitted, ask="clusters", method=method)
        first = system.predict(data).set_index("id")["cluster"]
        second = system.predict(data.take(order)).set_index("id")["cluster"]
        pd.testing.assert_series_equal(first.sort_index(), second.sort_index())
    found = asked(fitted, ask="clusters", clusters=3).predict(data)
    assert sorted(found["cluster"].unique()) == [1, 2, 3]
    assert found.groupby("cluster")["prototype"].sum().tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="at most 7"):
        asked(fitted, ask="clusters", clusters=8).predict(data)
    with pytest.raises(DataError, match="at least three"):
        clusters_of(fitted, data.take([0, 1]), np.ones((2, 4), np.float32))


def test_clusters_are_compared_with_a_null_and_with_themselves(fitted, parts):
    found = cluster_quality(fitted, parts.test)
    assert {"silhouette", "null silhouette", "seed agreement", "patient agreement"} <= found.keys()
    fewer = some_patients(parts.test, 0)
    assert all(len(some) < len(members) for some, members in zip(fewer.members, parts.test.members))
    rows = unit(fitted.vectors(parts.test))
    mixed = column_shuffled(rows, 0)
    assert np.allclose(np.sort(rows, axis=0), np.sort(mixed, axis=0))
    assert not np.allclose(rows, mixed)


def test_classes_of_patients_are_votes(fitted, parts):
    patients = patient_entities(parts.test.counts, 10)
    found = asked(fitted, ask="class", level="patient").predict(patients)
    assert len(found) == len(patients)
    assert (found["share"] >= found["second_share"]).all()
    assert (found["cohort"] == np.array(patients.truth)).mean() > 2 / 8


@pytest.mark.parametrize("kind", ["tabnet", "mlp"])
def test_what_mattered_adds_up_and_lies_where_mutations_are(parts, kind):
    system = MSConTab(**{**QUICK, "epochs": 1, "tower": {**QUICK["tower"], "kind": kind}, "ask": "explain", "top_k": 2})
    system.fit(parts.train)
    weights = importances(system, parts.test)
    for view, names in (("gene", 40), ("chromosome", 24)):
        assert weights[view].shape == (8, names, 12)
        np.testing.assert_allclose(weights[view].sum((1, 2)), 1, atol=1e-5)
    found = system.predict(parts.test)
    assert set(found["kind"]) == {"gene", "chromosome", "substitution"}
    assert set(found[found["kind"] == "chromosome"]["name"]) <= set(CHROMOSOMES)


def test_enrichment_and_profiles(fitted, parts):
    found = asked(fitted, ask="enrichment", clusters=2).predict(parts.test)
    assert (found["q"] >= found["p"] - 1e-12).all()
    np.testing.assert_allclose(found.groupby("cluster")["inside"].sum(), 1, atol=1e-9)
    profile = asked(fitted, ask="profile").predict(parts.test)
    assert profile[profile["view"] == "chromosome"]["n"].sum() == parts.test.totals().sum()


def test_the_folder_of_answers(fitted, parts, tmp_path):
    fitted.write_answers(fitted.predict(parts.test), parts.test, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "answers.csv", "clusters.csv", "embeddings.parquet", "neighbours.csv",
    }  # fmt: skip
    vectors = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert set(vectors["view"]) == {"joint", "gene", "chromosome"}


def test_new_patients_without_cohorts_are_answered(fitted, path, tmp_path):
    frame = read_mutations(path).to_frame().drop(columns=["cohort", "view"])
    wide = frame.rename(columns={"name": "gene"}).assign(chromosome="1").head(400)
    wide.to_csv(tmp_path / "new.csv", index=False)
    data = fitted.read(tmp_path / "new.csv", purpose="predict")
    assert data.level == "patient"
    assert len(asked(fitted, ask="class").predict(data)) == len(data)
    with pytest.raises(DataError, match="names no cohorts"):
        fitted.measure(data)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_strands_are_not_mixed_unless_classes_ignore_them(fitted):
    with pytest.raises(DataError, match="coding strand, and the model learned from the genomic"):
        fitted.embed(cohort_entities(cohort_counts()))


def test_training_data_that_cannot_teach_are_refused(parts, tmp_path):
    with pytest.raises(DataError, match="one cohort to train on"):
        MSConTab(**QUICK).fit(parts.train.take([0]))
    with pytest.raises(DataError, match="no patient with 10000"):
        patient_entities(parts.train.counts, 10_000)
    (tmp_path / "genes.txt").write_text("NOT_A_GENE")
    with pytest.raises(DataError, match="names no gene of the data"):
        MSConTab(**{**QUICK, "profile": {"vocabulary": tmp_path / "genes.txt"}}).fit(parts.train)
    with pytest.raises(ConfigError, match="'thin' needs"):
        MSConTab(draw={"thin": (0.9, 0.3)})


def test_known_vectors_are_saved_and_damage_is_named(fitted, tmp_path):
    fitted.known_.save(tmp_path / "known")
    again = Known.load(tmp_path / "known")
    assert np.array_equal(again.patients, fitted.known_.patients)
    assert again.places(("basalt", "unknown")).tolist() == [fitted.known_.names.index("basalt"), -1]
    (tmp_path / "known" / "names.json").write_text('{"names": ["one"]}')
    with pytest.raises(CheckpointError, match="numbers of names and vectors differ"):
        Known.load(tmp_path / "known")


def test_burden_is_the_rank_correlation_of_the_first_axis():
    totals = np.arange(1, 30) ** 3
    axis = np.log(totals)[:, None] * np.ones((1, 4))
    assert burden_correlation(axis.astype(np.float32), totals) == pytest.approx(1)
    assert burden_correlation(np.ones((5, 3), np.float32), np.arange(5)) == 0
