"""A run is written by one process at a time: one that was killed leaves it to who goes on with it.

Part of the process that writes to MLflow: of tlx it imports `core` alone.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OCCUPIED = 30.0  # seconds for which a run waits until another process has written what it has of it


class Left(Exception):
    """The run belongs to another process."""


class RunLock:
    """The file in a run's folder that a process holds while it writes the run."""

    def __init__(self, path: Path, orphaned: Callable[[], bool]) -> None:
        """`orphaned`: whether the process that asks has ended."""
        self.path, self.orphaned = path, orphaned
        self.waited = False
        self._lock: Any = None

    def enter(self) -> None:
        """Waits until no other process writes this run.

        Raises:
            Left: nobody waits for this one any more.
            RuntimeError: the other one has not left it in `OCCUPIED` seconds.
        """
        from filelock import FileLock, Timeout

        self._lock = self._lock or FileLock(self.path)
        until = time.monotonic() + (0.0 if self.waited else OCCUPIED)
        while not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0 if self.orphaned() or self.waited else 1)
            except Timeout as error:
                if self.orphaned():
                    raise Left from error
                if time.monotonic() >= until:
                    self.waited = True
                    raise RuntimeError(f"another process is still writing this run and holds {self.path}") from error

    def leave(self) -> None:
        """Lets others write this run."""
        if self._lock is not None:
            self._lock.release(force=True)
