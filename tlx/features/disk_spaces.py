"""The spaces of the store of rows: which blocks lie in each, which were left unfinished, and the lock of each."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tlx.features.disk_block import folders


class Spaces:
    """The spaces below `folder`.

    Attributes:
        say: takes one line for people.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def names(self) -> list[str]:
        """Of all spaces, sorted."""
        return [place.name for place in folders(self.folder, "[0-9a-f]{8,}")]

    def blocks(self, space: str) -> list[Path]:
        """The whole blocks of a space."""
        return folders(self.folder / space, "[0-9a-f]{16}")

    def unfinished(self, space: str) -> list[Path]:
        """The blocks that are being written or removed, or were left so."""
        return folders(self.folder / space, "[.][0-9a-f]{16}")

    def acquire(self, space: str, *, wait: bool) -> FileLock | None:
        """The lock of a space; None where the file system has none, or another process holds it and `wait` is false."""
        lock = FileLock(self.folder / f".{space}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except TimeoutError:
                if not wait:
                    return None
                self.say("features: another process computes the same; waiting for it")
                lock.acquire()
        except (OSError, NotImplementedError):  # a file system without locks
            return None
        return lock

    def remove_unfinished(self, space: str, held: FileLock | None) -> None:
        """Removes what was left half done: who holds the lock of the space knows that nobody else writes there."""
        for place in self.unfinished(space) if held else []:
            shutil.rmtree(place, ignore_errors=True)

    def release(self, space: str, held: FileLock | None) -> None:
        """Releases the lock of a space; one that is empty goes, and the lock's file with it."""
        if not held:
            return
        with contextlib.suppress(OSError):  # it is not empty
            (self.folder / space).rmdir()
        if not os.path.lexists(self.folder / space):
            with contextlib.suppress(OSError):  # a process that waits for the file that is unlinked makes a new one
                (self.folder / f".{space}.lock").unlink()
        held.release()

    def tidy(self, space: str) -> None:
        """Removes what is unfinished in a space, and the space where nothing is left, unless it is locked."""
        held = self.acquire(space, wait=False)
        self.remove_unfinished(space, held)
        self.release(space, held)
