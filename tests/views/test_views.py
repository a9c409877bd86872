"""Views: pure, vectorised, within their stated ranges, and leaving their input alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.encoders import TokenIds
from kontrast.randomness import numpy_rng
from kontrast.views import (
    ColourJitter,
    FeatureMask,
    GaussianNoise,
    HorizontalFlip,
    RandomCrop,
    SpanCrop,
    TokenDropout,
    compose,
)

TOKENS = TokenIds.of([list(range(1, n + 1)) for n in (0, 1, 2, 7, 40)] * 20)
VECTORS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 12, 20), dtype=np.uint8)
VIEWS: list[tuple[Any, Any]] = [
    (TokenDropout(0.3), TOKENS),
    (SpanCrop(0.2, 0.8), TOKENS),
    (compose([SpanCrop(), TokenDropout()]), TOKENS),
    (FeatureMask(), VECTORS),
    (FeatureMask(from_rows=True), VECTORS),
    (GaussianNoise(), VECTORS),
    (RandomCrop(), IMAGES),
    (HorizontalFlip(), IMAGES),
    (ColourJitter(), IMAGES),
    (compose([RandomCrop(), HorizontalFlip(), ColourJitter()]), IMAGES),
]


def content(batch: Any) -> list[np.ndarray]:
    return [batch.ids, batch.offsets] if isinstance(batch, TokenIds) else [batch]


@pytest.mark.parametrize(("view", "batch"), VIEWS)
def test_views_are_functions_of_seed_epoch_and_index(view: Any, batch: Any) -> None:
    before = [array.copy() for array in content(batch)]
    first, again, later = (content(view(batch, numpy_rng(0, "view", epoch, 3))) for epoch in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, later))
    assert all(np.array_equal(a, b) for a, b in zip(before, content(batch)))


@pytest.mark.parametrize(("view", "batch"), VIEWS)
def test_shape_and_type_stay(view: Any, batch: Any) -> None:
    seen = view(batch, numpy_rng(0))
    assert type(seen) is type(batch)
    assert len(seen) == len(batch)
    if isinstance(batch, np.ndarray):
        assert seen.dtype == batch.dtype
        assert seen.shape == batch.shape


@pytest.mark.parametrize(("view", "batch"), VIEWS)
def test_no_rows_are_no_problem(view: Any, batch: Any) -> None:
    assert len(view(batch[np.array([], dtype=np.int64)], numpy_rng(0))) == 0


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0, 0.99))
def test_token_dropout_keeps_order_and_one_token(seed: int, share: float) -> None:
    seen = TokenDropout(share)(TOKENS, numpy_rng(seed))
    for i in range(len(TOKENS)):
        row = seen.row(i)
        assert (np.diff(row) > 0).all()
        assert set(row) <= set(TOKENS.row(i))
        assert len(row) >= min(1, len(TOKENS.row(i)))


def test_token_dropout_meets_its_share() -> None:
    tokens = TokenIds.of([list(range(1000))] * 20)
    assert len(TokenDropout(0.25)(tokens, numpy_rng(0)).ids) / 20_000 == pytest.approx(0.75, abs=0.01)
    assert (TokenDropout(0)(tokens, numpy_rng(0)).ids == tokens.ids).all()


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_span_crop_keeps_one_run(seed: int, a: float, b: float) -> None:
    least, most = sorted((a, b))
    seen = SpanCrop(least, most)(TOKENS, numpy_rng(seed))
    for i in range(len(TOKENS)):
        row, whole = seen.row(i), TOKENS.row(i)
        assert (np.diff(row) == 1).all()
        assert set(row) <= set(whole)
        assert np.floor(least * len(whole)) - 1 <= len(row) <= max(np.ceil(most * len(whole)), min(1, len(whole)))
        assert len(row) >= min(1, len(whole))


def test_span_crops_reach_both_ends() -> None:
    tokens = TokenIds.of([list(range(10))] * 500)
    seen = SpanCrop(0.5, 0.5)(tokens, numpy_rng(0))
    assert {int(seen.row(i)[0]) for i in range(500)} == set(range(6))


def test_feature_masks_meet_their_share() -> None:
    ones = np.ones((200, 100), np.float32)
    assert (FeatureMask(0.3)(ones, numpy_rng(0)) == 0).mean() == pytest.approx(0.3, abs=0.02)
    columns = np.tile(np.arange(6, dtype=np.float32), (40, 1))
    assert (FeatureMask(0.5, from_rows=True)(columns, numpy_rng(0)) == columns).all()


def test_noise_has_its_scale() -> None:
    noise = GaussianNoise(0.5)(np.zeros((300, 100), np.float32), numpy_rng(0))
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert (GaussianNoise(0)(VECTORS, numpy_rng(0)) == VECTORS).all()


def test_a_crop_of_everything_is_the_image() -> None:
    assert (RandomCrop(least=1.0, ratio=1.0)(IMAGES, numpy_rng(0)) == IMAGES).all()


def test_crops_of_a_ramp_stay_ramps_within_it() -> None:
    ramp = np.broadcast_to(np.linspace(10, 240, 64, dtype=np.uint8), (50, 3, 64, 64))
    seen = RandomCrop(0.2)(np.ascontiguousarray(ramp), numpy_rng(0)).astype(int)
    assert seen.min() >= 10
    assert seen.max() <= 240
    assert (np.diff(seen, axis=3) >= 0).all()
    assert (seen == seen[:, :, :1]).all()
    assert (seen[:, 0, 0, -1] - seen[:, 0, 0, 0]).std() > 5


def test_flips_mirror_some_images() -> None:
    seen = HorizontalFlip()(IMAGES, numpy_rng(0))
    same = (seen == IMAGES).all((1, 2, 3))
    mirrored = (seen == IMAGES[..., ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 5 < mirrored.sum() < 25


def test_jitter_of_nothing_is_the_image() -> None:
    assert (ColourJitter(0, 0, 0)(IMAGES, numpy_rng(0)) == IMAGES).all()


def test_brightness_is_one_factor_per_image() -> None:
    flat = np.full((20, 3, 4, 4), 100, np.uint8)
    seen = ColourJitter(0.4, 0, 0)(flat, numpy_rng(0))
    assert (seen == seen[:, :1, :1, :1]).all()
    assert seen.min() >= 60
    assert seen.max() <= 140
    assert len(np.unique(seen)) > 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenDropout(1.0), lambda: TokenDropout(-0.1), lambda: SpanCrop(0.9, 0.5), lambda: SpanCrop(0.5, 1.5),
        lambda: FeatureMask(2), lambda: GaussianNoise(-1), lambda: GaussianNoise(float("nan")), lambda: RandomCrop(0),
        lambda: RandomCrop(0.5, 0.5), lambda: HorizontalFlip(-1), lambda: ColourJitter(contrast=2),
    ],
)  # fmt: skip
def test_values_outside_their_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        make()
