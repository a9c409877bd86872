"""Graph encoders against dense arithmetic."""

from __future__ import annotations

import pytest
import torch

from kontrast.encoders.graphs import GraphEncoder, PairDecoder, SparseMatrix, normalised_adjacency


def random_edges(n: int, m: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.triu(torch.rand(n, n, generator=generator), 1)
    keys = mask.flatten().topk(m).indices
    return torch.stack([keys // n, keys % n], dim=1)


def dense_adjacency(edges: torch.Tensor, n: int) -> torch.Tensor:
    matrix = torch.eye(n)
    matrix[edges[:, 0], edges[:, 1]] = matrix[edges[:, 1], edges[:, 0]] = 1.0
    scale = matrix.sum(1).rsqrt()
    return scale[:, None] * matrix * scale[None]


def sparse_of(dense: torch.Tensor) -> SparseMatrix:
    rows, columns = dense.nonzero(as_tuple=True)
    return SparseMatrix.from_entries(rows, columns, dense[rows, columns], tuple(dense.shape))


def test_normalised_adjacency_is_that_of_kipf_and_welling():
    edges = random_edges(9, 12)
    found = normalised_adjacency(edges, 9) @ torch.eye(9)
    torch.testing.assert_close(found, dense_adjacency(edges, 9))


def test_an_edge_weight_scales_degrees():
    edges = torch.tensor([[0, 1]])
    found = normalised_adjacency(edges, 2, torch.tensor([3.0])) @ torch.eye(2)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75], [0.75, 0.25]]))


def test_the_order_of_edges_changes_nothing():
    edges = random_edges(20, 40)
    one = normalised_adjacency(edges, 20)
    other = normalised_adjacency(edges.flip(0), 20)
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (3, 3)])
def test_product_and_its_gradient(shape):
    generator = torch.Generator().manual_seed(1)
    dense = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.4)
    dense[1] = 0
    right = torch.randn(shape[1], 4, generator=generator, requires_grad=True)
    weights = torch.randn(shape[0], 4, generator=generator)
    ((sparse_of(dense) @ right) * weights).sum().backward()
    torch.testing.assert_close(sparse_of(dense) @ right.detach(), dense @ right.detach())
    torch.testing.assert_close(right.grad, dense.T @ weights)


def test_values_may_be_replaced_and_an_empty_matrix_gives_zeros():
    dense = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    matrix = sparse_of(dense)
    torch.testing.assert_close(matrix.with_values(matrix.values * 2) @ torch.eye(2), 2 * dense)
    assert not (sparse_of(torch.zeros(3, 2)) @ torch.ones(2, 5)).any()


def test_a_product_of_wrong_sizes_states_both():
    with pytest.raises(ValueError, match=r"\(2, 3\) cannot multiply \(4, 1\)"):
        sparse_of(torch.ones(2, 3)) @ torch.ones(4, 1)


def test_gcn_is_the_formula():
    edges, features = random_edges(10, 15), torch.rand(10, 6)
    encoder = GraphEncoder(6, 8, 4, seed=3).eval()
    adjacency = dense_adjacency(edges, 10)
    wanted = adjacency @ torch.relu(adjacency @ features @ encoder.first) @ encoder.second
    found = encoder(normalised_adjacency(edges, 10), sparse_of(features)).vectors
    torch.testing.assert_close(found, wanted)


def test_a_masked_column_is_a_zero_column():
    edges, features = random_edges(10, 15), torch.rand(10, 6)
    encoder, adjacency = GraphEncoder(6, 8, 4).eval(), normalised_adjacency(edges, 10)
    kept = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    found = encoder(adjacency, sparse_of(features), kept).vectors
    torch.testing.assert_close(found, encoder(adjacency, sparse_of(features * kept)).vectors)


def test_without_features_weights_are_vectors_of_nodes():
    edges = random_edges(10, 15)
    encoder = GraphEncoder(10, 8, 4, featured=False, dropout=0.0)
    adjacency = dense_adjacency(edges, 10)
    wanted = adjacency @ torch.relu(adjacency @ encoder.first) @ encoder.second
    torch.testing.assert_close(encoder(normalised_adjacency(edges, 10), None).vectors, wanted)


def test_variational_samples_in_training_only():
    adjacency, features = normalised_adjacency(random_edges(10, 15), 10), sparse_of(torch.rand(10, 6))
    encoder = GraphEncoder(6, 8, 4, kind="vgae", dropout=0.0)
    assert not torch.equal(encoder(adjacency, features).vectors, encoder(adjacency, features).vectors)
    codes = encoder.eval()(adjacency, features)
    assert torch.equal(codes.vectors, codes.mean)
    assert codes.log_std.shape == (10, 4)


def test_weights_depend_on_the_seed_alone():
    one = GraphEncoder(6, 8, 4, seed=1)
    torch.rand(3)
    assert torch.equal(one.first, GraphEncoder(6, 8, 4, seed=1).first)
    assert not torch.equal(one.first, GraphEncoder(6, 8, 4, seed=2).first)


def test_a_graph_that_does_not_fit_is_refused():
    adjacency = normalised_adjacency(random_edges(10, 15), 10)
    with pytest.raises(ValueError, match="made for 6 features, got no features of 10 nodes"):
        GraphEncoder(6, 8, 4)(adjacency, None)
    with pytest.raises(ValueError, match="9 nodes without features"):
        GraphEncoder(9, 8, 4, featured=False)(adjacency, None)
    with pytest.raises(ValueError, match="at least 1"):
        GraphEncoder(0, 8, 4)
    with pytest.raises(ValueError, match="dropout"):
        GraphEncoder(6, 8, 4, dropout=1.0)


@pytest.mark.parametrize("kind", ["inner", "mlp"])
def test_decoders_are_symmetric_and_agree_with_themselves(kind):
    decoder, left, right = PairDecoder(5, kind), torch.randn(4, 5), torch.randn(3, 5)
    scores = decoder.against(left, right)
    torch.testing.assert_close(scores, decoder.against(right, left).T)
    torch.testing.assert_close(scores[2, 1], decoder(left[2], right[1]))
