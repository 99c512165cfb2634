"""Zip and tar archives that are read in place: what lies where, and the bytes of one file. Nothing is written.

A zip has its own list of files; a tar's is made by going from header to header. Then each file is read by its offset,
from any thread or process.
"""

import contextlib
import functools
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from tlx.core.errors import printable
from tlx.core.safe_archive import Refused, litter

ENDINGS = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst")
DEEPEST = 100  # folders in folders
STORED, DEFLATED = 0, 8
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LOCAL = struct.Struct("<4s22xHH")  # of a zip: what stands before a file's content


@dataclass(frozen=True)
class ArchiveEntry:
    """A file in an archive.

    `start`: of its header in a zip, of its content in a tar. `packed`, `size`: bytes there and unpacked. `checksum`:
    CRC-32. `wrong`: why it cannot be read.
    """

    start: int
    packed: int
    size: int
    method: int = STORED
    checksum: int | None = None
    wrong: str = ""


@dataclass
class ArchiveIndex:
    """The files of an archive by their paths in it, and the names in each folder; the archive's own folder is `""`."""

    path: str
    zipped: bool
    files: dict[str, ArchiveEntry] = field(default_factory=dict)
    folders: dict[str, tuple[set[str], set[str]]] = field(default_factory=lambda: {"": (set(), set())})

    def add(self, name: str, entry: ArchiveEntry | None) -> None:
        """A file, or a folder (None). Raises `Refused` for a path that leads outside, or is there twice."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name:
            raise Refused(f"it holds a path that leads outside: {printable(name)}")
        if len(path.parts) > DEEPEST:
            raise Refused(f"it holds more than {DEEPEST} folders in each other")
        if any(map(litter, path.parts)) or not path.parts:
            return
        whole = path.as_posix()
        if whole in self.files or (entry is not None and whole in self.folders):
            raise Refused(f"it holds a path twice: {printable(whole)}")
        if entry is not None:
            self.files[whole] = entry
        elif whole not in self.folders:
            self.folders[whole] = (set(), set())
        place = 0 if entry is None else 1
        while whole:
            above, _, last = whole.rpartition("/")
            if above in self.files:
                raise Refused(f"it holds a path twice: {printable(above)}")
            known = above in self.folders
            self.folders.setdefault(above, (set(), set()))[place].add(last)
            if known:
                return
            whole, place = above, 0

    def read(self, entry: ArchiveEntry, limit: int) -> bytes:
        """A file's content. Raises `Refused` where it is damaged, or larger than it says or than `limit` bytes."""
        if entry.wrong:
            raise Refused(entry.wrong)
        if max(entry.size, entry.packed) > limit:
            raise Refused(f"{max(entry.size, entry.packed) / 1e6:,.0f} MB are more than an image has")
        with open(self.path, "rb") as file:
            file.seek(entry.start)
            if self.zipped:
                head = file.read(_LOCAL.size)
                if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
                    raise Refused("the archive is damaged here")
                _, name, extra = _LOCAL.unpack(head)
                file.seek(name + extra, os.SEEK_CUR)
            content = file.read(entry.packed)
        if len(content) < entry.packed:
            raise Refused("the archive breaks off in it")
        return _unpacked(content, entry)


def _unpacked(content: bytes, entry: ArchiveEntry) -> bytes:
    if entry.method == DEFLATED:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacking.decompress(content, entry.size + 1)
        except zlib.error as error:
            raise Refused("the archive is damaged here") from error
    if len(content) != entry.size:
        raise Refused(f"it has another size than the {entry.size:,} bytes that the archive says")
    if entry.checksum is not None and zlib.crc32(content) != entry.checksum:
        raise Refused("its checksum is not the one that the archive has")
    return content


def inside(path: str | Path) -> tuple[ArchiveIndex, str] | None:
    """The archive in which a path lies (`photos.zip/ants/1.jpg`), and the path in it; None for one of the system's.

    Raises:
        Refused: the archive cannot be read in place; the message says why.
    """
    below = list[str]()
    place = os.fspath(path)
    while not os.path.lexists(place):
        above, last = os.path.split(place)
        if not last or above == place:
            return None
        below.append(last)
        place = above
    if not os.path.isfile(place) or (below and not is_archive(place)):
        return None
    found = os.stat(place)
    return _indexed(place, found.st_mtime_ns, found.st_size), "/".join(reversed(below))


def is_archive(file: str | Path) -> bool:
    """Whether a file is an archive, by its content; or says so by its name, whatever is wrong with it."""
    if os.fspath(file).lower().endswith(ENDINGS):
        return True
    return zipfile.is_zipfile(file) or tarfile.is_tarfile(file)


@functools.lru_cache(maxsize=4_096)  # of shards, too
def _indexed(path: str, changed: int, size: int) -> ArchiveIndex:
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, program in _COMPRESSED.items():
        if head.startswith(magic):
            raise Refused(
                "a compressed tar cannot be read in place: to get at a file, all before it is unpacked; unpack it, or "
                f"make a plain tar of it once: {program} {os.path.basename(path)}"
            )
    try:
        # The last file of a tar may be a zip, and a zip may begin with a program that unpacks it.
        zipped = head.startswith(b"PK") or (not tarfile.is_tarfile(path) and zipfile.is_zipfile(path))
        index = ArchiveIndex(path, zipped)
        for name, entry in _of_zip(path) if zipped else _of_tar(path, size):
            index.add(name, entry)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, struct.error, ValueError, OverflowError) as error:
        raise Refused(f"it is damaged, or no zip or tar archive ({error})") from error
    except NotImplementedError as error:
        raise Refused(f"it is an archive of a kind that is not read ({error})") from error
    return index


def _of_zip(path: str) -> Iterator[tuple[str, ArchiveEntry | None]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise Refused("files overlap in it, as in a zip bomb")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
    for info in infos:
        name = info.orig_filename
        if not info.flag_bits & 0x800:  # not said to be UTF-8, which most programs write all the same
            with contextlib.suppress(UnicodeError):
                name = name.encode("cp437").decode("utf-8")
        name = name.replace("\\", "/")
        if name.endswith("/"):
            yield name, None
            continue
        wrong = ""
        if stat.S_ISLNK(info.external_attr >> 16):
            wrong = "a link, which is not followed in an archive"
        elif info.flag_bits & 0x1:
            wrong = "it is encrypted; unpack the archive with its password"
        elif info.compress_type not in (STORED, DEFLATED):
            wrong = (
                f"it is compressed by a method that is not read here (number {info.compress_type}); unpack the archive"
            )
        yield (
            name,
            ArchiveEntry(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC, wrong),
        )


def _of_tar(path: str, length: int) -> Iterator[tuple[str, ArchiveEntry | None]]:
    known = dict[str, ArchiveEntry]()
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps each otherwise
            if member.isdir():
                yield member.name, None
                continue
            wrong = ""
            if member.issym() or not (member.isfile() or member.islnk()):
                wrong = "a link or a device, which is not followed in an archive"
            elif member.issparse():
                wrong = "a file with holes, which is not read in an archive"
            entry = ArchiveEntry(member.offset_data, member.size, member.size, wrong=wrong)
            if member.islnk():  # another name of a file before it
                entry = known.get(
                    member.linkname, ArchiveEntry(0, 0, 0, wrong="a link to a file that the archive lacks")
                )
            known[member.name] = entry
            yield member.name, entry
        end = archive.offset
    if end + tarfile.BLOCKSIZE > length:  # it ends with empty blocks
        raise Refused("it breaks off before its end")
