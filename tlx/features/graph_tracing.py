"""A module run once on tensors without values, and the operations that it calls, in order, as a graph.

torch's own `make_fx` does more than a frozen part needs, and takes several times as long.
"""

import contextlib
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

from tlx.features import output_shapes

__all__ = ["recorded"]

aten = torch.ops.aten


def recorded(
    module: nn.Module, function: Callable[[Tensor], Tensor], example: Tensor
) -> tuple[fx.Graph, dict[str, Tensor]]:
    """What `function`, which calls `module`, does with an input like `example`: a graph of one input and one output,
    and the tensors of the graph's `get_attr` nodes, by name.

    Nothing is computed. Operations that write over their input become those that do not; each node's `meta["val"]` is
    a tensor of its shape, layout and format on the device `meta`. Raises RuntimeError (or what torch raises) where the
    way depends on values, or a tensor is written over that others see.
    """
    recorder, cached = _Recorder(example.device), torch.is_autocast_cache_enabled()
    x = recorder.tensor(_outline(example), recorder.graph.placeholder("x"), example.device)
    # A cast that autocast keeps would be found again by modules that run on values.
    torch.set_autocast_cache_enabled(False)
    try:
        with _as_it_was(module), torch.no_grad(), _views_let_go(), recorder:
            made = function(x)
    finally:
        torch.set_autocast_cache_enabled(cached)
    if not isinstance(made, Tensor):
        raise TypeError(f"its output is no tensor but {type(made).__name__}")
    recorder.graph.output(recorder.node(made))
    return recorder.graph, {str(node.target): tensor for node, tensor in recorder.held.values()}


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it every operation becomes a node."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.device = fx.Graph(), device
        self.held: dict[int, tuple[fx.Node, Tensor]] = {}  # by id: parameters, buffers and constants
        self.known: dict[str, Any] = {}  # what an operation makes of inputs like these

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.as_strided_.default and _only_names(*args):
            return args[0]
        if func in (aten.as_strided.default, aten.as_strided_.default):
            raise RuntimeError(f"{func} depends on where values lie")
        over = None  # the tensor that is written over
        if func._schema.is_mutable:
            func, over = _functional(func), args[0]
            if not isinstance(over, _Blank) or len(over.alike) > 1:
                raise RuntimeError(f"{func} writes over a tensor that others see")
        result = self.shapes(func, args, kwargs)
        node = self.graph.call_function(func, *map_aggregate((args, kwargs), self.node))
        if over is not None:
            if (result.shape, result.dtype) != (over.shape, over.dtype):
                raise RuntimeError(f"{func} changes the format of what it writes over")
            over.node, node.meta["val"] = node, over.meta
            return over
        alike = None
        if any(one.alias_info is not None for one in func._schema.returns):
            # What an operation returns may be a view of its first input.
            alike = args[0].alike if isinstance(args[0], _Blank) else weakref.WeakSet(args[0:1])
        device = kwargs.get("device") or self.device
        if isinstance(result, Tensor):
            return self.tensor(result, node, device, alike)
        if not isinstance(result, list | tuple):
            raise RuntimeError(f"{func} gives no tensor")
        parts = list[Any](result)
        for i, one in enumerate(parts):
            if isinstance(one, Tensor):
                parts[i] = self.tensor(one, self.graph.call_function(operator.getitem, (node, i)), device, alike)
        return type(result)(parts)

    def shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What the operation makes of tensors of the device `meta`."""
        args, kwargs = map_aggregate((args, kwargs), self.meta)
        if (made := output_shapes.output(func, args, kwargs)) is not None:
            return made
        key = repr((func, *map_aggregate((args, kwargs), _described)))
        if key not in self.known:
            if not kwargs.get("device") and any(one.name == "device" for one in func._schema.arguments):
                kwargs = {**kwargs, "device": torch.device("meta")}
            self.known[key] = func(*args, **kwargs)
        return self.known[key]

    def tensor(self, meta: Tensor, node: fx.Node, device: torch.device, alike: Any = None) -> Tensor:
        """A tensor for modules to compute with."""
        node.meta["val"] = meta
        return _Blank(meta, node, device, alike)

    def meta(self, value: Any) -> Any:
        """A tensor or a device as an operation takes it that computes shapes only."""
        if isinstance(value, _Blank):
            return value.meta
        if isinstance(value, Tensor):
            return self.hold(value).meta["val"]
        if isinstance(value, torch.Generator):
            raise RuntimeError("random numbers of its own")
        return torch.device("meta") if isinstance(value, torch.device) else value

    def node(self, value: Any) -> Any:
        """The node of a tensor; other values as they are."""
        if isinstance(value, _Blank):
            return value.node
        return self.hold(value) if isinstance(value, Tensor) else value

    def hold(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor that was there before the input."""
        if id(tensor) not in self.held:
            node = self.graph.get_attr(f"_held{len(self.held)}")
            node.meta["val"] = _outline(tensor)
            self.held[id(tensor)] = node, tensor
        return self.held[id(tensor)][0]


class _Blank(Tensor):
    """A tensor without values, for modules to compute with."""

    meta: Tensor  # of the same shape, layout and format
    node: fx.Node
    alike: "weakref.WeakSet[Tensor]"  # those in whose memory it would lie, itself among them

    @staticmethod
    def __new__(cls, meta: Tensor, node: fx.Node, device: torch.device, alike: Any = None) -> "_Blank":
        self = Tensor._make_wrapper_subclass(cls, meta.shape, strides=meta.stride(), dtype=meta.dtype, device=device)
        self.meta, self.node, self.alike = meta, node, weakref.WeakSet() if alike is None else alike
        self.alike.add(self)
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func}: what was recorded has no values")


def _views_let_go() -> Any:
    """Within the block a view does not keep its base alive for gradients: then other references to it show."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView))


@contextlib.contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Drops what modules keep for their next call: tensors without values."""
    own = [vars(m) for m in module.modules()]
    there = [[(each, dict(each)) for each in (names, *names.values()) if type(each) is dict] for names in own]
    try:
        yield
    finally:
        for each, before in (pair for pairs in there for pair in pairs):
            for key in each.keys() - before.keys():
                del each[key]
            each.update(before)


def _outline(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _described(value: Any) -> Any:
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _functional(func: Any) -> Any:
    """relu_ → relu"""
    name, overload = func._schema.name.removeprefix("aten::"), func._overloadname
    plain = getattr(aten, name.removesuffix("_"), None)
    if not name.endswith("_") or plain is None or overload not in plain.overloads():
        raise RuntimeError(f"{func} writes over a tensor")
    return getattr(plain, overload)


def _only_names(tensor: Tensor, shape: Sequence[int], stride: Sequence[int], offset: int | None = None) -> bool:
    """Whether only strides of axes of one element change: average pools set them, to name a layout."""
    there = zip(tensor.shape, tensor.stride(), shape, stride, strict=True) if tensor.ndim == len(shape) else ()
    return not offset and tensor.shape == torch.Size(shape) and all(a == b or n == 1 for n, a, _, b in there)
