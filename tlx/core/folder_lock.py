"""A folder in which one process works at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tlx.core.errors import RequestError

LOCK = ".lock"


@contextlib.contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Nobody else works in `folder` while the block lasts; a process that is killed gives that up.

    Args:
        wait: for the other to end.

    Raises:
        RequestError: another process works there, and `wait` is off.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise RequestError(f"{folder}: another process is working on this run; wait for it, or stop it") from error
    try:
        yield
    finally:
        lock.release()


def held(folder: Path) -> bool:
    """Whether a process works in `folder`."""
    if not (folder / LOCK).exists():
        return False
    try:
        with alone(folder):
            return False
    except RequestError:
        return True
    except OSError:  # nobody can write there
        return False
