"""Components that YAML files name by `_target_`."""

import contextlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tlx.core.errors import RequestError, nearest, reason


def component(node: Mapping[str, Any], key: str, **more: Any) -> Callable[..., Any]:
    """The callable that a YAML names by `_target_`, with the node's other keys bound, and those of `more` it takes.

    Raises:
        RequestError: nothing that can be called has that name, or it does not take one of the node's keys.
    """
    target_name = str(node.get("_target_"))
    try:
        target = pkgutil.resolve_name(target_name)
    except Exception as error:  # somebody else's module may raise anything while it is imported
        raise RequestError(f"{key}._target_={target_name}: cannot be found ({reason(error)})") from error
    if not callable(target):
        raise RequestError(f"{key}._target_={target_name}: is no function or class, but {type(target).__name__}")
    takes: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(ValueError):  # some that are built in do not say what they take
        takes = inspect.signature(target).parameters
    anything = not takes or any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {name: value for name, value in node.items() if name != "_target_"}
    for name in given:
        if name not in takes and not anything:
            raise RequestError(
                f"{key}.{name}: {target_name} takes no such key{nearest(name, takes)}; {', '.join(takes)}"
            )
    return partial(target, **given, **{name: value for name, value in more.items() if name in takes})
