"""Rows of bytes cached on disk across runs and processes, found by what they were computed from; never trusted.

`<folder>/<namespace>/<block>/` holds `rows.bin`, `keys.bin` and `block.json`; `<folder>/.<namespace>.lock` is its lock.
A name that begins with a dot is no block: one that is being written, removed, or was left by a killed process.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.errors import reason
from tlx.core.large_arrays import reserve
from tlx.features.disk_block import (
    KEY_BYTES,
    Damaged,
    bytes_in,
    map_rows,
    read_head,
    read_keys,
    remember,
    remove,
    write_names,
)
from tlx.features.disk_namespaces import SHARED, Namespaces

__all__ = ["Entry", "FoundRows", "RowStore", "mib"]

MARGIN = 1 << 28  # bytes of the disk that are left for what a run itself writes


@dataclass(frozen=True)
class FoundRows:
    """What the store has of the keys requested.

    Attributes:
        blocks: `[n, row_bytes]` each, mapped from the file copy-on-write: writing to one changes no file.
        block: `[N]`, which of `blocks` has key i; -1: none.
        row: `[N]`, key i's row in that block.
        own: of each block, whether this `RowStore` has written it.
    """

    blocks: list[NDArray[np.uint8]]
    block: NDArray[np.int64]
    row: NDArray[np.int64]
    own: list[bool]

    @property
    def missing(self) -> NDArray[np.int64]:
        """The indices of the keys that no block has, ascending."""
        return np.flatnonzero(self.block < 0)

    @property
    def owned(self) -> int:
        """How many keys are in blocks that this `RowStore` has written."""
        return int(np.isin(self.block, np.flatnonzero(self.own)).sum())


@dataclass(frozen=True)
class Entry:
    """A namespace, as it is listed. `used`: seconds since 1970 when its rows were last found or written."""

    namespace: str
    about: Mapping[str, Any]
    images: int
    bytes: int
    used: float
    blocks: int
    each: Sequence[
        Mapping[str, Any]
    ] = ()  # what every block says, the one used last first; `about` is the first of them


class RowStore:
    """Blocks of rows under a folder: each whole or absent, all of them together within `limit` bytes.

    A *namespace* (8 lower-case hex digits or more) stands for all that decides what a row is; a *key* (40 digits) for
    what the row was computed from. A disk that is full, read-only, damaged or shared costs at most the rows and raises
    nothing: it is reported once, in a line. With `limit` 0 nothing is found, written or made.

    Attributes:
        say: takes one line for the user.
        shared: several machines fill it at once (`tlx.features.feature_sharing`); then nothing waits for a lock.
    """

    def __init__(self, folder: Path, limit: int, say: Callable[[str], None], *, shared: bool = False) -> None:
        self.folder, self.limit, self.say, self.shared = folder, limit, say, shared
        self._namespaces = Namespaces(folder, say)
        self._said: set[object] = set()
        self._own: set[Path] = set()

    @contextlib.contextmanager
    def lock(self, namespace: str) -> Iterator[None]:
        """One process at a time computes the rows of `namespace`; the others wait here, and then find them. Not nested.

        The system releases the lock of a killed process; what that process left in the namespace is removed here.
        Nothing is locked where the folder cannot be written: nothing can be shared there.
        """
        held = self._namespaces.acquire(namespace, wait=True) if self.limit and not self.shared else None
        try:
            self._namespaces.remove_unfinished(namespace, held)
            yield
        finally:
            self._namespaces.release(namespace, held)

    def find(self, namespace: str, keys: Sequence[str], row_bytes: int) -> FoundRows:
        """The cached rows of `keys`; their blocks count as used now. What is damaged is removed and missing."""
        blocks: list[NDArray[np.uint8]] = []
        own: list[bool] = []
        where: dict[str, tuple[int, int]] = {}
        wanted = set(keys)
        for place in self._namespaces.blocks(namespace) if self.limit else []:
            if not wanted:
                break
            try:
                head = read_head(place)
                if head.row_bytes != row_bytes:
                    raise Damaged(f"rows of {head.row_bytes:,} bytes, not {row_bytes:,}")
                held = {key: i for i, key in enumerate(read_keys(place, head))}
                hits = wanted & held.keys()
                if hits:
                    blocks.append(map_rows(place, head))
                    own.append(place in self._own)
                    where |= {key: (len(blocks) - 1, held[key]) for key in hits}
                    wanted -= hits
                    with contextlib.suppress(OSError):  # a folder that is only read keeps the time of writing
                        os.utime(place / "block.json")
            except (Damaged, FileNotFoundError) as error:
                if os.path.lexists(place):  # else another process has just removed it
                    why = f"{Path(error.filename).name} is missing" if isinstance(error, OSError) else str(error)
                    self._once(place, f"{place} is damaged ({why}); computed anew")
                    remove(place)
            except (OSError, ValueError) as error:  # it may be whole: another user's, or no memory to map it
                self._once(place, f"{place} cannot be read ({reason(error)}); computed anew")
        at = np.array([where.get(key, (-1, 0)) for key in keys], dtype=np.int64).reshape(-1, 2)
        return FoundRows(blocks, at[:, 0], at[:, 1], own)

    def new_keys(self, namespace: str, row_bytes: int, looked: set[Path]) -> Iterator[NDArray[np.bytes_]]:
        """The keys of each block of such rows that is not in `looked`, which gets it; the rows are not read."""
        for place in self._namespaces.blocks(namespace) if self.limit else []:
            if place in looked:
                continue
            looked.add(place)
            with contextlib.suppress(OSError, Damaged):  # `find` says what is wrong with it
                head = read_head(place)
                if head.row_bytes == row_bytes:
                    yield np.array(read_keys(place, head), dtype="S40")

    def discard(self, namespace: str, making: str) -> None:
        """Removes what a process that has died was making under that name (`write`)."""
        self._namespaces.remove_shared(namespace, making)

    def takes(self, n: int, row_bytes: int) -> bool:
        """Whether `n` rows are within the limit; more of them, in several blocks, would push each other out."""
        return n * (row_bytes + KEY_BYTES) <= self.limit

    @contextlib.contextmanager
    def write(
        self, namespace: str, keys: Sequence[str], row_bytes: int, about: Mapping[str, Any], making: str = ""
    ) -> Iterator[NDArray[np.uint8] | None]:
        """An array `[n, row_bytes]`, mapped to a file, to fill with the rows of `keys`; within `lock(namespace)`, or
        under a name of its own (`making`, 16 hex digits) beside others who write there.

        It becomes a block when the `with` block ends well, and vanishes when it does not; then the blocks that were not
        used for longest go until all are within the limit. None where the store cannot take it.

        `about`: what describes the namespace to the user; goes through JSON.
        """
        own = uuid.uuid4().hex[:16]
        name = f".{SHARED}{making or own}" if self.shared else f".{own}"
        scratch = self.folder / namespace / name
        rows = self._allocate(scratch, len(keys), row_bytes)
        try:
            yield rows
            if rows is not None:
                self._finish(scratch, keys, rows, about)
        finally:
            if rows is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """What is cached, the namespace used last first; one that has no block is being written or unfinished."""
        found = []
        for namespace in self._namespaces.names():
            said = list[tuple[float, Mapping[str, Any]]]()
            images = 0
            for place in self._namespaces.blocks(namespace):
                with contextlib.suppress(OSError, Damaged):
                    changed = (place / "block.json").stat().st_mtime
                    head = read_head(place)
                    said.append((changed, head.about))
                    images += head.rows
            used, blocks = max((changed for changed, _ in said), default=0.0), len(said)
            each = [about for _, about in sorted(said, key=lambda block: -block[0])]
            size = bytes_in(self.folder / namespace)
            if size:
                found.append(Entry(namespace, each[0] if each else {}, images, size, used, blocks, each))
        return sorted(found, key=lambda entry: (-entry.used, entry.namespace))

    def clear(self, namespaces: Sequence[str] | None) -> tuple[int, int]:
        """Removes `namespaces` (None: all), but not what a process is writing; returns how many had content, and bytes.

        Runs that use them go on: a mapped file stays until it is closed.
        """
        removed = freed = 0
        for namespace in self._namespaces.names():
            if namespaces is not None and namespace not in namespaces:
                continue
            before = bytes_in(self.folder / namespace)
            for place in self._namespaces.blocks(namespace):
                remove(place)
            self._namespaces.tidy(namespace)
            less = before - bytes_in(self.folder / namespace)
            removed, freed = removed + (less > 0), freed + less
        return removed, freed

    def _allocate(self, scratch: Path, n: int, row_bytes: int) -> NDArray[np.uint8] | None:
        size = n * (row_bytes + KEY_BYTES)
        if not self.limit or not n or not row_bytes:
            return None
        if not self.takes(n, row_bytes):
            self._once("limit", f"{mib(size)} are more than {self.folder} may hold ({mib(self.limit)}); not kept")
            return None
        try:
            scratch.mkdir(parents=True)
            if shutil.disk_usage(scratch).free < size + MARGIN:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Opened here: numpy's own "w+" would cut the file to nothing, and a disk that fills up later is SIGBUS.
            with (scratch / "rows.bin").open("w+b") as file:
                reserve(file.fileno(), n * row_bytes)
                return np.asarray(np.memmap(file, dtype=np.uint8, mode="r+", shape=(n, row_bytes)))
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            self._cannot_keep(error)
            return None

    def _finish(self, scratch: Path, keys: Sequence[str], rows: NDArray[np.uint8], about: Mapping[str, Any]) -> None:
        place = scratch.with_name(uuid.uuid4().hex[:16])
        try:
            crc = write_names(scratch, keys, rows, about)
            scratch.rename(place)
            self._own.add(place)
        except OSError as error:
            self._cannot_keep(error)
            return
        with contextlib.suppress(OSError):  # another process may have removed it already
            remember(place / "rows.bin", crc)
        self._trim(place)

    def _trim(self, newest: Path) -> None:
        """Removes blocks, the one used longest ago first, until all are within the limit; `newest` stays."""
        cached = []
        for namespace in self._namespaces.names():
            for place in self._namespaces.blocks(namespace):
                with contextlib.suppress(OSError):  # other processes trim too
                    cached.append(((place / "block.json").stat().st_mtime_ns, place, bytes_in(place)))
        total = sum(size for _, _, size in cached)
        for _, place, size in sorted(cached):
            if total > self.limit and place != newest and remove(place):
                total -= size
        for namespace in self._namespaces.names():
            if self._namespaces.unfinished(namespace) or not self._namespaces.blocks(namespace):
                self._namespaces.tidy(namespace)

    def _cannot_keep(self, error: OSError) -> None:
        self._once(error.errno, f"cannot be kept in {self.folder} ({reason(error)}); the next run computes them anew")

    def _once(self, cause: object, line: str) -> None:
        if cause not in self._said:
            self._said.add(cause)
            self.say(f"features: {line}")


def mib(size: int) -> str:
    """A number of bytes as text."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:,.0f} MiB"
