"""Overrides from Python values: `run(strategy="finetune", training={"epochs": 5})` as if typed on a command line."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlx.config.override_quoting import quote
from tlx.core.errors import RequestError

Overrides = Sequence[str] | Mapping[str, Any]


def as_overrides(given: Overrides, keys: Mapping[str, Any], *, sweep: bool = False) -> list[str]:
    """The overrides as typed, those of `given` first.

    Args:
        given: `key=value` as typed on the command line, or a mapping of keys to values.
        keys: more keys and values. A mapping as a value has the keys below it, so `dataset={"root": "photos"}` is
            `dataset.root=photos`; `dataset="image_folder"` chooses from the group.
        sweep: a list or tuple is several choices, `lr=[1e-3, 1e-2]` is `lr=1e-3,1e-2`; without it a list is one value.

    Raises:
        RequestError: a value of a kind that no configuration has, or `given` is one string.
    """
    if isinstance(given, str):
        raise RequestError(f'{given}: overrides are a list, as in ["{given}"], or keys, as in run(seed=1)')
    if isinstance(given, Mapping):
        return [*_flat(given, sweep), *_flat(keys, sweep)]
    words = list(given)
    for word in words:
        if not isinstance(word, str):
            raise RequestError(f'{word!r}: an override is text, as in "training.lr=1e-3"; values go into a dict')
    return [*words, *_flat(keys, sweep)]


def _flat(tree: Mapping[str, Any], sweep: bool, above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, sweep, f"{key}.")
        elif sweep and isinstance(value, list | tuple):
            if not value:
                raise RequestError(f"{key}: an empty list; give one value or several")
            yield f"{key}={','.join(_text(key, one, within=len(value) > 1) for one in value)}"
        else:
            yield f"{key}={_text(key, value)}"


def _text(key: str, value: Any, *, within: bool = False) -> str:
    """A value in Hydra's grammar; text as it is typed, where it does not lie `within` a list."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, os.PathLike):
        return _text(key, os.fspath(value), within=within)
    if isinstance(value, str):
        return quote(value) if within and any(sign in value for sign in ",'\"[]{}():= ") else value
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, one, within=True) for one in value)}]"
    if isinstance(value, Mapping):
        inner = (f"{name}:{_text(key, one, within=True)}" for name, one in value.items())
        return f"{{{','.join(inner)}}}"
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a scalar of NumPy or torch
        return _text(key, value.item(), within=within)
    raise RequestError(f"{key}: {type(value).__name__} is no value of a configuration; give text, a number or a list")
