"""Attention over padded graphs: padding, order, gates and views."""

from __future__ import annotations

import pytest
import torch

from kontrast.encoders.dense_graphs import DenseGAT, DenseGraphs, gated_softmax, masked_softmax, straight_through


def graphs(n=6, real=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(n)[None] < real
    both = mask[:, :, None] & mask[:, None]
    gate = ((torch.rand(1, n, n, generator=generator) < 0.5) | torch.eye(n, dtype=torch.bool)) & both
    return DenseGraphs(
        weight=torch.rand(1, n, n, generator=generator) + 0.1,
        gate=gate.float(),
        kind=torch.randint(0, 3, (1, n, n), generator=generator),
        mask=mask,
    )


def network(seed=0):
    torch.manual_seed(seed)
    made = DenseGAT(8, 2, 3, layers=2, dropout=0.0)
    for layer in made.layers:
        torch.nn.init.normal_(layer.kind)
    return made.eval()


def cut(made, n):
    return DenseGraphs(made.weight[:, :n, :n], made.gate[:, :n, :n], made.kind[:, :n, :n], made.mask[:, :n])


def test_padding_changes_no_node():
    made, net = graphs(n=7, real=4), network()
    nodes = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(1))
    padded = net(nodes * made.mask[..., None], made)
    alone = net(nodes[:, :4], cut(made, 4))
    assert torch.allclose(padded[:, :4], alone, atol=1e-6)
    assert padded[:, 4:].abs().max() == 0


def test_numbering_of_nodes_permutes_results():
    made, net = graphs(n=5, real=5), network()
    nodes = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(2))
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = DenseGraphs(
        made.weight[:, order][:, :, order], made.gate[:, order][:, :, order], made.kind[:, order][:, :, order],
        made.mask[:, order],
    )  # fmt: skip
    assert torch.allclose(net(nodes[:, order], turned), net(nodes, made)[:, order], atol=1e-6)


def test_a_layer_is_attention_as_the_paper_writes_it():
    made, net = graphs(n=4, real=4), network()
    layer = net.layers[0]
    nodes = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(3))
    values = layer.project(nodes)[0].view(4, 2, 4)
    heard = torch.zeros(4, 2, 4)
    for i in range(4):
        for head in range(2):
            terms, vectors = [], []
            for j in range(4):
                if made.gate[0, i, j] > 0:
                    own = (values[i, head] * layer.hears[head]).sum() + (values[j, head] * layer.heard[head]).sum()
                    logit = torch.nn.functional.leaky_relu(own, 0.2) + (made.weight[0, i, j] + 1e-6).log()
                    terms.append(logit + layer.kind[head, made.kind[0, i, j]])
                    vectors.append(values[j, head])
            heard[i, head] = torch.softmax(torch.stack(terms), 0) @ torch.stack(vectors)
    expected = layer.norm(nodes[0] + torch.nn.functional.elu(heard.view(4, 8) + layer.bias))
    single = DenseGAT(8, 2, 3, layers=1, dropout=0.0)
    single.layers[0] = layer
    assert torch.allclose(single(nodes, made)[0], expected, atol=1e-5)


def test_masked_softmax_of_nothing_is_zero_without_nan():
    logits = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    found = masked_softmax(logits, mask)
    assert found.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
    found.square().sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_closed_gate_hears_what_opening_it_would_do():
    logits = torch.tensor([[0.3, 0.1, -0.5]], dtype=torch.float64)
    values = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    gate = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = gated_softmax(logits, gate)
    assert found[0, 1] == 0
    assert torch.allclose(found[0, [0, 2]], torch.softmax(logits[0, [0, 2]], 0))
    (found[0] * values).sum().backward()
    # Opened by a hair, by finite difference.
    step = 1e-6
    terms = logits.exp()[0] * torch.tensor([1.0, step, 1.0], dtype=torch.float64)
    before = (found[0] * values).sum().item()
    after = (terms / terms.sum() * values).sum().item()
    assert gate.grad[0, 1].item() == pytest.approx((after - before) / step, rel=1e-4)


def test_the_gradient_of_open_terms_is_that_of_a_softmax():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    gate = (torch.rand(2, 1, 5, generator=torch.Generator().manual_seed(7)) < 0.6).double()
    gate[..., 0] = 1
    assert torch.autograd.gradcheck(lambda x: gated_softmax(x, gate), logits)


def test_straight_through_has_hard_values_and_a_soft_gradient():
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    found = straight_through(x > 0, torch.sigmoid(x))
    assert found.tolist() == [0.0, 1.0]
    found.sum().backward()
    assert torch.allclose(x.grad, torch.sigmoid(x) * (1 - torch.sigmoid(x)))


def test_a_view_drops_and_adds_on_both_sides_and_spares_what_is_not_free():
    n = 40
    mask = torch.ones(1, n, dtype=torch.bool)
    edge = torch.rand(1, n, n, generator=torch.Generator().manual_seed(4)) < 0.3
    edge = edge | edge.transpose(1, 2) | torch.eye(n, dtype=torch.bool)
    free = edge & ~torch.eye(n, dtype=torch.bool)
    free[:, :5] = False
    free[:, :, :5] = False
    allowed = ~torch.eye(n, dtype=torch.bool).expand(1, n, n)
    made = DenseGraphs(torch.full((1, n, n), 0.5), edge.float(), torch.zeros(1, n, n, dtype=torch.long), mask)
    view = made.perturbed(0.2, 0.1, free=free, allowed=allowed, kind=2, generator=torch.Generator().manual_seed(5))
    gone, come = (made.gate > view.gate)[0], (view.gate > made.gate)[0]
    assert torch.equal(gone, gone.T)
    assert torch.equal(come, come.T)
    assert not (gone & ~free[0]).any()
    assert not (come & edge[0]).any()
    assert 0.1 < gone.sum() / free.sum() < 0.3
    assert 0.02 < come.sum() / free.sum() < 0.2
    assert view.kind[0][come].unique().tolist() == [2]
    assert torch.allclose(view.weight[0][come], torch.tensor(0.5))
    same = made.perturbed(0.0, 0.0, free=free, allowed=allowed, kind=2)
    assert torch.equal(same.gate, made.gate)
    assert torch.equal(same.weight, made.weight)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of heads"):
        DenseGAT(6, 4, 3)
