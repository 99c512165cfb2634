"""What every check of an audit gets: the images of all splits, their labels, and what is known of each (no torch)."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.fact_store import FactStore
from tlx.analysis.finding import Finding, Severity
from tlx.analysis.image_facts import RECORD, Facts, facts_of
from tlx.analysis.remembered import Arrays, remembered
from tlx.core import activity
from tlx.core.errors import reason
from tlx.datasets.content_digests import digest_of
from tlx.datasets.image_decoding import Pixels, UnreadableImage
from tlx.datasets.images import Images, Labels

CHUNK = 16  # images a task of the reading threads
Key = TypeVar("Key")


@dataclass(frozen=True)
class View:
    """How the evaluation view is made of a picture: sides in pixels, as `Preprocessing` has them."""

    input_size: int
    resize: int | None  # the short side; None: both sides to `input_size`
    crop: int | None


@dataclass(frozen=True)
class UnreadableFile:
    """A file that gives no picture. `size`: bytes, -1 where it cannot be read at all."""

    file: str
    split: str
    label: int
    reason: str
    size: int


@dataclass(frozen=True)
class AuditData:
    """The readable images of a data set, of all splits together, sorted by name: the order depends on no seed.

    Attributes:
        files, names: of each image, as `Images` has them.
        labels: int64 [N], positions in `classes`.
        splits: of each image: train, val or test.
        facts: [N] of `image_facts.RECORD`: `facts["width"]`, …, `facts["thumbnail"]`.
        features: float32 [N, D], pooled features of a pretrained network, or None.
        unreadable: the files that give no picture; they are in none of the arrays.
        skipped: (path, reason) of what the reader has left out.
        root: the folder of the data set, where it is one.
        created: the splits that were cut from another one, by seed.
        view: how a run would see the pictures; None where that is not known.
        sets: the images of each split.
        places: of each image, its position in its split.
        memory: the folder of `remembered`, or None.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    names: tuple[str, ...]
    labels: Labels
    splits: NDArray[np.str_]
    facts: Facts
    features: NDArray[np.float32] | None = None
    unreadable: tuple[UnreadableFile, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    root: Path | None = None
    created: tuple[str, ...] = ()
    view: View | None = None
    sets: Mapping[str, Images] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    memory: Path | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def thumbnails(self) -> Pixels:
        """The whole pictures, squashed: uint8 [N, 32, 32, 3]."""
        thumbnails: Pixels = self.facts["thumbnail"]
        return thumbnails

    def decode(self, row: int) -> Pixels:
        """Image `row` as uint8 [H, W, 3]. Raises `UnreadableImage`."""
        return self.sets[str(self.splits[row])].decode(self.places[row])

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of a split."""
        return np.flatnonzero(self.splits == split)

    def remembered(self, name: str, make: Callable[[], Arrays], *about: str, labels: bool = False) -> Arrays:
        """What a slow check makes of the images, and of their labels where it looks at these; kept on disk.

        It must not depend on splits: these change with the seed. `about`: what else it depends on.
        """
        of = [self.facts["digest"].tobytes(), *about, *((self.labels.tobytes(),) if labels else ())]
        return remembered(self.memory, name, tuple(of), make)

    def finding(
        self,
        kind: str,
        severity: Severity,
        message: str,
        groups: Iterable[Sequence[int] | int],
        *,
        certainty: Sequence[float] = (),
        remedy: str = "",
    ) -> Finding:
        """A finding of images: rows that stand for themselves, or groups of rows that belong together."""
        members = [[group] if isinstance(group, int | np.integer) else list(group) for group in groups]
        return Finding(
            kind,
            severity,
            message,
            files=tuple(tuple(self.files[row] for row in group) for group in members),
            count=len({row for group in members for row in group}),
            splits=tuple(tuple(str(self.splits[row]) for row in group) for group in members),
            labels=tuple(tuple(self.classes[self.labels[row]] for row in group) for group in members),
            certainty=tuple(certainty),
            remedy=remedy,
        )


def audit_data(
    sets: Mapping[str, Images],
    classes: Sequence[str],
    store: FactStore,
    *,
    skipped: Sequence[tuple[str, str]] = (),
    root: Path | None = None,
    created: Sequence[str] = (),
    view: View | None = None,
    memory: Path | None = None,
) -> AuditData:
    """Reads each image once, in threads, but for those that `store` knows; what cannot be read is listed."""
    read = _read(sets, store)
    entries = [
        (images.names[place], split, place, found)
        for split, images in sets.items()
        for place, found in enumerate(read[split])
        if not isinstance(found, UnreadableFile)
    ]
    entries.sort(key=lambda entry: entry[:3])
    facts = np.zeros(len(entries), RECORD)
    for row, (_, _, _, found) in enumerate(entries):
        facts[row] = found
    return AuditData(
        classes=tuple(classes),
        files=tuple(sets[split].files[place] for _, split, place, _ in entries),
        names=tuple(name for name, _, _, _ in entries),
        labels=np.array([sets[split].labels[place] for _, split, place, _ in entries], dtype=np.int64),
        splits=np.array([split for _, split, _, _ in entries], dtype=np.str_),
        facts=facts,
        unreadable=tuple(found for of in read.values() for found in of if isinstance(found, UnreadableFile)),
        skipped=tuple(skipped),
        root=root,
        created=tuple(created),
        view=view,
        sets=sets,
        places=tuple(place for _, _, place, _ in entries),
        memory=memory,
    )


def _read(sets: Mapping[str, Images], store: FactStore) -> dict[str, list[Facts | UnreadableFile]]:
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


def grouped(keys: Iterable[Key]) -> list[list[int]]:
    """The rows of each key that several rows have, in order."""
    members: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


Check = Callable[[AuditData], Iterable[Finding]]
