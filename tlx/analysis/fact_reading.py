"""The facts of many images: each is read once, by content; what gives no picture is listed. No torch here."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.fact_store import FactStore
from tlx.analysis.image_facts import RECORD, Facts, facts_of
from tlx.core import activity
from tlx.core.errors import reason
from tlx.datasets.content_digests import digest_of
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.images import Images
from tlx.datasets.left_out import Keys

CHUNK = 16  # images a task of the reading threads
AHEAD = 16  # tasks of each thread that are begun before they are requested
KEPT = 2_048  # images that are read before what is known of them is written down


@dataclass(frozen=True)
class UnreadableFile:
    """A file that gives no picture. `size`: bytes, -1 where it cannot be read at all."""

    file: str
    split: str
    label: int
    reason: str
    size: int


@dataclass(frozen=True)
class FactChunk:
    """What is known of some images that follow each other in a split.

    Attributes:
        split: its name.
        start: the position of the first.
        facts: [n] of `image_facts.RECORD`; zeros for a file that gives no picture.
        unreadable: such files, by their place in the chunk.
        new: bool [n]: they were not known before.
    """

    split: str
    start: int
    facts: Facts
    unreadable: dict[int, UnreadableFile]
    new: NDArray[np.bool_]


def read_facts(sets: Mapping[str, Images], store: FactStore) -> Iterator[FactChunk]:
    """What is known of each image, in threads, in order; only those are read that `store` does not know."""
    total, done = sum(map(len, sets.values())), 0

    def now() -> activity.State:
        return activity.State((f"auditing images, {done:,} of {total:,}",), done / total if total else None)

    tasks = ((name, images, start) for name, images in sets.items() for start in range(0, len(images), CHUNK))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting, new = deque[Future[FactChunk]](), list[Facts]()
    threads = ThreadPoolExecutor(max_workers=min(cores, 16))
    try:
        with activity.doing(now):
            while True:
                while len(waiting) < AHEAD * cores and (task := next(tasks, None)) is not None:
                    waiting.append(threads.submit(_chunk, *task, store))
                if not waiting:
                    break
                chunk = waiting.popleft().result()
                if chunk.new.any():
                    new.append(chunk.facts[chunk.new])
                    if sum(map(len, new)) >= KEPT:
                        store.add(np.concatenate(new))
                        new.clear()
                done += len(chunk.facts)
                yield chunk
    finally:
        threads.shutdown(cancel_futures=True)
        if new:
            store.add(np.concatenate(new))


def _chunk(split: str, images: Images, start: int, store: FactStore) -> FactChunk:
    """The images from `start` on."""
    indices = range(start, min(start + CHUNK, len(images)))
    facts, new, unreadable = np.zeros(len(indices), RECORD), np.zeros(len(indices), bool), {}
    for place, index in enumerate(indices):
        found, known = _one(split, images, index, store)
        if isinstance(found, UnreadableFile):
            unreadable[place] = found
        else:
            facts[place], new[place] = found, not known
    return FactChunk(split, start, facts, unreadable, new)


def _one(split: str, images: Images, index: int, store: FactStore) -> tuple[Facts | UnreadableFile, bool]:
    """(what is known of an image, whether it was known before)."""
    row, size = int(images.rows[index]), -1
    try:
        digest = images.store.digests.get(row)
        if digest is not None and (known := store.get(digest)) is not None:
            return known, True
        content = images.store.read(row)
        size = len(content)
        digest = images.store.digests.setdefault(row, digest_of(content))
        if (known := store.get(digest)) is not None:
            return known, True
        return facts_of(content, digest, images.store.cached.get(row)), False
    except UnreadableImage as error:
        why = str(error)
    except OSError as error:
        why = reason(error).lower()
    return UnreadableFile(images.files[index], split, int(images.labels[index]), why, size), False


def pixel_keys(store: FactStore) -> Keys:
    """By which images of equal pixels are known, whatever their files: for `datasets.left_out`."""

    def keys(images: Images) -> list[bytes | str]:
        found = list[bytes | str]()
        for chunk in read_facts({"train": images}, store):
            for place, pixels in enumerate(chunk.facts["pixels"]):
                unreadable = chunk.unreadable.get(place)
                found.append(pixels.tobytes() if unreadable is None else unreadable.file)
        return found

    return keys
