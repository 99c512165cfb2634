"""Archives unpacked safely: nothing outside the target, no links, no more bytes than expected."""

import bz2
import contextlib
import errno
import gzip
import hashlib
import http.client
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast

MAX_FILES = 100_000  # in an archive
SLACK = 64_000_000  # bytes of a tar that are no content of its folder: headers, padding, what lies beside the folder
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what operating systems leave in folders, beside hidden files


class Refused(Exception):
    """An archive that is not what it should be, or does not arrive; the message is the reason."""


def litter(name: str) -> bool:
    """Whether a file or folder of this name is the operating system's and not the person's."""
    return name.startswith(".") or name in LITTER


def checksum(file: Path, algorithm: str) -> str:
    """`<algorithm>:<hex digits>` of a file."""
    with file.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def content_digest(folder: Path) -> str:
    """One sha256 over the relative path and the sha256 of every file in a folder, litter left out: 64 hex digits."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    whole = hashlib.sha256()
    for name in sorted(name.as_posix() for name in files if not any(map(litter, name.parts))):
        whole.update(f"{checksum(folder / name, 'sha256')}  {name}\n".encode())
    return whole.hexdigest()


def copy(source: IO[bytes], out: IO[bytes], limit: int) -> int:
    """Copies a stream and returns its bytes. Raises `Refused` where it breaks off or has more than `limit`."""
    size = 0
    while block := _block(source):
        size += len(block)
        if size > limit:
            raise Refused(f"it is larger than the {limit:,} bytes expected at most")
        out.write(block)  # an error of this side (a full disk) passes
    return size


def _block(source: IO[bytes]) -> bytes:
    try:
        return source.read(1 << 20)
    except (OSError, EOFError, http.client.HTTPException, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise Refused(f"it breaks off: {error}") from error


def unpack(file: Path, target: Path, *, folder: str, limit: int) -> None:
    """The files under `folder` of a zip or tar archive into `target`, a folder that does not exist yet.

    Raises `Refused` for a path that leads outside, a link or device, more than `limit` bytes or 100,000 files,
    a tar that unpacks to 64 MB more than `limit` in all, a damaged archive, or one without `folder`. What was written
    until then is left to the caller.
    """
    target.mkdir()
    count, left = 0, limit
    for name, regular, opened in _readable(_members(file, limit + SLACK)):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
            raise Refused(f"it holds a path that leads outside: {name}")
        if not path.is_relative_to(folder) or any(map(litter, path.parts)):
            continue
        if not regular:
            raise Refused(f"it holds a link or a device: {name}")
        count += 1
        if count > MAX_FILES:
            raise Refused(f"it holds more than {MAX_FILES:,} files")
        with _reading():
            source = opened()
        with source, _new(target / path.relative_to(folder), name) as written, _reading((Refused, OSError)):
            left -= copy(source, written, left)
    if not count:
        raise Refused(f"it holds no folder {folder}")


Member = tuple[str, bool, Callable[[], IO[bytes]]]  # path, whether it is a regular file, how to open it


def _members(file: Path, limit: int) -> Iterator[Member]:
    """Everything in an archive that is no folder; a tar is read once, from the start to at most `limit` bytes."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > MAX_FILES:
                raise Refused(f"it holds more than {MAX_FILES:,} files")
            for info in archive.infolist():
                if not info.is_dir():
                    link = stat.S_ISLNK(info.external_attr >> 16)
                    yield info.filename, not link, lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with _plain(file) as stream, tarfile.open(fileobj=_Limited(stream, limit), mode="r|", bufsize=1 << 18) as tape:  # type: ignore[call-overload]
        for member in tape:
            if not member.isdir():
                yield member.name, member.isfile(), lambda m=member: cast("IO[bytes]", tape.extractfile(m))  # type: ignore[misc]


def _plain(file: Path) -> IO[bytes]:
    """The file unpacked while it is read, by its first bytes."""
    with file.open("rb") as stream:
        magic = stream.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((opener for begins, opener in openers.items() if magic.startswith(begins)), open)
    return cast("IO[bytes]", opener(file, "rb"))


class _Limited:
    """A stream that gives at most `limit` bytes: headers of a tar are read whole, however long they say they are."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self.source, self.limit, self.left = source, limit, limit

    def read(self, size: int) -> bytes:
        block = self.source.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise Refused(f"it unpacks to more than {self.limit:,} bytes")
        return block


def _readable(members: Iterator[Member]) -> Iterator[Member]:
    while True:
        with _reading():
            member = next(members, None)
        if member is None:
            return
        yield member


@contextlib.contextmanager
def _reading(passed: tuple[type[Exception], ...] = (Refused,)) -> Iterator[None]:
    """Whatever Python's readers make of damaged, encrypted or unknown archives is `Refused`, but for `passed`."""
    try:
        yield
    except passed:
        raise
    except EOFError as error:
        raise Refused(f"it breaks off: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError) as error:
        raise Refused(f"it cannot be unpacked: {error}") from error
    except (ValueError, RuntimeError, NotImplementedError, OverflowError, LookupError, TypeError) as error:
        raise Refused(f"it cannot be unpacked: {error}") from error


def _new(path: Path, name: str) -> IO[bytes]:
    """The new file `path`, in folders that are made for it; `name`: what the archive calls it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(f"it holds a path twice: {error.filename}") from error
    except ValueError as error:  # a NUL in it
        raise Refused(f"it holds a path that cannot be: {name!r}") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise Refused(f"it holds a path that cannot be: {name!r:.100}") from error
        raise
