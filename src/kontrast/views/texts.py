"""Views of tokenised texts. Word order is kept, and no text loses its last token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from kontrast.views.base import check_share


class RaggedTokens(Protocol):
    """Rows of token ids in flat arrays, as `kontrast.encoders.TokenIds` holds them."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per row, (n,)."""
        ...

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each row starts, and the end, (n + 1,)."""
        ...

    def keep(self, mask: npt.NDArray[np.bool_]) -> Self:
        """The tokens where `mask` (total,) is true."""
        ...

    def select(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Self:
        """One run of tokens from each row; both (n,)."""
        ...


TokensT = TypeVar("TokensT", bound=RaggedTokens)


@dataclass(frozen=True)
class TokenDropout:
    """Leaves out each token with probability `share`; a text keeps at least one token, a random one.

    Random deletion of EDA (arXiv 1901.11196, section 2), on tokens.

    Attributes:
        share: probability of leaving a token out, in [0, 1).
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share("share", self.share, below=1)

    def __call__(self, batch: TokensT, rng: np.random.Generator, /) -> TokensT:
        """The same texts with fewer tokens."""
        starts, lengths = batch.offsets[:-1], batch.lengths
        draws = rng.random(int(lengths.sum()))
        keep = draws >= self.share
        full = lengths > 0
        if full.any():
            # The token with the largest draw stays whatever its draw is; among equals the first one.
            best = np.zeros(len(lengths))
            best[full] = np.maximum.reduceat(draws, starts[full])
            keep |= draws == np.repeat(best, lengths)
        return batch.keep(keep)


@dataclass(frozen=True)
class SpanCrop:
    """Keeps one run of neighbouring tokens, from a random place.

    Cropping as in unsupervised dense retrieval (Contriever, arXiv 2112.09118, section 3.2): two spans of one document
    are a pair.

    Attributes:
        least: smallest part of a text that is kept, in [0, 1]; the part is uniform in [least, most].
        most: largest part.
    """

    least: float = 0.5
    most: float = 1.0

    def __post_init__(self) -> None:
        check_share("least", self.least)
        check_share("most", self.most)
        if self.least > self.most:
            raise ValueError(f"least must not be above most, got {self.least} and {self.most}")

    def __call__(self, batch: TokensT, rng: np.random.Generator, /) -> TokensT:
        """One span of every text; at least one token of a text that has any."""
        lengths = batch.lengths
        draws = rng.random((len(lengths), 2))
        parts = self.least + (self.most - self.least) * draws[:, 0]
        kept = np.clip(np.rint(parts * lengths).astype(np.int64), np.minimum(lengths, 1), lengths)
        starts = np.floor(draws[:, 1] * (lengths - kept + 1)).astype(np.int64)
        return batch.select(starts, kept)
