"""What tlx logs, as lines on stderr; apart from the display, so that an error needs no rich to be said."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("tlx")


class _Lines(logging.Handler):
    """Log records as lines for a person; those with `detail` set only where the traceback is requested too."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "detail", False) and os.environ.get("HYDRA_FULL_ERROR") != "1":
            return
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        self._say(warning + record.getMessage())

    @contextmanager
    def through(self, say: Callable[[str], None]) -> Iterator[None]:
        """Lines go to `say` while the block lasts."""
        before, self._say = self._say, say
        try:
            yield
        finally:
            self._say = before


HANDLER = _Lines()


@contextmanager
def lines(*, quiet: bool = False) -> Iterator[None]:
    """What tlx logs is said on stderr while the block lasts; `quiet`: warnings alone. Blocks may be nested."""
    if HANDLER in log.handlers:
        yield
        return
    level = log.level
    log.addHandler(HANDLER)
    HANDLER.setLevel(logging.WARNING if quiet else logging.INFO)
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(HANDLER)
        log.setLevel(level)
