"""The namespaces of the store of rows: which blocks lie in each, which were left unfinished, and the lock of each."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tlx.features.disk_block import folders

SHARED = "shared-"  # begins the name of a block that is being written beside those of others
FORGOTTEN = 86_400.0  # seconds after which what nobody has finished or taken over is removed


class Namespaces:
    """The namespaces below `folder`.

    Attributes:
        say: takes one line for the user.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def names(self) -> list[str]:
        """Of all namespaces, sorted."""
        return [place.name for place in folders(self.folder, "[0-9a-f]{8,}")]

    def blocks(self, namespace: str) -> list[Path]:
        """The whole blocks of a namespace."""
        return folders(self.folder / namespace, "[0-9a-f]{16}")

    def unfinished(self, namespace: str) -> list[Path]:
        """The blocks that are being written or removed, or were left so."""
        return folders(self.folder / namespace, "[.][0-9a-f]{16}")

    def acquire(self, namespace: str, *, wait: bool) -> FileLock | None:
        """A namespace's lock; None where the file system has none, or another process holds it and `wait` is false."""
        lock = FileLock(self.folder / f".{namespace}.lock")
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

    def remove_unfinished(self, namespace: str, held: FileLock | None) -> None:
        """Removes what was left half done: who holds the lock of the namespace knows that nobody else writes there."""
        for place in self.unfinished(namespace) if held else []:
            shutil.rmtree(place, ignore_errors=True)
        if held:
            self._remove_forgotten(namespace)

    def remove_shared(self, namespace: str, making: str) -> None:
        """Removes a block that a process was writing beside others."""
        if re.fullmatch("[0-9a-f]{16}", making):
            shutil.rmtree(self.folder / namespace / f".{SHARED}{making}", ignore_errors=True)

    def _remove_forgotten(self, namespace: str) -> None:
        """Removes what machines that shared the namespace have left, where nobody has gone on for a day."""
        with contextlib.suppress(OSError), os.scandir(self.folder / namespace) as inside:
            for entry in inside:
                if not entry.name.startswith((f".{SHARED}", ".lease-", ".old-lease-")):
                    continue
                if entry.stat(follow_symlinks=False).st_mtime > time.time() - FORGOTTEN:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def release(self, namespace: str, held: FileLock | None) -> None:
        """Releases the lock of a namespace; one that is empty goes, and the lock's file with it."""
        if not held:
            return
        with contextlib.suppress(OSError):  # it is not empty
            (self.folder / namespace).rmdir()
        if not os.path.lexists(self.folder / namespace):
            with contextlib.suppress(OSError):  # a process that waits for the file that is unlinked makes a new one
                (self.folder / f".{namespace}.lock").unlink()
        held.release()

    def tidy(self, namespace: str) -> None:
        """Removes what is unfinished in a namespace, and the namespace where nothing is left, unless it is locked."""
        held = self.acquire(namespace, wait=False)
        self.remove_unfinished(namespace, held)
        self.release(namespace, held)
