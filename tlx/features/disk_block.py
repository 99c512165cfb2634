"""One block of rows on disk: written, checked, read and removed.

A block is a folder with `rows.bin`, `keys.bin` and `block.json`, the last with the sizes and checksums of the others.
"""

import contextlib
import json
import mmap
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.large_arrays import blocks

__all__ = [
    "KEY_BYTES",
    "BlockHeader",
    "Damaged",
    "bytes_in",
    "folders",
    "map_rows",
    "read_head",
    "read_keys",
    "remember",
    "remove",
    "write_names",
]

FORMAT = 1  # of a block; another number is another layout
KEY_BYTES = 20
_COPIED = 1 << 18  # bytes at a time: what stays in the CPU's cache
# Linux promises memory for every private page: without this flag a file larger than the memory cannot be mapped.
_UNRESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
# (path, time of change, size) → checksum of files that this process has read: each is read once.
_known: dict[tuple[str, int, int], int] = {}


@dataclass(frozen=True)
class BlockHeader:
    """What `block.json` says of the other two files and, in `about`, of what the rows are."""

    rows: int
    row_bytes: int
    rows_crc32: int
    keys_crc32: int
    about: dict[str, Any]


class Damaged(Exception):
    """A block that is not what it was when it was written; the message says why."""


def write_names(place: Path, keys: Sequence[str], rows: NDArray[np.uint8], about: Mapping[str, Any]) -> int:
    """Makes a block of a folder that holds `rows.bin`: writes the other two files; the checksum of `rows`.

    Raises:
        OSError: the disk does not take them.
        ValueError: a key is not of `KEY_BYTES` bytes in hex digits.
    """
    packed = b"".join(map(bytes.fromhex, keys))
    if len(packed) != KEY_BYTES * len(keys):
        raise ValueError(f"keys must have {2 * KEY_BYTES} hex digits each")
    # Nothing waits for the disk: what a power failure loses does not fit the checksum.
    crc = 0
    for _, some in blocks(rows):
        crc = zlib.crc32(some.data, crc)
    head = {"format": FORMAT, "rows": len(keys), "row_bytes": rows.shape[1], "rows_crc32": crc,
            "keys_crc32": zlib.crc32(packed), "about": dict(about)}  # fmt: skip
    (place / "keys.bin").write_bytes(packed)
    (place / "block.json").write_text(json.dumps(head, indent=1), encoding="utf-8")
    return crc


def read_head(place: Path) -> BlockHeader:
    """What `block.json` says. Raises Damaged, or OSError where it cannot be read."""
    try:
        found = json.loads(_content(place / "block.json"))
    except (ValueError, RecursionError) as error:
        raise Damaged("block.json is not JSON") from error
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise Damaged(f"block.json is not of format {FORMAT}")
    try:
        head = BlockHeader(**found)
    except TypeError as error:
        raise Damaged("block.json lacks something or has more") from error
    numbers = (head.rows, head.row_bytes, head.rows_crc32, head.keys_crc32)
    if not all(type(number) is int and number >= 0 for number in numbers) or not isinstance(head.about, dict):
        raise Damaged("block.json holds a value of a wrong kind")
    return head


def read_keys(place: Path, head: BlockHeader) -> list[str]:
    """The keys of a block's rows, in order. Raises Damaged or OSError."""
    packed = _content(place / "keys.bin")
    _check("keys.bin", len(packed), KEY_BYTES * head.rows, zlib.crc32(packed), head.keys_crc32)
    digits, text = 2 * KEY_BYTES, packed.hex()
    return [text[i : i + digits] for i in range(0, len(text), digits)]


def map_rows(place: Path, head: BlockHeader) -> NDArray[np.uint8]:
    """The rows, `[n, row_bytes]`, mapped copy-on-write. Raises Damaged or OSError; ValueError without memory to map."""
    path = place / "rows.bin"
    size = head.rows * head.row_bytes
    _check("rows.bin", _regular(path).stat().st_size, size)
    _check("rows.bin", size, size, _checksum(path), head.rows_crc32)
    with path.open("rb") as file:
        pages = mmap.mmap(
            file.fileno(), size, flags=mmap.MAP_PRIVATE | _UNRESERVED, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    return np.frombuffer(pages, dtype=np.uint8).reshape(head.rows, head.row_bytes)


def _content(path: Path) -> bytes:
    return _regular(path).read_bytes()


def _regular(path: Path) -> Path:
    """A pipe or a device would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Damaged(f"{path.name} is not a file")
    return path


def _check(name: str, size: int, right_size: int, crc: int = 0, right_crc: int = 0) -> None:
    if size != right_size:
        raise Damaged(f"{name} has {size:,} bytes, not {right_size:,}")
    if crc != right_crc:
        raise Damaged(f"{name} does not fit its checksum")


def _checksum(path: Path) -> int:
    """The crc32 of a file, read once a process.

    Measured in GB/s on one core (zlib 1.2.13, OpenSSL 3.0): crc32 2.0, adler32 2.0, sha1 1.5, sha256 1.4; sha512, md5
    and blake2b about 0.5. Adler's sums miss more than a crc, and damage by chance needs no cryptography. Read and not
    mapped, so that a disk that cannot read is an OSError and not SIGBUS.
    """
    state = _state(path)
    if state not in _known:
        crc, buffer = 0, bytearray(_COPIED)
        view = memoryview(buffer)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                crc = zlib.crc32(view[:count], crc)
        _known[state] = crc
    return _known[state]


def remember(path: Path, crc: int) -> None:
    """Notes the checksum of a file that this process has written itself."""
    _known[_state(path)] = crc


def _state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size


def remove(place: Path) -> bool:
    """Whether the block is gone. Renamed first: nobody finds half of it. Another process may have been faster."""
    away = place.with_name(f".{place.name}")
    try:
        place.rename(away)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    shutil.rmtree(away, ignore_errors=True)
    return True


def folders(place: Path, form: str) -> list[Path]:
    """The folders in `place` whose names have a form, sorted; none where it cannot be read. No other is touched."""
    try:
        with os.scandir(place) as inside:
            names = [entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [place / name for name in sorted(names) if re.fullmatch(form, name)]


def bytes_in(place: Path) -> int:
    """The size of all files in `place`, as far as they are still there."""
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total
