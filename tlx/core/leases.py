"""Claims on pieces of work that processes on several machines share: files in a folder that all of them see.

A file system on a network need not have locks that all machines see, but of several processes that make a file which
must not exist yet, or rename one, it lets one succeed. Who holds a lease changes the time of its file again and
again; a file whose time does not change any more is that of a process that has ended. No clocks are compared: each
process measures with its own for how long it has seen the same time.

A holder that was only stopped for that long is taken for dead: two processes may then do the same piece. What they
make must be whole or absent, and the same.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

EXPIRY = 120.0  # seconds without a sign of life after which a holder is taken for dead
SIGNS = 5  # of life, in that time


class Leases:
    """The leases in a folder, as one process sees them.

    Attributes:
        left: takes what a dead holder has said that it makes (`claim`), once its lease is taken from it.
    """

    def __init__(self, folder: Path, left: Callable[[str], None], expiry: float = EXPIRY) -> None:
        self.folder, self.left, self.expiry = folder, left, expiry
        self._seen: dict[Path, tuple[int, float]] = {}  # its time of change, and since when it is that

    @contextlib.contextmanager
    def claim(self, name: str, making: str) -> Iterator[bool]:
        """Whether the piece of this name is this process's alone while the block lasts.

        Args:
            making: what it makes meanwhile, for `left` of whoever takes over.

        Raises:
            OSError: the folder cannot be written.
        """
        path, own = self.folder / f".lease-{name}", f"{uuid.uuid4().hex} {making}"
        if not (self._made(path, own) or (self._taken(path) and self._made(path, own))):
            yield False
            return
        ended = threading.Event()
        alive = threading.Thread(target=self._live, args=(path, ended), daemon=True)
        alive.start()
        try:
            yield True
        finally:
            ended.set()
            alive.join()
            with contextlib.suppress(OSError):
                if path.read_text(encoding="utf-8") == own:  # nobody has taken it meanwhile
                    path.unlink()

    def _made(self, path: Path, own: str) -> bool:
        for last in (False, False, True):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(own)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:  # another process has just removed the folder, which was empty
                if last:
                    raise
        self._seen.pop(path, None)
        return True

    def _taken(self, path: Path) -> bool:
        """Takes the lease away from a holder that shows no life; whether it did."""
        try:
            changed = _changed(path)
        except FileNotFoundError:
            self._seen.pop(path, None)
            return True  # it has been released
        known, since = self._seen.get(path, (-1, 0.0))
        if changed != known:
            self._seen[path] = (changed, time.monotonic())
            return False
        if time.monotonic() - since < self.expiry:
            return False
        away = self.folder / f".old-lease-{uuid.uuid4().hex}"
        try:
            path.rename(away)
            if _changed(away) != known:  # another process was faster, and this is its own
                with contextlib.suppress(OSError):
                    os.link(away, path)
                return False
            _, _, making = away.read_text(encoding="utf-8").partition(" ")
        except FileNotFoundError:
            return False
        finally:
            away.unlink(missing_ok=True)
        self._seen.pop(path, None)
        self.left(making)
        return True

    def _live(self, path: Path, ended: threading.Event) -> None:
        while not ended.wait(self.expiry / SIGNS):
            with contextlib.suppress(OSError):  # the next time may go well
                os.utime(path)


def _changed(path: Path) -> int:
    """The time of a file's last change, ns; opened, so that a file system on a network asks its server."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
