"""The elements encoder and the memory of frozen vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kontrast.encoders import encode_rows, kept, resolve_text_encoder
from kontrast.encoders.cached_texts import CachedTexts, weights_digest
from kontrast.encoders.elements import ElementsEncoder, element_rows
from kontrast.encoders.text import TextEncoderConfig
from kontrast.encoders.wordpieces import train_tokenizer

TEXTS = ["alpha beta", "gamma delta beta", "alpha alpha", "delta", "epsilon zeta"]
CONTEXT = 6


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 200, min_frequency=1)


def make(tokenizer, **options):
    sizes = {"context": CONTEXT, "table": 5, "sketch": 64} | options
    encoder = ElementsEncoder(
        tokenizer, frequency=np.ones(tokenizer.get_vocab_size(), int), documents=4, seed=1, **sizes
    )
    with torch.no_grad():  # gates that matter
        for name, parameter in encoder.named_parameters():
            if "gates" in name or name == "attention":
                generator = torch.Generator().manual_seed(3)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return encoder.eval()


def rows_of(tokenizer):
    ids = [encoding.ids for encoding in tokenizer.encode_batch(TEXTS, add_special_tokens=False)]
    vectors = np.random.default_rng(0).standard_normal((5, CONTEXT)).astype(np.float16)
    return element_rows(
        [[ids[0], ids[1]], [ids[2]], [ids[3], ids[4], ids[0]]],
        [[1, 3], [0], [11, 1, 2]],
        [[0, 1], [2], [3, -1, 4]],
        vectors,
    )


def test_a_vector_is_that_of_a_plain_loop(tokenizer):
    encoder, rows = make(tokenizer), rows_of(tokenizer)
    found = encode_rows(encoder, rows)
    for number in range(len(rows)):
        context = torch.zeros(CONTEXT)
        counts: dict[int, float] = {}
        for unit in range(rows.units[number], rows.units[number + 1]):
            tag = int(rows.tag[unit])
            if rows.context[unit] >= 0:
                vector = torch.from_numpy(rows.vectors[rows.context[unit]].astype(np.float32))
                gate = encoder.gates[tag] + vector @ encoder.attention - encoder.fall * np.log1p(rows.place[unit] / 3)
                context += gate.exp() * vector
            for word in range(rows.words[unit], rows.words[unit + 1]):
                token = int(rows.token[word])
                gained = float(rows.count[word]) * encoder.word_gates[tag].exp().item()
                counts[token] = counts.get(token, 0.0) + gained
        table, hashed = torch.zeros(5), torch.zeros(64)
        for token, count in counts.items():
            value = count**0.5 * encoder.word_weights[token].exp()
            table += value * encoder.table[token]
            hashed[encoder.slot[token]] += value * encoder.sign[token]
        unit_length = torch.nn.functional.normalize
        parts = [encoder.map(unit_length(context, dim=0)), table, hashed]
        weights = [0.5**0.5, 0.25**0.5, 0.25**0.5]
        expected = torch.cat([weight * unit_length(part, dim=0) for weight, part in zip(weights, parts)])
        np.testing.assert_allclose(found[number], expected.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_rows_are_encoded_alone_and_choosing_is_exact(tokenizer):
    encoder, rows = make(tokenizer), rows_of(tokenizer)
    whole = encode_rows(encoder, rows)
    for order in ([2, 0, 1], [1], [0, 0]):
        np.testing.assert_allclose(encode_rows(encoder, rows[np.array(order)]), whole[order], atol=1e-6)


def test_dropping_units_and_tags(tokenizer):
    encoder, rows = make(tokenizer), rows_of(tokenizer)
    kept = rows.keep(np.array([True, False, True, False, True, True]))
    assert kept.sizes.tolist() == [1, 1, 2]
    assert kept.place.tolist() == [0, 0, 1, 2]
    same = rows.keep(np.ones(6, bool))
    np.testing.assert_array_equal(encode_rows(encoder, same), encode_rows(encoder, rows))
    bare = encode_rows(encoder, rows.untagged())
    assert not np.allclose(bare[0], encode_rows(encoder, rows)[0], atol=1e-4)
    np.testing.assert_allclose(bare[1], encode_rows(encoder, rows)[1], atol=1e-6)
    nothing = encode_rows(encoder, rows.keep(np.zeros(6, bool)))
    assert np.isfinite(nothing).all()


@pytest.mark.parametrize("sizes", [{"table": 0, "sketch": 0}, {"context": 0, "table": 0}, {"context": 0, "sketch": 0}])
def test_each_part_works_alone_and_is_rebuilt_from_its_structure(tokenizer, sizes):
    encoder, rows = make(tokenizer, **sizes), rows_of(tokenizer)
    again = ElementsEncoder.from_structure(encoder.structure())
    again.load_state_dict(encoder.state_dict())
    np.testing.assert_array_equal(encode_rows(again, rows), encode_rows(encoder, rows))
    assert encode_rows(encoder, rows).shape == (3, encoder.dim)
    assert encoder.importance()["none"] == 1


def test_hashed_words_keep_the_cosine_of_bags_of_words(tokenizer):
    encoder = make(tokenizer, context=0, table=0, sketch=200_000)
    with torch.no_grad():
        encoder.word_gates.zero_()
    rows = rows_of(tokenizer)
    vectors = encode_rows(encoder, rows)
    bags = np.zeros((3, tokenizer.get_vocab_size()))
    owner = np.repeat(rows.row_of_unit, np.diff(rows.words))
    np.add.at(bags, (owner, rows.token), rows.count)
    bags = np.sqrt(bags) * encoder.word_weights.exp().detach().numpy()
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors @ vectors.T, bags @ bags.T, atol=1e-5)


def test_an_encoder_of_nothing_is_refused(tokenizer):
    with pytest.raises(ValueError, match="at least one"):
        ElementsEncoder(tokenizer)


# ---- vectors of a frozen encoder, remembered -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen():
    return resolve_text_encoder(TextEncoderConfig(name="bag", dim=12, vocab_size=200), texts=TEXTS, seed=0)


class Counting(CachedTexts):
    """Counts the texts that are computed."""

    computed = 0

    def _encoded(self, texts, describe):
        self.computed += len(texts)
        return super()._encoded(texts, describe)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    kept._memory.clear()
    yield tmp_path / "cache"
    kept._memory.clear()


def test_a_text_is_encoded_once_per_machine(frozen, own_cache):
    first = Counting(frozen)
    vectors = first.vectors([*TEXTS, TEXTS[0]])
    assert first.computed == len(TEXTS)
    np.testing.assert_array_equal(vectors[0], vectors[-1])
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    kept._memory.clear()
    second = Counting(frozen)
    np.testing.assert_array_equal(second.vectors(TEXTS[::-1]), vectors[:5][::-1])
    assert second.computed == 0
    second.vectors(["alpha epsilon"])
    assert second.computed == 1
    assert second.vectors([]).shape == (0, 12)


def test_a_damaged_cache_is_made_again(frozen, own_cache):
    first = Counting(frozen)
    vectors = first.vectors(TEXTS)
    first.kept.path.write_bytes(first.kept.path.read_bytes()[:100])
    kept._memory.clear()
    second = Counting(frozen)
    np.testing.assert_array_equal(second.vectors(TEXTS), vectors)
    assert second.computed == len(TEXTS)


def test_nothing_is_written_where_nothing_is_to_be_kept(frozen, own_cache):
    quiet = Counting(frozen, where="memory")
    quiet.vectors(TEXTS)
    quiet.vectors(TEXTS)
    assert quiet.computed == len(TEXTS)
    assert not own_cache.exists()


def test_the_digest_follows_the_weights(frozen):
    other = resolve_text_encoder(TextEncoderConfig(name="bag", dim=12, vocab_size=200), texts=TEXTS, seed=1)
    assert weights_digest(frozen) == weights_digest(frozen)
    assert weights_digest(frozen) != weights_digest(other)
