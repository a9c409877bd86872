"""ssu as a person meets it: questions, files, missing features, the stress set, groups of utterances."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kontrast.data.utterances import Stream, make_utterances, read_utterances
from kontrast.errors import ConfigError, DataError
from kontrast.systems.ssu import SSU, stress_set
from kontrast.systems.ssu.baselines import sequence_means, simple_baselines
from kontrast.systems.ssu.example import ADJECTIVES, made_up_utterances
from kontrast.systems.ssu.measuring import chance_mae, groups
from kontrast.systems.ssu.stress import SHORTEST, bearing_words, word_weights


@pytest.fixture(scope="module")
def talk():
    return stress_set(made_up_utterances(), seed=0)


@pytest.fixture(scope="module")
def fitted(talk):
    system = SSU(**{**SSU.smoke, "epochs": 3})
    parts = system.split(talk)
    return system.fit(parts.train, parts.valid)


@pytest.fixture(scope="module")
def test_part(talk, fitted):
    return fitted.split(talk).test


def asked(fitted, **options):
    """The same model with other options of the question."""
    other = SSU(fitted.config.changed(**options))
    other.facts_, other.model_ = fitted.facts_, fitted.model_
    return other


# ---- the stress set --------------------------------------------------------------------------------------------------


def test_the_stress_set_keeps_words_and_labels_and_is_repeatable(talk):
    plain = made_up_utterances()
    assert talk.tokens == plain.tokens
    assert np.array_equal(talk.labels, plain.labels)
    assert talk.audio.lengths.min() >= SHORTEST
    assert talk.audio.dim == talk.visual.dim == 20
    again = stress_set(plain, seed=0)
    assert np.array_equal(again.visual.values, talk.visual.values)
    alone = stress_set(plain.take([3]))
    own = slice(talk.visual.offsets[3], talk.visual.offsets[4])
    assert alone.visual.lengths[0] == talk.visual.lengths[3]
    assert alone.visual.dim == talk.visual.values[own].shape[1]
    assert not np.array_equal(stress_set(plain, seed=1).audio.values, talk.audio.values)


def test_bursts_follow_labels_where_the_word_stands(talk):
    weights = word_weights(talk)
    signed = [weights[word] * np.sign(value) for word, value in ADJECTIVES.items()]
    assert np.mean(signed) > 0.4
    assert bearing_words(("the", "plot", "was", "great"), {"great": 1.0, "plot": 0.2}) == [3.5 / 4]
    assert bearing_words(("not", "great"), {"great": 1.0, "not": -0.6}) == [1.5 / 2, 0.5 / 2]
    # Around the word the speaker's deviation from their mean tells the label; elsewhere it does not.
    near, far, labels = [], [], []
    for row in range(len(talk)):
        own = talk.audio.values[talk.audio.offsets[row] : talk.audio.offsets[row + 1]]
        others = np.concatenate([
            talk.audio.values[talk.audio.offsets[k] : talk.audio.offsets[k + 1]]
            for k in range(len(talk)) if talk.videos[k] == talk.videos[row]
        ])  # fmt: skip
        place = int(bearing_words(talk.tokens[row], weights)[0] * len(own))
        opposite = (place + len(own) // 2) % len(own)
        near.append((own - others.mean(0))[max(0, place - 1) : place + 2].mean(0))
        far.append((own - others.mean(0))[max(0, opposite - 1) : opposite + 2].mean(0))
        labels.append(talk.labels[row])
    found = [
        np.corrcoef(np.array(rows) @ np.linalg.lstsq(np.array(rows), np.array(labels), rcond=None)[0], labels)[0, 1]
        for rows in (near, far)
    ]
    assert found[0] > 0.6
    assert found[1] < found[0] - 0.2


def test_a_stress_set_needs_labels(talk):
    with pytest.raises(DataError, match="without a label"):
        stress_set(talk.with_labels(np.full(len(talk), np.nan)))


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_scores_are_a_table_within_bounds(fitted, test_part):
    table = fitted.predict(test_part)
    assert table.columns.tolist() == ["id", "text", "score", "polarity", "class"]
    assert table["score"].between(-3, 3).all()
    assert ((table["polarity"] == "positive") == (table["score"] > 0)).all()
    assert (table["class"] == np.rint(table["score"])).all()


def test_explanations_hold_edges_and_betas(fitted, test_part):
    few = test_part.take(np.arange(5))
    table = asked(fitted, ask="explain").predict(few)
    anchors = table[table["other_modality"] == "anchor"]
    assert set(table["edge"]) >= {"head", "dependent", "next", "anchor"}
    assert anchors.groupby(["id", "modality"])["weight"].sum().to_numpy() == pytest.approx(np.ones(15), abs=1e-4)
    own = anchors[(anchors["id"] == few.ids[0]) & (anchors["modality"] == "text")]
    assert own["name"].tolist() == list(few.tokens[0])
    cross = table[table["edge"] == "cross"]
    assert (cross["modality"] != cross["other_modality"]).all()
    # An utterance is explained the same among others and alone.
    alone = asked(fitted, ask="explain").predict(few.take([2]))
    among = table[table["id"] == few.ids[2]].reset_index(drop=True)
    assert among["name"].tolist() == alone["name"].tolist()
    assert among["weight"].to_numpy() == pytest.approx(alone["weight"].to_numpy(), abs=1e-4)


def test_statistics_of_graphs(fitted, test_part):
    table = asked(fitted, ask="graphs").predict(test_part.take(np.arange(4)))
    assert len(table) == 12
    assert table["kept"].between(0, 1).all()
    words = table[table["modality"] == "text"]
    assert (words["edges"] == 2 * (words["nodes"] - 1)).all()
    assert table["beta_sharpness"].between(-1e-6, 1).all()


def test_files_of_explanations(fitted, test_part, tmp_path):
    few = test_part.take(np.arange(3))
    system = asked(fitted, ask="explain")
    table = system.predict(few)
    system.write_answers(table, few, tmp_path / "graphs.json")
    held = json.loads((tmp_path / "graphs.json").read_text())
    assert [graph["id"] for graph in held] == list(few.ids)
    assert sum(len(graph["edges"]) for graph in held) == (table["other_modality"] != "anchor").sum()
    system.write_answers(table, few, tmp_path / "graphs.dot")
    text = (tmp_path / "graphs.dot").read_text()
    assert text.count("digraph") == 3
    assert text.count("{") == text.count("}")


def test_the_stress_set_is_an_answer_too(fitted, test_part, tmp_path):
    system = asked(fitted, ask="stress")
    system.write_answers(system.predict(test_part), test_part, tmp_path / "stress")
    made = read_utterances(tmp_path / "stress")
    assert made.ids == test_part.ids
    assert made.audio.lengths.min() >= SHORTEST


def test_files_belong_to_their_question(fitted, test_part, tmp_path):
    with pytest.raises(ConfigError, match="ask=explain"):
        fitted.write_answers(fitted.predict(test_part), test_part, tmp_path / "graphs.json")
    with pytest.raises(ConfigError, match="ask=stress"):
        fitted.write_answers(fitted.predict(test_part), test_part, tmp_path / "folder")


def test_each_view_has_vectors_of_its_own(fitted, test_part):
    found = [asked(fitted, view=view).embed(test_part).vectors for view in ("fuse", "ori", "anchor")]
    assert len({vectors.tobytes() for vectors in found}) == 3


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_other_features_than_those_learned_from_are_refused(talk, fitted):
    other = replace(talk, audio=Stream.of(np.ones((len(talk), 3)), np.arange(len(talk) + 1)))
    with pytest.raises(DataError, match="has 3 audio features, and the model learned from 20"):
        fitted.predict(other)
    words = talk.word_offsets
    vectors = replace(talk, text=Stream.of(np.random.default_rng(0).normal(size=(words[-1], 6)), words))
    system = SSU(**{**SSU.smoke, "epochs": 1}).fit(vectors.take(np.arange(60)))
    for data, said in (
        (talk, "no word vectors"),
        (replace(talk, text=Stream.of(np.ones((words[-1], 5)), words)), "length 5"),
    ):
        with pytest.raises(DataError, match=said):
            system.predict(data)
    sentences = replace(talk, sentence=np.ones((len(talk), 7), np.float32))
    system = SSU(**{**SSU.smoke, "epochs": 1}).fit(sentences.take(np.arange(60)))
    with pytest.raises(DataError, match="no sentence vectors"):
        system.predict(talk)


def test_aligned_models_refuse_unaligned_streams():
    rng = np.random.default_rng(0)
    words = [["a", "b"], ["c"], ["a"]]
    labels = np.array([1.0, -1.0, 0.0])
    audio = Stream.of(rng.normal(size=(4, 2)), np.array([0, 2, 3, 4]))
    data = make_utterances(["x", "y", "z"], words, labels=labels, audio=audio)
    system = SSU(**{**SSU.smoke, "epochs": 1}).fit(data)
    longer = make_utterances(["x"], [["a", "b"]], audio=Stream.of(np.ones((5, 2)), np.array([0, 5])))
    with pytest.raises(DataError, match="not aligned"):
        system.predict(longer)
    with pytest.raises(ConfigError, match=r"graph\.reading"):
        SSU(graph={"reading": "aligned"}).learn_facts(stress_set(made_up_utterances()))


def test_data_without_labels_train_nothing_and_predict(tmp_path, fitted, talk):
    (tmp_path / "new.jsonl").write_text('{"text": "the plot was not very good"}\n{"text": "charming"}\n')
    with pytest.raises(DataError, match="has no labels"):
        SSU().read(tmp_path / "new.jsonl")
    data = fitted.read(tmp_path / "new.jsonl", purpose="predict")
    assert len(fitted.predict(data)) == 2
    with pytest.raises(DataError, match="has no labels"):
        fitted.measure(data)
    for name in (figure.title for figure in fitted.figures(data)):
        assert name not in ("Seven classes", "Groups of utterances")


def test_videos_are_never_divided(talk):
    system = SSU(split_seed=3)
    parts = system.split(replace(talk, split=None))
    videos = [set(part.videos) for _, part in parts]
    assert len(videos) == 3
    assert sum(map(len, videos)) == len(set.union(*videos))
    none = replace(talk, split=("test",) * len(talk))
    with pytest.raises(DataError, match="no training part"):
        system.split(none)


def test_classes_are_three_where_seven_would_be_rare(talk):
    system = SSU()
    assert system.learn_facts(talk.take(np.arange(100)))["classes"] == 3
    labels = np.repeat(np.arange(-3.0, 4.0), 25)
    assert system.learn_facts(talk.take(np.arange(175)).with_labels(labels))["classes"] == 7


def test_a_missing_parser_is_said(talk, capsys):
    bare = replace(talk, heads=np.full(len(talk.heads), -1))
    SSU().learn_facts(bare)
    assert "no syntax" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"network": {"dim": 10, "heads": 4}}, {"fractions": (0.5, 0.1, 0.1)}])
def test_options_that_do_not_fit_together_are_refused(options):
    with pytest.raises(ConfigError, match=r"network\.dim|fractions"):
        SSU(**options)


# ---- measuring -------------------------------------------------------------------------------------------------------


def test_groups_and_chance(fitted, test_part):
    names = [name for name, _ in groups(test_part)]
    assert {"up to 5 words", "with negation", "without negation"} <= set(names)
    metrics = fitted.evaluate(test_part)
    assert metrics["mae with negation"] > 0
    scores = fitted.scores(test_part)
    drawn = [fitted.evaluate(fitted.permuted(test_part, seed))["mae"] for seed in range(20)]
    assert np.mean(drawn) == pytest.approx(fitted.chance(test_part), abs=0.05)
    assert fitted.chance(test_part) == pytest.approx(chance_mae(scores, test_part.labels))


def test_baselines_use_what_the_data_have(talk):
    system = SSU()
    parts = system.split(talk)
    found = simple_baselines(parts.train, parts.test)
    assert set(found) == {"constant", "TF-IDF ridge", "audio ridge", "visual ridge"}
    assert found["TF-IDF ridge"]["mae"] < found["constant"]["mae"] - 0.2
    truth = np.abs(parts.test.labels - parts.train.labels.mean()).mean()
    assert found["constant"]["mae"] == pytest.approx(float(truth), rel=1e-5)


def test_means_of_sequences_leave_out_neighbours():
    stream = Stream(
        np.array([[1.0], [3.0]], np.float32), np.array([0, 1, 1]), np.array([0, 2, 3, 3]),
        np.zeros(3, np.float32), np.array([True, False, True]),
    )  # fmt: skip
    assert sequence_means(stream)[:, 0].tolist() == [1.0, 3.0, 0.0]
