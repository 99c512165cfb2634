"""What every check of an audit gets: the images of all splits, their labels, and what is known of each (no torch)."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.fact_reading import UnreadableFile, read_facts
from tlx.analysis.fact_store import FactStore
from tlx.analysis.finding import Finding, Severity
from tlx.analysis.image_facts import RECORD, Facts
from tlx.analysis.remembered import Arrays, remembered
from tlx.datasets.image_decoding import Pixels
from tlx.datasets.images import Images, Labels

Key = TypeVar("Key")


@dataclass(frozen=True)
class View:
    """How the evaluation view is made of a picture: sides in pixels, as `Preprocessing` has them."""

    input_size: int
    resize: int | None  # the short side; None: both sides to `input_size`
    crop: int | None


@dataclass(frozen=True)
class Finer:
    """Features at the network's full input size, computed of the images that a check requests.

    Attributes:
        name: differs where the features are others, of one network.
        of: features of rows, float32 [len(rows), D].
    """

    name: str
    of: Callable[[Labels], NDArray[np.float32]]


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
        faults: (kind, path, message) of what the reader would have refused.
        overlap: which images the network's pretrained weights have seen, in words; empty where none is known.
        notes: what is said of images that were left out on request.
        finer: larger features than `features`; None where there are none.
        results: what `remembered` has made or read, of this process.
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
    faults: tuple[tuple[str, str, str], ...] = ()
    overlap: str = ""
    notes: tuple[str, ...] = ()
    finer: Finer | None = None
    results: dict[tuple[str, ...], Arrays] = field(default_factory=dict, compare=False, repr=False)

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
        content = [self.facts["digest"], *((self.labels,) if labels else ())]
        of = (name, *(hashlib.sha256(part.tobytes()).hexdigest() for part in content), *about)
        if of not in self.results:
            self.results[of] = remembered(self.memory, name, of, make)
        return self.results[of]

    def finding(
        self,
        kind: str,
        severity: Severity,
        message: str,
        groups: Iterable[Sequence[int] | int],
        *,
        certainty: Sequence[float] = (),
        suggested: Sequence[str] = (),
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
            suggested=tuple(suggested),
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
    read = read_facts(sets, store)
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


def grouped(keys: Iterable[Key]) -> list[list[int]]:
    """The rows of each key that several rows have, in order."""
    members: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


Check = Callable[[AuditData], Iterable[Finding]]
