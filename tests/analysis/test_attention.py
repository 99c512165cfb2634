"""Grad-CAM: it points at what the class depends on, and changes nothing."""

import pytest
import torch
from torch import nn

from tlx.analysis.attention import grad_cam


def spots(inplace: bool) -> nn.Sequential:
    """Class 0 is red, class 1 is green: each the mean of its channel."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))
        head.weight.copy_(torch.eye(2))
    net = nn.Sequential(conv, nn.ReLU(inplace=inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return net.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("inplace", [False, True])
def test_it_points_at_what_the_class_depends_on(inplace: bool) -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[:, 0, 1, 2], images[:, 1, 6, 5] = 1.0, 1.0  # a red and a green spot in each
    net = spots(inplace)
    before = [parameter.clone() for parameter in net.parameters()]
    found = grad_cam(net, images, torch.tensor([0, 1]))
    assert found is not None
    assert found.shape == (2, 8, 8)
    assert [divmod(int(one.argmax()), 8) for one in found] == [(1, 2), (6, 5)]
    assert found.amax((1, 2)).tolist() == [1, 1]
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_network_without_maps_has_none() -> None:
    tokens = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(2), nn.LayerNorm(4), nn.Flatten(), nn.Linear(16, 2))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    for net in (tokens, flat):
        assert grad_cam(net, torch.zeros(1, 3, 8, 8), torch.tensor([0])) is None
