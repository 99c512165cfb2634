"""Operations that a CPU computes faster in another order than torch does, with the same results."""

from collections.abc import Sequence

import torch
from torch import Tensor


def by_rows(x: Tensor, steps: Sequence[tuple[str, Tensor | float]], dtype: torch.dtype) -> Tensor:
    """uint8 `[N, C, H, W]`, channels last, to `dtype` after steps in fp32: a method, and a number or `[W * C]` values.

    A step with a value a channel would else be computed for C values at a time.
    """
    n, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n, h, w * c).float()
    for method, value in steps:
        getattr(rows, method)(value)
    return rows.to(dtype).view(n, h, w, c).permute(0, 3, 1, 2)


def max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """`[N, C, H, W]` → the maxima over windows, as `torch.nn.functional.max_pool2d`: first of rows, then of columns.

    A window is padded by less than half of its width.
    """
    for axis, width, step, pad in zip((2, 3), kernel, stride, padding, strict=True):
        size = x.shape[axis]
        count = (size + 2 * pad - width) // step + 1
        places = []  # of a window: the first one that has this place within the map, and the values there
        for place in range(width):
            first = max(0, -((place - pad) // step))
            last = min(count, (size - 1 + pad - place) // step + 1)
            if last > first:
                start = first * step + place - pad
                some = x.narrow(axis, start, (last - first - 1) * step + 1)
                places.append((first, some[:, :, ::step] if axis == 2 else some[:, :, :, ::step]))
        # The place `pad` is within the map for every window: it, and others that are, start; the rest raise them.
        (_, best), *others = sorted(places, key=lambda found: -found[1].shape[axis])
        if others and others[0][1].shape == best.shape:
            best = torch.maximum(best, others.pop(0)[1])
        elif others:
            best = best.clone()
        for first, some in others:
            part = best.narrow(axis, first, some.shape[axis])
            torch.maximum(part, some, out=part)
        x = best
    return x
