"""What frequent operations make of tensors without values: shape, layout and format.

torch finds these out in Python for most of them, and imports sympy on the way: longer than all of a small network's
pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["channels_last", "output"]

aten = torch.ops.aten
_LIKE_INPUT = frozenset(
    [
        *(aten.relu.default, aten.hardtanh.default, aten.silu.default, aten.hardswish.default, aten.gelu.default),
        *(aten.sigmoid.default, aten.hardsigmoid.default),
    ]
)


def output(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation makes of floating-point tensors on the device `meta`, which it gives as such; None where there
    is no rule for it here."""
    rule = _RULES.get(func)
    if rule is None or kwargs:
        return None
    return rule(*args)


def channels_last(tensor: Tensor) -> bool:
    """Whether a map has its channels innermost, and no other layout fits it."""
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _first_alone(tensor: Tensor) -> bool:
    """Whether a map has its channels outermost, and no other layout fits it."""
    return tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last)


def _steps(tensor: Tensor) -> list[int]:
    """The strides of axes of more than one element; those of others mean nothing."""
    return [stride for stride, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


def _like(x: Tensor, *_: Any) -> Tensor | None:
    """One without gaps keeps its layout."""
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    if not x.is_floating_point() or last + 1 != x.numel():
        return None
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _norm(x: Tensor, *_: Any) -> Any:
    made = _like(x)
    return None if made is None else (made, x.new_empty(0), x.new_empty(0))


def _convolution(
    x: Tensor,
    weight: Tensor,
    _: Any,
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    transposed: bool,
    *__: Any,
) -> Tensor | None:
    if transposed or not len(stride) == x.ndim - 2 == weight.ndim - 2 or x.dtype != weight.dtype:
        return None
    sides = _windows(x.shape[2:], weight.shape[2:], stride, pad, dilation)
    return _made((x.shape[0], weight.shape[0], *sides), x, last=channels_last(x) or channels_last(weight))


def _max_pool(
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    pad: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    up: bool = False,
) -> Any:
    made = _pooled(x, size, stride, pad, dilation, up)
    if made is None:
        return None
    return made, torch.empty_strided(made.shape, made.stride(), dtype=torch.int64, device="meta")


def _mean_pool(
    x: Tensor, size: Sequence[int], stride: Sequence[int] = (), pad: Sequence[int] = (0, 0), up: bool = False, *_: Any
) -> Tensor | None:
    return _pooled(x, size, stride, pad, (1, 1), up)


def _pooled(
    x: Tensor, size: Sequence[int], stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int], up: bool
) -> Tensor | None:
    if not x.is_floating_point() or x.ndim != 4 or not len(size) == len(pad) == len(dilation) == 2:
        return None
    sides = _windows(x.shape[2:], size, stride or size, pad, dilation, up)
    return _made((*x.shape[:2], *sides), x, last=channels_last(x))


def _adaptive_pool(x: Tensor, size: Sequence[int]) -> Tensor | None:
    if x.ndim != 4 or not x.is_floating_point() or not (channels_last(x) or _first_alone(x)):
        return None
    return _made((*x.shape[:2], *size), x, last=channels_last(x))


def _windows(
    sides: Sequence[int],
    size: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    up: bool = False,
) -> list[int]:
    """How many windows there are on each side; `up`: one more where a part of it is within the map."""
    found = []
    for n, k, s, p, d in zip(sides, size, stride, pad, dilation, strict=True):
        rest = n + 2 * p - d * (k - 1) - 1
        number = (rest + (s - 1 if up else 0)) // s + 1
        found.append(number - (up and (number - 1) * s >= n + p))
    return found


def _of_two(x: Any, y: Any) -> Tensor | None:
    """A tensor beside a number; of two the larger one, where the smaller is repeated to its shape."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or isinstance(y, complex):
        return None
    if not isinstance(y, Tensor):
        return _like(x)
    if x.dtype != y.dtype or (x.shape == y.shape and _steps(x) != _steps(y)):
        return None
    if x.numel() < y.numel() and len(_steps(x)) > 1:  # torch takes the layout of the first that has one
        return None
    larger, smaller = (x, y) if x.numel() >= y.numel() else (y, x)
    sides = zip(reversed(larger.shape), reversed(smaller.shape), strict=False)
    repeats = smaller.ndim <= larger.ndim and all(own in (1, n) for n, own in sides)
    return _like(larger) if repeats else None


def _mean(x: Tensor, axes: Sequence[int] | None = None, keep: bool = False) -> Tensor | None:
    """Over the places of a map."""
    if x.ndim != 4 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3] or not x.is_floating_point():
        return None
    return _made((*x.shape[:2], 1, 1) if keep else tuple(x.shape[:2]), x)


def _cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor | None:
    first = tensors[0]
    if any((one.dtype, one.ndim) != (first.dtype, first.ndim) for one in tensors) or not first.is_floating_point():
        return None
    last = all(map(channels_last, tensors))
    if first.ndim > 4 or not (last or first.ndim < 4 or all(map(_first_alone, tensors))):
        return None  # a mixture of layouts
    shape = list(first.shape)
    shape[axis] = sum(one.shape[axis] for one in tensors)
    return _made(shape, first, last=last)


def _layer_norm(x: Tensor, shape: Sequence[int], *_: Any) -> Any:
    if not x.is_contiguous() or x.dtype != torch.float32:
        return None
    kept = (*x.shape[: x.ndim - len(shape)], *(1 for _ in shape))
    return _like(x), x.new_empty(kept), x.new_empty(kept)


def _linear(bias: Tensor, x: Tensor, weight: Tensor, *_: Any) -> Tensor | None:
    if not bias.dtype == x.dtype == weight.dtype or not x.is_floating_point():
        return None
    return _made((x.shape[0], weight.shape[1]), x)


def _made(shape: Sequence[int], like: Tensor, *, last: bool = False) -> Tensor | None:
    if math.prod(shape) == 0:
        return None  # torch has other rules for what is empty
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta", memory_format=layout)


_RULES: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys(_LIKE_INPUT, _like),
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), _of_two),
    aten.native_batch_norm.default: _norm,
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _mean_pool,
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten.mean.dim: _mean,
    aten.cat.default: _cat,
    aten.native_layer_norm.default: _layer_norm,
    aten.addmm.default: _linear,
}
