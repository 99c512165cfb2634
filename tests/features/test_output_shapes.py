"""The shapes, layouts and formats that are known without torch are those that torch finds."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tlx.features import output_shapes

aten = torch.ops.aten
LAST = torch.channels_last


def blank(*shape: int, dtype: torch.dtype = torch.float32, last: bool = False) -> Tensor:
    made = torch.empty(shape, dtype=dtype, device="meta")
    return made.contiguous(memory_format=LAST) if last else made


MAP, MAP_LAST, HALF = blank(8, 6, 7, 5), blank(8, 6, 7, 5, last=True), blank(8, 6, 7, 5, dtype=torch.bfloat16)
GATE, GATE_LAST, ROWS, SCALE = blank(8, 6, 1, 1), blank(8, 6, 1, 1, last=True), blank(8, 12), blank(6, 1, 1)
CONVOLUTIONS = [
    (
        x,
        blank(4, 6 // groups, kernel, kernel, last=last),
        None,
        [stride] * 2,
        [pad] * 2,
        [dilation] * 2,
        False,
        [0, 0],
        groups,
    )
    for x in (MAP, MAP_LAST)
    for last in (False, True)
    for kernel, stride, pad, dilation, groups in ((1, 1, 0, 1, 1), (3, 2, 1, 1, 2), (3, 1, 2, 2, 1))
]
BINARY = [
    *((x, y) for x in (MAP, MAP_LAST) for y in (2.0, 3, x, GATE, GATE_LAST, SCALE, SCALE[:1])),
    *((y, x) for x in (MAP, MAP_LAST) for y in (SCALE, SCALE[:1])),
    *((HALF, 2.0), (ROWS, ROWS), (ROWS, ROWS[0])),
]
CALLS: list[tuple[Any, tuple[Any, ...]]] = [
    *((aten.relu.default, (x,)) for x in (MAP, MAP_LAST, HALF, ROWS, MAP.permute(0, 2, 3, 1))),
    *((aten.sigmoid.default, (x,)) for x in (MAP, MAP_LAST, HALF)),
    *((aten.convolution.default, args) for args in CONVOLUTIONS),
    *((op, args) for op in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor) for args in BINARY),
    *((aten.mean.dim, (x, axes)) for x in (MAP, MAP_LAST, HALF) for axes in ([2, 3], [-1, -2])),
    *((aten.mean.dim, (x, [2, 3], True)) for x in (MAP, MAP_LAST, HALF)),
    *((aten.cat.default, (xs, axis)) for xs in ([MAP, MAP], [MAP_LAST] * 3, [ROWS, ROWS]) for axis in (0, 1, -1)),
    (aten.cat.default, ([blank(1, 1, 5).expand(8, 1, 5), blank(8, 3, 5)], 1)),
    *((aten.max_pool2d_with_indices.default, (x, [3, 3], [2, 2], [1, 1])) for x in (MAP, MAP_LAST, HALF)),
    *((aten.max_pool2d_with_indices.default, (x, [2, 2])) for x in (MAP, MAP_LAST)),
    *((aten.avg_pool2d.default, (x, [2, 2], [2, 2], [0, 0], up, False)) for x in (MAP, MAP_LAST) for up in (0, 1)),
    *((aten.max_pool2d_with_indices.default, (MAP, [2, 2], s, [1, 1], [1, 1], True)) for s in ([2, 2], [3, 3], [4, 5])),
    *((aten._adaptive_avg_pool2d.default, (x, [3, 2])) for x in (MAP, MAP_LAST)),
    (aten.native_layer_norm.default, (blank(8, 3, 5), [5], blank(5), blank(5), 1e-5)),
    (aten.addmm.default, (blank(4), ROWS, blank(4, 12).t())),
]  # fmt: skip
UNKNOWN: list[tuple[Any, tuple[Any, ...]]] = [
    (aten.relu.default, (MAP[:, ::2],)),  # with gaps
    (aten.relu.default, (blank(8, dtype=torch.uint8),)),
    (aten.add.Tensor, (MAP, MAP_LAST)),
    (aten.add.Tensor, (MAP, HALF)),
    (aten.add.Tensor, (blank(8, 1), blank(1, 9))),
    (aten.add.Tensor, (blank(1, 7, 5), blank(2, 5, 7).transpose(1, 2))),  # the first has a layout of its own
    (aten.mul.Tensor, (blank(6, 4, 4), blank(2, 6, 4, 4).contiguous(memory_format=LAST))),
    (aten.add.Tensor, (ROWS, 1j)),
    (aten.cat.default, ([MAP, MAP_LAST], 1)),
    (aten.convolution.default, (MAP, blank(6, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], True, [0, 0], 1)),
    (aten.native_layer_norm.default, (MAP.permute(0, 2, 3, 1), [6], None, None, 1e-5)),
    (aten.softmax.int, (ROWS, 1)),
]


def seen(made: Any) -> list[Any]:
    """Of each tensor what matters: where an axis has one element, its stride does not."""
    found = made if isinstance(made, tuple) else (made,)
    return [(one.shape, one.dtype, [s for s, n in zip(one.stride(), one.shape, strict=True) if n > 1]) for one in found]


@pytest.mark.parametrize(("operation", "args"), CALLS, ids=lambda value: str(value) if callable(value) else "")
def test_they_are_those_that_torch_finds(operation: Any, args: tuple[Any, ...]) -> None:
    expected = operation(*args)
    if operation is aten.convolution.default and any(map(output_shapes.channels_last, args[:2])):
        expected = expected.contiguous(memory_format=LAST)  # torch forgets that, see below
    assert seen(output_shapes.output(operation, args, {})) == seen(expected)


def test_a_convolution_keeps_the_layout_as_where_it_computes() -> None:
    for shape, _, bias, *rest in CONVOLUTIONS:
        x, weight = (torch.zeros(one.shape, dtype=one.dtype) for one in (shape, _))
        x, weight = (
            real.contiguous(memory_format=LAST) if output_shapes.channels_last(like) else real
            for real, like in ((x, shape), (weight, _))
        )
        assert seen(output_shapes.output(aten.convolution.default, (shape, _, bias, *rest), {})) == seen(
            aten.convolution.default(x, weight, bias, *rest)
        )


def test_a_batch_norm_changes_neither_shape_nor_layout() -> None:
    for x in (MAP, MAP_LAST):
        args = (x, *[blank(6)] * 4, False, 0.1, 1e-5)
        made, *_ = output_shapes.output(aten.native_batch_norm.default, args, {})
        assert seen(made) == seen(x)


@pytest.mark.parametrize(("operation", "args"), UNKNOWN, ids=lambda value: str(value) if callable(value) else "")
def test_what_has_no_rule_is_left_to_torch(operation: Any, args: tuple[Any, ...]) -> None:
    assert output_shapes.output(operation, args, {}) is None
    assert output_shapes.output(aten.add.Tensor, (ROWS, ROWS), {"alpha": 2}) is None
