"""The facts of many images: each is read once, by content; what gives no picture is listed. No torch here."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tlx.analysis.fact_store import FactStore
from tlx.analysis.image_facts import RECORD, Facts, facts_of
from tlx.core import activity
from tlx.core.errors import reason
from tlx.datasets.content_digests import digest_of
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.images import Images
from tlx.datasets.left_out import Keys

CHUNK = 16  # images a task of the reading threads


@dataclass(frozen=True)
class UnreadableFile:
    """A file that gives no picture. `size`: bytes, -1 where it cannot be read at all."""

    file: str
    split: str
    label: int
    reason: str
    size: int


def read_facts(sets: Mapping[str, Images], store: FactStore) -> dict[str, list[Facts | UnreadableFile]]:
    """What is known of each image, in threads; only those are read that `store` does not know."""
    total, read = sum(map(len, sets.values())), list[int]()

    def now() -> activity.State:
        return activity.State((f"auditing images, {sum(read):,} of {total:,}",), sum(read) / total if total else None)

    def some(name: str, start: int) -> list[tuple[Facts | UnreadableFile, bool]]:
        images = sets[name]
        found = [_one(name, images, index, store) for index in range(start, min(start + CHUNK, len(images)))]
        read.append(len(found))
        return found

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with activity.doing(now), ThreadPoolExecutor(max_workers=min(cores, 16)) as threads:
        tasks = {
            name: [threads.submit(some, name, start) for start in range(0, len(images), CHUNK)]
            for name, images in sets.items()
        }
        found = {name: [pair for task in of for pair in task.result()] for name, of in tasks.items()}
    new = [facts for of in found.values() for facts, known in of if not known and not isinstance(facts, UnreadableFile)]
    store.add(np.array(new, RECORD))
    return {name: [facts for facts, _ in of] for name, of in found.items()}


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
        found = read_facts({"train": images}, store)["train"]
        return [one.file if isinstance(one, UnreadableFile) else one["pixels"].tobytes() for one in found]

    return keys
