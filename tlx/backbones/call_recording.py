"""What a model does with its input, as the calls that it makes: found by running it on two batches of other sizes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Call", "Constant", "Held", "InputDevice", "Multiple", "Ref", "Unrecordable", "mapped", "recorded", "refs"]

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
class Recording:
    """All calls in their order.

    `output`: what the model gave. `rows`: shapes, for two images, of results whose first axis is that of the images.
    """

    calls: tuple[Call, ...]
    output: Ref
    rows: Mapping[Ref, torch.Size]


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
    rows = {
        ref: shape
        for ref, shape in few.shapes.items()
        if len(shape) > 1 and shape[0] == 2 and many.shapes.get(ref) == (3, *shape[1:])
    }
    return Recording(calls, few.output, rows)


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
    """Within it every call of torch's functions is recorded; hooks record those of modules."""

    def __init__(self, model: nn.Module, x: Tensor, opened: Collection[str]) -> None:
        super().__init__()
        self.x, self.inside = x, 0
        self.calls: list[Call] = []
        self.output: Ref | None = None
        self.shapes: dict[Ref, torch.Size] = {}
        self.held: list[Any] = [x]  # so that no other tensor gets the id of one that is known
        self.known: dict[int, Ref] = {id(x): Ref(-1)}
        self.named = {id(t): Held(n) for n, t in (*model.named_parameters(), *model.named_buffers())}
        parents = {path: path.rpartition(".")[0] for path, _ in model.named_modules() if path}
        self.watched = [path for path, parent in parents.items() if parent in opened and path not in opened]

    def go(self, model: nn.Module) -> None:
        """Runs the model."""
        handles = []
        for path in self.watched:
            module = model.get_submodule(path)
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(
                module.register_forward_hook(
                    lambda _m, args, kwargs, made, path=path: self._leave(path, args, kwargs, made), with_kwargs=True
                )
            )
        try:
            with torch.no_grad(), self:
                made = model(self.x)
        finally:
            for handle in handles:
                handle.remove()
        self.output = self.known.get(id(made))

    def _enter(self, *_: Any) -> None:
        self.inside += 1

    def _leave(self, path: str, args: Any, kwargs: Any, made: Any) -> None:
        self.inside -= 1
        if not self.inside:
            self._add("module", path, args, kwargs, made)

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
        number = len(self.calls)
        self.calls.append(Call(kind, target, mapped(tuple(args), self._mark), mapped(dict(kwargs), self._mark)))
        self.held.append(made)
        for path, tensor in _tensors(made):
            ref = Ref(number, path)
            self.known[id(tensor)], self.shapes[ref] = ref, tensor.shape

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
