"""Parts of cozad: confidence, meta-learning, contrast, drawn anomalies, features, scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.systems.cozad import CoZADConfig
from kontrast.systems.cozad.confidence import decay_strength, fence, soft_weights
from kontrast.systems.cozad.features import Described, Describer, FilterBackbone, in_image_distance
from kontrast.systems.cozad.model import CoZADModel
from kontrast.systems.cozad.pool import Pool, TaskBatches, centred
from kontrast.systems.cozad.scoring import LEARNED, Evidence, Scoring, choose_scoring, pooled_maps
from kontrast.systems.cozad.views import cell_shares, draw_anomaly, normal_view, perlin
from kontrast.training import Progress

CHANNELS = 6


def config(**options):
    base = {"net": {"hidden": 8, "projection": 4}, "meta": {"tasks": 2, "support": 3, "query": 3, "patches": 4}}
    return CoZADConfig(**{**base, **options})


def toy_pool(images=8, domains=2, cells=16):
    generator = torch.Generator().manual_seed(0)
    anomalous = torch.rand(images * domains, 2, cells, generator=generator) < 0.3
    drawn = torch.randn(images * domains, 2, cells, CHANNELS, generator=generator) + 3 * anomalous[..., None]
    return Pool(
        images=torch.randn(images * domains, cells, CHANNELS, generator=generator).half(),
        copies=drawn.half(),
        anomalous=anomalous,
        clean=~anomalous,
        domain=torch.arange(images * domains) // images,
        ids=tuple(f"{i}" for i in range(images * domains)),
        domains=tuple("ab"[:domains]),
    )


def toy_model(pool, options):
    torch.manual_seed(0)
    model = CoZADModel({"channels": CHANNELS, "images": len(pool), "backbone": "lite0"}, options)
    model.pool = pool
    return model


def gradient(options, pool=None, index=0):
    """The gradient of one meta-iteration without the regulariser, and the terms."""
    pool = pool or toy_pool()
    model = toy_model(pool, options)
    batch = TaskBatches(pool, options).get(0, index)
    terms = model.losses(model.encode(batch), batch, Progress(0, 10, 0))
    (terms["detection"] + terms["contrast"]).backward()
    return {name: parameter.grad.clone() for name, parameter in model.net.named_parameters()}, terms


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# ---- confidence ------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.floats(-100, 100), min_size=4, max_size=30), st.floats(0, 5), st.floats(-1000, 1000))
def test_weights_are_shares_that_fall_with_the_score(values, kappa, shift):
    scores = torch.tensor(values, dtype=torch.float64)
    weights = soft_weights(scores, kappa)
    assert ((weights > 0) & (weights <= 1)).all()
    assert (weights[scores <= scores.median()] == 1).all()
    ordered = weights[scores.argsort()]
    assert (ordered.diff() <= 1e-6).all()
    # Negative scores and scores near 0 are no special case: only differences count.
    torch.testing.assert_close(soft_weights(scores + shift, kappa), weights, atol=1e-3, rtol=1e-3)


def test_an_outlier_weighs_less_and_is_not_dropped():
    scores = torch.tensor([-1.0, -0.9, -0.8, -1.1, -1.05, -0.95, 4.0])
    shifted, tau = fence(scores, 1.5)
    weights = soft_weights(scores, 1.5)
    assert weights[:-1].eq(1).all()
    assert weights[-1].item() == pytest.approx((tau / shifted[-1]).item(), rel=1e-4)
    assert 0 < weights[-1] < 0.2
    assert soft_weights(scores, math.inf).eq(1).all()


def test_decay_follows_the_covariance_of_the_losses():
    arguments = {"decay": 0.005, "gain": 0.5}
    assert decay_strength(torch.zeros(0, 2), **arguments).item() == pytest.approx(0.005)
    assert decay_strength(torch.tensor([[1.0, 2.0]]), **arguments).item() == pytest.approx(0.005)
    line = torch.linspace(-1, 1, 5)
    together = decay_strength(torch.stack([line, line], 1), **arguments).item()
    assert together == pytest.approx(0.005, rel=1e-5)
    apart = decay_strength(torch.stack([line, line.square() * 2], 1), **arguments).item()
    assert 0.005 < apart < 0.0075
    wild = decay_strength(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 1e3, **arguments).item()
    assert wild == pytest.approx(0.0075)


# ---- meta-learning ---------------------------------------------------------------------------------------------------


def test_without_inner_steps_it_is_multi_task_training():
    plain, _ = gradient(config(meta={**BASE, "kind": "none"}))
    for kind in ("fomaml", "maml"):
        none, _ = gradient(config(meta={**BASE, "kind": kind, "steps": 0}))
        assert same(plain, none)
    still, _ = gradient(config(meta={**BASE, "kind": "fomaml", "steps": 1, "rate": 0.0}))
    assert same(plain, still)


BASE = {"tasks": 2, "support": 3, "query": 3, "patches": 4}


def test_maml_is_the_derivative_through_the_inner_steps():
    options = config(contrast="off", meta={**BASE, "kind": "maml", "steps": 2, "rate": 0.1})
    pool = toy_pool()
    found, _ = gradient(options, pool)
    first, _ = gradient(config(contrast="off", meta={**BASE, "kind": "fomaml", "steps": 2, "rate": 0.1}), pool)
    name = "judge.2.bias"
    values = []
    for step in (-1e-2, 1e-2):
        model = toy_model(pool, options)
        with torch.no_grad():
            dict(model.net.named_parameters())[name].add_(step)
        batch = TaskBatches(pool, options).get(0, 0)
        values.append(model.losses(batch, batch, Progress(0, 10, 0))["detection"].item())
    slope = (values[1] - values[0]) / 2e-2
    assert found[name].item() == pytest.approx(slope, rel=2e-2, abs=1e-3)
    assert abs(first[name].item() - slope) > abs(found[name].item() - slope)


def test_reptile_moves_towards_the_adapted_weights():
    pool = toy_pool()
    options = config(contrast="off", meta={**BASE, "kind": "reptile", "steps": 5, "rate": 0.05})
    model = toy_model(pool, options)
    batch = TaskBatches(pool, options).get(0, 0)
    before = model.losses(batch, batch, Progress(0, 10, 0))
    before["detection"].backward()
    with torch.no_grad():
        for parameter in model.net.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    support = toy_model(pool, config(contrast="off", meta={**BASE, "kind": "none"}))
    start = support.losses(batch, batch, Progress(0, 10, 0))["detection"].item()
    support.load_state_dict(model.state_dict(), strict=False)
    assert support.losses(batch, batch, Progress(0, 10, 0))["detection"].item() < start


def test_a_fence_at_infinity_is_plain_training():
    far, _ = gradient(config(confidence={"kappa": 1e12}))
    off, _ = gradient(config(confidence={"soft": False}))
    assert same(far, off)


def test_odd_images_are_drawn_less_often():
    pool, options = toy_pool(), config()
    model = toy_model(pool, options)
    model.confidence[0] = 0.01
    batches = TaskBatches(pool, options)
    counts = np.zeros(8)
    for index in range(200):
        batch = batches.get(0, index)
        keys = batch["images"][0][:8].log() / model.confidence[:8]
        counts[keys.topk(6).indices.numpy()] += 1
    assert counts[0] < 0.3 * counts[1:].min()


def test_images_are_weighed_within_their_domain(monkeypatch):
    pool = toy_pool()
    model = toy_model(pool, config())
    scores = torch.cat([torch.linspace(-1, 0, 8), torch.linspace(50, 51, 8)])
    scores[3] = 7.0
    monkeypatch.setattr(model, "_image_scores", lambda images: scores)
    model.weigh()
    assert (model.confidence < 1).nonzero()[:, 0].tolist() == [3]
    assert torch.equal(model.image_scores, scores)


@pytest.mark.parametrize("kind", ["fomaml", "maml", "reptile", "none"])
def test_every_kind_of_meta_learning_has_a_finite_gradient_with_the_contrast(kind):
    found, _ = gradient(config(meta={**BASE, "kind": kind, "steps": 2}))
    assert all(torch.isfinite(value).all() for value in found.values())
    assert found["contrast.weight"].abs().max() > 0


def test_batches_are_functions_of_epoch_and_index():
    batches = TaskBatches(toy_pool(), config())
    first, again, other = batches.get(1, 2), batches.get(1, 2), batches.get(1, 3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["images"], other["images"])
    assert sorted(first["domains"].tolist()) == [0, 1]


# ---- contrast --------------------------------------------------------------------------------------------------------


def test_equal_vectors_have_the_loss_of_the_count():
    model = toy_model(toy_pool(), config())
    vectors = torch.ones(9, 4) / 2
    loss = model._contrast(vectors, 5, torch.ones(5), torch.rand(4096))
    assert loss.item() == pytest.approx(math.log(5 + 4 - 1), rel=1e-5)


def test_contrast_off_leaves_it_out_and_shuffled_changes_it():
    on, terms = gradient(config())
    off, without = gradient(config(contrast="off"))
    shuffled, _ = gradient(config(contrast="shuffled"))
    assert terms["contrast"] > 0
    assert without["contrast"] == 0
    assert off["contrast.weight"].abs().max() == 0
    assert not same(on, off)
    assert not same(on, shuffled)


# ---- views -----------------------------------------------------------------------------------------------------------


def test_drawn_anomalies_change_what_their_mask_says():
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
    other = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for seed in range(40):
        drawn, mask = draw_anomaly(image, other, np.random.default_rng(seed))
        again, _ = draw_anomaly(image, other, np.random.default_rng(seed))
        assert np.array_equal(drawn, again)
        assert mask.any()
        assert mask.mean() < 0.6
        change = np.abs(drawn.astype(int) - image).max(2)
        # A soft rim reaches a little beyond the mask.
        assert (change[~mask] > 20).mean() < 0.05
        assert (change[mask] > 0).mean() > 0.3
    view = normal_view(image, np.random.default_rng(1))
    assert view.shape == image.shape
    assert view.dtype == np.uint8


def test_perlin_noise_and_cell_shares():
    noise = perlin(32, 4, np.random.default_rng(0))
    assert noise.shape == (32, 32)
    assert abs(noise).max() < 1.5
    assert abs(np.diff(noise, axis=0)).max() < 0.5
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = True
    assert cell_shares(mask, 2).tolist() == [[0.25, 0], [0, 0]]


# ---- features --------------------------------------------------------------------------------------------------------


def test_a_patch_unlike_its_image_is_far_from_it():
    maps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    maps[0, :, 2, 5] += 4
    distance = in_image_distance(maps, 0.1)
    assert distance[0].argmax() == 2 * 8 + 5
    assert distance[1].max() < 1
    torch.testing.assert_close(in_image_distance(maps[:1], 0.1), distance[:1])


def filters(seed=0):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    return FilterBackbone(FilterBackbone.learn(images, np.random.default_rng(0)))


def test_filters_are_learned_from_images_and_see_edges():
    backbone = filters()
    assert torch.equal(backbone.filters, filters().filters)
    assert backbone.key != filters(1).key
    maps = backbone.maps(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 16, 8, 8)] * 3


def test_features_are_kept_by_content_and_a_damaged_file_is_made_anew(tmp_path, monkeypatch):
    from kontrast.systems.cozad import features as module

    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path))
    images = [np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8) for seed in range(2)]
    asked = []

    def draw(places):
        asked.extend(places)
        return (images[place] for place in places)

    def describe(cache):
        module._memory.held.clear()
        return list(Describer(filters(), side=64, nearest=0.1, cache=cache)(["a", "b"], draw))

    first = describe("disk")
    assert asked == [0, 1]
    again = describe("disk")
    assert asked == [0, 1]
    for before, after in zip(first, again):
        assert np.array_equal(before.patches, after.patches)
        assert np.array_equal(before.distances, after.distances)
    file = next(tmp_path.rglob("a.npy"))
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(describe("disk")[0].patches, first[0].patches)
    assert asked == [0, 1, 0]
    assert np.array_equal(describe("off")[1].patches, first[1].patches)
    assert first[0].patches.shape == (4, 4, 48)
    assert first[0].distances.shape == (6, 8, 8)


def test_patches_are_centred_by_their_own_median():
    patches = np.random.default_rng(0).normal(5, 1, (4, 4, 3)).astype(np.float16)
    found = centred(Described(patches, np.zeros((1, 8, 8), np.float16)))
    assert np.allclose(np.median(found, axis=0), 0, atol=1e-6)


# ---- scores ----------------------------------------------------------------------------------------------------------


def evidence(n=40):
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], n // 2)
    domain = ["x"] * (n // 2) + ["y"] * (n // 2)
    names = ["scale 1", "scale 1, smoothed", "scale 2", "scale 2, smoothed", *LEARNED]
    pooled = {f"{name}: {way}": rng.normal(size=n) for name in names for way in ("top", "mean", "median")}
    pooled["scale 2: median"] = label + rng.normal(size=n) * 0.1
    inside = rng.random(400) < 0.2
    cells = {name: rng.normal(size=400) for name in names}
    cells["compactness"] = inside + rng.normal(size=400) * 0.1
    return Evidence(domain, label, pooled, {"x": (cells, inside)})


def test_scores_are_chosen_by_what_tells_anomalies_on_the_sources():
    found = choose_scoring(evidence(), "toys")
    assert found.image == {"scale 2: median": 1.0}
    assert found.pixel == {"compactness": 1.0}
    assert Scoring.from_json(found.to_json()) == found
    fixed = choose_scoring(evidence(), "toys", free=False)
    assert len(fixed.image) == len(fixed.pixel) == 5
    assert sum(fixed.image.values()) == pytest.approx(1)


def test_pooling_is_what_it_says():
    values = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
    pooled = pooled_maps({"m": values})
    assert pooled["m: mean"] == pooled["m: median"] == pytest.approx(511.5)
    assert pooled["m: top"] == pytest.approx(np.arange(1014, 1024).mean())
    small = pooled_maps({"m": values[:3, :3]})
    assert small["m: top"] == pytest.approx(np.sort(values[:3, :3].ravel())[-4:].mean())
