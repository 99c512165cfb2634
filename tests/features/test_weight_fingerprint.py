"""What makes two networks the same is every tensor, by torch's names and in torch's order."""

import torch
from torch import nn

from tlx.features import weight_fingerprint


def test_the_tensors_are_those_that_torch_lists() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    net = nn.Sequential(inner, nn.ModuleDict({"again": inner, "tied": nn.Linear(2, 2), "no": nn.Identity()}))
    net[1]["tied"].bias = inner[1].weight  # type: ignore[index]
    net.register_buffer("own", torch.zeros(1), persistent=False)
    found = weight_fingerprint._named(net)
    expected = [*net.named_parameters(), *net.named_buffers()]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(a is b for (_, a), (_, b) in zip(found, expected, strict=True))
