"""What a model does with its input, as the calls that it makes: found by running it on two batches of other sizes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "Call", "Constant", "Held", "InputDevice", "Multiple", "Ref", "Share", "Unrecordable", "mapped", "recorded", "refs",
]  # fmt: skip

# What may be read of a tensor without its values having a say in what is done next.
_OUTER = frozenset([
    "size", "dim", "numel", "stride", "ndim", "shape", "dtype", "device", "layout", "requires_grad", "element_size",
    "is_contiguous", "is_floating_point", "is_complex", "is_cuda", "is_sparse", "is_quantized", "is_mkldnn",
    "is_nested", "is_meta", "is_leaf", "is_inference", "__len__", "nelement", "ndimension", "get_device",
    "data_ptr", "names",
])  # fmt: skip
_PLAIN = (str, int, float, complex, bool, type(None), torch.dtype, torch.layout, torch.memory_format, type(...))


class Unrecordable(Exception):
    """The model does something that another batch could not be led through in the same way."""


@dataclass(frozen=True)
class Ref:
    """What call `number` gave (-1: the model's input), or what lies in it under the keys of `path`."""

    number: int
    path: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the model, by its name."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the model keeps as a plain attribute."""

    value: Tensor


@dataclass(frozen=True)
class Multiple:
    """The number of images, `times` an integer."""

    times: int


@dataclass(frozen=True)
class InputDevice:
    """The device of the input."""


@dataclass(frozen=True)
class Call:
    """One step: `target` is the path of a module, the name of a tensor's method or attribute, or a function of torch.

    `kind`: module, method, attribute or function. `args`, `kwargs`: with `Ref` and the other marks in place of values.
    """

    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """What of a result is of one image: `times` entries of its first axis, each of `shape`.

    `order`: the axes of `shape` from the one of the largest steps in memory to that of the smallest.
    """

    times: int = 1
    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recording:
    """All calls in their order.

    `output`: what the model gave. `shares`: of the results whose first axis is as long as the images are many, or a
    multiple of that (patches, windows).
    """

    calls: tuple[Call, ...]
    output: Ref
    shares: Mapping[Ref, Share]


def recorded(model: nn.Module, sample: Tensor, opened: Collection[str]) -> Recording:
    """The calls of `model` in evaluation mode, on `sample` (float [3, 3, S, S]) and on its first two images.

    `opened`: paths of the modules that are looked into, the model itself ("") among them; of others the call counts.

    Raises:
        Unrecordable: the way depends on pixels, or on the number of images other than by products with it.
    """
    runs = [_Run(model, sample[:n], opened) for n in (2, 3)]
    for run in runs:
        run.go(model)
    few, many = runs
    if len(few.calls) != len(many.calls) or few.output != many.output or few.output is None:
        raise Unrecordable("other calls for another number of images")
    calls = tuple(_merged(a, b) for a, b in zip(few.calls, many.calls, strict=True))
    shares = {ref: share for ref, tensor in few.made.items() if (share := _share(tensor, many.made.get(ref)))}
    return Recording(calls, few.output, shares)


def refs(value: Any) -> Iterator[Any]:
    """Every `Ref`, `Held` and `Constant` in nested arguments."""
    found: list[Any] = []
    mapped(value, lambda one: found.append(one) if isinstance(one, Ref | Held | Constant) else None)
    return iter(found)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested arguments with each leaf replaced by what `change` gives for it."""
    if isinstance(value, slice):
        return slice(*(mapped(one, change) for one in (value.start, value.stop, value.step)))
    if isinstance(value, torch.Size):
        return tuple(mapped(one, change) for one in value)
    if isinstance(value, tuple | list):
        parts = [mapped(one, change) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, Mapping):
        return {key: mapped(one, change) for key, one in value.items()}
    return change(value)


class _Run(TorchFunctionMode):
    """Within it every call of torch's functions and of the watched modules is recorded."""

    def __init__(self, model: nn.Module, x: Tensor, opened: Collection[str]) -> None:
        super().__init__()
        self.x, self.inside = x, 0
        self.calls: list[Call] = []
        self.output: Ref | None = None
        self.made: dict[Ref, Tensor] = {}
        self.held: list[Any] = [x]  # so that no other tensor gets the id of one that is known
        self.known: dict[int, Ref] = {id(x): Ref(-1)}
        self.named = {id(t): Held(n) for n, t in (*model.named_parameters(), *model.named_buffers())}
        parents = {path: path.rpartition(".")[0] for path, _ in model.named_modules() if path}
        self.watched = [path for path, parent in parents.items() if parent in opened and path not in opened]

    def go(self, model: nn.Module) -> None:
        """Runs the model."""
        watched = [(path, model.get_submodule(path)) for path in self.watched]
        own = [module.__dict__.get("forward") for _, module in watched]
        try:
            for path, module in watched:  # no hooks: a model may call a module's `forward` itself
                module.forward = partial(self._called, path, module.forward)
            with torch.no_grad(), self:
                made = model(self.x)
        finally:
            for (_, module), forward in zip(watched, own, strict=True):
                del module.forward
                if forward is not None:
                    module.forward = forward
        self.output = self.known.get(id(made))

    def _called(self, path: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Marked before it runs: a module may change the list that it is given, as HRNet's do.
        given = None if self.inside else self._marked(args, kwargs)
        self.inside += 1
        made = forward(*args, **kwargs)
        self.inside -= 1
        if given is not None:
            self._append("module", path, *given, made)
        return made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if self.inside:
            return made
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = func.__self__.__name__
        if name == "__setitem__":
            self._add("function", _with_item, args, kwargs, args[0])
        elif not any(isinstance(one, Tensor) for one in _leaves(made)):
            if name not in _OUTER and any(isinstance(one, Tensor) for one in _leaves((args, kwargs))):
                raise Unrecordable(f"{name} reads values")
        elif getattr(func, "__name__", "") == "__get__":
            self._add("attribute", name, args, {}, made)
        elif getattr(Tensor, name, None) is func:
            self._add("method", name, args, kwargs, made)
        else:
            self._add("function", func, args, kwargs, made)
        return made

    def _add(self, kind: str, target: Any, args: Any, kwargs: Any, made: Any) -> None:
        self._append(kind, target, *self._marked(args, kwargs), made)

    def _marked(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return mapped(tuple(args), self._mark), mapped(dict(kwargs), self._mark)

    def _append(self, kind: str, target: Any, args: Any, kwargs: Any, made: Any) -> None:
        number = len(self.calls)
        self.calls.append(Call(kind, target, args, kwargs))
        self.held.append(made)
        for path, tensor in _tensors(made):
            ref = Ref(number, path)
            self.known[id(tensor)], self.made[ref] = ref, tensor

    def _mark(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            found: Any = self.known.get(id(value)) or self.named.get(id(value))
            if found is None and value.requires_grad:
                raise Unrecordable("a tensor that learns and is no parameter")
            self.held.append(value)
            return found or Constant(value)
        if isinstance(value, torch.device):
            return InputDevice()
        if isinstance(value, _PLAIN):
            return value
        raise Unrecordable(f"an argument of the kind {type(value).__name__}")


def _share(few: Tensor, many: Tensor | None) -> Share | None:
    """What of a result is of one image, from that of two and that of three; None where it has no axis of them."""
    if many is None or few.ndim < 2 or few.shape[1:] != many.shape[1:]:
        return None
    if not few.shape[0] or few.shape[0] % 2 or few.shape[0] // 2 * 3 != many.shape[0]:
        return None
    order = sorted(range(few.ndim - 1), key=lambda axis: -few.stride(axis + 1))
    return Share(few.shape[0] // 2, tuple(few.shape[1:]), tuple(order))


def _with_item(x: Tensor, index: Any, value: Any) -> Tensor:
    x[index] = value
    return x


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    mapped(value, found.append)
    return found


def _tensors(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _tensors(one, (*path, key))
    elif isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        for i, one in enumerate(value):
            yield from _tensors(one, (*path, i))


def _merged(few: Call, many: Call) -> Call:
    if (few.kind, few.target) != (many.kind, many.target):
        raise Unrecordable("other calls for another number of images")
    return Call(few.kind, few.target, _common(few.args, many.args), _common(few.kwargs, many.kwargs))


def _common(few: Any, many: Any) -> Any:
    """The arguments of two and of three images as those of any number."""
    if isinstance(few, slice) and isinstance(many, slice):
        return slice(*(_common(getattr(few, k), getattr(many, k)) for k in ("start", "stop", "step")))
    if type(few) is not type(many):
        raise Unrecordable("other arguments for another number of images")
    if isinstance(few, Mapping):
        return {key: _common(few[key], many[key]) for key in few}
    if isinstance(few, tuple | list) and len(few) == len(many):
        parts = [_common(a, b) for a, b in zip(few, many, strict=True)]
        return type(few)(*parts) if hasattr(few, "_fields") else type(few)(parts)
    if isinstance(few, Constant) and few.value is many.value:
        return few
    if few == many:
        return few
    if type(few) is int and few % 2 == 0 and few // 2 * 3 == many:
        return Multiple(few // 2)
    raise Unrecordable("an argument that depends on the number of images")
