"""Digests of images and what is known by them: which files were read before, which images can be decoded. No torch."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tlx.core.version import version_of
from tlx.datasets.image_decoding import MAX_PIXELS, Pixels, allowed
from tlx.datasets.pixel_levels import Levels

DIGITS = 40  # of an image's digest
DECODER = 2  # one more where images are found to be readable, or have levels, that were not before
RACE = 2.0  # seconds after a change within which a file may change once more and have the same times


def digest_of(content: "bytes | Pixels") -> str:
    """Of an image's file, or of its pixels where there is no file: 40 hex digits."""
    digest = hashlib.blake2b(digest_size=DIGITS // 2)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        digest.update(f"{content.shape}".encode())
        digest.update(np.ascontiguousarray(content).data)
    return digest.hexdigest()


class Decoded:
    """Digests of images that were decoded whole before: they need not be decoded to know that they can be.

    `path`: the file that keeps them from run to run, a line each, with the levels of images of more than 8 bits; None
    keeps nothing. It goes with one version of the decoder. A file that is damaged or cannot be written costs time,
    nothing else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.digests: set[str] = set()
        self.levels: dict[str, Levels] = {}
        if path is not None:
            with contextlib.suppress(OSError):
                for line in path.read_text(encoding="ascii", errors="replace").splitlines():
                    digest, *numbers = line.split(" ")
                    with contextlib.suppress(ValueError):
                        if len(digest) == DIGITS:
                            if numbers:
                                self.levels[digest] = _levels([float(number) for number in numbers])
                            self.digests.add(digest)

    @classmethod
    def below(cls, folder: Path) -> "Decoded":
        """Those that are kept below the output folder, for a decoder of this version with these limits."""
        reads = [version_of("pillow"), str(DECODER), *(["heif"] if find_spec("pillow_heif") else [])]
        reads += [] if allowed() == MAX_PIXELS else [str(allowed())]
        return cls(folder / "features" / f"decoded-{'-'.join(reads)}.txt")

    def add(self, digests: Iterable[str], levels: Mapping[str, Levels] | None = None) -> None:
        """Keeps what is new. `levels`: of those with more than 8 bits."""
        new = set(digests) - self.digests
        self.digests |= new
        self.levels.update(levels or {})
        if self.path is not None and new:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # One write, so that processes do not come between each other's lines; after a line that was cut short.
                with self.path.open("ab") as file:
                    file.write("".join(f"\n{self._line(digest)}" for digest in sorted(new)).encode())

    def _line(self, digest: str) -> str:
        found = self.levels.get(digest)
        return digest if found is None else " ".join([digest, *map(repr, (found.low, found.high, *(found.said or ())))])


def _levels(numbers: list[float]) -> Levels:
    """What a line says behind the digest. Raises ValueError where a number is missing or one too many."""
    low, high, *said = numbers
    if len(said) not in (0, 2):
        raise ValueError(numbers)
    return Levels(low, high, (said[0], said[1]) if said else None)


State = tuple[int, ...]  # of a file: size, times, inode, device


class Seen:
    """Digests of the files that this process has read, so that the next job of a sweep need not read them.

    A file is the one that was read while its size, its times and its inode are the same. One that has just changed is
    not kept: what is written to it at once may leave its times as they are. Some 400 bytes a file.
    """

    def __init__(self) -> None:
        self.digests: dict[str, tuple[State, str]] = {}

    @staticmethod
    def state(path: str) -> State:
        """What the system says of a file; looked up before the file is read."""
        found = os.stat(path)
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev

    def get(self, path: str, state: State) -> str | None:
        """The digest, if the file was read and is as it was."""
        known, digest = self.digests.get(path, (None, None))
        return digest if known == state else None

    def keep(self, path: str, state: State, digest: str) -> None:
        """What was read of a file in that state."""
        if time.time_ns() - max(state[:2]) > RACE * 1e9:
            self.digests[path] = state, digest


seen = Seen()
