"""argparse with errors of one line, and without empty arguments."""

import argparse
from typing import Any

from tlx.core.errors import RequestError, empty

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line like all others."""

    def error(self, message: str) -> Any:
        """Raises what is wrong with the arguments as a `RequestError`."""
        required = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        order = f", in this order: {' '.join(required)}" if "are required" in message and len(required) > 1 else ""
        raise RequestError(f"{message.removeprefix('argument ')}{order}; {self.prog} --help says more")

    def no_empty(self, given: argparse.Namespace) -> None:
        """Refuses an argument without text: as a path it would be the current folder."""
        for action in self._actions:
            value = getattr(given, action.dest, None)
            words = value if isinstance(value, list) else [value]
            if any(isinstance(word, str) and not word.strip() for word in words):
                raise empty(action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest))
