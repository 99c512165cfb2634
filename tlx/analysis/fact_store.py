"""Facts of images that were read before, by the digest of their content: none is read again, also by the next audit."""

import contextlib
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from tlx.analysis.image_facts import RECORD, Facts
from tlx.core.large_arrays import BLOCK, blocks, release
from tlx.core.version import version_of

VERSION = 1  # one more where the facts of an image are others than before
PATIENCE = 10.0  # seconds that another process's writing is waited for


class FactStore:
    """Records of `RECORD` in one file, one after the other. `path`: None is a file that ends with the store.

    A file that is damaged or cannot be written costs time, nothing else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._records: Facts = np.zeros(0, RECORD)
        self._places: dict[bytes, int] = {}
        self._unnamed: BinaryIO | None = None
        self._lock, self._unreleased = threading.Lock(), 0
        if path is not None:
            with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
                self._map(file)

    @classmethod
    def below(cls, folder: Path) -> "FactStore":
        """The one below the output folder, for a decoder of this version."""
        reads = [version_of("pillow"), str(VERSION), *(["heif"] if find_spec("pillow_heif") else [])]
        return cls(folder / "features" / f"facts-{'-'.join(reads)}.bin")

    def get(self, digest: str) -> Facts | None:
        """The facts of an image, if it was read before."""
        place = self._places.get(bytes.fromhex(digest))
        if place is None:
            return None
        with self._lock:
            self._unreleased += RECORD.itemsize
            if self._unreleased >= BLOCK:
                release(self._records)
                self._unreleased = 0
            return np.array(self._records[place])

    def add(self, new: Facts) -> None:
        """Keeps the records of images that were read."""
        if not len(new):
            return
        with contextlib.suppress(OSError, ValueError, Timeout), self._lock:
            if self.path is None:
                self._unnamed = self._unnamed or tempfile.TemporaryFile()  # noqa: SIM115 (it ends with the store)
                self._append(self._unnamed, new)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=PATIENCE), self.path.open("a+b") as file:
                self._append(file, new)

    def _append(self, file: BinaryIO, new: Facts) -> None:
        whole = file.seek(0, 2) // RECORD.itemsize  # without a record that was cut short
        file.truncate(whole * RECORD.itemsize)
        file.seek(0, 2)
        file.write(new.tobytes())
        file.flush()
        self._map(file)

    def _map(self, file: BinaryIO) -> None:
        """Looks at the file as it is now; other processes may have added records, too."""
        whole, known = file.seek(0, 2) // RECORD.itemsize, len(self._records)
        if not whole:
            return
        self._records = np.memmap(file, RECORD, mode="r", shape=(whole,))
        for place, some in blocks(self._records[known:]):
            digests = np.array(some["digest"])
            self._places |= {digest.tobytes(): known + place.start + i for i, digest in enumerate(digests)}
