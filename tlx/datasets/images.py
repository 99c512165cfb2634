"""Images that are decoded on demand, and the one pass in which all of them are read. No torch here."""

import logging
import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core import activity
from tlx.core.device import free_memory
from tlx.core.errors import reason
from tlx.datasets.content_digests import Decoded, digest_of, seen
from tlx.datasets.image_decoding import Pixels, UnreadableImage, allow, allowed, decode, examined
from tlx.datasets.image_sources import ArchiveBytes, FileBytes, Joined, Read, Stacked
from tlx.datasets.pixel_levels import Levels, Range

__all__ = ["Decoded", "Images", "Labels", "joined", "read_all"]

Labels = NDArray[np.int64]
MEMORY_SHARE = 0.25  # of the free memory, for decoded pixels that are cached
CHUNK = 16  # images a task of the reading threads

log = logging.getLogger("tlx")


@dataclass
class _Budget:
    """Bytes that may still be cached, counted by all reading threads together."""

    left: float
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> bool:
        with self.lock:
            if size > self.left:
                return False
            self.left -= size
            return True


class PixelStore:
    """Where a part's pixels come from, what is known of them, and those that are cached; shared by its subsets."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.cached: dict[int, Pixels] = {}
        self.digests: dict[int, str] = {}
        self.levels: dict[int, Levels] = {}  # of the images of more than 8 bits
        self.span: Range | None = None  # what becomes black and white in these
        self.budget: _Budget | None = None

    def pixels(self, row: int) -> Pixels:
        cached = self.cached.get(row)
        if cached is not None:
            return cached
        content = self.read(row)
        pixels = decode(content, self.span, self._file(row) or "") if isinstance(content, bytes) else content
        if self.budget is not None and self.budget.take(pixels.nbytes):
            self.cached[row] = pixels
        return pixels

    def check(self, row: int, decoded: Decoded | None) -> str | None:
        """Hashes an image, and decodes it unless that is known to go well; the reason why not, or None.

        Nothing is read of a file that this process has read before, where its digest is all that is requested.
        `decoded`: None decodes nothing.
        """

        def fine(digest: str) -> bool:
            return decoded is None or row in self.cached or digest in decoded.digests

        try:
            files, number = self._files(row)
            path = files.paths[number] if files else None
            state = files.state(number) if files else ()
            digest = seen.get(path, state) if path else None
            if digest is None or not fine(digest):
                content = self.read(row)
                digest = digest_of(content)
                if not fine(digest):
                    found = examined(content, path or "") if isinstance(content, bytes) else content
                    if isinstance(found, Levels):
                        self.levels[row] = found
                    elif found is not None and self.budget is not None and self.budget.take(found.nbytes):
                        self.cached[row] = found
                if path:
                    seen.keep(path, state, digest)
        except UnreadableImage as error:
            return str(error)
        except OSError as error:
            return reason(error).lower()
        self.digests[row] = digest
        if decoded is not None and digest in decoded.levels:
            self.levels[row] = decoded.levels[digest]
        return None

    def digest(self, row: int) -> str:
        if row not in self.digests:
            self.digests[row] = digest_of(self.read(row))
        return self.digests[row]

    def _file(self, row: int) -> str | None:
        """Where an image is read from, or None where it is in memory or drawn."""
        files, number = self._files(row)
        return files.paths[number] if files else None

    def _files(self, row: int) -> tuple[FileBytes | ArchiveBytes | None, int]:
        """What reads an image from a file, and its number there; None where it is in memory or drawn."""
        read = self.read
        while isinstance(read, Joined):
            read, row = read.sources[row]
        return (read if isinstance(read, FileBytes | ArchiveBytes) else None), row

    def __getstate__(self) -> dict[str, Any]:
        # A worker process decodes for itself, and has limits of its own.
        return {**self.__dict__, "cached": {}, "budget": None, "most": allowed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        allow(state.pop("most"))
        self.__dict__.update(state)


class Images:
    """One split: labelled images, decoded on demand. Picklable; `decode` may be called from many threads.

    `files`: the path of each image, or `<split>/<index>` where there is no file. `names`: the same without the
    part that depends on where the data lies. `labels`: int64 [N], positions in the data set's class list. `groups`:
    each image's, empty for none; None without any.
    """

    groups: tuple[str, ...] | None = None  # of `in_groups`

    def __init__(
        self, files: Sequence[str], labels: Iterable[int], read: Read, names: Sequence[str] | None = None
    ) -> None:
        self.files = tuple(files)
        self.names = self.files if names is None else tuple(names)
        self.labels: Labels = np.fromiter(labels, dtype=np.int64)
        if not len(self.files) == len(self.names) == len(self.labels):
            raise ValueError(f"{len(self.files)} files, {len(self.names)} names and {len(self.labels)} labels")
        self.store = PixelStore(read)
        self.rows: Labels = np.arange(len(self.files))

    def __len__(self) -> int:
        return len(self.files)

    def decode(self, index: int) -> Pixels:
        """Image `index` as uint8 [H, W, 3], RGB. Raises `UnreadableImage`. Not to be written to: it may be cached."""
        return self.store.pixels(int(self.rows[index]))

    def stack(self, indices: Labels) -> "Pixels | None":
        """The images at `indices` as uint8 [B, H, W, 3], where all of them lie in one array in memory; else None."""
        read = self.store.read
        return read.pixels[self.rows[indices]] if isinstance(read, Stacked) else None

    def subset(self, indices: Iterable[int]) -> "Images":
        """The images at `indices`, in that order; what is cached of them is shared."""
        chosen = np.fromiter(indices, dtype=np.int64)
        result = object.__new__(Images)
        result.files = tuple(self.files[i] for i in chosen)
        result.names = tuple(self.names[i] for i in chosen)
        result.labels, result.rows, result.store = self.labels[chosen], self.rows[chosen], self.store
        result.groups = self.groups and tuple(self.groups[i] for i in chosen)
        return result

    def in_groups(self, groups: Iterable[str]) -> "Images":
        """The same images with the group of each."""
        result = self.subset(range(len(self)))
        result.groups = tuple(groups)
        return result

    def digests(self) -> list[str]:
        """A digest of each image's content (the file's bytes, or the pixels where there is no file): 40 hex digits."""
        return [self.store.digest(int(row)) for row in self.rows]

    def levels(self) -> list[tuple[str, Levels]]:
        """(digest, levels) of each image of more than 8 bits, as far as they were examined."""
        known = self.store.levels
        return [(self.store.digest(row), known[row]) for row in self.rows.tolist() if row in known]


def joined(parts: Sequence[Images]) -> Images:
    """The images of several parts as one, in that order; what is known and cached of them stays."""
    result = _of_one_store(parts) if len({id(part.store) for part in parts}) == 1 else _of_several_stores(parts)
    every = all(part.groups is not None for part in parts)
    return result.in_groups(group for part in parts for group in part.groups or ()) if every else result


def _of_several_stores(parts: Sequence[Images]) -> Images:
    result = Images(
        [file for part in parts for file in part.files],
        [label for part in parts for label in part.labels.tolist()],
        Joined(tuple((part.store.read, row) for part in parts for row in part.rows.tolist())),
        [name for part in parts for name in part.names],
    )
    own = result.store
    for number, (store, row) in enumerate((part.store, row) for part in parts for row in part.rows.tolist()):
        if row in store.digests:
            own.digests[number] = store.digests[row]
        if row in store.levels:
            own.levels[number] = store.levels[row]
        if row in store.cached:
            own.cached[number] = store.cached[row]
    own.span = next((part.store.span for part in parts if part.store.span is not None), None)
    return result


def _of_one_store(parts: Sequence[Images]) -> Images:
    result = object.__new__(Images)
    result.files = tuple(file for part in parts for file in part.files)
    result.names = tuple(name for part in parts for name in part.names)
    result.labels = np.concatenate([part.labels for part in parts])
    result.rows, result.store = np.concatenate([part.rows for part in parts]), parts[0].store
    return result


def read_all(
    sets: Mapping[str, Images], decoded: Decoded | None = None, decode: Collection[str] | None = None
) -> tuple[dict[str, Images], tuple[tuple[str, str], ...]]:
    """Hashes every image once, in threads, and decodes those that `decoded` does not know.

    `decode`: the sets whose images are decoded; None: all. Pixels are cached while a quarter of the free memory holds
    them. Returns the sets without what cannot be read, and (path, reason) of each such file.
    """
    decoded = decoded or Decoded(None)
    budget = _Budget(MEMORY_SHARE * free_memory())
    for images in sets.values():
        images.store.budget = budget
    total = sum(map(len, sets.values()))
    if total > 5_000:
        log.info("reading %s images", f"{total:,}")

    read = list[int]()  # images, by each piece of work that is done

    def check(images: Images, start: int, known: Decoded | None) -> list[tuple[int, str]]:
        rows = enumerate(images.rows[start : start + CHUNK].tolist(), start)
        results = ((index, images.store.check(row, known)) for index, row in rows)
        found = [(index, why) for index, why in results if why is not None]
        read.append(len(images.rows[start : start + CHUNK]))
        return found

    def now() -> activity.State:
        return activity.State((f"reading images, {sum(read):,} of {total:,}",), sum(read) / total if total else None)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    good, bad = {}, []
    with activity.doing(now), ThreadPoolExecutor(max_workers=min(cores, 16)) as threads:
        pending = {
            name: [
                threads.submit(check, images, start, decoded if decode is None or name in decode else None)
                for start in range(0, len(images), CHUNK)
            ]
            for name, images in sets.items()
        }
        for name, images in sets.items():
            failed = dict(pair for task in pending[name] for pair in task.result())
            bad += [(images.files[index], why) for index, why in failed.items()]
            good[name] = images.subset(i for i in range(len(images)) if i not in failed) if failed else images
    return good, tuple(bad)
