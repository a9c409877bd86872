"""cozad as a whole: whole domains are held out, answers, protocols, broken data."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kontrast.data.surfaces import SurfaceSet
from kontrast.data.surfaces import files as stored_files
from kontrast.errors import ConfigError, DataError
from kontrast.systems.cozad import CoZAD
from kontrast.systems.cozad.config import CoZADConfig
from kontrast.systems.cozad.measuring import beaten_shares, enlarged, surface_metrics
from kontrast.systems.cozad.splitting import split_surfaces


def make(**options):
    return CoZAD(**{**CoZAD.smoke, **options})


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return CoZAD.write_example(tmp_path_factory.mktemp("cozad"))


@pytest.fixture(scope="module")
def parts(example):
    system = make()
    return system.split(system.read(example))


@pytest.fixture(scope="module")
def fitted(parts):
    return make().fit(parts.train, parts.valid)


# ---- what is held out ------------------------------------------------------------------------------------------------


def test_the_held_out_domain_is_in_no_other_part(parts):
    assert parts.test.domains == ("weave",)
    assert set(parts.train.domains) == set(parts.valid.domains) == {"dots", "stripes"}
    assert (parts.train.labels == 0).all()
    assert all(row.part == "train" for row in parts.train.rows)


def test_no_file_of_the_held_out_domain_is_opened_before_it_is_scored(example, monkeypatch):
    opened = []
    read = stored_files._from_disk

    def spy(path):
        opened.append(path)
        return read(path)

    monkeypatch.setattr(stored_files, "_from_disk", spy)
    system = make(held_out="dots", features={**CoZAD.smoke["features"], "cache": "off"})
    parts = system.split(system.read(example))
    system.fit(parts.train, parts.valid)
    assert opened
    assert not [path for path in opened if "dots" in path.relative_to(example).parts]
    system.evaluate(parts.test)
    assert [path for path in opened if "dots" in path.relative_to(example).parts]


def test_training_is_the_same_without_the_held_out_files(example, fitted, tmp_path):
    copy = shutil.copytree(example, tmp_path / "surfaces")
    for path in (copy / "weave").rglob("*.png"):
        path.write_bytes(b"nothing")
    system = make()
    parts = system.split(system.read(copy))
    system.fit(parts.train, parts.valid)
    assert system.facts_["scoring"] == fitted.facts_["scoring"]
    for name, tensor in fitted.model_.state_dict().items():
        assert np.array_equal(tensor.numpy(), system.model_.state_dict()[name].numpy(), equal_nan=True), name


def test_held_out_names_are_checked(example):
    data = make().read(example)
    with pytest.raises(ConfigError, match="did you mean 'dots'"):
        make(held_out="dot").split(data)
    with pytest.raises(ConfigError, match="not held out"):
        make(held_out="dots, stripes,weave").split(data)
    two = make(held_out="dots,weave").split(data)
    assert set(two.test.domains) == {"dots", "weave"}
    assert two.train.domains == ("stripes",)


def test_one_domain_alone_needs_the_other_protocol(example):
    with pytest.raises(ConfigError, match="in-domain"):
        make().split(make().read(example / "weave"))
    system = make(protocol="in-domain")
    parts = system.split(system.read(example / "weave"))
    assert parts.train.domains == parts.test.domains
    system.fit(parts.train, parts.valid)
    assert system.evaluate(parts.test)["auroc"] > 0.8
    assert "drawn" in system.scoring.chosen_on


def test_data_without_parts_are_dealt_by_group(example):
    data = make().read(example)
    bare = SurfaceSet(tuple(replace(row, part="", mask=None) for row in data.rows))
    parts = split_surfaces(bare, CoZADConfig(choose="pseudo"))
    again = split_surfaces(bare.take(np.arange(len(bare))[::-1]), CoZADConfig(choose="pseudo"))
    ids = {row.id for row in parts.train.rows}
    assert ids.isdisjoint(row.id for row in parts.valid.rows)
    assert {row.id for row in again.train.rows} | {row.id for row in again.valid.rows} == ids | {
        row.id for row in parts.valid.rows
    }
    assert {row.label for row in parts.test.rows} == {0, 1}


def test_contamination_replaces_normal_images(example):
    data = make().read(example)
    dirty = make(contamination=0.25).split(data)
    clean = make().split(data)
    assert len(dirty.train) == len(clean.train)
    assert (dirty.train.labels == 1).sum() == 4
    assert {row.domain for row in dirty.train.rows} == {"dots", "stripes"}
    assert {row.id for row in dirty.train.rows}.isdisjoint(row.id for row in dirty.valid.rows)
    assert make().leaks(dirty.train, dirty.test).clean


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_an_image_has_the_same_map_alone_and_among_others(fitted, parts):
    whole = fitted.scored(parts.test)
    for row in (0, 7):
        alone = fitted.scored(parts.test.take([row]))
        assert alone.scores[0] == whole.scores[row]
        assert np.array_equal(alone.maps[0], whole.maps[row])


def test_anomalies_score_high_where_they_are(fitted, parts):
    metrics = fitted.evaluate(parts.test)
    assert metrics["auroc"] > 0.9
    assert metrics["pixel auroc"] > 0.9
    assert metrics["pro"] > 0.5


def test_questions(fitted, parts, monkeypatch):
    def asked(**options):
        monkeypatch.setattr(fitted, "config", fitted.config.changed(**options))
        return fitted.predict(parts.test)

    weights = asked(ask="weights", top_k=5)
    assert list(weights.columns) == ["id", "domain", "weight", "score"]
    assert len(weights) == 5
    assert weights["weight"].is_monotonic_increasing
    assert set(weights["domain"]) <= {"dots", "stripes"}
    strict, loose = asked(ask="threshold", fpr=0.01), asked(ask="threshold", fpr=0.5)
    assert list(strict["domain"]) == ["dots", "stripes", "all sources"]
    assert (strict["threshold"] >= loose["threshold"]).all()
    assert strict["caution"].str.contains("differ").all()


def test_heat_maps_and_overlays_are_written(fitted, parts, tmp_path):
    some = parts.test.take([0, len(parts.test) - 1])
    answers = fitted.predict(some)
    fitted.write_answers(answers, some, tmp_path / "out")
    frame = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert list(frame["id"]) == [row.id for row in some.rows]
    for kind in ("maps", "overlays"):
        for row in some.rows:
            with Image.open(tmp_path / "out" / kind / row.id) as image:
                assert image.size == (64, 64)
                assert image.mode == "RGB"


def test_single_images_are_scored(fitted, parts, example):
    path = example / "weave" / "test" / "stain" / "000.png"
    data = fitted.read(path, purpose="predict")
    whole = fitted.predict(parts.test).set_index("id")["score"]
    assert fitted.predict(data)["score"][0] == whole["weave/test/stain/000.png"]


def test_transduction_depends_on_the_batch_and_not_on_its_order(fitted, parts, monkeypatch):
    plain = fitted.embed(parts.test)
    monkeypatch.setattr(fitted, "config", fitted.config.changed(adapt="transductive"))
    first = fitted.embed(parts.test)
    order = np.random.default_rng(0).permutation(len(parts.test))
    second = fitted.embed(parts.test.take(order))
    assert not np.array_equal(plain.vectors, first.vectors)
    assert np.array_equal(first.vectors[order], second.vectors)


def test_whole_data_are_measured_on_unseen_domains(fitted, parts, example):
    whole = fitted.read(example)
    assert fitted.evaluate(whole)["auroc"] == fitted.evaluate(parts.test)["auroc"]


def test_all_baselines_are_there(fitted, parts):
    found = fitted.baselines(parts.train, parts.test)
    assert any("not zero-shot" in name for name in found)
    assert {name for name, metrics in found.items() if "pixel auroc" in metrics} == set(found) - {"chance"}


@pytest.mark.parametrize("choose", ["pseudo", "fixed"])
def test_scores_can_be_chosen_without_labels(example, choose):
    system = make(choose=choose)
    parts = system.split(system.read(example))
    assert (parts.valid.labels == 0).all()
    system.fit(parts.train, parts.valid)
    assert "drawn" in system.scoring.chosen_on
    assert system.evaluate(parts.test)["auroc"] > 0.6


# ---- measuring -------------------------------------------------------------------------------------------------------


def test_the_mean_of_beaten_shares_is_the_auroc_of_a_domain(parts):
    scores = np.random.default_rng(0).normal(size=len(parts.test)).round(1)
    shares, rows = beaten_shares(scores, parts.test)
    metrics = surface_metrics(scores, None, parts.test, side=32, smoothing=1.0)
    assert metrics["auroc"] == pytest.approx(shares.mean())
    assert (parts.test.labels[rows] == 1).all()
    assert "pixel auroc" not in metrics


def test_one_class_only_is_refused(parts, fitted, example):
    with pytest.raises(DataError, match="normal images of 'weave' only"):
        fitted.evaluate(parts.test.take(parts.test.labels == 0))
    data = make().read(example)
    with pytest.raises(DataError, match="no anomalous test image"):
        make(held_out="weave").split(data.take(~(data.of("weave") & (data.labels == 1))))
    with pytest.raises(DataError, match="no normal training image"):
        make().split(data.take(np.array([row.part == "test" for row in data.rows])))


def test_unlabelled_images_cannot_be_trained_on(tmp_path):
    for number in range(3):
        Image.fromarray(np.full((32, 32), number * 50, np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="which images are normal"):
        make().read(tmp_path)
    assert len(make().read(tmp_path, purpose="predict")) == 3


def test_a_cut_image_is_named_when_it_is_needed(example, tmp_path):
    copy = shutil.copytree(example, tmp_path / "surfaces")
    path = copy / "dots" / "train" / "good" / "003.png"
    path.write_bytes(path.read_bytes()[:200])
    system = make()
    parts = system.split(system.read(copy))
    with pytest.raises(DataError, match=r"003\.png"):
        system.fit(parts.train, parts.valid)


def test_maps_grow_to_the_side_of_the_masks():
    maps = [np.eye(4, dtype=np.float32)]
    assert enlarged(maps, 32, 2.0)[0].shape == (32, 32)
    assert enlarged(maps, 32, 0.0)[0].max() == pytest.approx(1)
    with pytest.raises(ConfigError, match="multiple of 16"):
        make(features={"side": 100})
