"""Exact positions of relevant candidates, without a matrix of all scores and without sorting it.

The position of a relevant candidate is known from two counts: how many candidates score higher, and how many score the
same. Counting runs over tiles, so 100,000 queries against 100,000 candidates need the memory of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.errors import DataError
from kontrast.evaluation.relevance import Relevance, RelevanceLike
from kontrast.evaluation.tiles import (
    CANDIDATE_ROWS,
    QUERY_ROWS,
    Matrix,
    Similarity,
    Tile,
    as_matrix,
    check_pair,
    over_tiles,
    pair_scores,
)

Run = Mapping[str, Mapping[str, float]]
"""Scores of the retrieved documents: query id → document id → score."""
Qrels = Mapping[str, Mapping[str, float]]
"""Judgements: query id → document id → grade."""

# Up to this many relevant candidates per query, one comparison each is faster than a binary search.
_FEW = 6
_PADDED_ENTRIES = 1 << 24


@dataclass(frozen=True)
class PositiveRanks:
    """Where every relevant candidate stands in its query's list.

    Args:
        query: (entries,) int64, the query of each relevant candidate, rising.
        above: (entries,) int64, how many candidates score strictly higher; -1 where it was not retrieved at all.
        tied: (entries,) int64, how many candidates have exactly its score, itself included. Its position is then
            any of ``above + 1 .. above + tied``, each as likely as the others.
        gain: (entries,) float64, its grade.
        n_queries: number of queries, those without a relevant candidate included.
    """

    query: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    tied: npt.NDArray[np.int64]
    gain: npt.NDArray[np.float64]
    n_queries: int


def rank_positives(
    queries: Matrix,
    candidates: Matrix,
    relevance: RelevanceLike,
    *,
    similarity: Similarity = "cosine",
    exclude: RelevanceLike | None = None,
    query_rows: int = QUERY_ROWS,
    candidate_rows: int = CANDIDATE_ROWS,
) -> PositiveRanks:
    """Positions of the relevant candidates, from embeddings.

    Args:
        queries: (n, d) finite, array or tensor; the work is done on its device.
        candidates: (m, d).
        relevance: see `RelevanceLike`.
        similarity: "cosine" or "dot".
        exclude: candidates to leave out per query (the query itself, known positives), in the same forms as
            `relevance`; an excluded candidate is not relevant either.
        query_rows: height of a tile.
        candidate_rows: width of a tile.

    Raises:
        ValueError: if shapes disagree, values are not finite or the relevance is malformed.
    """
    left = as_matrix(queries, "queries")
    right = as_matrix(candidates, "candidates", device=left.device)
    check_pair(left, right, similarity)
    relevant, excluded = _checked(relevance, exclude, len(left), len(right))
    scores = pair_scores(left, right, similarity, relevant.rows, relevant.indices)
    widest = int(relevant.counts.max(initial=1))
    height = max(1, min(query_rows, _PADDED_ENTRIES // max(widest, 1)))
    counter = _Counter(relevant, excluded, scores, left.device)
    over_tiles(left, right, similarity, counter.add_all, query_rows=height, candidate_rows=candidate_rows)
    return counter.result()


def rank_positives_from_scores(
    scores: Matrix, relevance: RelevanceLike, *, exclude: RelevanceLike | None = None, query_rows: int = QUERY_ROWS
) -> PositiveRanks:
    """Positions of the relevant candidates, from a matrix of scores (n, m); higher is better.

    Args:
        scores: (n, m) array or tensor without NaN; -inf stands for "not retrieved, tied with all others of that kind".
        relevance: see `RelevanceLike`.
        exclude: candidates to leave out per query.
        query_rows: how many rows are worked on at once.

    Raises:
        ValueError: if shapes disagree or a score is NaN.
    """
    table = torch.as_tensor(scores).detach()
    if table.ndim != 2:
        raise ValueError(f"scores must have the shape (n, m), got {tuple(table.shape)}.")
    if not table.is_floating_point():
        table = table.double()
    if torch.isnan(table).any():
        raise ValueError("scores must not hold NaN.")
    relevant, excluded = _checked(relevance, exclude, *table.shape)
    where = torch.from_numpy(relevant.rows).to(table.device), torch.from_numpy(relevant.indices).to(table.device)
    own = table[where].cpu().numpy()
    if np.isneginf(own).any() or torch.isneginf(table).any():
        # The counter marks left-out entries with -inf; the scores' own -inf must stay above that mark.
        lowest = torch.finfo(table.dtype).min
        if (table == lowest).any():
            raise ValueError(f"scores must not hold both -inf and {lowest}.")
        table = table.clamp_min(lowest)
        own = np.maximum(own, lowest)
    counter = _Counter(relevant, excluded, own, table.device)
    for start in range(0, len(table), query_rows):
        block = table[start : start + query_rows].clone()
        counter.add(Tile(start, start + len(block), 0, table.shape[1], block))
    return counter.result()


def rank_positives_from_run(run: Run, qrels: Qrels) -> tuple[PositiveRanks, list[str]]:
    """Positions of the relevant documents, from retrieved lists that need not hold every document.

    Documents with equal scores count as tied (trec_eval orders them by id instead). A relevant document that is not in
    the list counts as never found.

    Args:
        run: query id → document id → score, higher is better.
        qrels: query id → document id → grade; grades ≤ 0 mean "not relevant".

    Returns:
        The positions, and the query ids in their order: those of `qrels`. A query missing from `run` has found nothing.

    Raises:
        ValueError: if a score is NaN.
    """
    names = list(qrels)
    query, above, tied, gain = [], [], [], []
    for number, name in enumerate(names):
        listed = run.get(name, {})
        ordered = np.sort(np.fromiter(listed.values(), np.float64, len(listed)))
        if np.isnan(ordered).any():
            raise ValueError(f"query '{name}' has a score that is NaN.")
        for document, grade in qrels[name].items():
            if grade <= 0:
                continue
            query.append(number)
            gain.append(float(grade))
            if document in listed:
                low, high = (int(np.searchsorted(ordered, listed[document], side)) for side in ("left", "right"))
                above.append(len(ordered) - high)
                tied.append(high - low)
            else:
                above.append(-1)
                tied.append(0)
    ranks = PositiveRanks(
        np.asarray(query, np.int64),
        np.asarray(above, np.int64),
        np.asarray(tied, np.int64),
        np.asarray(gain, np.float64),
        len(names),
    )
    return ranks, names


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """A TREC run file: lines ``query Q0 document rank score tag``, separated by blanks.

    Raises:
        DataError: naming the file and line that is malformed.
    """
    return _read_table(path, columns=6, document=2, value=4, layout="query Q0 document rank score tag")


def read_qrels(path: str | Path) -> dict[str, dict[str, float]]:
    """A TREC judgement file: lines ``query 0 document grade``, separated by blanks.

    Raises:
        DataError: naming the file and line that is malformed.
    """
    return _read_table(path, columns=4, document=2, value=3, layout="query 0 document grade")


def _read_table(
    path: str | Path, *, columns: int, document: int, value: int, layout: str
) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", file=path) from None
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != columns:
            raise DataError(
                f"line {number} has {len(fields)} fields, not {columns}", file=path, mend=f"write '{layout}'"
            )
        try:
            score = float(fields[value])
        except ValueError:
            score = float("nan")
        if np.isnan(score):
            raise DataError(f"line {number}: '{fields[value]}' is not a number", file=path, mend=f"write '{layout}'")
        documents = table.setdefault(fields[0], {})
        if fields[document] in documents:
            raise DataError(f"line {number} lists document '{fields[document]}' again for '{fields[0]}'", file=path)
        documents[fields[document]] = score
    return table


def _checked(relevance: RelevanceLike, exclude: RelevanceLike | None, n: int, m: int) -> tuple[Relevance, Relevance]:
    relevant = Relevance.of(relevance, n, m)
    if exclude is None:
        return relevant, Relevance(np.zeros(n + 1, np.int64), np.empty(0, np.int64))
    excluded = Relevance.of(exclude, n, m)
    return relevant.without(excluded, m), excluded


class _Counter:
    """Counts, per relevant entry, the other candidates above and tied, from tiles in any order.

    Relevant and excluded candidates are taken out of the tiles (-inf), so that only true negatives are counted there;
    the relevant ones are then compared with each other. A relevant candidate thus never meets its own score.
    """

    def __init__(
        self, relevant: Relevance, excluded: Relevance, scores: npt.NDArray[np.floating], device: torch.device
    ) -> None:
        # Within a query by rising score, as the binary search needs it.
        order = np.lexsort((scores, relevant.rows))
        self.scores = scores[order]
        self.query = relevant.rows[order]
        self.gain = relevant.gains[order]
        self.n_queries = relevant.n_queries
        self._indptr = relevant.indptr
        self._left_out = [(relevant.indptr, relevant.indices), (excluded.indptr, excluded.indices)]
        self._device = device
        self._higher = np.zeros(len(scores), np.int64)
        self._at_least = np.zeros(len(scores), np.int64)

    def add_all(self, tiles: Iterator[Tile]) -> None:
        """Counts tiles. Tiles of different queries may be counted at the same time: they write to different entries."""
        for tile in tiles:
            self.add(tile)

    def add(self, tile: Tile) -> None:
        """Counts one tile; its scores are overwritten."""
        first, last = int(self._indptr[tile.start]), int(self._indptr[tile.stop])
        if first == last:
            return
        for indptr, indices in self._left_out:
            begin, end = int(indptr[tile.start]), int(indptr[tile.stop])
            columns = indices[begin:end]
            inside = (columns >= tile.left) & (columns < tile.right)
            if inside.any():
                counts = np.diff(indptr[tile.start : tile.stop + 1])
                rows = np.repeat(np.arange(len(counts)), counts)[inside]
                tile.scores[self._to(rows), self._to(columns[inside] - tile.left)] = -torch.inf
        counts = np.diff(self._indptr[tile.start : tile.stop + 1])
        rows = np.repeat(np.arange(len(counts)), counts)
        slots = np.arange(last - first) - np.repeat(self._indptr[tile.start : tile.stop] - first, counts)
        padded = np.full((len(counts), int(counts.max())), np.inf, self.scores.dtype)
        padded[rows, slots] = self.scores[first:last]
        count = _compare if padded.shape[1] <= _FEW else _bisect
        higher, at_least = count(tile.scores, torch.from_numpy(padded).to(tile.scores.device, tile.scores.dtype))
        self._higher[first:last] += higher.cpu().numpy()[rows, slots]
        self._at_least[first:last] += at_least.cpu().numpy()[rows, slots]

    def result(self) -> PositiveRanks:
        """The positions, once every tile was counted."""
        size = len(self.scores)
        positions = np.arange(size)
        new_query = np.ones(size, bool)
        new_query[1:] = self.query[1:] != self.query[:-1]
        new_level = new_query.copy()
        new_level[1:] |= self.scores[1:] != self.scores[:-1]
        level = np.cumsum(new_level) - 1
        starts = positions[new_level]
        ends = np.append(starts[1:], size)
        higher_positives = self._indptr[self.query + 1] - ends[level]
        equal_positives = (ends - starts)[level]
        return PositiveRanks(
            self.query,
            self._higher + higher_positives,
            self._at_least - self._higher + equal_positives,
            self.gain,
            self.n_queries,
        )

    def _to(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


def _compare(scores: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """How many scores (n, m) of a row exceed, and reach, each of its thresholds (n, L): one pass per threshold."""
    columns = torch.split(thresholds, 1, dim=1)
    higher = torch.stack([(scores > column).sum(1, dtype=torch.int32) for column in columns], dim=1)
    at_least = torch.stack([(scores >= column).sum(1, dtype=torch.int32) for column in columns], dim=1)
    return higher, at_least


def _bisect(scores: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """The same counts by binary search in rising thresholds: time O(m log L) per row instead of O(m L)."""
    return _passed(scores, thresholds, right=False), _passed(scores, thresholds, right=True)


def _passed(scores: Tensor, thresholds: Tensor, *, right: bool) -> Tensor:
    places = torch.searchsorted(thresholds, scores, right=right)
    width = thresholds.shape[1] + 1
    places += torch.arange(len(scores), device=scores.device)[:, None] * width
    histogram = torch.bincount(places.flatten(), minlength=len(scores) * width).view(-1, width)
    # A score in slot j has passed the thresholds 0..j-1.
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]
