"""What is wrong with classes and their folders: names, counts, splits, folders in folders."""

from collections.abc import Iterator

import numpy as np

from tlx.analysis.audit_data import AuditData
from tlx.analysis.finding import Finding, number_of
from tlx.core.errors import lookalikes, printable
from tlx.datasets.folder_layout import class_name, listed

RATIO, SEVERE = 3.0, 10.0  # largest class by smallest, from which it is said; from which it is a warning


def check(data: AuditData) -> Iterator[Finding]:
    """Classes that look alike, are missing in a split, have few images or most of them; folders that mislead."""
    yield from _refused(data)
    yield from _names(data)
    yield from _missing(data)
    yield from _imbalance(data)
    yield from _nested(data)


def _refused(data: AuditData) -> Iterator[Finding]:
    """What a run would refuse: empty classes and splits, classes that the training split lacks."""
    for kind in ("empty_class", "empty_split", "unknown_class"):
        found = [(path, message) for of, path, message in data.faults if of == kind]
        if found:
            messages = "; ".join(message for _, message in found[:2])
            more = f"; and {len(found) - 2} more" if len(found) > 2 else ""
            yield Finding(kind, "error", f"{messages}{more}", tuple((path,) for path, _ in found), len(found))


def _names(data: AuditData) -> Iterator[Finding]:
    for names in lookalikes(data.classes):
        shown = " and ".join(map(repr, map(printable, names)))
        first = [np.flatnonzero(data.labels == data.classes.index(name))[:1].tolist() for name in names]
        groups = [[row for rows in first for row in rows]]
        yield data.finding(
            "class_names",
            "warning",
            f"the classes {shown} differ only in case, spaces or invisible characters",
            [group for group in groups if group],
            remedy="if they are one class, put their images into one folder",
        )


def _missing(data: AuditData) -> Iterator[Finding]:
    counts = {split: np.bincount(data.labels[data.rows(split)], minlength=len(data.classes)) for split in data.sets}
    for split, count in counts.items():
        if split != "train" and (absent := np.flatnonzero((count == 0) & (counts["train"] > 0)).tolist()):
            names, have = (
                listed([printable(data.classes[label]) for label in absent]),
                "has" if len(absent) == 1 else "have",
            )
            yield Finding(
                "class_missing",
                "note",
                f"{len(absent)} of {len(data.classes)} classes {have} no image in {split}: {names}",
                count=len(absent),
            )


def _imbalance(data: AuditData) -> Iterator[Finding]:
    train = data.labels[data.rows("train")]
    counts = np.bincount(train, minlength=len(data.classes))
    there = counts[counts > 0]
    if len(there) < 2:
        return
    largest, smallest = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    ratio = counts[largest] / counts[smallest]
    if ratio < RATIO:
        return
    measured = "test" if len(data.rows("test")) else "train"
    labels = data.labels[data.rows(measured)]
    always = float((labels == largest).mean())
    yield Finding(
        "imbalance",
        "warning" if ratio >= SEVERE else "note",
        f"class '{printable(data.classes[largest])}' has {number_of(int(counts[largest]), 'training image')}, "
        f"'{printable(data.classes[smallest])}' {counts[smallest]:,}: always answering "
        f"'{printable(data.classes[largest])}' has an accuracy of {always:.1%} on {measured}, and a balanced accuracy "
        f"of {1 / len(there):.1%}",
        count=len(train),
        remedy="judge by balanced accuracy; training.class_weights=balanced weights each class alike",
    )


def _nested(data: AuditData) -> Iterator[Finding]:
    """Images in a folder that is named like another class than the one they count as."""
    known, rows = set(data.classes), list[int]()
    first = ""
    for row, name in enumerate(data.names):
        folders = [class_name(folder) for folder in name.split("/")[:-1]]
        own = data.classes[data.labels[row]]
        inside = folders[folders.index(own) + 1 :] if own in folders else []
        if other := next((folder for folder in inside if folder in known and folder != own), None):
            first = first or f"'{printable(other)}' inside that of class '{printable(own)}'"
            rows.append(row)
    if rows:
        yield data.finding(
            "class_in_class",
            "error",
            f"{number_of(len(rows), 'image')} in a folder named like another class ({first}) "
            f"{'counts' if len(rows) == 1 else 'count'} as the outer class",
            rows,
            remedy="move the inner folder out of the outer one",
        )
