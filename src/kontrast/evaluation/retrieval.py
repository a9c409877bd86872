"""Retrieval metrics: recall, precision, hit rate, MRR, nDCG and MAP, with ties treated honestly.

**Ties.** Every metric is its expected value over all orders of the candidates that tie (McSherry and Najork 2008,
"Computing information retrieval performance measures efficiently in the presence of tied scores"). A scorer that gives
everything the same score therefore gets exactly what a random order gets, never 1.0. Without ties the values are the
usual ones. The expected position of a single relevant candidate is ½(#negatives ≥ it + #negatives > it) + 1.

**Queries without a relevant candidate** have no value (NaN per query) and are left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError
from kontrast.evaluation.ranks import PositiveRanks, Qrels, Run, rank_positives, rank_positives_from_run
from kontrast.evaluation.ranks import rank_positives_from_scores as _rank_scores
from kontrast.evaluation.relevance import RelevanceLike
from kontrast.evaluation.tiles import Matrix, Similarity

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Gains = Literal["linear", "exponential"]

KS = (1, 5, 10, 100)


@dataclass(frozen=True)
class RetrievalValues:
    """Retrieval metrics per query.

    Args:
        per_query: metric name → (n_queries,) float64; NaN for a query without a relevant candidate.
        rank: (n_queries,) float64, expected position (from 1) of the best relevant candidate; inf where none was
            retrieved, NaN where none exists.
    """

    per_query: dict[str, Floats]
    rank: Floats

    @property
    def n_evaluated(self) -> int:
        """How many queries have a relevant candidate."""
        return int((~np.isnan(self.rank)).sum())

    def means(self) -> dict[str, float]:
        """Mean of each metric over the queries that have a relevant candidate.

        Raises:
            DataError: if no query has one.
        """
        if not self.n_evaluated:
            raise DataError(
                f"none of the {len(self.rank)} queries has a relevant candidate", mend="check that the ids match"
            )
        return {name: float(np.nanmean(values)) for name, values in self.per_query.items()}


def retrieval_metrics(
    queries: Matrix,
    candidates: Matrix,
    relevance: RelevanceLike,
    ks: Sequence[int] = KS,
    *,
    similarity: Similarity = "cosine",
    exclude: RelevanceLike | None = None,
    gains: Gains = "linear",
) -> dict[str, float]:
    """Mean retrieval metrics of embeddings; `retrieval_values` gives them per query.

    Args:
        queries: (n, d) finite.
        candidates: (m, d).
        relevance: relevant candidates per query, see `RelevanceLike`.
        ks: cut-offs.
        similarity: "cosine" or "dot".
        exclude: candidates left out per query, in the forms of `relevance`.
        gains: nDCG's gain of grade g: g ("linear", as trec_eval and scikit-learn) or 2^g - 1 ("exponential").

    Returns:
        "recall@k", "precision@k", "hit@k", "mrr@k" and "ndcg@k" for each k, "mrr" and "map"; all in [0, 1].

    Raises:
        ValueError: if shapes disagree or values are not finite.
        DataError: if no query has a relevant candidate.
    """
    return retrieval_values(
        queries, candidates, relevance, ks, similarity=similarity, exclude=exclude, gains=gains
    ).means()


def retrieval_values(
    queries: Matrix,
    candidates: Matrix,
    relevance: RelevanceLike,
    ks: Sequence[int] = KS,
    *,
    similarity: Similarity = "cosine",
    exclude: RelevanceLike | None = None,
    gains: Gains = "linear",
) -> RetrievalValues:
    """Retrieval metrics of embeddings per query; arguments as for `retrieval_metrics`."""
    ranks = rank_positives(queries, candidates, relevance, similarity=similarity, exclude=exclude)
    return values_of_ranks(ranks, ks, gains=gains)


def retrieval_values_from_scores(
    scores: Matrix,
    relevance: RelevanceLike,
    ks: Sequence[int] = KS,
    *,
    exclude: RelevanceLike | None = None,
    gains: Gains = "linear",
) -> RetrievalValues:
    """Retrieval metrics per query from a matrix of scores (n, m), such as BM25's; higher is better."""
    return values_of_ranks(_rank_scores(scores, relevance, exclude=exclude), ks, gains=gains)


def retrieval_values_from_run(
    run: Run, qrels: Qrels, ks: Sequence[int] = KS, *, gains: Gains = "linear"
) -> tuple[RetrievalValues, list[str]]:
    """Retrieval metrics per query from retrieved lists (see `rank_positives_from_run`), and the query ids."""
    ranks, names = rank_positives_from_run(run, qrels)
    return values_of_ranks(ranks, ks, gains=gains), names


def values_of_ranks(ranks: PositiveRanks, ks: Sequence[int] = KS, *, gains: Gains = "linear") -> RetrievalValues:
    """The metrics of known positions.

    Relevant candidates of one query with the same score form a level: p relevant among t tied candidates that follow
    `above` better ones, P of them relevant. All metrics are sums over levels.

    Raises:
        ValueError: if a cut-off is not a positive integer or `gains` is unknown.
    """
    if gains not in ("linear", "exponential"):
        raise ValueError(f"gains must be 'linear' or 'exponential', got {gains!r}.")
    if any(k < 1 or int(k) != k for k in ks):
        raise ValueError(f"cut-offs must be positive integers, got {list(ks)}.")
    cuts = sorted({int(k) for k in ks})
    n = ranks.n_queries
    gain = ranks.gain if gains == "linear" else np.exp2(ranks.gain) - 1
    relevant = np.bincount(ranks.query, minlength=n).astype(np.float64)
    relevant[relevant == 0] = np.nan
    levels = _levels(ranks, gain)

    def total(per_level: Floats) -> Floats:
        return np.bincount(levels.query, weights=per_level, minlength=n).astype(np.float64)

    first_rank, reciprocal, hits, reciprocal_at = _first_relevant(levels, cuts, n)
    missing = np.isnan(relevant)
    out: dict[str, Floats] = {}
    for k in cuts:
        share_inside: Floats = np.clip((k - levels.above) / levels.tied, 0.0, 1.0)
        found = total(np.multiply(levels.relevant, share_inside))
        out[f"recall@{k}"] = found / relevant
        out[f"precision@{k}"] = np.where(missing, np.nan, found / k)
        out[f"hit@{k}"] = np.where(missing, np.nan, hits[k])
        out[f"mrr@{k}"] = np.where(missing, np.nan, reciprocal_at[k])
        discount = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))))
        share = discount[np.minimum(k, levels.above + levels.tied)] - discount[np.minimum(k, levels.above)]
        with np.errstate(invalid="ignore"):
            out[f"ndcg@{k}"] = total(levels.gain / levels.tied * share) / _ideal(ranks.query, gain, n, k)
    out["mrr"] = np.where(missing, np.nan, reciprocal)
    out["map"] = total(_precision_sums(levels)) / relevant
    return RetrievalValues(out, np.where(missing, np.nan, first_rank))


@dataclass(frozen=True)
class _Levels:
    """Per (query, score) that holds a relevant candidate, best first within a query."""

    query: Integers
    above: Integers
    tied: Integers
    relevant: Integers
    gain: Floats
    relevant_above: Integers
    first: npt.NDArray[np.bool_]


def _levels(ranks: PositiveRanks, gain: Floats) -> _Levels:
    order = np.lexsort((ranks.above, ranks.query))
    order = order[ranks.above[order] >= 0]
    query, above = ranks.query[order], ranks.above[order]
    new_query = np.ones(len(order), bool)
    new_query[1:] = query[1:] != query[:-1]
    new = new_query.copy()
    new[1:] |= above[1:] != above[:-1]
    starts = np.flatnonzero(new)
    if not len(starts):
        none = np.empty(0, np.int64)
        return _Levels(none, none, none, none, np.empty(0), none, np.empty(0, bool))
    query_start = np.maximum.accumulate(np.where(new_query, np.arange(len(order)), 0))[starts]
    return _Levels(
        query[starts],
        above[starts],
        ranks.tied[order][starts],
        np.diff(np.append(starts, len(order))),
        np.add.reduceat(gain[order], starts),
        starts - query_start,
        new_query[starts],
    )


def _harmonic(above: Integers, tied: Integers) -> Floats:
    """Σ 1/(above + j) over j = 1..tied."""
    from scipy.special import digamma

    return np.where(tied == 1, 1 / (above + 1.0), digamma(above + tied + 1.0) - digamma(above + 1.0))


def _precision_sums(levels: _Levels) -> Floats:
    """Expected Σ of precision at the positions of a level's relevant candidates.

    The j-th place of the level is relevant with probability p/t, and then (j - 1)(p - 1)/(t - 1) of the places before
    it are relevant too, on top of the P above the level.
    """
    harmonic = _harmonic(levels.above, levels.tied)
    slope = np.where(levels.tied > 1, (levels.relevant - 1) / np.maximum(levels.tied - 1, 1), 0.0)
    places = levels.tied - (levels.above + 1) * harmonic  # Σ (j - 1)/(above + j)
    return levels.relevant / levels.tied * ((levels.relevant_above + 1) * harmonic + slope * places)


def _first_relevant(
    levels: _Levels, cuts: Sequence[int], n: int
) -> tuple[Floats, Floats, dict[int, Floats], dict[int, Floats]]:
    """Expected position, reciprocal position, hit and cut-off reciprocal position of the best relevant candidate."""
    query = levels.query[levels.first]
    triples = np.stack([levels.above[levels.first], levels.tied[levels.first], levels.relevant[levels.first]], axis=1)
    rank, reciprocal = np.full(n, np.inf), np.zeros(n)
    hits = {k: np.zeros(n) for k in cuts}
    reciprocal_at = {k: np.zeros(n) for k in cuts}
    above, tied, relevant = triples.T
    rank[query] = above + (tied + 1) / (relevant + 1)
    # One relevant candidate among t: each place with chance 1/t. All t relevant: the first place for certain.
    sure = tied == relevant
    length = np.where(sure, 1, tied)
    reciprocal[query] = _harmonic(above, length) / length
    for k in cuts:
        inside = np.clip(k - above, 0, length)
        hits[k][query] = inside / length
        reciprocal_at[k][query] = np.where(inside > 0, _harmonic(above, np.maximum(inside, 1)) / length, 0.0)
    # Several among more: the distribution of the first place, once per distinct (above, t, p).
    mixed = np.flatnonzero(~sure & (relevant > 1))
    distinct, which = np.unique(triples[mixed], axis=0, return_inverse=True)
    by_triple = mixed[np.argsort(which.ravel(), kind="stable")]
    parts = np.split(by_triple, np.cumsum(np.bincount(which.ravel(), minlength=len(distinct)))[:-1])
    for (a, t, p), part in zip(distinct.tolist(), parts):
        members = query[part]
        j = np.arange(1, t - p + 2)
        survival = np.concatenate(([1.0], np.cumprod((t - p - j[:-1] + 1.0) / (t - j[:-1] + 1.0))))
        chance = survival * p / (t - j + 1.0)
        reciprocal[members] = (chance / (a + j)).sum()
        for k in cuts:
            within = chance[: max(0, k - a)]
            hits[k][members] = within.sum()
            reciprocal_at[k][members] = (within / (a + j[: len(within)])).sum()
    return rank, reciprocal, hits, reciprocal_at


def _ideal(query: Integers, gain: Floats, n: int, k: int) -> Floats:
    """DCG@k of the best possible order, per query; 0 where nothing is relevant."""
    order = np.lexsort((-gain, query))
    starts = np.searchsorted(query[order], np.arange(n))
    place = np.arange(len(order)) - starts[query[order]]
    inside = place < k
    discounted = gain[order][inside] / np.log2(place[inside] + 2)
    return np.bincount(query[order][inside], weights=discounted, minlength=n).astype(np.float64)
