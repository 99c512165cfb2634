"""One piece of a network's computation as a module: a submodule, a slice of a container, a method, or a function."""

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from torch import Tensor, nn

from tlx.core.errors import RequestError, nearest

__all__ = ["GLUE", "Mean", "expanded", "method_names", "owns", "part"]


class Mean(nn.Module):
    """The mean over some dimensions: [N, T, D] → [N, D] with `(1,)`, [N, C, H, W] → [N, C] with `(2, 3)`."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """The mean of `x` over `dims`."""
        return x.mean(self.dims)


# What stands between two modules in a model's `forward` without being one; a module of the same name comes first.
GLUE: dict[str, Callable[[], nn.Module]] = {
    "flatten": lambda: nn.Flatten(1),
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "mean_tokens": lambda: Mean(1),
    "mean_map": lambda: Mean(2, 3),
}


def part(model: nn.Module, path: str) -> nn.Module:
    """One piece of `model`'s computation as a module that shares its parameters.

    `layer4` or `classifier.6` (a submodule), `._pos_embed` (a method of the model, with the parameters that it uses),
    `flatten`, `pool`, `mean_tokens`, `mean_map` (functions between modules).

    Raises:
        RequestError: the model has no such part.
    """
    if path.startswith(".") and callable(getattr(type(model), path[1:], None)):
        return _method(model, path[1:])
    with contextlib.suppress(AttributeError):
        if path:
            return model.get_submodule(path)
    if path in GLUE:
        return GLUE[path]()
    hint = nearest(path, [*(name for name, _ in model.named_modules() if name), *GLUE])
    raise RequestError(f"backbone.stages: {type(model).__name__} has no part '{path}'{hint}")


def expanded(model: nn.Module, path: str) -> list[str]:
    """The parts that a slice stands for: `features[0:2]` → `features.0`, `features.1`; any other path is itself.

    Raises:
        RequestError: the slice is empty or longer than the container.
    """
    match = re.fullmatch(r"(.+)\[(\d*):(\d*)\]", path)
    if match is None:
        return [path]
    container, start, stop = match.groups()
    names = [name for name, _ in part(model, container).named_children()]
    chosen = names[int(start or 0) : int(stop or len(names))]
    if not chosen or int(stop or 0) > len(names):
        raise RequestError(f"backbone.stages: {path} is out of range, {container} has {len(names)} children")
    return [f"{container}.{name}" for name in chosen]


def owns(module: nn.Module) -> bool:
    """Whether the module has parameters."""
    return any(True for _ in module.parameters())


def method_names(model: nn.Module, name: str) -> set[str]:
    """The attributes that the method `name` of `model` (and the methods it calls) may read."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        code = getattr(getattr(type(model), waiting.pop(), None), "__code__", None)
        new = set(_code_names(code)) - found if isinstance(code, CodeType) else set()
        found |= new
        waiting += new
    return found


def _code_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:  # comprehensions
        if isinstance(constant, CodeType):
            yield from _code_names(constant)


def _method(model: nn.Module, name: str) -> nn.Module:
    """A copy of the model's shell, without its blocks, whose forward is that method.

    It holds the parameters and the parameterless children that the method uses; a child with parameters that is only
    read for its settings (`patch_embed.grid_size`) is a plain attribute, so that its parameters are not held twice.
    """
    used = method_names(model, name)
    shell: Any = copy.copy(model)
    children = {n: m for n, m in model.named_children() if n in used}
    owners = {n: m for n, m in children.items() if owns(m)}
    state = shell.__dict__
    state.update({k: type(v)() for k, v in state.items() if "_hooks" in k and isinstance(v, dict)})
    state["_parameters"] = {n: p for n, p in model._parameters.items() if n in used or p is None}
    state["_buffers"] = {n: b for n, b in model._buffers.items() if n in used or b is None}
    state["_modules"] = {n: m for n, m in model._modules.items() if m is None or (n in children and n not in owners)}
    state.update(owners)
    state["forward"] = getattr(shell, name)
    result: nn.Module = shell
    return result
