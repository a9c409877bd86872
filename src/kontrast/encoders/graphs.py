"""Encoders of graphs: graph convolutions over sparse matrices, full batch, without an n × n matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kontrast.encoders.base import seeded


@dataclass(frozen=True)
class SparseMatrix:
    """A sparse matrix with constant entries, in rows (CSR) and, for the backward pass, in columns.

    The product with a dense matrix is a sum over weighted rows, `embedding_bag`: it needs no sparse library, gives the
    same numbers each time, and never holds more than the result.

    Attributes:
        indptr, indices, values: (r + 1,), (k,), (k,): the entries row by row; int32, int32, float32.
        turned: the same of the transposed matrix: indptr (c + 1,), indices (k,), and for each of its entries the place
            of its value in `values` (k,); None for a symmetric matrix.
        columns: c.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    columns: int
    turned: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.indptr) - 1, self.columns

    @classmethod
    def from_entries(
        cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], *, symmetric: bool = False
    ) -> SparseMatrix:
        """From entries in any order; each place may come once.

        Args:
            rows, columns: (k,) int64.
            values: (k,) float.
            shape: rows and columns.
            symmetric: whether the matrix equals its transpose.
        """
        order = torch.argsort(rows * shape[1] + columns)
        rows, columns, values = rows[order], columns[order], values[order].float()
        turned = None
        if not symmetric:
            place = torch.argsort(columns * shape[0] + rows)
            turned = (_starts(columns, shape[1]), rows[place].int(), place)
        return cls(_starts(rows, shape[0]), columns.int(), values, shape[1], turned)

    def with_values(self, values: Tensor) -> SparseMatrix:
        """The same places with other values (k,), in the order of `values`."""
        return replace(self, values=values)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix (c, d): (r, d), with a gradient for the dense one."""
        if dense.dim() != 2 or len(dense) != self.columns:
            raise ValueError(f"a sparse matrix of shape {self.shape} cannot multiply {tuple(dense.shape)}")
        turned = self.turned
        if turned is None:
            back = (self.indptr, self.indices, self.values)
        else:
            back = (turned[0], turned[1], self.values[turned[2]])
        product: Tensor = _Product.apply(dense, self.indptr, self.indices, self.values, *back)  # type: ignore[no-untyped-call]
        return product


def _starts(rows: Tensor, count: int) -> Tensor:
    ends = torch.bincount(rows, minlength=count).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends]).int()


def _weighted_rows(dense: Tensor, indptr: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    if not len(indices):
        return dense.new_zeros(len(indptr) - 1, dense.shape[1])
    return F.embedding_bag(
        indices, dense, indptr, mode="sum", per_sample_weights=values.to(dense.dtype), include_last_offset=True
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts[3:])
        return _weighted_rows(dense.contiguous(), *parts[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _weighted_rows(gradients[0].contiguous(), *ctx.saved_tensors), None, None, None, None, None, None


def normalised_adjacency(edges: Tensor, n: int, weights: Tensor | None = None) -> SparseMatrix:
    """D^(−1/2) (A + I) D^(−1/2) of an undirected graph, D the degrees of A + I (arXiv 1609.02907, eq. 2).

    Args:
        edges: (m, 2) int64, each edge once, no self-loops.
        n: number of nodes.
        weights: (m,) positive weights of the edges; 1 if None.
    """
    own = torch.arange(n, device=edges.device)
    rows, columns = torch.cat([edges[:, 0], edges[:, 1], own]), torch.cat([edges[:, 1], edges[:, 0], own])
    ones = torch.ones(n, device=edges.device)
    given = torch.ones(len(edges), device=edges.device) if weights is None else weights
    values = torch.cat([given, given, ones])
    scale = torch.zeros(n, device=edges.device).index_add(0, rows, values).rsqrt()
    return SparseMatrix.from_entries(rows, columns, scale[rows] * values * scale[columns], (n, n), symmetric=True)


@dataclass(frozen=True)
class NodeCodes:
    """What a graph encoder says about n nodes.

    Attributes:
        vectors: (n, dim) embeddings; of a variational encoder in training a sample, else the mean.
        mean, log_std: (n, dim) of the variational encoder, else None.
    """

    vectors: Tensor
    mean: Tensor | None = None
    log_std: Tensor | None = None


class GraphEncoder(nn.Module):
    """Two graph convolutions, Z = Â ReLU(Â X W₁) W₂, as in the graph autoencoder (arXiv 1611.07308, eq. 1 to 4).

    Without features X is the identity: the first weights are then a learned vector for each node.

    Args:
        inputs: number of features, or of nodes where there are no features.
        hidden: length of the hidden vectors.
        dim: length of the embeddings.
        featured: whether nodes have features.
        kind: "gcn", or "vgae" with a mean and a standard deviation for each node.
        dropout: share of feature entries and of hidden entries dropped in training, in [0, 1).
        seed: the weights depend on it alone.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        dim: int,
        *,
        featured: bool = True,
        kind: Literal["gcn", "vgae"] = "gcn",
        dropout: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(inputs, hidden, dim) < 1:
            raise ValueError(f"inputs, hidden and dim must be at least 1, got {inputs}, {hidden} and {dim}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.inputs, self.dim, self.featured, self.dropout = inputs, dim, featured, dropout
        with seeded(seed, "graph encoder"):
            self.first = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, hidden)))
            self.second = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, dim)))
            self.spread = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, dim))) if kind == "vgae" else None

    def forward(
        self, adjacency: SparseMatrix, features: SparseMatrix | None, kept_columns: Tensor | None = None
    ) -> NodeCodes:
        """Embeddings of all nodes.

        Args:
            adjacency: (n, n), normalised.
            features: (n, inputs), or None where nodes have none.
            kept_columns: (inputs,) 0 or 1; a feature with 0 is masked in all nodes (a view).

        Raises:
            ValueError: if sizes do not fit.
        """
        if (features is not None) != self.featured or (features is None and adjacency.columns != self.inputs):
            came = "no features" if features is None else f"features of shape {features.shape}"
            raise ValueError(
                f"the encoder was made for {self.inputs} {'features' if self.featured else 'nodes without features'}, "
                f"got {came} of {adjacency.columns} nodes"
            )
        weights: Tensor = self.first
        if features is not None:
            if kept_columns is not None:
                weights = weights * kept_columns[:, None].to(weights.dtype)
            weights = features.with_values(F.dropout(features.values, self.dropout, self.training)) @ weights
        hidden = F.dropout(F.relu(adjacency @ weights), self.dropout, self.training)
        mean = adjacency @ (hidden @ self.second)
        if self.spread is None:
            return NodeCodes(mean)
        log_std = (adjacency @ (hidden @ self.spread)).clamp(max=10)
        vectors = mean + torch.randn_like(mean) * log_std.exp() if self.training else mean
        return NodeCodes(vectors, mean, log_std)


class PairDecoder(nn.Module):
    """The logit of an edge from two embeddings: their inner product, or a small network on their product.

    Both are symmetric: s(i, j) = s(j, i).

    Args:
        dim: length of the embeddings.
        kind: "inner" or "mlp".
        seed: of the network's weights.
    """

    def __init__(self, dim: int, kind: Literal["inner", "mlp"] = "inner", *, seed: int = 0) -> None:
        super().__init__()
        self.network: nn.Sequential | None = None
        if kind == "mlp":
            with seeded(seed, "pair decoder"):
                self.network = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Logits (...,) of embeddings (..., dim)."""
        product = left * right
        return product.sum(-1) if self.network is None else cast(Tensor, self.network(product)).squeeze(-1)

    def against(self, left: Tensor, right: Tensor) -> Tensor:
        """Logits (a, b) of every left with every right embedding."""
        return left @ right.T if self.network is None else self(left[:, None], right[None])
