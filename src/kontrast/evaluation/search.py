"""Nearest-neighbour search: exact by tiles, or through faiss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kontrast.errors import CheckpointError, ConfigError
from kontrast.evaluation.tiles import QUERY_ROWS, Matrix, Similarity, Tile, as_matrix, over_tiles, prepared
from kontrast.extras import require
from kontrast.files import read_json, replacing, write_json

Kind = Literal["exact", "faiss"]

FORMAT = 1
_LOW = torch.iinfo(torch.int32).max


def top_k(
    queries: Matrix, candidates: Matrix, k: int, *, similarity: Similarity = "cosine", query_rows: int = QUERY_ROWS
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k best candidates of each query, exactly, in O(tile) memory; of equal scores the lower index comes first.

    Args:
        queries: (n, d) finite, array or tensor; the work is done on its device.
        candidates: (m, d).
        k: at least 1; no more than m are returned.
        similarity: "cosine" or "dot".
        query_rows: height of a tile.

    Returns:
        Scores (n, min(k, m)) float32, falling, and candidate positions of the same shape.

    Raises:
        ValueError: if shapes disagree, values are not finite or k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    left = as_matrix(queries, "queries")
    right = as_matrix(candidates, "candidates", device=left.device)
    size = min(k, len(right))
    if not len(left) or not size:
        return np.empty((len(left), size), np.float32), np.empty((len(left), size), np.int64)

    def best(tiles: Iterator[Tile]) -> Tensor:
        kept = torch.empty((0, 0), dtype=torch.int64)
        for tile in tiles:
            keys = _keys(tile.scores, tile.left)
            keys = torch.cat([kept, keys], dim=1) if tile.left else keys
            kept = keys.topk(min(size, keys.shape[1]), dim=1).values
        return kept

    return _unpacked(torch.cat(over_tiles(left, right, similarity, best, query_rows=query_rows)))


def _keys(scores: Tensor, offset: int) -> Tensor:
    """One int64 per score that sorts by score, then by lower index: the order is total, so topk has no freedom."""
    bits = scores.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & _LOW)
    index = torch.arange(offset, offset + scores.shape[1], device=scores.device)
    return (ordered.long() << 32) + (_LOW - index)


def _unpacked(keys: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    ordered = (keys >> 32).int()
    bits = ordered ^ ((ordered >> 31) & _LOW)
    return bits.view(torch.float32).cpu().numpy(), (_LOW - (keys & 0xFFFFFFFF)).cpu().numpy()


class SearchIndex:
    """Vectors to search in, with the ids of their rows.

    Args:
        vectors: (m, d) finite; kept as float32.
        ids: (m,) one id per row, strings or integers; row numbers if left out.
        kind: "exact" (tiles, no dependency, lower index first among equals) or "faiss" (extra ``search``).
        similarity: "cosine" or "dot".
        factory: faiss index description, such as "Flat" (exact), "HNSW32" or "IVF256,Flat" (both approximate, far
            faster for millions of rows). Among equal scores at the k-th place faiss may keep any.
        probes: IVF only, how many cells each query visits.

    Raises:
        ValueError: if shapes disagree or values are not finite.
        ConfigError: if `kind` or `factory` is unknown.
        MissingExtraError: if faiss is wanted but not installed.
    """

    def __init__(
        self,
        vectors: Matrix,
        ids: Sequence[str] | Sequence[int] | npt.NDArray[Any] | None = None,
        kind: Kind = "exact",
        *,
        similarity: Similarity = "cosine",
        factory: str = "Flat",
        probes: int = 16,
    ) -> None:
        self._set(vectors, ids, kind, similarity, factory, probes)
        self._faiss: Any = self._build() if kind == "faiss" else None

    def _set(
        self,
        vectors: Matrix,
        ids: Sequence[str] | Sequence[int] | npt.NDArray[Any] | None,
        kind: Kind,
        similarity: Similarity,
        factory: str,
        probes: int,
    ) -> None:
        if kind not in ("exact", "faiss"):
            raise ConfigError(f"unknown kind of search index '{kind}'; known: exact, faiss.")
        if similarity not in ("cosine", "dot"):
            raise ConfigError(f"unknown similarity '{similarity}'; known: cosine, dot.")
        self.vectors = as_matrix(vectors, "vectors").float().contiguous()
        self.ids = list(range(len(self.vectors))) if ids is None else np.asarray(ids).tolist()
        if len(self.ids) != len(self.vectors):
            raise ValueError(f"got {len(self.ids)} ids for {len(self.vectors)} vectors.")
        self.kind, self.similarity, self.factory, self.probes = kind, similarity, factory, probes

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Matrix, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The k best rows of each query.

        Args:
            queries: (n, d).
            k: at least 1; no more than the index holds are returned.

        Returns:
            Scores (n, min(k, m)), falling, and row positions; look ids up with ``index.ids[position]``. An approximate
            index that finds fewer fills up with score -inf and position -1.

        Raises:
            ValueError: if shapes disagree, values are not finite or k < 1.
        """
        if self._faiss is None:
            on_device = as_matrix(queries, "queries", device=self.vectors.device)
            return top_k(on_device, self.vectors, k, similarity=self.similarity)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        rows = as_matrix(queries, "queries")
        if rows.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries have width {rows.shape[1]}, but the index has {self.vectors.shape[1]}.")
        scores, positions = self._faiss.search(self._unit(rows), min(k, len(self)))
        scores = np.where(positions < 0, -np.inf, scores).astype(np.float32)
        order = np.lexsort((positions, -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

    def save(self, folder: str | Path) -> Path:
        """Writes the index as a folder of safetensors, JSON and, for faiss, faiss's own format."""
        from safetensors.torch import save_file

        with replacing(folder) as temporary:
            temporary.mkdir()
            save_file({"vectors": self.vectors.cpu()}, temporary / "vectors.safetensors")
            described = {
                "format": FORMAT,
                "kind": self.kind,
                "similarity": self.similarity,
                "factory": self.factory,
                "probes": self.probes,
                "ids": self.ids,
            }
            write_json(temporary / "index.json", described)
            if self._faiss is not None:
                _faiss().write_index(self._faiss, str(temporary / "index.faiss"))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads a folder that `save` wrote.

        Raises:
            CheckpointError: if the folder is damaged or of another format version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        about = read_json(folder / "index.json")
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            version = about.get("format") if isinstance(about, dict) else None
            raise CheckpointError(
                f"has format version {version}, not {FORMAT}", file=folder, mend="build the index again"
            )
        try:
            vectors = load_file(folder / "vectors.safetensors")["vectors"]
            index = cls.__new__(cls)
            index._set(
                vectors, about["ids"], about["kind"], about["similarity"], about["factory"], int(about["probes"])
            )
            index._faiss = None
            if index.kind == "faiss":
                index._faiss = index._visiting(_faiss().read_index(str(folder / "index.faiss")))
        except (OSError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
            raise CheckpointError(f"is damaged ({error})", file=folder, mend="build the index again") from None
        return index

    def _unit(self, rows: Tensor) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(prepared(rows, self.similarity).float().cpu().numpy())

    def _build(self) -> Any:
        faiss = _faiss()
        try:
            index = faiss.index_factory(self.vectors.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError:
            raise ConfigError(
                f"unknown faiss factory '{self.factory}'; use 'Flat', 'HNSW32' or 'IVF256,Flat', for example."
            ) from None
        rows = self._unit(self.vectors)
        if not index.is_trained:
            cells = getattr(index, "nlist", 1)
            if len(rows) < cells:
                raise ConfigError(f"'{self.factory}' needs at least {cells} vectors, got {len(rows)}; use 'Flat'.")
            index.train(rows)
        index.add(rows)
        return self._visiting(index)

    def _visiting(self, index: Any) -> Any:
        if hasattr(index, "nprobe"):
            index.nprobe = self.probes
        return index


def _faiss() -> Any:
    return require("faiss", extra="search", purpose="for an approximate search index")
