"""The padding-free path of transformer encoders: the vectors of the padded forward, whatever the batch and the rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from encoder_texts import some_texts
from torch import nn

from kontrast.encoders import TextEncoderConfig, encode_rows, inference, resolve_text_encoder
from kontrast.encoders.base import to_device
from kontrast.encoders.packed import PackedRows, packable
from kontrast.encoders.tokens import TokenIds
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.encoders.wordpieces import train_tokenizer
from kontrast.errors import ConfigError, MissingExtraError

transformers = pytest.importorskip("transformers")
TEXTS = [*some_texts(90), "", "one"]
SCRATCH = TextEncoderConfig(name="transformer", dim=32, heads=4, layers=2, vocab_size=400, max_tokens=30)


def roberta(pooling: str = "mean") -> TransformerEncoder:
    """A small RoBERTa, whose positions start behind the padding id."""
    config = transformers.RobertaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.RobertaModel(config, add_pooling_layer=False)
    return TransformerEncoder(model, train_tokenizer(TEXTS, 400), pooling=pooling, max_tokens=30, normalize=True)


@pytest.fixture(scope="module")
def encoders() -> dict[str, TransformerEncoder]:
    made = {"scratch": resolve_text_encoder(SCRATCH, texts=TEXTS, seed=3), "roberta": roberta(), "cls": roberta("cls")}
    # Weights as large as those of trained models: at their start transformers hardly attend at all.
    for encoder in made.values():
        generator = torch.Generator().manual_seed(1)
        for parameter in encoder.parameters():
            if parameter.ndim == 2:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.25
    return made


def padded(encoder: TransformerEncoder, rows: TokenIds) -> np.ndarray:
    """What training computes, in evaluation mode."""
    with torch.no_grad():
        return encoder.eval()(to_device(encoder.collate(rows), encoder.device)).numpy()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["scratch", "roberta", "cls"])
def test_the_vectors_are_those_of_training(encoders, name):
    encoder = encoders[name]
    assert packable(encoder.model)
    rows = encoder.tokenize(TEXTS)
    exact = encode_rows(encoder, rows, batch_size=17)
    np.testing.assert_allclose(exact, padded(encoder, rows), atol=2e-6 * np.abs(exact).max())
    with inference(precision="bf16") as used:
        low = encode_rows(encoder, rows)
    assert used.lowered
    assert 0.995 < cosines(low, exact).min() < 1
    assert (low != exact).any()


def test_a_pretrained_model(monkeypatch, tmp_path):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path))
    try:
        encoder = resolve_text_encoder("minilm")
    except MissingExtraError as error:
        pytest.skip(str(error))
    rows = encoder.tokenize(TEXTS)
    exact = encode_rows(encoder, rows)
    assert cosines(exact, padded(encoder, rows)).min() >= 0.9999
    assert np.abs(exact - padded(encoder, rows)).max() < 1e-5
    with inference(precision="bf16"):
        assert cosines(encode_rows(encoder, rows), exact).min() >= 0.999


def test_packing_keeps_tokens_and_order():
    rows = TokenIds.of([[7], [8, 9, 10], [], [11]])
    packed = PackedRows.of(rows, [1], [2, 3])
    assert packed.order.tolist() == [1, 0, 3, 2]
    assert packed.ids.tolist() == [1, 8, 9, 10, 2, 3, 1, 7, 2, 3, 1, 11, 2, 3, 1, 2, 3]
    assert packed.places.tolist() == [*range(6), *range(4), *range(4), *range(3)]
    assert packed.groups == [(1, 6), (2, 4), (1, 3)]


def test_threads_change_nothing(encoders):
    encoder = encoders["scratch"]
    rows = encoder.tokenize(TEXTS * 30)
    one = encode_rows(encoder, rows)
    torch.set_num_threads(2)
    try:
        two = encode_rows(encoder, rows)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(one, two, atol=1e-6 * np.abs(one).max())


class Adapted(nn.Linear):
    """A layer that does more than its weights say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_changed_model_runs_as_it_is(encoders):
    encoder = roberta()
    dense = encoder.model.encoder.layer[0].output.dense
    adapted = Adapted(dense.in_features, dense.out_features)
    adapted.load_state_dict(dense.state_dict())
    before = encode_rows(encoder, encoder.tokenize(TEXTS[:5]))
    encoder.model.encoder.layer[0].output.dense = adapted
    assert not packable(encoder.model)
    rows = encoder.tokenize(TEXTS[:5])
    np.testing.assert_allclose(encode_rows(encoder, rows), padded(encoder, rows), atol=1e-6)
    assert np.abs(encode_rows(encoder, rows) - before).max() > 1e-3
    hooked = roberta()
    hooked.model.encoder.layer[1].register_forward_hook(lambda module, inputs, output: None)
    assert not packable(hooked.model)


def test_weights_that_change_between_calls_are_seen(encoders):
    encoder = roberta()
    rows = encoder.tokenize(TEXTS[:4])
    before = encode_rows(encoder, rows)
    with torch.no_grad():
        encoder.model.encoder.layer[0].attention.self.query.weight.mul_(30)
    assert np.abs(encode_rows(encoder, rows) - before).max() > 1e-5
    np.testing.assert_allclose(encode_rows(encoder, rows), padded(encoder, rows), atol=1e-6)


def test_an_encoder_without_a_low_precision_stays_exact():
    bag = resolve_text_encoder(TextEncoderConfig(name="bag", dim=8, vocab_size=200), texts=TEXTS)
    rows = bag.tokenize(TEXTS)
    with inference(precision="bf16") as used:
        assert (encode_rows(bag, rows) == encode_rows(bag, rows)).all()
    assert not used.lowered
    with pytest.raises(ConfigError, match="fp32, bf16"), inference(precision="fp8"):
        pass


def _rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    encoder = resolve_text_encoder(SCRATCH, texts=TEXTS, seed=3)
    with inference(split=True):
        for n in (1, 40, 91):
            np.save(f"{folder}/{n}-{rank}.npy", encode_rows(encoder, encoder.tokenize(TEXTS[:n]), batch_size=8))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_share_the_rows_and_all_get_the_whole(tmp_path: Path):
    mp.spawn(_rank, (3, str(tmp_path)), nprocs=3)
    encoder = resolve_text_encoder(SCRATCH, texts=TEXTS, seed=3)
    for n in (1, 40, 91):
        alone = encode_rows(encoder, encoder.tokenize(TEXTS[:n]), batch_size=8)
        for rank in range(3):
            assert (np.load(tmp_path / f"{n}-{rank}.npy") == alone).all()
