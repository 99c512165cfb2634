"""What gives an image: a file's bytes, or pixels that are in memory."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlx.core.errors import reason
from tlx.core.safe_archive import Refused
from tlx.datasets.archive_index import ArchiveEntry, ArchiveIndex, inside
from tlx.datasets.content_digests import Seen, State
from tlx.datasets.image_decoding import MAX_BYTES, Pixels, UnreadableImage

Read = Callable[[int], "bytes | Pixels"]  # a file's bytes, or pixels that are in memory or drawn


@dataclass(frozen=True)
class FileBytes:
    """Reads image i from its file."""

    paths: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        with open(self.paths[index], "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableImage("not a file")
            size = found.st_size
            if size > MAX_BYTES:  # a film among the photographs
                raise UnreadableImage(f"{size / 1e6:,.0f} MB are more than an image has")
            return file.read()

    def state(self, index: int) -> State:
        """What tells whether image i has changed since it was read."""
        return Seen.state(self.paths[index])


def _at_once(path: str, flags: int) -> int:
    """Opens a file, and a pipe without waiting for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@dataclass(frozen=True)
class ArchiveBytes:
    """Reads image i from an archive, in place. `paths`: for people, as `photos.zip/ants/1.jpg`."""

    paths: tuple[str, ...]
    archive: str
    zipped: bool
    entries: tuple[ArchiveEntry, ...]

    def __call__(self, index: int) -> bytes:
        try:
            return ArchiveIndex(self.archive, self.zipped).read(self.entries[index], MAX_BYTES)
        except Refused as refused:
            raise UnreadableImage(str(refused)) from refused

    def state(self, index: int) -> State:
        """What tells whether image i has changed since it was read."""
        return *Seen.state(self.archive), self.entries[index].start


def files_bytes(folder: Path, paths: Sequence[str]) -> FileBytes | ArchiveBytes:
    """What reads files that lie below one folder, which may be in an archive."""
    found = inside(folder)
    if found is None:
        return FileBytes(tuple(paths))
    index, _ = found
    names = [os.path.relpath(path, index.path).replace(os.sep, "/") for path in paths]
    return ArchiveBytes(tuple(paths), index.path, index.zipped, tuple(index.files[name] for name in names))


def content_of(path: Path) -> Path | bytes:
    """The bytes of a file that lies in an archive (`photos.zip/ants/1.jpg`); the path of any other, as it is.

    Raises:
        UnreadableImage: the archive or the file in it cannot be read; the message says why.
    """
    if os.path.lexists(path):
        return path
    try:
        found = inside(path)
        entry = None if found is None else found[0].files.get(found[1])
        return path if found is None or entry is None else found[0].read(entry, MAX_BYTES)
    except (Refused, OSError) as error:
        raise UnreadableImage(str(error) if isinstance(error, Refused) else reason(error).lower()) from error


@dataclass(frozen=True)
class Stacked:
    """Image i of an array in memory: uint8 [N, H, W, 3]."""

    pixels: Pixels

    def __call__(self, index: int) -> Pixels:
        image: Pixels = self.pixels[index]
        return image


@dataclass(frozen=True)
class Joined:
    """Image i of several readers."""

    sources: tuple[tuple[Read, int], ...]  # (reader, the image's number there)

    def __call__(self, index: int) -> "bytes | Pixels":
        read, number = self.sources[index]
        return read(number)
