"""Encoders of vectors and images, and the projection head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kontrast.encoders import (
    EncoderConfig,
    ImageEncoderConfig,
    ProjectionHead,
    VectorEncoder,
    VectorEncoderConfig,
    build_encoder,
    encode_rows,
    resolve_encoder,
    resolve_image_encoder,
)
from kontrast.errors import CheckpointError, ConfigError

VECTORS = (np.random.default_rng(0).normal(size=(50, 7)) * 100 + 1000).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 255, (20, 3, 16, 16), dtype=np.uint8)
CONFIG = EncoderConfig(
    vector=VectorEncoderConfig(dim=8, hidden=16, layers=3), image=ImageEncoderConfig(dim=8, size=16, width=8, stages=2)
)
CELLS = {"vector": VECTORS, "image": IMAGES}


@pytest.mark.parametrize("kind", CELLS)
def test_rows_are_independent_and_seeds_decide(kind: str) -> None:
    encoder = resolve_encoder(kind, CELLS[kind], CONFIG, seed=3)  # type: ignore[arg-type]
    rows = encoder.prepare(CELLS[kind])
    whole = encode_rows(encoder, rows, batch_size=16)
    assert whole.shape == (len(rows), 8)
    alone = np.concatenate([encode_rows(encoder, rows[[i]]) for i in range(len(rows))])
    assert np.abs(whole - alone).max() <= 1e-6
    torch.manual_seed(9)
    again = resolve_encoder(kind, CELLS[kind], CONFIG, seed=3)  # type: ignore[arg-type]
    assert (encode_rows(again, rows) == encode_rows(encoder, rows)).all()
    other = resolve_encoder(kind, CELLS[kind], CONFIG, seed=4)  # type: ignore[arg-type]
    assert not np.allclose(encode_rows(other, rows), whole)


@pytest.mark.parametrize("kind", CELLS)
def test_structure_and_state_are_all_it_takes(kind: str) -> None:
    encoder = resolve_encoder(kind, CELLS[kind], CONFIG)  # type: ignore[arg-type]
    again = build_encoder(json.loads(json.dumps(encoder.structure())))
    again.load_state_dict(encoder.state_dict())
    assert (encode_rows(again, CELLS[kind]) == encode_rows(encoder, CELLS[kind])).all()


@pytest.mark.parametrize("kind", CELLS)
def test_every_weight_gets_a_gradient(kind: str) -> None:
    encoder = resolve_encoder(kind, CELLS[kind], CONFIG)  # type: ignore[arg-type]
    encoder(encoder.collate(encoder.prepare(CELLS[kind]))).pow(2).sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


def test_vectors_are_standardised_with_training_statistics() -> None:
    values = VECTORS.copy()
    values[:, 2] = 0.1
    encoder = VectorEncoder(7, VectorEncoderConfig(dim=8)).standardise(values)
    seen = (torch.from_numpy(values) - encoder.mean) * encoder.scale
    keep = [0, 1, 3, 4, 5, 6]
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(seen[:, keep].std(0, correction=0), 1, atol=1e-3)
    assert (seen[:, 2] == 0).all()
    assert {"mean", "scale"} <= set(encoder.state_dict())
    changed = values.copy()
    changed[:, 2] = 5
    assert (encode_rows(encoder, changed) == encode_rows(encoder, values)).all()


def test_wrong_shapes_state_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 7\), got \(2, 3\)"):
        VectorEncoder(7).prepare(np.zeros((2, 3)))
    encoder = resolve_image_encoder(CONFIG.image)
    with pytest.raises(ValueError, match=r"uint8 \(n, 3, 16, 16\), got float64 \(1, 3, 8, 8\)"):
        encoder.prepare(np.zeros((1, 3, 8, 8)))


def test_images_are_read_from_paths(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    pil.fromarray(IMAGES[0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    encoder = resolve_image_encoder(CONFIG.image)
    assert (encoder.prepare([tmp_path / "a.png"])[0] == IMAGES[0]).all()


def test_a_vision_model_from_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    encoder = resolve_image_encoder(str(tmp_path / "vit"))
    vectors = encode_rows(encoder, encoder.prepare(IMAGES))
    assert vectors.shape == (20, 16)
    again = build_encoder(json.loads(json.dumps(encoder.structure())))
    again.load_state_dict(encoder.state_dict())
    assert (encode_rows(again, IMAGES) == vectors).all()
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        resolve_image_encoder(str(tmp_path / "vit"))


def test_names_and_kinds_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"unknown image encoder 'con'; did you mean 'conv'"):
        resolve_image_encoder("con")
    with pytest.raises(ConfigError, match="kind 'number' has no encoder"):
        resolve_encoder("number", [1.0])


def test_projection_heads() -> None:
    vectors = torch.randn(5, 6)
    assert ProjectionHead(6, 3, layers=1)(vectors).shape == (5, 3)
    deep = ProjectionHead(6, 3, layers=3, hidden=10, dropout=0.5, seed=1)
    assert [tuple(w.shape) for w in deep.parameters() if w.ndim == 2] == [(10, 6), (10, 10), (3, 10)]
    again = ProjectionHead(**deep.structure(), seed=1)
    assert torch.equal(deep.eval()(vectors), again.eval()(vectors))
    with pytest.raises(ValueError, match="at least 1"):
        ProjectionHead(6, 0)


def test_a_batch_size_below_one_is_refused() -> None:
    encoder = VectorEncoder(7)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        encode_rows(encoder, VECTORS, batch_size=0)
