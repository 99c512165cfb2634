"""A recorded graph made fast: everything constant computed once, convolutions merged with what follows them.

BatchNorm is folded into the convolution before it; what oneDNN does in one pass (convolution, addition, activation)
becomes one operation.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_BATCH_NORMS = (aten.native_batch_norm.default, aten.cudnn_batch_norm.default)
# Activations that oneDNN applies to a convolution's output before it is stored: its name and scalars for each.
_ACTIVATIONS: Mapping[Any, Callable[[Sequence[Any]], tuple[str, list[Any]]]] = {
    aten.relu.default: lambda args: ("relu", []),
    aten.hardtanh.default: lambda args: ("hardtanh", [float(v) for v in (*args[1:], *(-1, 1)[len(args) - 1 :])]),
    aten.silu.default: lambda args: ("swish", []),
    aten.hardswish.default: lambda args: ("hardswish", []),
}


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
    if add is not None and not add.kwargs:
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


def max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """`[N, C, H, W]` → the maxima over windows, as `torch.nn.functional.max_pool2d`: first of rows, then of columns.

    A window is padded by less than half of its width.
    """
    for axis, width, step, pad in zip((2, 3), kernel, stride, padding, strict=True):
        size = x.shape[axis]
        count = (size + 2 * pad - width) // step + 1
        best: Tensor | None = None
        # The place `pad` of a window lies within the map for every window: it starts, the others raise it.
        for place in sorted(range(width), key=lambda place: place != pad):
            first = max(0, -((place - pad) // step))
            last = min(count, (size - 1 + pad - place) // step + 1)
            if last <= first:  # it lies within no window
                continue
            start = first * step + place - pad
            some = x.narrow(axis, start, (last - first - 1) * step + 1)
            some = some[:, :, ::step] if axis == 2 else some[:, :, :, ::step]
            if best is None:
                best = some.clone()
            else:
                part = best.narrow(axis, first, last - first)
                torch.maximum(part, some, out=part)
        assert best is not None
        x = best
    return x
