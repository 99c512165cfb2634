"""Archives unpacked safely: nothing outside the target, no links, no more bytes than expected."""

import hashlib
import http.client
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast

MAX_FILES = 100_000  # in an archive
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
    a damaged archive, or one without `folder`. What was written until then is left to the caller.
    """
    target.mkdir()
    count, left = 0, limit
    try:
        for name, regular, opened in _members(file):
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
            out = target / path.relative_to(folder)
            out.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, out.open("xb") as written:
                left -= copy(source, written, left)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"it cannot be unpacked: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(f"it holds a path twice: {error.filename}") from error
    # An encrypted zip, and a way of packing that Python does not know.
    except (RuntimeError, NotImplementedError) as error:
        raise Refused(f"it cannot be unpacked: {error}") from error
    if not count:
        raise Refused(f"it holds no folder {folder}")


def _members(file: Path) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
    """(path, whether it is a regular file, how to open it) of everything in an archive that is no folder."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    link = stat.S_ISLNK(info.external_attr >> 16)
                    yield info.filename, not link, lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with tarfile.open(file) as tape:
        for member in tape:
            if not member.isdir():
                yield member.name, member.isfile(), lambda m=member: cast("IO[bytes]", tape.extractfile(m))  # type: ignore[misc]
