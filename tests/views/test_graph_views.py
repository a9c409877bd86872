"""Edge drop and Edge Balancing Augmentation: what they must keep, whatever the graph."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.views import graphs as graph_views
from kontrast.views.graphs import (
    EdgeBalancing,
    Partners,
    degree_drop_shares,
    draw_partners,
    drop_edges,
    mix_neighbours,
    node_degrees,
)


def graph(n: int, m: int, seed: int, *, hubs: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.triu(torch.rand(n, n, generator=generator), 1)
    if hubs:
        weight[: max(1, n // 10)] *= 4
    keys = torch.triu(weight, 1).flatten().topk(min(m, n * (n - 1) // 2)).indices
    return torch.stack([keys // n, keys % n], dim=1)


def keys(edges: torch.Tensor, n: int) -> set[int]:
    return set((edges[:, 0] * n + edges[:, 1]).tolist())


def balance(augmentation: EdgeBalancing, edges: torch.Tensor, n: int, *, seed: int = 0, alone: bool = True):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, 6, generator=generator)
    return augmentation(edges, vectors, alone=alone, generator=generator)


graphs = st.builds(
    lambda n, share, seed, hubs: (n, graph(n, max(1, int(share * n * (n - 1) / 2)), seed, hubs=hubs), seed),
    st.integers(4, 40), st.floats(0.02, 0.5), st.integers(0, 10_000), st.booleans(),
)  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True)
@given(graphs, st.integers(0, 8), st.integers(0, 4), st.sampled_from(["exact", "walks"]), st.booleans())
def test_added_edges_are_new_and_raise_degrees(made, low, most, search, sampled):
    n, edges, seed = made
    found = balance(EdgeBalancing(low=low, most_added=most, search=search, sampled=sampled), edges, n, seed=seed)
    added = found.added
    assert (added[:, 0] < added[:, 1]).all()
    assert len(keys(added, n)) == len(added)
    assert not keys(added, n) & keys(edges, n)
    before, after = node_degrees(edges, n), node_degrees(torch.cat([edges, added]), n)
    assert (after < low).sum() <= (before < low).sum()
    assert int(found.received.sum()) == len(added)
    if search == "exact":
        # With all nodes to choose from the promised degree is reached, unless a node runs out of non-neighbours.
        promised = torch.minimum(torch.tensor(low), before + most).clamp(max=n - 1)
        assert (after >= torch.maximum(before, promised)).all()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(graphs, st.integers(0, 6), st.floats(0, 1))
def test_dropping_keeps_the_floor(made, floor, share):
    n, edges, seed = made
    coins = torch.rand(len(edges), generator=torch.Generator().manual_seed(seed))
    kept = drop_edges(edges, share, coins, n=n, floor=floor)
    before, after = node_degrees(edges, n), node_degrees(kept, n)
    assert (after >= torch.minimum(before, torch.tensor(floor))).all()
    assert keys(kept, n) <= keys(edges, n)
    if floor == 0:
        assert len(kept) == int((coins >= share).sum())


def test_no_additions_and_no_drops_return_the_graph():
    edges = graph(20, 60, 0)
    found = balance(EdgeBalancing(most_added=0, drop=0.0), edges, 20)
    assert not len(found.added)
    assert torch.equal(drop_edges(edges, found.drop_shares, torch.rand(60), n=20), edges)
    assert not len(balance(EdgeBalancing(low=0), edges, 20).added)


def test_only_edges_between_high_degrees_are_dropped_and_dissimilar_ones_first():
    edges = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [3, 4]])
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.0, 1.0]])
    found = EdgeBalancing(low=0, high=2, drop=0.2)(edges, vectors, alone=True, generator=torch.Generator())
    assert found.drop_shares[-1] == 0, "an end of degree 1"
    assert found.drop_shares[1] > found.drop_shares[0]
    assert found.drop_shares[:6].mean() == pytest.approx(0.2, abs=1e-6)
    assert found.drop_shares.max() <= 0.9


def test_the_cap_spreads_added_edges():
    # All nodes point almost the same way as node 0: without a cap it is everybody's nearest.
    n = 60
    vectors = torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors[0] = vectors.mean(0)
    edges = torch.stack([torch.arange(1, n - 1, 2), torch.arange(2, n, 2)], dim=1)
    one = EdgeBalancing(low=2, most_added=1, cap=1000.0)(edges, vectors, alone=True, generator=torch.Generator())
    other = EdgeBalancing(low=2, most_added=1, cap=1.0)(edges, vectors, alone=True, generator=torch.Generator())
    assert one.received.max() > 2
    assert other.received.max() <= 2
    assert other.beyond_cap == 0


def test_edges_stay_inside_separate_groups():
    n = 20
    group = torch.arange(n) // 10
    inner = [(u, v) for u in range(n) for v in range(u + 1, n) if group[u] == group[v] and (u + v) % 3 == 0]
    edges = torch.tensor(inner)
    vectors = torch.nn.functional.one_hot(group, 2).float() + 0.01 * torch.rand(n, 2)
    for augmentation in (EdgeBalancing(low=6), EdgeBalancing(low=6, clusters=2)):
        added = augmentation(edges, vectors, alone=True, generator=torch.Generator().manual_seed(0)).added
        assert len(added)
        assert (group[added[:, 0]] == group[added[:, 1]]).all()


def test_isolated_nodes_without_features_get_nothing():
    edges = graph(10, 12, 0)
    edges = edges[(edges != 9).all(1)]
    assert not (balance(EdgeBalancing(low=4), edges, 10, alone=False).added == 9).any()
    assert node_degrees(balance(EdgeBalancing(low=4), edges, 10, alone=True).added, 10)[9] >= 3


def test_the_same_generator_gives_the_same_graph():
    edges = graph(30, 50, 1)
    augmentation = EdgeBalancing(low=5, sampled=True, search="walks")
    one, two, three = (balance(augmentation, edges, 30, seed=seed).added for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_low_is_the_mean_degree_rounded_up():
    edges = graph(10, 13, 0)
    assert EdgeBalancing().bounds(edges, 10) == (3, 3)
    assert EdgeBalancing(low=1, high=7).bounds(edges, 10) == (1, 7)


def test_gca_drops_edges_between_low_degrees_first():
    edges = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [4, 5]])
    shares = degree_drop_shares(edges, 6, 0.3)
    assert shares[-1] == shares.max()
    assert shares[0] < shares[-1]
    assert shares.max() <= 0.7
    regular = torch.tensor([[0, 1], [2, 3]])
    assert torch.allclose(degree_drop_shares(regular, 4, 0.3), torch.tensor([0.3, 0.3]))


# ---- mixed neighbours ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, derandomize=True)
@given(graphs, st.integers(0, 8), st.booleans(), st.booleans())
def test_mixed_neighbours_are_ones_own_or_a_partners(made, tail, alone, walks):
    n, edges, seed = made
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, 6, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        if walks:
            patch.setattr(graph_views, "EXACT", 0)
        found = draw_partners(edges, vectors, tail=tail, alone=alone, generator=generator)
    degree = node_degrees(edges, n)
    assert (found.of[degree >= tail] == -1).all()
    assert (found.of != torch.arange(n)).all()
    assert (found.shares >= 0).all()
    assert (found.shares <= 0.5).all()
    if not alone:
        assert (found.of[degree == 0] == -1).all()
    mixed = mix_neighbours(edges, found, n=n, tail=tail, drop=0.2, generator=generator)
    assert (mixed[:, 0] < mixed[:, 1]).all()
    assert len(keys(mixed, n)) == len(mixed)
    near = [set() for _ in range(n)]
    for u, v in edges.tolist():
        near[u].add(v)
        near[v].add(u)
    reach = [near[i] | (near[int(found.of[i])] if found.of[i] >= 0 else set()) for i in range(n)]
    assert all(v in reach[u] or u in reach[v] for u, v in mixed.tolist())


def test_low_degrees_take_over_neighbours_and_high_ones_keep_their_share():
    # Node 0 has nine neighbours; 10 is like it and has one of its own; 11 has nobody like it.
    edges = torch.tensor([[0, i] for i in range(1, 10)] + [[10, 12], [11, 12]])
    partners = torch.full((13,), -1)
    partners[10] = 0
    shares = torch.zeros(13)
    shares[10] = 0.5
    found = Partners(partners, shares, torch.ones(len(edges)))
    mixed = mix_neighbours(edges, found, n=13, tail=9, drop=0.0, generator=torch.Generator().manual_seed(0))
    taken = keys(mixed, 13) - keys(edges, 13)
    assert taken <= {i * 13 + 10 for i in range(1, 10)}
    assert len(taken) >= 8, "as many as a node of high degree has, of ten to choose from"
    fewer = mix_neighbours(edges[:9], Partners(partners, shares * 0, torch.ones(9)), n=13, tail=1, drop=0.5,
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert len(fewer) == 9, "each of the others keeps its only edge"


def test_partners_are_drawn_by_similarity():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.2, 1.0], [-1.0, 0.0]])
    edges = torch.tensor([[0, 1], [2, 3]])
    drawn = [
        int(draw_partners(edges, vectors, tail=2, alone=True, generator=torch.Generator().manual_seed(seed)).of[0])
        for seed in range(200)
    ]
    assert 3 not in drawn
    assert drawn.count(1) / 200 == pytest.approx(1 / 1.2, abs=0.1)
    lonely = draw_partners(edges, vectors, tail=2, alone=True, generator=torch.Generator())
    assert int(lonely.of[3]) == -1, "nobody is like it"
