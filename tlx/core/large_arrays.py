"""Arrays of as many rows as there are images: large ones lie in files, and in memory only as far as they are used."""

import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALL = 1 << 26  # bytes up to which an array is in memory
BLOCK = 1 << 23  # bytes of a block
AROUND = 1 << 16  # bytes that the system maps with each row: Linux takes the pages around one that is read
_COPIED = 1 << 18  # bytes written at a time
_GIVEN_BACK = getattr(mmap, "MADV_DONTNEED", None)  # not on every system

Some = TypeVar("Some", bound=np.generic)


def zeros(shape: tuple[int, ...], dtype: DTypeLike, folder: Path | None = None) -> NDArray[Any]:
    """An array of zeros; of more than `SMALL` bytes in a file without a name, which ends with the array.

    `folder`: where the file lies if there is such a folder, else among the system's temporary files. Where the disk has
    no space for it, the array is in memory.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size > SMALL:
        place = folder if folder is not None and folder.is_dir() else None
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=place) as file:
            reserve(file.fileno(), size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    return np.zeros(shape, dtype)


def release(array: NDArray[Any]) -> None:
    """Takes the file that an array is mapped to out of memory: its bytes stay, and are read when next requested.

    The file must be mapped shared, or not written to. Nothing happens to an array that is in memory alone.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and _GIVEN_BACK is not None:
        owner.madvise(_GIVEN_BACK)


def blocks(array: NDArray[Some], rows: int | None = None) -> Iterator[tuple[slice, NDArray[Some]]]:
    """(place, rows) of all of an array, one block after the other; no more of it is in memory than a few of them.

    `rows`: of a block; None: as many as have 8 MiB.
    """
    of_row = max(1, array[:1].nbytes)
    rows, read = rows or max(1, BLOCK // of_row), 0
    for start in range(0, len(array), rows):
        place = slice(start, min(start + rows, len(array)))
        yield place, array[place]
        read += rows * of_row
        if read >= BLOCK or place.stop == len(array):
            release(array)
            read = 0


class Selected(Generic[Some]):
    """Rows of an array in another order, copied as they are requested; what was read does not stay in memory."""

    def __init__(self, array: NDArray[Some], order: NDArray[np.int64]) -> None:
        self.array, self.order, self._read = array, order, 0

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[Some]:
        """The rows at `places`."""
        rows = self.order[places]
        found: NDArray[Some] = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
        step = max(1, BLOCK // max(AROUND, self.array[:1].nbytes))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            found[start : start + step] = self.array[some]
            self._read += len(some)
            if self._read >= step:
                release(self.array)
                self._read = 0
        return found


def reserve(descriptor: int, size: int) -> None:
    """Takes the space on the disk now; raises OSError where it has too little.

    A mapped file for which the disk has no space later ends the process with SIGBUS.
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:  # macOS has no such call, and some file systems refuse it
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        done = 0
        while done < size:
            done += os.pwrite(descriptor, bytes(min(_COPIED, size - done)), done)
