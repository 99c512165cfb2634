"""What OmegaConf says of a value of the wrong type, in plain words."""

import re
from typing import Any

__all__ = ["refused", "wrong_type"]

_WORDS = {
    r"could not be converted to Integer": "must be a whole number",
    r"could not be converted to Float": "must be a number",
    r"is not a valid bool": "must be true or false",
    r"is not a ListConfig": "must be a list, as in [1, 2]",
    r"Cannot convert '\w+' to string": "must be a text",
}


def wrong_type(error: BaseException) -> str | None:
    """`must be …` for an error about a value's type; None for another error."""
    node: Any = getattr(error, "child_node", None)
    null = " or null" if node is not None and node._is_optional() else ""
    return next((words + null for form, words in _WORDS.items() if re.search(form, _first(error))), None)


def refused(error: BaseException, prefix: str = "") -> str:
    """A line on a value that is not of its key's type: the key, the value, and what would be right.

    Args:
        error: OmegaConf's.
        prefix: what stands before the key that `error` names.
    """
    key = f"{prefix}{getattr(error, 'full_key', None) or ''}"
    if words := wrong_type(error):
        return f"{key}={getattr(error, 'value', None)}: {words}"
    return f"{key}: {_first(error)}" if key else _first(error)


def _first(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or error).strip().splitlines()[0]
