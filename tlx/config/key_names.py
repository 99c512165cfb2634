"""The names of keys as they are typed, where those of a checked configuration are others."""

import re
from collections.abc import Collection

__all__ = ["own", "typed"]


def typed(key: str) -> str:
    """A dotted key of a checked configuration as it is typed: a data set's own keys are not below `reader` there."""
    return re.sub(r"^((?:source\.)?dataset)\.reader\.", r"\1.", key)


def own(keys: Collection[str]) -> list[str]:
    """The keys without those that a phase inherits from another one of them, as its `lr` from `training.lr`."""
    return [key for key in keys if not any(place in keys for place in _inherited_from(key))]


def _inherited_from(key: str) -> list[str]:
    found = re.fullmatch(r"((?:source\.)?)strategy\.phases\.[^.]+\.(.+)", key)
    return [f"{found[1]}training.{found[2]}", f"{found[1]}{found[2]}"] if found else []
