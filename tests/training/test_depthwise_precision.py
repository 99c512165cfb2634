"""In training in bf16 on a processor depthwise convolutions compute in fp32; nothing else changes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tlx.core.device import autocast
from tlx.training.depthwise_precision import depthwise_in_fp32

CPU = torch.device("cpu")


def both(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output for `x` within the rule, and under autocast alone."""
    with autocast(CPU, "bf16"):
        plain = layer(x)
        with depthwise_in_fp32(CPU, "bf16"):
            return layer(x), plain


@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_convolution_is_that_of_fp32_in_the_format_of_its_input(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=bias)
    x = torch.randn(2, 8, 9, 9, dtype=torch.bfloat16, requires_grad=True)
    wide = x.detach().float().requires_grad_()
    found, _ = both(layer, x)
    found.sum().backward()
    weight = layer.weight.grad
    layer.weight.grad = None
    expected = layer(wide)
    expected.sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    torch.testing.assert_close(weight, layer.weight.grad)
    torch.testing.assert_close(x.grad, None if wide.grad is None else wide.grad.bfloat16())


def test_a_function_that_is_given_its_arguments_by_name_is_found_too() -> None:
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 1, 3, 3)
    with autocast(CPU, "bf16"), depthwise_in_fp32(CPU, "bf16"):
        found = functional.conv2d(input=x, weight=weight, groups=4)
    assert torch.equal(found, functional.conv2d(x, weight, groups=4))


def test_other_layers_are_as_autocast_has_them() -> None:
    torch.manual_seed(0)
    for layer in (nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(1, 4, 3), nn.Linear(6, 3)):
        channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
        found, plain = both(layer, torch.randn(2, channels, 6, 6) if layer.weight.ndim == 4 else torch.randn(2, 6))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, plain)


def test_in_fp32_and_on_a_gpu_there_is_nothing_to_do() -> None:
    layer, x = nn.Conv2d(4, 4, 3, groups=4), torch.randn(1, 4, 5, 5)
    with depthwise_in_fp32(CPU, "fp32"), depthwise_in_fp32(torch.device("cuda"), "bf16"), autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
