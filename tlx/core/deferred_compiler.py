"""Imports without torch's compiler, which is half of their time and which tlx does not use.

`import torch` leaves the compiler (`torch._dynamo`) out. Three things load it all the same: torchvision's operations, a
decorator in timm's models (`torch.compiler.disable`), and every optimizer. What they take from it has an effect only
where something is being compiled, so two small modules stand in for it meanwhile.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"
UTILS = "torch._dynamo.utils"


@contextmanager
def compiler_deferred() -> Iterator[None]:
    """While it lasts, `import torch._dynamo` gives a stand-in that loads the compiler once something of it is needed.

    Nothing stays replaced afterwards: what was taken from the stand-in calls the compiler itself. Does nothing where
    the compiler has been loaded already.
    """
    if DYNAMO in sys.modules:
        yield
        return
    sys.modules[DYNAMO] = _StandIn(DYNAMO, disable=disable, graph_break=_nothing)
    sys.modules[UTILS] = _StandIn(UTILS, is_compile_supported=_is_supported)
    try:
        yield
    finally:
        _remove()


def disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """As `torch.compiler.disable`, a decorator with or without options; loads the compiler only if that is in use."""
    if function is None:
        return functools.partial(disable, recursive=recursive, **options)

    @functools.wraps(function)
    def uncompiled(*args: Any, **kwargs: Any) -> Any:
        compiler = sys.modules.get(DYNAMO)
        exempt = None if isinstance(compiler, _StandIn) else getattr(compiler, "disable", None)
        # Without a compiler, nothing is being compiled.
        return (exempt(function, recursive) if exempt else function)(*args, **kwargs)

    uncompiled._torchdynamo_disable = True  # type: ignore[attr-defined]  # what torch's own mark is called
    return uncompiled


class _StandIn(ModuleType):
    """A module with the given members. Whatever else is read from it comes from the module itself, which it loads."""

    def __init__(self, name: str, **members: Callable[..., Any]) -> None:
        super().__init__(name)
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        submodule = name == "__path__" and self.__name__ == DYNAMO  # read where a module of the package is imported
        if name.startswith("__") and not submodule:
            raise AttributeError(name)  # `inspect` looks at every module
        _remove()
        return getattr(importlib.import_module(self.__name__), name)


def _nothing() -> None:
    """What a break of the compiled graph is where nothing is compiled."""


def _is_supported(device_type: Any) -> Any:
    return importlib.import_module(UTILS).is_compile_supported(device_type)


def _remove() -> None:
    for name in (DYNAMO, UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
