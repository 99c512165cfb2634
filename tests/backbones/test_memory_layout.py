"""Channels last, but where torch's gradient of a convolution is wrong."""

import copy

import pytest
import torch
from torch import nn

from tlx.backbones.memory_layout import channels_last


@pytest.mark.parametrize("few", [3, 8, 16])
def test_the_gradient_of_a_convolution_of_one_pixel_with_a_stride_is_right(few: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(few, 24, 1, stride=2, bias=False), nn.Conv2d(24, 4, 3))
    x = torch.randn(2, few, 56, 56)
    double = copy.deepcopy(net).double()
    double(x.double()).square().mean().backward()
    channels_last(net)
    again = copy.deepcopy(net)  # as a snapshot is
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)
    for one in (net, again):
        one(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        for found, expected in zip(one.parameters(), double.parameters(), strict=True):
            assert found.grad is not None
            assert expected.grad is not None
            torch.testing.assert_close(found.grad.double(), expected.grad, atol=1e-5, rtol=1e-4)
