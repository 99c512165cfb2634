"""A recorded graph made fast: everything constant computed once, convolutions merged with what is around them.

BatchNorm is folded into the convolution before it, zeros around a map into the one behind them; what oneDNN does in one
pass (convolution, addition, activation) becomes one operation.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from tlx.features.cpu_kernels import by_rows, max_pool

aten = torch.ops.aten

_FEW = 4  # channels
_BATCH_NORMS = (aten.native_batch_norm.default, aten.cudnn_batch_norm.default)
# Activations that oneDNN applies to a convolution's output before it is stored: its name and scalars for each.
_ACTIVATIONS: Mapping[Any, Callable[[Sequence[Any]], tuple[str, list[Any]]]] = {
    aten.relu.default: lambda args: ("relu", []),
    aten.hardtanh.default: lambda args: ("hardtanh", [float(v) for v in (*args[1:], *(-1, 1)[len(args) - 1 :])]),
    aten.silu.default: lambda args: ("swish", []),
    aten.hardswish.default: lambda args: ("hardswish", []),
}
# What scales pixels, as methods that write over a tensor.
_IN_PLACE: Mapping[Any, str] = {
    aten.add.Tensor: "add_", aten.sub.Tensor: "sub_", aten.mul.Tensor: "mul_", aten.div.Tensor: "div_",
}  # fmt: skip


def folded(graph: fx.Graph, held: Mapping[str, Tensor], device: torch.device) -> fx.GraphModule:
    """A recorded graph, whose `get_attr` nodes name tensors of `held`, with everything constant computed and
    convolutions merged with what follows them."""
    constants = _Constants(graph, held)
    _drop_unused(graph)
    for node in list(graph.nodes):
        if node.target in _BATCH_NORMS:
            _fold_norm(node, constants)
    _drop_unused(graph)
    for node in list(graph.nodes):
        constants.fold(node)
    if _has_onednn(device):
        for node in list(graph.nodes):
            if _is_convolution(node):
                _take_padding(node, constants)
        for node in list(graph.nodes):
            if node.target is aten._to_copy.default:
                _by_rows(node, constants)
        for node in list(graph.nodes):
            if _is_convolution(node):
                _merge(node, constants)
            elif node.target is aten.max_pool2d_with_indices.default:
                _replace_pool(node)
    _drop_unused(graph)
    return fx.GraphModule(constants.held, graph)


def _drop_unused(graph: fx.Graph) -> None:
    """Of operations that write over nothing, one that nobody uses does nothing."""
    for node in reversed(graph.nodes):
        if not node.users and node.op in ("call_function", "get_attr"):
            graph.erase_node(node)


class _Constants:
    """The tensors that a graph holds, under names of its own."""

    def __init__(self, graph: fx.Graph, held: Mapping[str, Tensor]) -> None:
        self.graph, self.held, self.made = graph, dict(held), 0

    def value(self, node: Any) -> Tensor | None:
        """What a node holds, if it holds a tensor."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        return self.held[str(node.target)].detach()

    def origin(self, node: Any) -> Tensor | None:
        """The same, before it was cast to another format."""
        while isinstance(node, fx.Node) and node.target is aten._to_copy.default:
            node = node.args[0]
        return self.value(node)

    def node(self, tensor: Tensor, before: fx.Node) -> fx.Node:
        """A new node that holds `tensor`."""
        name = f"_folded{self.made}"
        self.made += 1
        self.held[name] = tensor
        with self.graph.inserting_before(before):
            return self.graph.get_attr(name)

    def fold(self, node: fx.Node) -> None:
        """Computes a node now, if nothing in it depends on the rows."""
        inputs = node.all_input_nodes
        if node.op != "call_function" or not inputs or any(n.op != "get_attr" for n in inputs):
            return
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
        result = cast(Callable[..., Any], node.target)(*args, **kwargs)
        if isinstance(result, Tensor):
            node.replace_all_uses_with(self.node(result, node))
            self.graph.erase_node(node)
            return
        for user in [u for u in node.users if u.target is operator.getitem]:
            user.replace_all_uses_with(self.node(result[cast(int, user.args[1])], node))


def _is_convolution(node: Any) -> bool:
    """Of two dimensions, not transposed."""
    return (
        isinstance(node, fx.Node)
        and node.target is aten.convolution.default
        and not node.args[6]
        and len(cast(Sequence[int], node.args[3])) == 2
    )


def _fold_norm(norm: fx.Node, constants: _Constants) -> None:
    """Folds a BatchNorm in evaluation mode into the convolution before it, in fp32.

    y = (w * x + b - mean) / sqrt(var + eps) * gamma + beta; https://arxiv.org/abs/1806.08342, section 3.2.2.
    """
    conv = norm.args[0]
    users = [u for u in norm.users if u.target is operator.getitem and u.args[1] == 0]
    if not _is_convolution(conv) or len(cast(fx.Node, conv).users) > 1 or norm.args[5] or len(norm.users) != len(users):
        return
    assert isinstance(conv, fx.Node)
    gamma, beta, mean, var = (constants.value(n) for n in norm.args[1:5])
    weight, bias = constants.origin(conv.args[1]), constants.origin(conv.args[2])
    if weight is None or mean is None or var is None:
        return
    scale = (var.float() + cast(float, norm.args[7])).rsqrt()
    scale = scale if gamma is None else scale * gamma.float()
    shift = -mean.float() if bias is None else bias.float() - mean.float()
    shift = shift * scale if beta is None else shift * scale + beta.float()
    dtype = cast(fx.Node, conv.args[1]).meta["val"].dtype
    folded = weight.float() * scale.view(-1, 1, 1, 1)
    conv.update_arg(1, constants.node(_like_weight(folded, dtype), conv))
    conv.update_arg(2, constants.node(shift.to(dtype), conv))
    for user in users:
        user.replace_all_uses_with(conv)


def _like_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)


def _has_onednn(device: torch.device) -> bool:
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _take_padding(conv: fx.Node, constants: _Constants) -> None:
    """Makes the zeros around a map the convolution's own padding, which nobody has to write.

    That one is as wide on both sides. Where the zeros are not (a stride of 2 as TensorFlow pads it), the kernel gets
    zeros on the other side, if it has few channels: a larger kernel of many would take longer than the zeros.
    """
    given = conv.args[0]
    if not isinstance(given, fx.Node):
        return
    pad = given.args[0] if given.target is aten._to_copy.default else given
    weight, padding = constants.value(conv.args[1]), _ints(conv.args[4])
    if not _is_zero_padding(pad) or weight is None or {*_ints(conv.args[5])} != {1}:
        return
    assert isinstance(pad, fx.Node)
    if any(len(node.users) > 1 for node in {pad, given}):
        return
    left, right, top, bottom = _ints(pad.args[1])
    if (left, top) != (right, bottom):
        if weight.shape[1] > _FEW:
            return
        wider = (max(0, right - left), max(0, left - right), max(0, bottom - top), max(0, top - bottom))
        conv.update_arg(1, constants.node(_like_weight(torch.nn.functional.pad(weight, wider), weight.dtype), conv))
    conv.update_arg(4, [padding[0] + max(top, bottom), padding[1] + max(left, right)])
    inside = cast(fx.Node, pad.args[0])
    pad.replace_all_uses_with(inside)
    pad.graph.erase_node(pad)
    if given is not pad:
        given.meta = {"val": torch.empty_like(inside.meta["val"], dtype=given.meta["val"].dtype)}


def _ints(values: Any) -> list[int]:
    return [*cast(Sequence[int], values)]


def _is_zero_padding(node: Any) -> bool:
    """Of both sides of maps."""
    return (
        isinstance(node, fx.Node)
        and node.target is aten.constant_pad_nd.default
        and bool((*node.args, 0)[2] == 0)
        and len(sides := _ints(node.args[1])) == 4
        and min(sides) >= 0
    )


def _by_rows(first: fx.Node, constants: _Constants) -> None:
    """Makes one operation of what scales pixels: it works along rows, and in place."""
    x = first.args[0]
    if not isinstance(x, fx.Node) or first.meta["val"].dtype is not torch.float32 or x.meta["val"].is_floating_point():
        return
    size = x.meta["val"].shape
    if len(size) != 4 or size[1] > _FEW or not x.meta["val"].is_contiguous(memory_format=torch.channels_last):
        return
    steps, last = list[tuple[str, Any]](), first
    while (node := _only_user(last, tuple(_IN_PLACE))) is not None and node.args[0] is last and not node.kwargs:
        value = node.args[1]
        held = constants.value(value)
        if held is not None and held.dtype is torch.float32 and held.shape in ((size[1], 1, 1), (1, size[1], 1, 1)):
            value = constants.node(held.flatten().repeat(size[3]), first)
        elif isinstance(value, fx.Node):
            break
        steps.append((_IN_PLACE[node.target], value))
        last = node
    if not steps:
        return
    end = _only_user(last, (aten._to_copy.default,))
    last = end if end is not None and {*end.kwargs} == {"dtype"} else last
    with last.graph.inserting_before(last):
        made = last.graph.call_function(by_rows, (x, steps, last.meta["val"].dtype))
    made.meta = dict(last.meta)
    last.replace_all_uses_with(made)
    while last is not x:
        done, last = last, cast(fx.Node, last.args[0])
        done.graph.erase_node(done)


def _merge(conv: fx.Node, constants: _Constants) -> None:
    """Makes one oneDNN operation of a convolution and the addition and the activation that follow it, its weight in
    oneDNN's own layout."""
    weight = constants.value(conv.args[1])
    x = conv.args[0]
    # oneDNN's operation gives its output with the channels last.
    as_usual = conv.meta["val"].is_contiguous(memory_format=torch.channels_last)
    if weight is None or not isinstance(x, fx.Node) or not as_usual:
        return
    _, _, bias, stride, padding, dilation, _, _, groups = conv.args
    last, other = conv, None
    add = _only_user(conv, (aten.add.Tensor,))
    # torch 2.8 adds nothing to a map of one place: "could not create a memory".
    if add is not None and not add.kwargs and conv.meta["val"].shape[2:].numel() > 1:
        other = next((a for a in add.args if a is not conv), None)
        if isinstance(other, fx.Node) and _alike(other, conv):
            last = add
        else:
            other = None
    name, scalars = "none", list[Any]()
    # Behind an addition oneDNN's operation of torch knows one activation, and that not for every number of groups.
    known = tuple(_ACTIVATIONS) if other is None else (aten.relu.default,) if groups == 1 else ()
    act = _only_user(last, known)
    if act is not None:
        name, scalars = _ACTIVATIONS[act.target](act.args)
        last = act
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    packed = reorder(weight.to_mkldnn(), padding, stride, dilation, groups, list(x.meta["val"].shape))
    held = constants.node(packed, conv)
    common = (held, bias, padding, stride, dilation, groups)
    with conv.graph.inserting_before(last):
        if other is None:
            target, args = torch.ops.mkldnn._convolution_pointwise.default, (x, *common, name, scalars, "")
        else:
            target = torch.ops.mkldnn._convolution_pointwise.binary
            args = (x, other, *common, "add", 1.0, None if name == "none" else name, scalars, "")  # type: ignore[assignment]
        merged = conv.graph.call_function(target, args)
    merged.meta = dict(last.meta)
    last.replace_all_uses_with(merged)
    for node in (act, add if other is not None else None, conv):
        if node is not None:
            conv.graph.erase_node(node)


def _only_user(node: fx.Node, targets: Sequence[Any]) -> fx.Node | None:
    user = next(iter(node.users), None)
    return user if len(node.users) == 1 and user is not None and user.target in targets else None


def _alike(a: fx.Node, b: fx.Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    return isinstance(x, Tensor) and isinstance(y, Tensor) and (x.shape, x.dtype) == (y.shape, y.dtype)


def _replace_pool(node: fx.Node) -> None:
    """torch's own, which also finds the places of the maxima, takes three times as long."""
    given = dict(zip(("x", "kernel", "stride", "padding", "dilation", "ceil"), node.args, strict=False))
    users = [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]
    usual = {*cast(Sequence[int], given.get("dilation", (1,)))} == {1} and not given.get("ceil", False)
    kernel, padding = cast(Sequence[int], given["kernel"]), cast(Sequence[int], given.get("padding", (0, 0)))
    covered = all(2 * p < k for p, k in zip(padding, kernel, strict=True))
    if len(users) != len(node.users) or not usual or not covered:
        return
    with node.graph.inserting_before(node):
        args = (given["x"], kernel, given.get("stride") or kernel, padding)
        made = node.graph.call_function(max_pool, cast(Any, args))
    for user in users:
        made.meta = dict(user.meta)
        user.replace_all_uses_with(made)
