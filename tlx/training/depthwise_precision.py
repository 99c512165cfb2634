"""Depthwise convolutions in fp32, where the rest of a training step on a processor is in bf16."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["depthwise_in_fp32"]


def depthwise_in_fp32(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Within it depthwise convolutions on a processor compute in fp32; their output has the format of their input.

    oneDNN has no fast kernels for their gradients in bf16: with 1,152 channels and 5 × 5 weights, that of the weights
    takes eight times as long as in fp32. Their forward pass is too small a share of a step to gain what that costs.
    A rule of the layer alone, so that equal seeds give equal results.
    """
    return _DepthwiseInFp32() if device.type == "cpu" and precision == "bf16" else contextlib.nullcontext()


class _DepthwiseInFp32(TorchFunctionMode):
    """By the call and not by the module: networks call the function with padding of their own, too."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.conv2d or not _depthwise(*args, **kwargs):
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        with torch.autocast("cpu", enabled=False):
            made: Tensor = func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        return made.to(x.dtype)


def _depthwise(
    input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> bool:  # fmt: skip
    """Of the arguments of `torch.conv2d`, under their names there."""
    return groups > 1 and weight.shape[1] == 1


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
