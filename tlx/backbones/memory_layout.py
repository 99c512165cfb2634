"""The layout of a network's weights in memory, for training and prediction."""

from typing import Any

import torch
from torch import nn

__all__ = ["channels_last"]

FEW = 16  # channels


def channels_last(net: nn.Module) -> None:
    """Lays `net`'s weights out with the channels last, in place, but for those of convolutions that torch gets wrong.

    The weight gradient of a 1 x 1 convolution with a stride and fewer than 16 input channels writes over memory that is
    not its own, with channels last on a CPU with AVX-512 (torch 2.14.1, oneDNN 3.12; the process ends in malloc).
    MobileOne begins with one. Such a layer computes with the channels first.
    """
    net.to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and _goes_wrong(module):
            weight = module.weight.data
            module.weight.data = weight.clone(memory_format=torch.contiguous_format)
            module.register_forward_pre_hook(_channels_first)


def _goes_wrong(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.groups == 1 and conv.in_channels < FEW


def _channels_first(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])
