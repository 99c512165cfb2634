"""The rows of one data set, computed by several machines into one store: each takes shards that nobody has yet.

There is no coordinator, and no process knows of another: the images' digests, sorted, are cut into shards, which are
the same wherever the same images are. Who holds a shard's lease computes what the store lacks of it, and writes it as a
block. A process that dies loses the shards that it has not written, and another takes them over.
"""

import hashlib
import os
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlx.core.errors import reason
from tlx.core.leases import EXPIRY, Leases
from tlx.features.disk_cache import RowStore
from tlx.features.feature_rows import Task

LEAST, MOST = 256, 8192  # images of a shard: multiples of those of a pass, and no more files than can be mapped
SHARDS = 64  # of a data set between these
LOOKS = 30  # for what others have finished, in the time after which a holder is taken for dead


def share(task: Task, store: RowStore, namespace: str, about: Mapping[str, str], expiry: float = EXPIRY) -> int:
    """Waits until the store has the rows of all images, and computes as many as nobody else does; how many.

    Where the folder does not take leases it says so, and returns.
    """
    keys = task.keys()
    if not store.takes(len(keys), task.outline.row_bytes):
        return 0
    missing = MissingRows(store, namespace, keys, task.outline.row_bytes)
    leases = Leases(store.folder / namespace, lambda making: store.discard(namespace, making), expiry)
    computed, waits = 0, False
    try:
        while True:
            before = computed
            for shard in missing.shards():
                making = uuid.uuid4().hex[:16]
                with leases.claim(shard.name, making) as mine:
                    if mine and len(rows := missing.of(shard)):
                        kept = _write(task, store, namespace, [keys[i] for i in rows], rows, about, making)
                        if not kept or len(missing.of(shard)):  # the store has said why
                            return computed
                        computed += len(rows)
            if not missing.any():
                return computed
            if computed == before:
                if not waits:
                    store.say("features: other processes compute the rest; waiting for them")
                waits = True
                time.sleep(expiry / LOOKS)
    except OSError as error:
        store.say(f"features: {store.folder} cannot be shared ({reason(error)}); all are computed here")
        return computed


def _write(
    task: Task,
    store: RowStore,
    namespace: str,
    keys: Sequence[str],
    rows: NDArray[np.int64],
    about: Mapping[str, str],
    making: str,
) -> bool:
    with store.write(namespace, keys, task.outline.row_bytes, about, making) as block:
        if block is None:
            return False
        done = 0
        for index, x in task.compute(rows):
            block[done : done + len(index)] = task.outline.to_bytes(x)
            done += len(index)
    return True


@dataclass(frozen=True)
class Shard:
    """Images that follow each other in the order of their digests: from `start` to before `end`."""

    name: str
    start: int
    end: int


@dataclass
class MissingRows:
    """Which rows the store lacks, as far as its blocks have been looked at; of images that are the same, one."""

    store: RowStore
    namespace: str
    keys: Sequence[str]
    row_bytes: int
    sorted: NDArray[np.bytes_] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)  # of each of `sorted`, the first image that has it
    there: NDArray[np.bool_] = field(init=False)
    looked: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sorted, self.rows = np.unique(np.array(self.keys, dtype="S40"), return_index=True)
        self.there = np.zeros(len(self.sorted), dtype=bool)

    def any(self) -> bool:
        """Whether something is still missing."""
        self._look()
        return not self.there.all()

    def of(self, shard: Shard) -> NDArray[np.int64]:
        """The images of a shard whose rows are missing, in the order of their digests."""
        self._look()
        part = slice(shard.start, shard.end)
        return self.rows[part][~self.there[part]]

    def shards(self) -> Iterator[Shard]:
        """Those with something missing, each as it is by then; every process begins at another one."""
        size = min(max(-(-len(self.sorted) // (SHARDS * LEAST)) * LEAST, LEAST), MOST)
        starts = list(range(0, len(self.sorted), size))
        random.Random(os.urandom(8)).shuffle(starts)
        self._look()
        for start in starts:
            end = min(start + size, len(self.sorted))
            if not self.there[start:end].all():
                # By its images, so that other images of another process are another shard.
                yield Shard(_digest(self.sorted[start:end]), start, end)

    def _look(self) -> None:
        """Notes what blocks have that were not there before."""
        for found in self.store.new_keys(self.namespace, self.row_bytes, self.looked):
            at = np.searchsorted(self.sorted, found)
            at[at == len(self.sorted)] = 0
            self.there[at[self.sorted[at] == found]] = True


def _digest(keys: NDArray[np.bytes_]) -> str:
    return hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()
