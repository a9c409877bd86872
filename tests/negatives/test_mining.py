"""Miners and exclusions against brute force; a positive is never returned as a negative."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kontrast.losses._margin import triplet
from kontrast.negatives import (
    Mined,
    duplicate_ids,
    exclusion,
    exclusions,
    mine_band,
    mine_hardest,
    mine_semi_hard,
    paired_scores,
    positive_aware_limit,
    sample_mined,
    suspected_positives,
    too_similar,
)
from kontrast.ops import Mask, Pairs

CPU = torch.device("cpu")


def _score(a: Tensor, b: Tensor, similarity: str) -> float:
    if similarity == "euclidean":
        return -math.dist(a.tolist(), b.tolist())
    product = float(a @ b)
    length = float(a.norm() * b.norm())
    return product if similarity == "dot" else product / length if length > 0 else 0.0


@st.composite
def problems(draw: st.DrawFn) -> dict:  # type: ignore[type-arg]
    n, m, d = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    anchors = torch.randn(n, d, generator=generator, dtype=torch.float64)
    candidates = torch.randn(m, d, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        candidates[::3] = 0
    levels = draw(st.integers(1, 5))
    ids = torch.randint(levels, (n,), generator=generator), torch.randint(levels, (m,), generator=generator)
    known = torch.rand(n, m, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    own = draw(st.sampled_from([None, 0, 2]))
    with_ids = draw(st.booleans())
    mask = exclusions(
        n,
        m,
        own=own,
        ids=ids[0] if with_ids else None,
        candidate_ids=ids[1] if with_ids else None,
        known_positives=[row.nonzero()[:, 0].tolist() for row in known],
    )
    allowed = [
        [
            j
            for j in range(m)
            if not known[i, j] and not (with_ids and ids[0][i] == ids[1][j]) and not (own is not None and j == i + own)
        ]
        for i in range(n)
    ]
    similarity = draw(st.sampled_from(["cosine", "dot", "euclidean"]))
    scores = [[_score(a, b, similarity) for b in candidates] for a in anchors]
    return {
        "anchors": anchors, "candidates": candidates, "mask": mask, "allowed": allowed, "scores": scores,
        "similarity": similarity, "tile": draw(st.sampled_from([1, 2, 3, 1 << 22])),
        "positive": torch.randn(n, generator=generator, dtype=torch.float64) / 2,
    }  # fmt: skip


def _tiled(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(exclusion, "_TILE", tile)
    monkeypatch.setattr(exclusion, "_HEIGHT", min(tile, 1024))


def _check(mined: Mined, pools: list[list[int]], scores: list[list[float]], k: int) -> None:
    """Every row holds the k best of its pool, best first, and -1 behind."""
    assert mined.indices.shape == (len(pools), k)
    for row, values, pool, score in zip(mined.indices.tolist(), mined.scores.tolist(), pools, scores, strict=True):
        wanted = sorted((score[j] for j in pool), reverse=True)[:k]
        found = [j for j in row if j >= 0]
        assert row == found + [-1] * (k - len(found))
        assert len(set(found)) == len(found)
        assert set(found) <= set(pool)
        assert [score[j] for j in found] == pytest.approx(wanted, abs=1e-12)
        assert values[: len(found)] == pytest.approx(wanted, abs=1e-12)
        assert all(value == -math.inf for value in values[len(found) :])


@settings(deadline=None, max_examples=150, derandomize=True)
@given(problem=problems(), k=st.integers(1, 4), skip=st.integers(0, 3), bounded=st.booleans())
def test_hardest_equals_brute_force(problem: dict, k: int, skip: int, bounded: bool) -> None:  # type: ignore[type-arg]
    below = problem["positive"] if bounded else None
    above = problem["positive"] - 1 if bounded else None
    with pytest.MonkeyPatch.context() as patch:
        _tiled(patch, problem["tile"])
        mined = mine_hardest(
            problem["anchors"], problem["candidates"], problem["mask"], k,
            skip=skip, below=below, above=above, similarity=problem["similarity"],
        )  # fmt: skip
    pools = []
    for i, (allowed, scores) in enumerate(zip(problem["allowed"], problem["scores"], strict=True)):
        limit = float(problem["positive"][i])
        pool = [j for j in allowed if not bounded or limit - 1 < scores[j] < limit]
        pools.append(sorted(pool, key=lambda j: -scores[j])[skip:])
    if skip and problem["similarity"] == "cosine":
        # Zero rows tie at 0, and which of them is skipped is not promised.
        assert [len(pool[:k]) for pool in pools] == mined.mask.sum(1).tolist()
        return
    _check(mined, pools, problem["scores"], k)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(problem=problems(), k=st.integers(1, 3), margin=st.floats(0.05, 2))
def test_semi_hard_equals_brute_force(problem: dict, k: int, margin: float) -> None:  # type: ignore[type-arg]
    mined = mine_semi_hard(
        problem["anchors"], problem["candidates"], problem["positive"], problem["mask"], k,
        margin=margin, similarity=problem["similarity"],
    )  # fmt: skip
    pools = [
        [j for j in allowed if limit - margin < scores[j] < limit]
        for allowed, scores, limit in zip(
            problem["allowed"], problem["scores"], problem["positive"].tolist(), strict=True
        )
    ]
    _check(mined, pools, problem["scores"], k)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    problem=problems(),
    k=st.integers(1, 4),
    band=st.sampled_from([(0.0, 1.0), (0.0, 0.3), (0.25, 0.75), (0.9, 1.0)]),
    random=st.booleans(),
)
def test_band_equals_brute_force(problem: dict, k: int, band: tuple[float, float], random: bool) -> None:  # type: ignore[type-arg]
    # Ties would leave it open which of two equal candidates is inside the band.
    if problem["similarity"] == "cosine":
        return
    with pytest.MonkeyPatch.context() as patch:
        _tiled(patch, problem["tile"])
        mined = mine_band(
            problem["anchors"], problem["candidates"], problem["mask"], *band, k,
            generator=torch.Generator().manual_seed(0) if random else None, similarity=problem["similarity"],
        )  # fmt: skip
    for i, (allowed, scores) in enumerate(zip(problem["allowed"], problem["scores"], strict=True)):
        ranked = sorted(allowed, key=lambda j: -scores[j])
        inside = ranked[math.floor(band[0] * len(ranked)) : math.ceil(band[1] * len(ranked))]
        found = [j for j in mined.indices[i].tolist() if j >= 0]
        tied = len({scores[j] for j in allowed}) < len(allowed)
        assert len(found) == min(k, len(inside))
        assert len(set(found)) == len(found)
        if not tied:
            assert set(found) <= set(inside)
            if not random:
                assert found == inside[:k]
        assert set(found) <= set(allowed)


def test_bounds_are_strict() -> None:
    # A duplicate of the positive scores exactly as it does, and must not come back as its negative.
    x, y = torch.ones(1, 1), torch.tensor([[0.5], [0.375], [0.25]])
    bounds = {"below": torch.tensor([0.5]), "above": torch.tensor([0.25])}
    mined = mine_hardest(x, y, exclusions(1, 3, own=None), k=3, similarity="dot", **bounds)
    assert mined.indices.tolist() == [[1, -1, -1]]
    assert too_similar(torch.tensor([[0.5, 0.625]]), torch.tensor([0.5])).tolist() == [[False, True]]


def test_band_draws_all_of_the_band_in_time() -> None:
    x, y = torch.ones(1, 1), torch.arange(10.0)[:, None]
    generator = torch.Generator().manual_seed(0)
    mask = exclusions(1, 10, own=None)
    seen = {mine_band(x, y, mask, 0.2, 0.6, generator=generator, similarity="dot").indices.item() for _ in range(60)}
    assert seen == {4, 5, 6, 7}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(problem=problems(), margin=st.sampled_from([-0.5, 0.0, 0.3]))
def test_suspected_positives_equal_brute_force(problem: dict, margin: float) -> None:  # type: ignore[type-arg]
    with pytest.MonkeyPatch.context() as patch:
        _tiled(patch, problem["tile"])
        mask = suspected_positives(
            problem["anchors"], problem["candidates"], problem["positive"], problem["mask"],
            margin=margin, similarity=problem["similarity"],
        )  # fmt: skip
    excluded = mask.excluded(len(problem["anchors"]), len(problem["candidates"]), CPU)
    for i, (allowed, scores) in enumerate(zip(problem["allowed"], problem["scores"], strict=True)):
        for j, score in enumerate(scores):
            wanted = j not in allowed or score > float(problem["positive"][i]) + margin
            assert (excluded is not None and bool(excluded[i, j])) == wanted


def test_exclusions_of_every_kind() -> None:
    ids, groups = torch.tensor([5, 6, 5]), torch.tensor([1, 1, 2])
    mask = exclusions(
        3, ids=ids, groups=[(groups, groups)], known_positives=Pairs(torch.tensor([2]), torch.tensor([1]))
    )
    excluded = mask.excluded(3, 3, CPU)
    assert excluded is not None
    assert excluded.int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 1]]
    assert exclusions(2, 3, own=None).excluded(2, 3, CPU) is None


def test_duplicates_get_equal_numbers() -> None:
    one, two = duplicate_ids(["a", "b", "a"], ["c", "b"])
    assert (one.tolist(), two.tolist()) == ([0, 1, 0], [2, 1])
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    (numbers,) = duplicate_ids(x)
    assert numbers[0] == numbers[2] != numbers[1]
    first, second = duplicate_ids(x, x.flip(0)[:2])
    assert first[0] == second[0]
    assert first[1] == second[1]
    assert duplicate_ids(torch.zeros(0, 3))[0].shape == (0,)
    mined = mine_hardest(x, x, exclusions(3, ids=numbers), k=2)
    assert mined.indices.tolist() == [[1, -1], mined.indices[1].tolist(), [1, -1]]


def test_positive_aware_limits() -> None:
    scores = torch.tensor([0.8, -0.5])
    assert positive_aware_limit(scores, margin=0.1).tolist() == pytest.approx([0.7, -0.6])
    assert positive_aware_limit(scores, ratio=0.5).tolist() == pytest.approx([0.4, -1.0])


def test_nothing_left_is_minus_one_and_no_loss() -> None:
    x = torch.randn(3, 2)
    mined = mine_hardest(x, x, exclusions(3, ids=torch.zeros(3, dtype=torch.long)), k=2)
    assert mined.indices.tolist() == [[-1, -1]] * 3
    assert not mined.mask.any()
    assert mined.rows(x).abs().sum() == 0
    assert triplet(x, x, mined.rows(x), mask=mined.mask).item() == 0.0


def test_rows_are_differentiable() -> None:
    y = torch.randn(4, 2, requires_grad=True)
    mined = Mined(torch.tensor([[1, -1]]), torch.zeros(1, 2))
    mined.rows(y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0]]


def test_an_empty_corpus_and_a_score_that_is_not_a_number() -> None:
    mined = mine_hardest(torch.ones(2, 3), torch.ones(0, 3), exclusions(2, 0, own=None), k=2)
    assert mined.indices.tolist() == [[-1, -1]] * 2
    y = torch.tensor([[math.nan, 0.0], [0.5, 0.5]])
    assert mine_hardest(torch.ones(1, 2), y, exclusions(1, 2, own=None), k=2).indices.tolist() == [[1, -1]]
    assert mine_band(torch.ones(1, 2), y, exclusions(1, 2, own=None), 0, 1, k=3).indices.tolist() == [[1, -1, -1]]


def test_half_precision_corpus() -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mined = mine_hardest(x, x, exclusions(5), k=2)
    assert mined.indices.tolist() == mine_hardest(x.double(), x.double(), exclusions(5), k=2).indices.tolist()


def test_sampling_takes_from_the_pool_without_replacement() -> None:
    pool = Mined(torch.tensor([[4, 7, 9, -1], [3, -1, -1, -1]]), torch.tensor([[3.0, 2, 1, -math.inf]] * 2))
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(30):
        drawn = sample_mined(pool, 2, generator)
        first, second = drawn.indices[0].tolist()
        assert first != second
        assert {first, second} <= {4, 7, 9}
        assert drawn.scores[0, 0].item() == {4: 3.0, 7: 2.0, 9: 1.0}[first]
        assert drawn.indices[1].tolist() == [3, -1]
        seen |= {first, second}
    assert seen == {4, 7, 9}
    assert sample_mined(pool, 6, generator).indices.shape == (2, 6)


def test_paired_scores_are_on_the_scale_of_the_miners() -> None:
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    for similarity in ("cosine", "dot", "euclidean"):
        wanted = [_score(a, b, similarity) for a, b in zip(x, y, strict=True)]
        assert paired_scores(x, y, similarity).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, m: mine_hardest(x, torch.ones(3, 4), m), "2 columns and 'candidates' has 4"),
        (lambda x, m: mine_hardest(x, torch.ones(4, 2), m), "3 x 3 rows, the scores are 3 x 4"),
        (lambda x, m: mine_hardest(x.long(), x, m), "floating point"),
        (lambda x, m: mine_hardest(x, x, m, 0), "at least 1"),
        (lambda x, m: mine_hardest(x, x, m, skip=-1), "below 0"),
        (lambda x, m: mine_hardest(x, x, m, below=torch.ones(2)), r"'below' must be \(3,\).*\(2,\)"),
        (lambda x, m: mine_hardest(x, x, m, similarity="cos"), "known: cosine, dot, euclidean"),
        (lambda x, m: mine_hardest(x, x, Mask(pairs=(torch.tensor([3]), torch.tensor([0])))), "outside the 3 x 3"),
        (lambda x, m: mine_semi_hard(x, x, torch.ones(3), m, margin=0), "above 0"),
        (lambda x, m: mine_semi_hard(x, x, torch.ones(2), m), r"\(3,\), one per anchor, got \(2,\)"),
        (lambda x, m: mine_band(x, x, m, 0.5, 0.5), "low < high"),
        (lambda x, m: positive_aware_limit(torch.ones(2)), "either 'margin' or 'ratio'"),
        (lambda x, m: positive_aware_limit(torch.ones(2), ratio=2), r"\(0, 1\], got 2"),
        (lambda x, m: exclusions(3, ids=torch.ones(2).long()), r"3 anchors, but their ids have shape \(2,\)"),
        (lambda x, m: exclusions(3, 4, ids=torch.ones(3).long()), r"4 candidates, but their ids have shape \(3,\)"),
        (lambda x, m: exclusions(3, ids=torch.ones(3)), "integers, got torch.float32"),
        (lambda x, m: exclusions(3, candidate_ids=torch.ones(3)), "'ids' is missing"),
        (lambda x, m: exclusions(2, known_positives=[[0]]), "2 anchors, but known positives for 1"),
        (lambda x, m: exclusions(2, known_positives=[[0], [5]]), "row 5 of 2 candidates"),
        (lambda x, m: duplicate_ids(["a"], torch.ones(1)), "list with those of a Tensor"),
        (lambda x, m: paired_scores(x, torch.ones(2, 2)), r"\(3, 2\) and \(2, 2\)"),
        (lambda x, m: too_similar(torch.ones(2, 2), torch.ones(3)), r"\(2, 2\) and \(3,\)"),
        (lambda x, m: sample_mined(mine_hardest(x, x, m), 0, torch.Generator()), "at least 1"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match=message):
        call(x, exclusions(3, ids=torch.arange(3)))
