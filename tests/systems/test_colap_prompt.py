"""The prompt of colap: files, templates, slots, class words, and heads that begin with them."""

from __future__ import annotations

import pytest
import torch

from kontrast.data.languages import LanguageTexts
from kontrast.encoders import resolve_text_encoder
from kontrast.encoders.text import TextEncoderConfig
from kontrast.errors import ConfigError, DataError
from kontrast.files import write_json
from kontrast.systems.colap import Colap, Prompt, read_prompt
from kontrast.systems.colap.encoder import find_encoder, key_of_encoder
from kontrast.systems.colap.example import write_example_languages
from kontrast.systems.colap.prompt import built_in, classes_of, mask_token, slot_rows, word_pieces
from kontrast.systems.colap.reading import TextReader
from kontrast.systems.colap.words import own_head_parts, piece_ids, word_vectors

WORDS = "yes no maybe topic one two three four five six seven eight nine ten : ,"
TEXTS = [WORDS, WORDS]


@pytest.fixture(scope="module")
def encoder():
    config = TextEncoderConfig(name="transformer", dim=16, layers=1, heads=2, vocab_size=150, max_tokens=12)
    return resolve_text_encoder(config, texts=TEXTS).eval()


def write(folder, text):
    path = folder / "prompt.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_prompt_file_is_read(tmp_path):
    prompt = read_prompt(
        write(tmp_path, 'template: "{text} = {mask}"\nwords: {a: Yes, 1: No}\ncolumns: {text: body}\ncut: right\n')
    )
    assert prompt.fields == ["text"]
    assert prompt.words == {"a": "Yes", "1": "No"}
    assert (prompt.columns, prompt.cut) == ({"text": "body"}, "right")
    assert Prompt(**prompt.to_dict()) == prompt


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('template: "{text} = it"', "has 0 slots"),
        ('template: "{text} {mask} {mask}"', "has 2 slots"),
        ('template: "{mask}"', "names no field"),
        ("words: {a: b}", "needs a template"),
        ('template: "{text} {mask}"\nword: {a: b}', "unknown key 'word'; did you mean 'words'"),
        ('template: "{text} {mask}"\nwords: [a]', "words must be"),
        ('template: "{text} {mask}"\nwords: {a: }', "gives 'a' no word"),
        ('template: "{text} {mask}"\ncolumns: {texts: body}', "did you mean 'text'"),
        ('template: "{text} {mask}"\ncut: middle', "left or right"),
        ("- a", "not 'name: value' lines"),
        ("template: [", "not valid YAML"),
    ],
)
def test_broken_prompt_files_are_named(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_prompt(path)
    assert "prompt.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_without_words_are_their_own():
    prompt = built_in(["text"])
    assert [prompt.word(label) for label in ("science/technology", "per:city_of_birth", "x")] == [
        "science", "per city of birth", "x",
    ]  # fmt: skip
    nli = built_in(["premise", "hypothesis"])
    assert [nli.word(label) for label in ("entailment", "neutral", "contradiction")] == ["Yes", "Maybe", "No"]
    with pytest.raises(DataError, match="--prompt"):
        built_in(["body"])


def test_labels_that_share_a_word_are_one_class():
    prompt = Prompt("{text} {mask}", {"birth": "city", "death": "city", "age": "age"})
    assert classes_of(prompt, ["birth", "death", "age"]) == {"birth": "city", "death": "city", "age": "age"}
    with pytest.raises(ConfigError, match="no word for the label 'deat'; did you mean 'death'"):
        prompt.word("deat")


def test_the_slot_is_where_the_mask_stands(encoder):
    rows = slot_rows(Prompt("{text} topic : {mask} , {second}"), {"text": ["one two"], "second": ["three"]}, encoder)
    ids = rows.tokens.row(0)
    assert ids[rows.slot[0]] == mask_token(encoder)
    assert (ids == mask_token(encoder)).sum() == 1
    expected = ["[CLS]", "one", "two", "topic", ":", "[MASK]", ",", "three", "[SEP]"]
    assert [encoder.tokenizer.id_to_token(int(token)) for token in ids] == expected


@pytest.mark.parametrize(
    ("cut", "kept"), [("left", "five six seven eight nine ten"), ("right", "one two three four five")]
)
def test_long_texts_lose_tokens_and_never_the_slot(encoder, cut, kept):
    long = "one two three four five six seven eight nine ten"
    prompt = Prompt("{text} topic : {mask} {second}", cut=cut)
    rows = slot_rows(prompt, {"text": [long, "one"], "second": ["yes", "no"]}, encoder)
    assert rows.tokens.lengths.max() <= encoder.max_tokens
    for row in range(2):
        assert rows.tokens.row(row)[rows.slot[row]] == mask_token(encoder)
    assert encoder.tokenizer.decode(list(rows.tokens.row(0))).startswith(kept)


def test_a_template_that_leaves_no_room_is_refused(encoder):
    with pytest.raises(ConfigError, match="tokens without its fields"):
        slot_rows(Prompt("one two three four five six seven eight nine {text} {mask}"), {"text": ["one"]}, encoder)


def test_a_row_does_not_depend_on_the_rows_beside_it(encoder):
    reader = TextReader(lambda: encoder, "own", Prompt("{text} {mask}"), mode="vectors", layers=1, place="mask",
                        where="off")  # fmt: skip
    data = LanguageTexts.of({"text": ["one two three", "four", "five six seven eight"]}, "x")
    whole = reader.read(data).vectors
    for row in range(3):
        alone = reader.read(data.take([row])).vectors
        torch.testing.assert_close(torch.from_numpy(alone[0]), torch.from_numpy(whole[row]), rtol=1e-5, atol=1e-6)


def test_words_of_several_pieces_take_their_mean(encoder):
    assert len(word_pieces("yes", encoder)) == 1
    pieces = piece_ids(["yes", "no maybe"], encoder)
    vectors = word_vectors(encoder, pieces)
    table = encoder.model.get_input_embeddings().weight
    torch.testing.assert_close(vectors[1], table[pieces[1]].mean(0))
    with pytest.raises(ConfigError, match="'☃' is not in the encoder's vocabulary"):
        word_pieces("☃", encoder)


# ---- folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A tiny XLM-R with its language-model head, as a folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model") / "xlmr"
    example = write_example_languages(tmp_path_factory.mktemp("data"))
    texts = [line.split("\t")[2] for line in (example / "eng" / "train.tsv").read_text().splitlines()[1:]]
    words = ["cooking sailing gardening topic :"] * 3
    scratch = TextEncoderConfig(name="transformer", dim=16, layers=1, heads=2, vocab_size=400, max_tokens=32)
    tokenizer = resolve_text_encoder(scratch, texts=texts + words).tokenizer
    config = transformers.XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, type_vocab_size=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    write_json(folder / "tokenizer_config.json", {"model_max_length": 32, **names})
    return folder, example


def test_a_folder_with_a_language_model_head_uses_it(language_model, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, example = language_model
    options = {"text": {"name": str(folder)}, "train": "all", "place": "mask", "k": 6, "cache": "off",
               "source_stage": {"epochs": 1}, "epochs": 1, "targets": ["left"]}  # fmt: skip
    system = Colap(**options)
    parts = system.split(system.read(example))
    system.facts_ = system.learn_facts(parts.train)
    system.initialise()
    assert system.facts_["own_head"]
    some = parts.test.take(range(4))
    readings = system.reader().read(some)
    system._start_source(readings)
    logits = system.answers(some)[1]
    model = transformers.XLMRobertaForMaskedLM.from_pretrained(folder).eval()
    batch = readings.tensors()
    with torch.no_grad():
        full = model(input_ids=batch["ids"], attention_mask=batch["mask"]).logits
    at_slot = full[torch.arange(4), batch["slot"]]
    pieces = system.facts_["pieces"]
    assert all(len(ids) == 1 for ids in pieces)
    expected = at_slot[:, [ids[0] for ids in pieces]].softmax(1)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-5)
    system.fit(parts.train, parts.valid)
    again = Colap.load(system.save(tmp_path / "saved"))
    assert again.evaluate(parts.test) == system.evaluate(parts.test)


def test_a_folder_can_be_frozen_or_cut(language_model):
    folder, example = language_model
    for train in ("adapter", "layers"):
        system = Colap(text={"name": str(folder)}, train=train, k=6, cache="off", source_stage={"epochs": 1}, epochs=1,
                       targets=["left"])  # fmt: skip
        parts = system.split(system.read(example))
        system.fit(parts.train, parts.valid)
        assert system.facts_["own_head"] == (train == "layers")
        assert 0 <= system.evaluate(parts.test)["accuracy"] <= 1


def test_a_decoder_is_read_at_its_last_token(language_model, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, example = language_model
    vocabulary = resolve_text_encoder(str(folder)).tokenizer
    config = transformers.LlamaConfig(
        vocab_size=vocabulary.get_vocab_size(), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaModel(config).save_pretrained(tmp_path / "llama")
    vocabulary.save(str(tmp_path / "llama" / "tokenizer.json"))
    write_json(tmp_path / "llama" / "tokenizer_config.json", {"model_max_length": 32, "pad_token": "[PAD]"})
    options = {"text": {"name": str(tmp_path / "llama")}, "place": "eos", "k": 6, "cache": "off", "targets": ["left"],
               "source_stage": {"epochs": 1}, "epochs": 1}  # fmt: skip
    for train in ("adapter", "all"):
        system = Colap(**options, train=train)
        parts = system.split(system.read(example))
        found = system.fit(parts.train, parts.valid).evaluate(parts.test)
        saved = Colap.load(system.save(tmp_path / train))
        assert saved.evaluate(parts.test) == found
    with pytest.raises(ConfigError, match="family 'llama' cannot be cut between layers"):
        Colap(**options, train="layers").fit(parts.train)


def test_keys_of_encoders_follow_their_weights(language_model, encoder):
    folder, _ = language_model
    config = TextEncoderConfig(name=str(folder))
    first = key_of_encoder(config, find_encoder(config, [], 0))
    assert first == key_of_encoder(config, find_encoder(config, [], 1))
    scratch = TextEncoderConfig(name="transformer", dim=16, layers=1, heads=2, vocab_size=150, max_tokens=12)
    keys = {key_of_encoder(scratch, find_encoder(scratch, TEXTS, seed)) for seed in (0, 1)}
    assert len(keys) == 2


def test_an_encoder_without_a_head_has_none(encoder, tmp_path):
    assert own_head_parts(tmp_path, encoder) is None


def test_other_columns_and_words_by_a_prompt_file(tmp_path):
    lines = ["frage,thema,sprache,teil"]
    for row in range(40):
        part = "train" if row < 28 else "dev" if row < 32 else "test"
        lines.append(f"{('ba ce', 'di fo')[row % 2]} gu{row},{row % 2},{('en', 'de')[row // 2 % 2]},{part}")
    data = tmp_path / "data.csv"
    data.write_text("\n".join(lines) + "\n")
    prompt = write(
        tmp_path, 'template: "{text} {mask}"\nwords: {0: ba, 1: di}\n'
        "columns: {text: frage, label: thema, language: sprache, split: teil}\n",
    )  # fmt: skip
    system = Colap(**{**Colap.smoke, "prompt": str(prompt), "xrcl": 0.0, "xccl": 1.0, "translations": False, "k": 6})
    parts = system.split(system.read(data))
    system.fit(parts.train, parts.valid)
    assert system.facts_["words"] == ["ba", "di"]
    assert list(system.predict(parts.test)["label"].unique()) == ["0", "1"]
    saved = Colap.load(system.save(tmp_path / "model"))
    prompt.unlink()  # the model has its own
    data.write_text("\n".join(line.rsplit(",", 3)[0] + ",de" for line in lines).replace("frage,de", "frage,sprache"))
    assert len(saved.predict(saved.read(data, purpose="predict"))) == 40
