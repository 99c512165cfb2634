"""Data sets in a table: a row an image, with its path, its label, and where there are such its split and its group."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlx.config.dataset_schema import data_name
from tlx.core.errors import RequestError, empty, nearest, precomposed, printable
from tlx.datasets.folder_layout import existing, files_in, tables
from tlx.datasets.group_splits import NONE, pattern_of
from tlx.datasets.image_sources import FileBytes
from tlx.datasets.images import Images
from tlx.datasets.listed_files import ListedFiles, elsewhere
from tlx.datasets.split_folders import SPLITS
from tlx.datasets.split_names import named
from tlx.datasets.splits import Parts
from tlx.datasets.table_columns import cell_text, columns_of, labels_of, said
from tlx.datasets.table_rows import FORMATS, rows_of

WHOLE = "."  # of dataset.splits.train: all rows are one part
SHOWN = 5  # row numbers in a message


def csv(
    root: str | None,
    *,
    name: str = "csv",
    images: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
    splits: Mapping[str, str | None] | None = None,
    on_error: str = "fail",
    fewest: int = 2,
) -> Parts:
    """A table of images: CSV, TSV, JSON Lines or Parquet, a row an image.

    `root`: the file. `images`: the folder that its paths are relative to; None: the one that the file lies in.
    `columns`: which column holds `path`, `label`, `split`, `weight`; what is None is found by its name. `group`: the
    column of groups, or an expression that `split` reads. `splits`: how the column of splits calls each, where its
    values do not say it; `.` for the training split: there are no splits. `on_error`: `skip` leaves out rows of missing
    files, without a label, or that are there twice. `fewest`: classes; a model that exists can be measured on one.

    Raises `RequestError` where the file cannot be read, columns may each be meant, rows have several labels, or a
    row is wrong, with its number.
    """
    if root is None:
        raise RequestError("dataset.root: which table? Give its file, as in dataset.root=labels.csv")
    key = f"dataset.root={root}"
    file = _file(root, key)
    folder = _folder(images, file)
    rows = rows_of(file, key)
    found = columns_of(rows, columns or {}, group, key)
    labels, hot = labels_of(rows, found, key)
    cells = {use: rows.columns[column] for use, column in found.items() if use in ("path", "split", "group")}
    split_of = _Splits(cells.get("split"), dict(splits or {}), found.get("split", ""), key)
    files, problems, entries = ListedFiles(folder), _Problems(key), dict[str, _ImageRow]()
    for place, number in enumerate(rows.numbers):
        label = labels[place]
        if cells["path"][place] is None:
            problems.add("no path", number, "has no path", "")
            continue
        try:
            path, called = files.find(cells["path"][place])
        except RequestError as error:
            hint = elsewhere(cells["path"][place], folder, "dataset.images") if images is None else ""
            problems.add("no file", number, f"{error}{hint}", str(cells["path"][place]))
            continue
        if label is None:
            problems.add("no label", number, f"{printable(called)}: has no label", path)
            continue
        of_group = cells["group"][place] if "group" in cells else None
        entry = _ImageRow(number, path, precomposed(label), split_of(place, number), cell_text(of_group or ""))
        first = entries.setdefault(called, entry)
        if first is not entry:
            problems.twice(first, entry, called)
    problems.refuse(skip=on_error == "skip")
    if not entries:
        raise RequestError(f"{key}: no row is left; left out: {problems.first()}")
    _check_group(group, found, entries, rows.columns, key)
    notes = [*said(found, rows, hot)]
    if files.completed:
        notes.append(f"table: {files.completed:,} paths have no ending; each stands for the one file called so")
    return _parts(entries, key, fewest, {
        "name": data_name(name, csv.__name__, root),
        "skipped": tuple(problems.left_out), "source": str(file), "notes": tuple(notes),
        "folders": split_of.origins,
    }, grouped="group" in found)  # fmt: skip


@dataclass(frozen=True)
class _ImageRow:
    """A row that is an image."""

    number: int
    path: str
    label: str
    split: str
    group: str


@dataclass
class _Problems:
    """What is wrong with rows, by kind; a kind that may be left out is, where that is requested."""

    key: str
    kinds: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    hard: bool = False

    def add(self, kind: str, number: int, text: str, path: str) -> None:
        self.kinds.setdefault(kind, []).append((number, text))
        self.left_out.append((path, f"row {number}: {text}"))

    def twice(self, first: _ImageRow, entry: _ImageRow, called: str) -> None:
        """A file that an earlier row has, too: again the same, or another label, split or group."""
        for what in ("label", "split", "group"):
            one, other = getattr(first, what), getattr(entry, what)
            if one != other:
                multi = "; an image has one label here (multi-label is not trained)" if what == "label" else ""
                text = f"{printable(called)}: has {what} '{other}', but '{one}' in row {first.number}{multi}"
                self.hard = True
                self.add(f"another {what}", entry.number, printable(text), entry.path)
                return
        self.add("twice", entry.number, f"{printable(called)}: is in row {first.number} already", entry.path)

    def refuse(self, *, skip: bool) -> None:
        """Raises `RequestError` for all that is wrong, in one line: the first of each kind, and how many more."""
        if not self.kinds or (skip and not self.hard):
            return
        lines = []
        for found in self.kinds.values():
            number, text = found[0]
            more = ", ".join(str(other) for other, _ in found[1 : SHOWN + 1])
            rest = f"; and {len(found) - 1} more (row {more}{', …' if len(found) > SHOWN + 1 else ''})"
            lines.append(f"row {number}: {text}{rest if len(found) > 1 else ''}")
        way = "" if self.hard else ", or leave such rows out with dataset.on_error=skip"
        raise RequestError(f"{self.key}: {'; '.join(lines)}; correct the table{way}")

    def first(self) -> str:
        return self.left_out[0][1] if self.left_out else ""


class _Splits:
    """The split of each row, by the column of splits: as the user says, or as the value is called."""

    def __init__(self, cells: list[Any] | None, chosen: dict[str, str | None], column: str, key: str) -> None:
        self.key, self.column = key, column
        self.cells = None if chosen.get("train") == WHOLE else cells
        self.chosen = {str(value): split for split, value in chosen.items() if value not in (None, WHOLE)}
        values = {cell_text(cell) for cell in cells or () if cell is not None}
        for value, split in self.chosen.items():
            if self.cells is None:
                raise RequestError(f"dataset.splits.{split}={value}: {key} has no column of splits; leave it out")
            if value not in values:
                raise RequestError(
                    f"dataset.splits.{split}={value}: column '{column}' has no such value{nearest(value, values)}; "
                    f"{', '.join(sorted(values)[:SHOWN])}"
                )
        self.spare = "val" if any((about := named(value)) and about.split == "test" for value in values) else "test"
        self.origins = dict[str, str]()

    def __call__(self, place: int, number: int) -> str:
        if self.cells is None:
            return "train"
        value = "" if self.cells[place] is None else cell_text(self.cells[place])
        about = named(value)
        split = self.chosen.get(value) or (about.split if about and not about.rest else "")
        if not split:
            what = f"'{printable(value)}' is no split" if value else "is empty"
            raise RequestError(
                f"{self.key}: row {number}: {what} (column '{self.column}'); it must be train, val or test, or named "
                f"as in dataset.splits.test={printable(value) or 'VALUE'}; dataset.splits.train=. leaves the column out"
            )
        split = self.spare if split == "eval" else split
        self.origins.setdefault(split, f"{printable(self.column)}={printable(value)}")
        return split


def _file(root: str, key: str) -> Path:
    if not root.strip():
        raise empty("dataset.root=")
    file = existing(os.path.expanduser(root))
    if file.is_dir():
        inside = [name for name in tables(file) if os.path.splitext(name)[1].lower() in FORMATS]
        hint = f" (did you mean dataset.root={file / inside[0]}?)" if inside else ""
        raise RequestError(f"{key}: is a folder; give the table's file{hint}; dataset=image_folder reads folders")
    if not file.is_file():
        names = files_in(file.parent) if file.parent.is_dir() else []
        raise RequestError(f"{key}: no such file{nearest(file.name, names)}")
    return file.absolute()


def _folder(images: str | None, file: Path) -> Path:
    if images is None:
        return file.parent
    folder = existing(os.path.expanduser(str(images)))
    if not folder.is_dir():
        raise RequestError(f"dataset.images={images}: no such folder")
    return folder.absolute()


def _check_group(
    group: str | None, found: Mapping[str, str], entries: Mapping[str, _ImageRow], columns: Mapping[str, Any], key: str
) -> None:
    """Raises `RequestError` where `dataset.group` is no column, and as an expression finds nothing in any path."""
    if group in (None, NONE) or "group" in found:
        return
    pattern = pattern_of(str(group))
    if not any(map(pattern.search, entries)):
        names = ", ".join(printable(name) for name in columns if name)
        raise RequestError(
            f"dataset.group={group}: {key} has no such column{nearest(str(group), columns)}, and as a regular "
            f"expression it finds nothing in any path; columns: {names}"
        )


def _parts(
    entries: Mapping[str, _ImageRow], key: str, fewest: int, about: Mapping[str, Any], *, grouped: bool
) -> Parts:
    """The rows as parts; the classes are those of the training split, or of all rows where nothing learns."""
    learned = {entry.label for entry in entries.values() if entry.split == "train" or fewest < 2}
    if not learned:
        raise RequestError(f"{key}: no row is of the training split; dataset.splits.train=. makes the splits anew")
    whole = all(re.fullmatch(r"-?[0-9]+", label) for label in learned)
    classes = sorted(learned, key=lambda label: (int(label), label) if whole else (0, label))
    if len(classes) < fewest:
        raise RequestError(f"{key}: one class only, '{printable(classes[0])}'; two or more are needed")
    position = {label: place for place, label in enumerate(classes)}
    parts = dict[str, Any]()
    for split in SPLITS:
        names = sorted(name for name, entry in entries.items() if entry.split == split)
        rows = [entries[name] for name in names]
        for row in rows:
            if row.label not in position:
                raise RequestError(
                    f"{key}: row {row.number}: label '{printable(row.label)}' is in no row of the training split"
                    f"{nearest(row.label, classes)}"
                )
        if rows or split == "train":
            files = tuple(row.path for row in rows)
            listed = Images(files, [position[row.label] for row in rows], FileBytes(files), names)
            parts[split] = listed.in_groups(row.group for row in rows) if grouped else listed
    return Parts(classes=tuple(classes), **parts, **about)
