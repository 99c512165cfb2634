"""A run's log file: what is logged from the beginning of the run, before there is a folder for it, to its end."""

import logging
import logging.handlers
from pathlib import Path

FILE = "tlx.log"
log = logging.getLogger("tlx")


class RunLog:
    """The log of a run. What is logged before `attach` waits until then."""

    def __init__(self) -> None:
        # Its capacity counts only once it has a target.
        self._early = logging.handlers.MemoryHandler(0, logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.Handler | None = None

    def begin(self) -> None:
        """From now on everything is logged."""
        log.addHandler(self._early)

    def attach(self, folder: Path) -> None:
        """There is a folder: all of it goes into its file, behind what an interrupted run has logged there."""
        self._file = _LogFile(folder / FILE, encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(self._file)
        log.removeHandler(self._early)
        self._early.setTarget(self._file)
        self._early.flush()

    def close(self) -> None:
        """Nothing is logged any more."""
        for handler in (self._early, self._file):
            if handler is not None:
                log.removeHandler(handler)
                handler.close()


class _LogFile(logging.FileHandler):
    """A log that cannot be written does not end the run, nor fill the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing: a full disk is reported by what else is written."""
