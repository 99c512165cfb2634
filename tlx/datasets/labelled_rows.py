"""Parts of a data set from rows: an image each, with its label, its split, and perhaps its group."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlx.core.errors import RequestError, nearest, precomposed, printable
from tlx.datasets.image_sources import Joined, Read
from tlx.datasets.images import Images
from tlx.datasets.split_folders import SPLITS
from tlx.datasets.splits import Parts
from tlx.datasets.table_columns import cell_text


@dataclass(frozen=True)
class LabelledRow:
    """An image: `name` wherever its data set lies, `file` for people, and what reads it, with its number there."""

    name: str
    file: str
    label: str
    split: str
    group: str
    read: Read
    number: int


def label_text(value: Any, where: str) -> str:
    """A label as text. Raises `RequestError`, with `where` before it, for several values."""
    if isinstance(value, list | dict):
        raise RequestError(f"{where}: holds several values; an image has one label (multi-label is not trained here)")
    return precomposed(cell_text(value))


def parts_of(
    rows: Sequence[LabelledRow], key: str, fewest: int, *, order: Sequence[str] = (), grouped: bool, **about: Any
) -> Parts:
    """The rows as parts; the classes are those of the training split, or of all rows where nothing learns.

    `order`: of the classes, where it is known; else they are sorted, numbers as numbers. `fewest`: classes. `about`:
    what else `Parts` has.

    Raises:
        RequestError: no row trains, too few classes, or a label that no training row has.
    """
    learned = {row.label for row in rows if row.split == "train" or fewest < 2}
    if not learned:
        raise RequestError(f"{key}: has no training split; dataset.splits.train=NAME says which one it is")
    whole = all(re.fullmatch(r"-?[0-9]+", label) for label in learned)
    classes = [name for name in order if name in learned]
    classes += sorted(learned - {*order}, key=lambda label: (int(label), label) if whole else (0, label))
    if len(classes) < fewest:
        raise RequestError(f"{key}: one class only, '{printable(classes[0])}'; two or more are needed")
    position = {label: place for place, label in enumerate(classes)}
    parts = dict[str, Any]()
    for split in SPLITS:
        own = sorted((row for row in rows if row.split == split), key=lambda row: row.name)
        if unknown := next((row for row in own if row.label not in position), None):
            raise RequestError(
                f"{key}: {printable(unknown.name)}: label '{printable(unknown.label)}' is of no training image"
                f"{nearest(unknown.label, classes)}"
            )
        if own or split == "train":
            images = Images(
                [row.file for row in own],
                [position[row.label] for row in own],
                Joined(tuple((row.read, row.number) for row in own)),
                [row.name for row in own],
            )
            parts[split] = images.in_groups(row.group for row in own) if grouped else images
    return Parts(classes=tuple(classes), **parts, **about)
