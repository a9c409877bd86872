"""colap: parts, episodes, stages, answers, what is kept, and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from kontrast.data.languages import LanguageTexts
from kontrast.errors import CheckpointError, ConfigError, DataError
from kontrast.systems.colap import Colap, sweep
from kontrast.systems.colap.measuring import macro_f1
from kontrast.systems.colap.model import Cut, key_of
from kontrast.systems.colap.sweep import summary
from kontrast.systems.colap.views import draw_episode, episode_batches, roles

SMALL = {**Colap.smoke, "source_stage": {"epochs": 8, "optimiser": {"learning_rate": 3e-3}}, "epochs": 3}


def make(**options):
    return Colap(**{**SMALL, **options})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    system = make()
    return system.split(system.read(Colap.write_example(tmp_path_factory.mktemp("example"))))


@pytest.fixture(scope="module")
def trained(parts):
    return make().fit(parts.train, parts.valid)


# ---- parts and languages ----------------------------------------------------------------------------------------


def texts(languages, labels=("a", "b"), rows=6, part="train", pairs=True):
    found = []
    for language in languages:
        cells = [f"{language} {row} {labels[row % len(labels)]}" for row in range(rows)]
        found.append(
            LanguageTexts.of(
                {"text": cells}, language, label=[labels[row % len(labels)] for row in range(rows)],
                pair=[str(row) for row in range(rows)] if pairs else None, part=part,
            )
        )  # fmt: skip
    return LanguageTexts.joined(found)


def test_data_without_parts_are_split_with_translations_together():
    data = texts(["eng", "swh"], rows=40, part=None)
    parts = make().split(data)
    sets = [set(part.pair) for _, part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40
    assert make().leaks(parts.train, parts.test).clean


def test_a_language_with_dev_and_test_alone_is_trained_on_dev():
    data = LanguageTexts.joined([texts(["eng"]), texts(["aym"], part="valid"), texts(["aym"], part="test")])
    parts = make().split(data)
    assert parts.train.languages == ["aym", "eng"]
    assert parts.valid is None
    beside = LanguageTexts.joined([data, texts(["eng"], part="valid", rows=8)])
    parts = make().split(beside)
    assert list(parts.valid.pair) == ["6", "7"]  # the others are translations of Aymara texts that are trained on


def test_a_leaked_translation_is_noticed():
    train, test = texts(["eng"]), texts(["swh"], part="test")
    report = make().leaks(train, test)
    assert not report.clean
    assert report["translation", "group"].n_leaked == 6
    assert report["text", "normalised"].n_leaked == 0


def test_roles():
    data = texts(["fra", "eng", "swh"])
    assert roles(make().config, data) == ("eng", ["fra", "swh"])
    assert roles(make(source="fra", targets=["swh"]).config, data) == ("fra", ["swh"])
    assert roles(make().config, texts(["x", "y"]))[0] == "x"
    with pytest.raises(DataError, match=r"no labelled training texts in 'swa'.*did you mean 'swh'"):
        roles(make(targets=["swa"]).config, data)


def test_without_english_the_source_is_the_language_with_most_labels_beside_the_targets(tmp_path):
    for language, rows in (("de", 8), ("qu", 12), ("gn", 4)):
        lines = "".join(f"{language} {row},{'ab'[row % 2]}\n" for row in range(rows))
        (tmp_path / f"train_{language}.csv").write_text("text,label\n" + lines)
    data = make(targets=["qu"]).read(tmp_path)
    assert data.languages == ["de", "qu"]
    assert roles(make(targets=["qu"]).config, data) == ("de", ["qu"])
    with pytest.raises(DataError, match="in qu alone, all of them target languages"):
        roles(make(targets=["qu"]).config, data.take(data.language == "qu"))


def test_a_target_language_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = Colap.write_example(tmp_path)
    with pytest.raises(
        DataError, match=r"no texts in 'lefd' \(option 'targets'\); did you mean 'left'.*eng, left, right"
    ):
        make(targets=["right", "lefd"]).read(path)
    assert make(source="eng", targets=["left"]).read(path).languages == ["eng", "left"]


def test_a_target_label_that_the_source_lacks_is_named():
    data = LanguageTexts.joined([texts(["eng"]), texts(["swh"], labels=("a", "c"))])
    with pytest.raises(DataError, match=r"the label 'c', which the training texts of the source language do not have"):
        make().fit(data)


# ---- episodes ---------------------------------------------------------------------------------------------------


def classes_of(data):
    return {label: number for number, label in enumerate(sorted(set(data.label)))}


def episode(data, k, **options):
    return draw_episode(data, classes_of(data), "eng", "swh", make(k=k, **options).config)


def test_smaller_episodes_are_parts_of_larger_ones():
    data = texts(["eng", "swh"], labels=tuple("abcdefg"), rows=70)
    found = [set(episode(data, k).target) for k in (0, 3, 5, 7, 10, 35, 50)]
    assert [len(rows) for rows in found] == [0, 3, 5, 7, 10, 35, 50]
    for small, large in pairwise(found):
        assert small <= large
    assert found[1] != set(episode(data, 3, seed=1).target)


def test_examples_are_dealt_evenly_and_stand_beside_their_translations():
    data = texts(["eng", "swh"], labels=tuple("abc"), rows=60)
    drawn = episode(data, 14)
    counts = pd.Series(data.label[drawn.target]).value_counts()
    assert sorted(counts) == [4, 5, 5]
    assert list(data.pair[drawn.source]) == list(data.pair[drawn.target])
    assert set(data.language[drawn.source]) == {"eng"}


def test_without_translations_partners_are_other_texts_of_the_class():
    data = texts(["eng", "swh"], labels=tuple("abc"), rows=60)
    drawn = episode(data, 12, translations=False)
    assert list(data.label[drawn.source]) == list(data.label[drawn.target])
    assert not set(data.pair[drawn.source]) & set(data.pair[drawn.target])
    assert len(set(drawn.source)) == 12


def test_missing_translations_are_refused_where_they_are_needed():
    data = texts(["eng", "swh"], rows=20, pairs=False)
    with pytest.raises(DataError, match=r"4 of 4 examples in 'swh' have no translation in 'eng'.*--translations false"):
        episode(data, 4)
    assert len(episode(data, 4, xrcl=0.0, xccl=1.0)) == 4
    assert len(episode(data, 4, contrast="off")) == 4


def test_a_small_pool_gives_what_it_has():
    assert len(episode(texts(["eng", "swh"], rows=6), 50)) == 6


def test_the_order_of_the_rows_changes_no_episode():
    data = texts(["eng", "swh"], labels=tuple("abc"), rows=60)
    order = np.random.default_rng(0).permutation(len(data))
    first, second = episode(data, 12), episode(data.take(order), 12)
    assert list(data.pair[first.target]) == list(data.take(order).pair[second.target])


def test_the_null_control_moves_partners_and_nothing_else(trained, parts):
    reader, classes = trained.reader(), trained.facts_["classes"]
    drawn = draw_episode(parts.train, classes, "eng", "left", trained.config)
    own, beside = (reader.read(parts.train.take(rows)) for rows in (drawn.target, drawn.source))
    codes = np.asarray([classes[label] for label in parts.train.label[drawn.target]])
    on, null, off = (
        episode_batches(own, beside, codes, codes, trained.config.changed(contrast=arm)).get(0, 0)
        for arm in ("on", "shuffled", "off")
    )
    assert torch.equal(on["target_vectors"], null["target_vectors"])
    assert torch.equal(on["target_class"], null["target_class"])
    assert not torch.equal(on["source_vectors"], null["source_vectors"])
    assert torch.equal(on["paired_class"], null["paired_class"])
    assert not torch.equal(null["source_class"], null["paired_class"])
    assert "source_vectors" not in off


# ---- stages -----------------------------------------------------------------------------------------------------


def test_without_examples_it_is_zero_shot_exactly(trained, parts):
    none = trained.beside(trained.config.changed(k=0))
    assert not list(none.adaptations(parts.train))
    answers, before = none.answers(parts.test)[1], none.answers(parts.test, zero_shot=True)[1]
    np.testing.assert_array_equal(answers, before)
    assert none.evaluate(parts.test)["gap"] == none.evaluate(parts.test)["zero-shot gap"]
    assert not none.predict(parts.test).query("language == 'left'")["adapted"].any()


def test_each_target_language_has_its_own_classifier(trained, parts):
    states = [trained.model_.branch(language).state_dict() for language in ("eng", "left", "right", "unheard of")]
    assert torch.equal(states[0]["head.linear.weight"], states[3]["head.linear.weight"])
    assert not torch.equal(states[0]["head.linear.weight"], states[1]["head.linear.weight"])
    assert not torch.equal(states[1]["head.linear.weight"], states[2]["head.linear.weight"])
    assert key_of("a.b") != key_of("a_b")
    stages = set(trained.history_["stage"])
    assert stages == {"source", "adapt-1-left", "adapt-2-right"}
    assert trained.vectors(parts.test, "left").shape == (len(parts.test), 32)


def test_the_source_stage_is_the_same_in_all_arms_and_kept_for_them(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path))
    first = make(cache="disk").fit(parts.train, parts.valid)
    kept = list((tmp_path / "colap").iterdir())
    assert len(kept) == 1
    again = make(cache="disk").fit(parts.train, parts.valid)
    plain = make().fit(parts.train, parts.valid)
    for other in (again, plain):
        pd.testing.assert_frame_equal(first.history_, other.history_)
        np.testing.assert_array_equal(first.embed(parts.test).vectors, other.embed(parts.test).vectors)
    off = make(cache="disk", contrast="off").fit(parts.train, parts.valid)
    assert list((tmp_path / "colap").iterdir()) == kept
    assert "loss/xrcl" not in off.history_.columns
    for name, tensor in first.model_.source.state_dict().items():
        assert torch.equal(tensor, off.model_.source.state_dict()[name])
    make(cache="disk", seed=1).fit(parts.train, parts.valid)
    assert len(list((tmp_path / "colap").iterdir())) == 2
    (kept[0] / "branch.safetensors").write_bytes(b"damaged")
    mended = make(cache="disk").fit(parts.train, parts.valid)
    np.testing.assert_array_equal(first.embed(parts.test).vectors, mended.embed(parts.test).vectors)


@pytest.mark.parametrize("options", [{"train": "layers", "frozen": 1}, {"train": "all", "place": "mask"}])
def test_layers_learn_too(parts, options, tmp_path):
    short = {"source_stage": {"epochs": 1}, "epochs": 1, "targets": ["left"], **options}
    system = make(**short).fit(parts.train, parts.valid)
    before = system.evaluate(parts.test)
    loaded = Colap.load(system.save(tmp_path / "model"))
    assert loaded.evaluate(parts.test) == before
    cut = Cut.of(system.config, 2)
    assert (cut.frozen, cut.contrast) == ((1, 1) if options["train"] == "layers" else (0, 2))
    source, adapted = system.model_.source.state_dict(), system.model_.branch("left").state_dict()
    changed = [name for name in source if name.startswith("body.") and not torch.equal(source[name], adapted[name])]
    assert changed
    assert any("embeddings" in name for name in changed) == (options["train"] == "all")


def test_the_contrast_must_be_above_what_is_frozen():
    with pytest.raises(ConfigError, match="'contrast_layer': must be above the 6 frozen layers and at most 12, got 4"):
        Cut.of(make(train="layers", contrast_layer=4).config, 12)
    with pytest.raises(ConfigError, match="'frozen': must leave some of the encoder's 12 layers to train, got 12"):
        Cut.of(make(train="layers", frozen=12).config, 12)
    assert Cut.of(Colap.Config.preset("paper"), 12) == Cut("ids", 0, 9)


@pytest.mark.parametrize(
    "options", [{"xccl": 1.0, "xrcl": 0.0}, {"source_ce": 1.0}, {"xrcl_numerator": "batch_sum"}, {"place": "eos"}]
)
def test_other_second_stages_run(trained, parts, options):
    system = make(**options).fit(parts.train, parts.valid)
    assert np.isfinite(system.evaluate(parts.test)["accuracy"])
    assert not np.array_equal(system.embed(parts.test).vectors, trained.embed(parts.test).vectors)


# ---- answers ----------------------------------------------------------------------------------------------------


def test_answers_are_probabilities_of_the_classes(trained, parts):
    frame = trained.predict(parts.test)
    columns = [name for name in frame.columns if name.startswith("p(")]
    assert columns == ["p(cooking)", "p(gardening)", "p(sailing)"]
    np.testing.assert_allclose(frame[columns].sum(axis=1), 1, rtol=1e-5)
    best = [columns[number][2:-1] for number in frame[columns].to_numpy().argmax(1)]
    assert best == list(frame["label"])


def test_measure_names_each_language(trained, parts):
    found = trained.evaluate(parts.test)
    assert found["accuracy"] == pytest.approx((found["accuracy left"] + found["accuracy right"]) / 2)
    assert found["gap"] == pytest.approx(found["source accuracy"] - found["accuracy"])
    alone = trained.evaluate(parts.test.take(parts.test.language == "eng"))
    assert alone["accuracy"] == pytest.approx(found["source accuracy"])
    assert "gap" not in alone


def test_macro_f1_counts_classes_that_occur():
    truth, predicted = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 1, 3])
    assert macro_f1(truth, predicted) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_unknown_labels_are_named(trained, parts):
    other = LanguageTexts.of({"text": ["ba ce"]}, "left", label=["cookin"])
    with pytest.raises(DataError, match=r"'cookin'.*did you mean 'cooking'"):
        trained.evaluate(other)
    with pytest.raises(DataError, match="no labels to measure against"):
        trained.evaluate(LanguageTexts.of({"text": ["ba ce"]}, "left"))


def test_figures_show_languages_classes_and_mistakes(trained, parts):
    titles = [figure.title for figure in trained.figures(parts.test)]
    assert titles[0] == "Accuracy by language"
    assert titles[1].startswith("eng and ")
    assert titles[-1] == "The surest mistakes"
    json.dumps([figure.plotly for figure in trained.figures(parts.test) if figure.plotly])


def test_a_sweep_is_one_table(parts):
    config = make(source_stage={"epochs": 1}, epochs=1).config
    losses = {"CE": {"contrast": "off"}, "CE + XRCL": {}}
    table = sweep(config, parts, ks=[3, 6], seeds=[0], losses=losses)
    assert set(table["loss"]) == {"zero-shot", "CE", "CE + XRCL"}
    assert len(table) == 3 + 2 * 2 * 2
    assert set(table[table["k"] == 0]["language"]) == {"eng", "left", "right"}
    assert summary(table).query("loss == 'CE'")["minus CE"].tolist() == [0.0, 0.0]


def test_a_packaged_or_own_encoder_is_needed_again(trained, tmp_path):
    folder = trained.save(tmp_path / "model")
    (folder / "encoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Colap.load(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": []}, "at least one language"),
        ({"source": "eng", "targets": ["eng"]}, "must not name the source language 'eng'"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options)


def test_training_data_that_cannot_be_learned_from(parts):
    with pytest.raises(DataError, match="has 1 label in its training texts"):
        make().fit(texts(["eng", "swh"], labels=("a",)))
    with pytest.raises(ConfigError, match="'bag' has no layers"):
        make(text={"name": "bag"}).fit(parts.train)
    unlabelled = LanguageTexts.of({"text": ["a", "b"]}, "eng", part="train")
    with pytest.raises(DataError, match="no labelled texts"):
        make().fit(unlabelled)
