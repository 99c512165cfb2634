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
from tlx.analysis.image_facts import RECORD, SIDE, Facts
from tlx.analysis.remembered import Arrays, remembered
from tlx.core import large_arrays
from tlx.datasets.image_decoding import Pixels
from tlx.datasets.images import Images, Labels

Key = TypeVar("Key")
NAMES = [name for name in RECORD.names or () if name != "thumbnail"]  # of facts that are in memory
ROWS, CHUNKS = 4_096, 256  # rows that are looked at together; chunks of facts after which their pages are given back


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
        facts: [N] of `image_facts.RECORD` without its thumbnails: `facts["width"]`, ….
        thumbnails: the whole pictures, squashed: uint8 [N, 32, 32, 3]. Large arrays are mapped to files.
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
    thumbnails: Pixels
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
    overlap: str = "",
) -> AuditData:
    """Reads each image once, in threads, but for those that `store` knows; what cannot be read is listed."""
    members = [(split, place) for split, images in sets.items() for place in range(len(images))]
    members.sort(key=lambda member: (sets[member[0]].names[member[1]], *member))
    row_of = {split: np.zeros(len(images), np.int64) for split, images in sets.items()}
    for row, (split, place) in enumerate(members):
        row_of[split][place] = row
    facts = np.zeros(len(members), [(name, RECORD[name]) for name in NAMES])
    thumbnails = large_arrays.zeros((len(members), SIDE, SIDE, 3), np.uint8, memory)
    readable, unreadable = np.ones(len(members), bool), list[UnreadableFile]()
    for number, chunk in enumerate(read_facts(sets, store)):
        rows = row_of[chunk.split][chunk.start : chunk.start + len(chunk.facts)]
        facts[rows], thumbnails[rows] = chunk.facts[NAMES], chunk.facts["thumbnail"]
        readable[rows[list(chunk.unreadable)]] = False
        unreadable += chunk.unreadable.values()
        if number % CHUNKS == 0:
            large_arrays.release(thumbnails)
    large_arrays.release(thumbnails)
    if unreadable:
        members = [member for member, there in zip(members, readable.tolist(), strict=True) if there]
        facts, thumbnails = facts[readable], _only(thumbnails, np.flatnonzero(readable))
    return AuditData(
        classes=tuple(classes),
        files=tuple(sets[split].files[place] for split, place in members),
        names=tuple(sets[split].names[place] for split, place in members),
        labels=np.array([sets[split].labels[place] for split, place in members], dtype=np.int64),
        splits=np.array([split for split, _ in members], dtype=np.str_),
        facts=facts,
        thumbnails=thumbnails,
        unreadable=tuple(unreadable),
        skipped=tuple(skipped),
        root=root,
        created=tuple(created),
        view=view,
        sets=sets,
        places=tuple(place for _, place in members),
        memory=memory,
        overlap=overlap,
    )


def _only(thumbnails: Pixels, rows: NDArray[np.int64]) -> Pixels:
    """Those of some rows, ascending, in the place of the first ones."""
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        thumbnails[start : start + len(some)] = thumbnails[some]
    large_arrays.release(thumbnails)
    return thumbnails[: len(rows)]


def grouped(keys: Iterable[Key]) -> list[list[int]]:
    """The rows of each key that several rows have, in order."""
    members: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


Check = Callable[[AuditData], Iterable[Finding]]
