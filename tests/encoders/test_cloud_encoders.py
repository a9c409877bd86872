"""Encoders of point clouds: the graph convolution against its slow twin, and their laws."""

from __future__ import annotations

import pytest
import torch

from kontrast.encoders.clouds import (
    CloudFeatures,
    GraphEncoder,
    Neighbourhood,
    PointNet,
    directions_to,
    largest_neighbour,
    nearest_neighbours,
    strongest_response,
)

SMALL = (4, 4, 6, 6, 8)


def cloud(n: int, p: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, p, 3, generator=torch.Generator().manual_seed(seed)) * 0.05


def encoder(kind: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    made = PointNet((8, 16)) if kind == "pointnet" else GraphEncoder(SMALL, neighbours=6, supports=2, **options)
    return made.eval()


def test_nearest_neighbours_are_the_nearest_and_never_oneself():
    points = cloud(3, 40)
    found = nearest_neighbours(points, 5).sort(2).values
    away = torch.cdist(points, points) + torch.eye(40) * 1e9
    assert torch.equal(found, away.topk(5, largest=False).indices.sort(2).values)
    with pytest.raises(ValueError, match="between 1 and 39"):
        nearest_neighbours(points, 40)


def test_directions_have_length_one_and_are_zero_between_equal_points():
    points = cloud(1, 10)
    points[0, 3] = points[0, 4]
    near = torch.tensor([[[4, 5]] * 10])
    found = directions_to(points, near)
    assert torch.equal(found[0, 3, 0], torch.zeros(3))
    torch.testing.assert_close(found[0, 0].norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("with_values", [True, False])
def test_the_strongest_response_equals_its_slow_twin_with_gradients(with_values):
    generator = torch.Generator().manual_seed(1)
    points = cloud(3, 12)
    near = nearest_neighbours(points, 4)
    directions = directions_to(points, near)
    supports = torch.randn(3, 5, generator=generator).requires_grad_()
    values = torch.randn(3, 12, 5, generator=generator).requires_grad_() if with_values else None
    weights = torch.randn(3, 12, 5, generator=generator)
    (strongest_response(directions, supports, values, near) * weights).sum().backward()
    got = [supports.grad.clone()] + ([values.grad.clone()] if values is not None else [])
    found = strongest_response(directions, supports, values, near).detach()
    for leaf in (supports, values):
        if leaf is not None:
            leaf.grad = None
    slow = []
    for cloud_number in range(3):
        for point in range(12):
            each = []
            for place, other in enumerate(near[cloud_number, point].tolist()):
                response = torch.relu(directions[cloud_number, point, place] @ supports)
                each.append(response if values is None else response * values[cloud_number, other])
            slow.append(torch.stack(each).max(0).values)
    wanted = torch.stack(slow).reshape(3, 12, 5)
    torch.testing.assert_close(found, wanted.detach())
    (wanted * weights).sum().backward()
    for one, leaf in zip(got, (supports, values)):
        torch.testing.assert_close(one, leaf.grad, rtol=1e-4, atol=1e-5)


def test_the_largest_neighbour_equals_gather_and_maximum_with_gradients():
    values = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    near = nearest_neighbours(cloud(2, 9), 3)
    largest_neighbour(values, near).square().sum().backward()
    got, values.grad = values.grad.clone(), None
    rows = torch.stack([values[i][near[i]] for i in range(2)])
    rows.max(2).values.square().sum().backward()
    torch.testing.assert_close(got, values.grad)


@pytest.mark.parametrize("kind", ["graph", "pointnet"])
def test_shapes_of_all_levels(kind):
    found = encoder(kind)(cloud(3, 64))
    assert isinstance(found, CloudFeatures)
    widths = (8, 16) if kind == "pointnet" else SMALL
    assert found.whole.shape == (3, widths[-1])
    assert found.pooled().shape == (3, sum(widths))
    assert found.per_point().shape == (3, 64, sum(widths))
    counts = [level.shape[1] for level in found.levels]
    assert counts == ([64, 64] if kind == "pointnet" else [64, 64, 16, 16, 4])


@pytest.mark.parametrize("scope", ["features", "space"])
def test_a_row_depends_on_itself_alone(scope):
    made, clouds = encoder("graph", scope=scope), cloud(4, 64)
    whole = made(clouds).whole
    torch.testing.assert_close(made(clouds[2:3]).whole, whole[2:3], rtol=1e-4, atol=1e-6)


def test_the_graph_convolution_itself_sees_directions_and_no_size():
    made = encoder("graph").surface
    points = cloud(2, 32)
    made.direct.weight.data.zero_()
    small, large = (made(Neighbourhood.of(scaled, 6)) for scaled in (points, points * 7 + 3))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-5)


def test_the_whole_encoder_does_see_size():
    made = encoder("graph")
    points = cloud(2, 64)
    assert (made(points).whole - made(points * 2).whole).abs().max() > 1e-3


def test_order_of_later_points_changes_nothing_that_matters():
    # Pooling keeps the first points, so only points that it drops may change places.
    made, points = encoder("graph"), cloud(1, 64)
    order = torch.cat([torch.arange(16), 16 + torch.randperm(48, generator=torch.Generator().manual_seed(0))])
    torch.testing.assert_close(made(points).whole, made(points[:, order]).whole, rtol=1e-4, atol=1e-5)


def test_encoders_may_share_what_is_around_their_points():
    made, points = encoder("graph"), cloud(2, 64)
    assert torch.equal(made(points).whole, made(points, made.around(points)).whole)


def test_upsampling_takes_the_nearest_pooled_point():
    points = cloud(1, 8)
    levels = (torch.zeros(1, 8, 1), torch.arange(2.0).reshape(1, 2, 1))
    found = CloudFeatures(torch.zeros(1, 1), levels, points).per_point()[0, :, 1]
    wanted = torch.cdist(points[0], points[0, :2]).argmin(1).float()
    assert torch.equal(found, wanted)


def test_training_reaches_every_weight():
    made = encoder("graph").train()
    made(cloud(3, 64)).per_point().square().mean().backward()
    still = [name for name, one in made.named_parameters() if one.grad is None or not one.grad.any()]
    assert not still


def test_a_graph_encoder_needs_five_widths():
    with pytest.raises(ValueError, match="five numbers"):
        GraphEncoder((8, 8))
