"""Which candidates must not serve as negatives: the anchor's own rows, duplicates, known and suspected positives.

What is known beforehand becomes a `kontrast.ops.Mask`, which says it by structure (ids, diagonals, sparse pairs) and
never as an n x m matrix. What shows only in the scores is found tile by tile and becomes sparse pairs of such a mask.
Miners take the mask. An objective's rule takes the same facts as ``ids=`` and as ``known=Pairs(*mask.pairs)``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from kontrast.ops.masks import Mask
from kontrast.ops.rule import Pairs

Similarity = Literal["cosine", "dot", "euclidean"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
KnownPositives = Sequence[Sequence[int]] | Pairs

# A tile of 4 Mi scores (16 MiB in float32), of at most so many anchors that few of them wait for a wide corpus.
_TILE, _HEIGHT = 1 << 22, 1024


def exclusions(
    n: int,
    m: int | None = None,
    *,
    own: int | None = 0,
    ids: Tensor | None = None,
    candidate_ids: Tensor | None = None,
    groups: Sequence[tuple[Tensor, Tensor]] = (),
    known_positives: KnownPositives | None = None,
) -> Mask:
    """What may not be a negative, from what is known before any score.

    Args:
        n: number of anchors.
        m: number of candidates; n by default.
        own: candidate ``i + own`` is anchor i itself or its positive; None if candidates are not aligned with anchors,
            as those of a queue or a corpus.
        ids: integers (n,); candidates whose id equals the anchor's are excluded (labels, documents, duplicates).
        candidate_ids: integers (m,); `ids` by default, if m is n.
        groups: more pairs of integers (n,) and (m,), each excluding where they are equal.
        known_positives: for each anchor the list of its positive candidates, or `kontrast.ops.Pairs`.

    Raises:
        ValueError: if a size does not fit, ids are not integers, or a positive lies outside the candidates.

    Example:
        >>> exclusions(3, ids=torch.tensor([7, 7, 8])).excluded(3, 3, torch.device("cpu")).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    m = n if m is None else m
    keys: list[tuple[Tensor, Tensor]] = []
    if ids is not None:
        keys.append((ids, ids if candidate_ids is None else candidate_ids))
    elif candidate_ids is not None:
        raise ValueError(f"'candidate_ids' has {len(candidate_ids)} entries but 'ids' is missing")
    keys.extend(groups)
    for rows, columns in keys:
        for tensor, size, whose in ((rows, n, "anchors"), (columns, m, "candidates")):
            if tensor.shape != (size,):
                raise ValueError(f"there are {size} {whose}, but their ids have shape {tuple(tensor.shape)}")
            if tensor.is_floating_point() or tensor.is_complex():
                raise ValueError(f"ids must be integers, got {tensor.dtype}")
    return Mask(
        diagonals=() if own is None else (own,),
        keys=tuple(keys),
        pairs=None if known_positives is None else _pairs(known_positives, n, m),
    )


def duplicate_ids(rows: Tensor | Sequence[Hashable], more: Tensor | Sequence[Hashable] | None = None) -> list[Tensor]:
    """Numbers rows so that exactly equal rows have equal numbers: ids of duplicates for `exclusions`.

    Args:
        rows: a tensor (n, ...) of inputs, or n hashable things such as texts.
        more: a second collection of the same kind, numbered with the first.

    Returns:
        One tensor of integers (n,), or two (n,) and (m,) if `more` is given.

    Raises:
        ValueError: if one is a tensor and the other is not, or their rows differ in shape.

    Example:
        >>> duplicate_ids(["a", "b", "a"])
        [tensor([0, 1, 0])]
    """
    if more is not None and isinstance(rows, Tensor) != isinstance(more, Tensor):
        raise ValueError(f"cannot compare rows of a {type(rows).__name__} with those of a {type(more).__name__}")
    if isinstance(rows, Tensor):
        tensors = [rows] if not isinstance(more, Tensor) else [rows, more]
        if tensors[-1].shape[1:] != rows.shape[1:]:
            raise ValueError(f"rows have shapes {tuple(rows.shape[1:])} and {tuple(tensors[-1].shape[1:])}")
        together = torch.cat(tensors).flatten(1) if rows.ndim > 1 else torch.cat(tensors)[:, None]
        if not len(together):
            return [torch.zeros(0, dtype=torch.long, device=rows.device) for _ in tensors]
        numbers = torch.unique(together, dim=0, return_inverse=True)[1]
        return list(numbers.split([len(tensor) for tensor in tensors]))
    seen: dict[Hashable, int] = {}
    parts = [rows] if more is None else [rows, more]
    return [torch.tensor([seen.setdefault(item, len(seen)) for item in part], dtype=torch.long) for part in parts]


def too_similar(scores: Tensor, positive_scores: Tensor, margin: float = 0.0) -> Tensor:
    """True where a candidate scores above the positive by more than `margin`, and so is probably a positive itself.

    Args:
        scores: (n, m) similarities.
        positive_scores: (n,) similarity of each anchor with its positive.
        margin: how far above the positive a negative may score; may be below 0.

    Raises:
        ValueError: if the numbers of anchors differ.

    Example:
        >>> too_similar(torch.tensor([[0.95, 0.2]]), torch.tensor([0.9]))
        tensor([[ True, False]])
    """
    if scores.ndim != 2 or positive_scores.shape != scores.shape[:1]:
        raise ValueError(
            f"'scores' must be (n, m) and 'positive_scores' (n,), got {tuple(scores.shape)} and "
            f"{tuple(positive_scores.shape)}"
        )
    return scores > (positive_scores + margin)[:, None]


@torch.no_grad()
def suspected_positives(
    anchors: Tensor,
    candidates: Tensor,
    positive_scores: Tensor,
    exclude: Mask,
    *,
    margin: float = 0.0,
    similarity: Similarity = "cosine",
) -> Mask:
    """`exclude` with every `too_similar` candidate added as a sparse pair. Tile by tile; no gradient.

    Args:
        anchors: (n, d).
        candidates: (m, d).
        positive_scores: (n,), see `paired_scores`.
        exclude: what is excluded already.
        margin: see `too_similar`.
        similarity: "cosine", "dot" or "euclidean" (minus the distance).

    Returns:
        A mask for objectives and miners. It holds one pair per suspect, so give a margin that leaves them few.

    Raises:
        ValueError: if shapes do not fit.
    """
    check_sides(anchors, candidates)
    check_scores(positive_scores, anchors, "positive_scores")
    found = [exclude.pairs] if exclude.pairs is not None else []
    for first, last, start, scores, excluded in score_tiles(anchors, candidates, exclude, similarity):
        suspects = too_similar(scores, positive_scores[first:last].to(scores), margin) & ~excluded
        rows, columns = suspects.nonzero(as_tuple=True)
        if len(rows):
            found.append((rows + first, columns + start))
    if not found:
        return exclude
    device = anchors.device
    rows, columns = (torch.cat([pair[side].to(device) for pair in found]) for side in (0, 1))
    return replace(exclude, pairs=(rows, columns))


def paired_scores(x: Tensor, y: Tensor, similarity: Similarity = "cosine") -> Tensor:
    """Similarity (n,) of row i of x with row i of y, on the scale that miners compare with.

    Raises:
        ValueError: if the shapes of x and y, both (n, d), differ.

    Example:
        >>> paired_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), "euclidean").item()
        -2.2360680103302
    """
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"paired rows need equal shapes (n, d), got {tuple(x.shape)} and {tuple(y.shape)}")
    check_similarity(similarity)
    x, y = _ready(x, similarity), _ready(y, similarity)
    return -(x - y).square().sum(1).sqrt() if similarity == "euclidean" else (x * y).sum(1)


def score_tiles(
    anchors: Tensor, candidates: Tensor, exclude: Mask, similarity: Similarity, *, whole_rows: bool = False
) -> Iterator[tuple[int, int, int, Tensor, Tensor]]:
    """Tiles of the n x m similarities, row by row of tiles.

    Yields:
        First and last anchor (exclusive), first candidate, scores (b, c) in float32 or wider, and bool (b, c) of what
        is excluded. With `whole_rows`, c is m.
    """
    n, m = len(anchors), len(candidates)
    height = max(1, min(n, _HEIGHT if not whole_rows else _TILE // max(1, m)))
    width = m if whole_rows else max(1, _TILE // height)
    out = _Excluded(exclude, n, m, anchors.device)
    for first in range(0, n, height):
        last = min(first + height, n)
        rows = _ready(anchors[first:last], similarity)
        for start in range(0, max(m, 1), max(width, 1)):
            columns = _ready(candidates[start : start + width], similarity)
            with torch.autocast(rows.device.type, enabled=False):
                if similarity == "euclidean":
                    scores = -torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
                else:
                    scores = rows @ columns.T
            yield first, last, start, scores, out.tile(first, last, start, start + len(columns))


class _Excluded:
    """Tiles of a mask; the entries that it names one by one are sorted by row once."""

    def __init__(self, mask: Mask, n: int, m: int, device: torch.device) -> None:
        for rows, columns in [*mask.keys, *([mask.within] if mask.within is not None else [])]:
            if (len(rows), len(columns)) != (n, m):
                raise ValueError(f"the mask has ids for {len(rows)} x {len(columns)} rows, the scores are {n} x {m}")
        self.mask, self.device = mask, device
        self.keys = [(rows.to(device), columns.to(device)) for rows, columns in mask.keys]
        self.within = None if mask.within is None else (mask.within[0].to(device), mask.within[1].to(device))
        rows, columns = mask.entries(n, m, device)
        inside = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < m)
        if not bool(inside.all()):
            raise ValueError(f"the mask names entries outside the {n} x {m} scores")
        self.rows, order = rows.sort()
        self.columns = columns[order]

    def tile(self, first: int, last: int, start: int, stop: int) -> Tensor:
        out = torch.zeros(last - first, stop - start, dtype=torch.bool, device=self.device)
        for rows, columns in self.keys:
            out |= rows[first:last, None] == columns[None, start:stop]
        if self.within is not None:
            out |= self.within[0][first:last, None] != self.within[1][None, start:stop]
        low, high = torch.searchsorted(self.rows, torch.tensor([first, last], device=self.device)).tolist()
        rows, columns = self.rows[low:high], self.columns[low:high]
        here = (columns >= start) & (columns < stop)
        out[rows[here] - first, columns[here] - start] = True
        return out


def check_sides(anchors: Tensor, candidates: Tensor) -> None:
    """Raises ValueError unless both are floating point matrices of equal width."""
    for tensor, name in ((anchors, "anchors"), (candidates, "candidates")):
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"'{name}' must be floating point (n, d), got {tensor.dtype} of {tuple(tensor.shape)}")
    if anchors.shape[1] != candidates.shape[1]:
        raise ValueError(f"'anchors' has {anchors.shape[1]} columns and 'candidates' has {candidates.shape[1]}")


def check_scores(scores: Tensor, anchors: Tensor, name: str) -> None:
    """Raises ValueError unless there is one score per anchor."""
    if scores.shape != anchors.shape[:1]:
        raise ValueError(f"'{name}' must be ({len(anchors)},), one per anchor, got {tuple(scores.shape)}")


def check_similarity(similarity: str) -> None:
    """Raises ValueError for an unknown name."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"unknown similarity '{similarity}'; known: {', '.join(SIMILARITIES)}")


def _ready(x: Tensor, similarity: Similarity) -> Tensor:
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return functional.normalize(wide, dim=1) if similarity == "cosine" else wide


def _pairs(known: KnownPositives, n: int, m: int) -> tuple[Tensor, Tensor]:
    if not isinstance(known, Pairs) and len(known) != n:
        raise ValueError(f"there are {n} anchors, but known positives for {len(known)}")
    pairs = known if isinstance(known, Pairs) else Pairs.from_lists(known)
    rows, columns = pairs.rows, pairs.columns
    if rows.ndim != 1 or rows.shape != columns.shape or rows.is_floating_point() or columns.is_floating_point():
        raise ValueError(
            f"known positives need integer rows and columns of one length, got {rows.dtype} of {tuple(rows.shape)} and "
            f"{columns.dtype} of {tuple(columns.shape)}"
        )
    for side, size, whose in ((rows, n, "anchors"), (columns, m, "candidates")):
        outside = side[(side < 0) | (side >= size)]
        if len(outside):
            wrong = int(outside[0])
            raise ValueError(f"known positives name row {wrong} of {size} {whose}")
    return rows.long(), columns.long()
