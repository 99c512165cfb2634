"""What tlx logs, as lines on stderr; apart from the display, so that an error needs no rich to be said."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tlx.reporting.line_width import width
from tlx.reporting.notebook_line import in_notebook

log = logging.getLogger("tlx")


class _Lines(logging.Handler):
    """Log records as lines for a person; those with `detail` set only where the traceback is requested too."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "detail", False) and os.environ.get("HYDRA_FULL_ERROR") != "1":
            return
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        line, most = warning + record.getMessage(), width(sys.stderr)
        # A row of figures has a function that makes it as wide as the terminal.
        fitting: Callable[[int], str] | None = getattr(record, "fitting", None)
        print(line if fitting is None or most is None else fitting(most), file=sys.stderr, flush=True)


HANDLER = _Lines()


@contextmanager
def lines(*, quiet: bool = False) -> Iterator[None]:
    """What tlx logs is said on stderr while the block lasts; `quiet`: warnings alone. Blocks may be nested.

    In a notebook it is warnings alone, too: a progress bar stands for the lines, which are in the run's `tlx.log`.
    """
    if HANDLER in log.handlers:
        yield
        return
    level = log.level
    log.addHandler(HANDLER)
    HANDLER.setLevel(logging.WARNING if quiet or in_notebook() else logging.INFO)
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(HANDLER)
        log.setLevel(level)
