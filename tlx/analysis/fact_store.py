"""Facts of images that were read before, by the digest of their content: the next audit reads no picture again."""

import contextlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from tlx.analysis.image_facts import RECORD, Facts

VERSION = 1  # one more where the facts of an image are others than before
PATIENCE = 10.0  # seconds that another process's writing is waited for


class FactStore:
    """Records of `RECORD` in one file, one after the other. `path`: None keeps nothing.

    A file that is damaged or cannot be written costs time, nothing else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._records: Facts = np.zeros(0, RECORD)
        self._places: dict[bytes, int] = {}
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                whole = path.stat().st_size // RECORD.itemsize  # without a record that was cut short
                if whole:
                    self._records = np.memmap(path, RECORD, mode="r", shape=(whole,))
                    self._places = {digest.tobytes(): i for i, digest in enumerate(np.array(self._records["digest"]))}

    @classmethod
    def below(cls, folder: Path) -> "FactStore":
        """The one below the output folder, for a decoder of this version."""
        reads = [version("pillow"), str(VERSION), *(["heif"] if find_spec("pillow_heif") else [])]
        return cls(folder / "features" / f"facts-{'-'.join(reads)}.bin")

    def get(self, digest: str) -> Facts | None:
        """The facts of an image, if it was read before."""
        place = self._places.get(bytes.fromhex(digest))
        return None if place is None else self._records[place]

    def add(self, new: Facts) -> None:
        """Keeps the records of images that were read."""
        if self.path is None or not len(new):
            return
        with contextlib.suppress(OSError, Timeout):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=PATIENCE), self.path.open("ab") as file:
                file.truncate(file.tell() // RECORD.itemsize * RECORD.itemsize)
                file.write(new.tobytes())
